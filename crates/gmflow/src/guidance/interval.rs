//! Guidance in a limited interval of times (arXiv:2404.07724).
//!
//! ```
//! use gmflow::guidance::{Guidance, interval};
//!
//! let guidance = Guidance::ClassifierFree { scale: 2.0, orthogonal: 0.0 };
//! assert_eq!(interval::at(guidance, Some([0.2, 0.8]), 0.9), Guidance::Off);
//! assert_eq!(interval::at(guidance, None, 0.9), guidance);
//! assert!(interval::validate(Some([0.8, 0.2])).is_err());
//! ```

use super::config::Guidance;
use crate::{Error, Result};

/// Checks the ends `[low, high]`.
///
/// # Errors
/// [`crate::FilesError::Config`] where they are not two times between 0 and 1, the lower one first.
pub fn validate(interval: Option<[f64; 2]>) -> Result<()> {
    match interval {
        Some([low, high]) if !(0.0 <= low && low < high && high <= 1.0) => {
            let expected = "two times between 0 and 1, the lower one first";
            Err(Error::config("guidance_interval", expected, format!("{low} to {high}")))
        }
        _ => Ok(()),
    }
}

/// The guidance at time t: off outside of the interval `[low, high]`, both ends included.
pub fn at(guidance: Guidance, interval: Option<[f64; 2]>, t: f64) -> Guidance {
    match interval {
        // In f32, as grids are made: a grid that has an end of the interval has it within.
        Some([low, high]) if !(low as f32..=high as f32).contains(&(t as f32)) => Guidance::Off,
        _ => guidance,
    }
}
