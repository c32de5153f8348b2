//! How the class-conditional prediction is strengthened.

use super::{classifier_free, probabilistic};
use crate::kernel::mixture::step::types::ShiftRule;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How the class-conditional prediction is strengthened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Guidance {
    /// The conditional prediction as it is; the unconditional one is not computed.
    #[default]
    Off,
    /// Probabilistic guidance (7), (8): the mixture is reweighted, nothing is extrapolated.
    Probabilistic {
        /// w~ in [0, 1).
        scale: f64,
        /// The removed share of the shift's part along the conditional mean, 0 to 1.
        orthogonal: f64,
    },
    /// Classifier-free guidance: every component moves by (w - 1)(mu_c - mu_u).
    ClassifierFree {
        /// w >= 1.
        scale: f64,
        /// The removed share of the shift's part along the conditional mean velocity, 0 to 1.
        orthogonal: f64,
    },
}

impl Guidance {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        let orthogonal = match *self {
            Self::Off => return Ok(()),
            Self::Probabilistic { scale, orthogonal } => probabilistic::validate(scale).map(|()| orthogonal)?,
            Self::ClassifierFree { scale, orthogonal } => classifier_free::validate(scale).map(|()| orthogonal)?,
        };
        if !(0.0..=1.0).contains(&orthogonal) {
            return Err(Error::config("orthogonal", "a number in [0, 1]", orthogonal));
        }
        Ok(())
    }

    /// The same for the kernels of a step.
    pub(crate) fn rule(&self) -> ShiftRule {
        match *self {
            Self::Probabilistic { scale, orthogonal } if self.is_active() => {
                ShiftRule::Probabilistic { scale: scale as f32, orthogonal: orthogonal as f32 }
            }
            Self::ClassifierFree { scale, orthogonal } if self.is_active() => {
                ShiftRule::Extrapolate { scale: scale as f32, orthogonal: orthogonal as f32 }
            }
            _ => ShiftRule::Off,
        }
    }

    /// Whether the unconditional prediction is needed.
    pub fn is_active(&self) -> bool {
        match *self {
            Self::Off => false,
            Self::Probabilistic { scale, .. } => scale > 0.0,
            Self::ClassifierFree { scale, .. } => scale > 1.0,
        }
    }
}
