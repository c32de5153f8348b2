//! Exponential moving averages of the weights.

use crate::config::EmaConfig;
use crate::params::Values;

/// One average's values, in the network's parameter order.
#[derive(Clone, Debug)]
pub struct Ema {
    /// Name and decay.
    pub config: EmaConfig,
    /// The averaged weights.
    pub values: Values,
}
