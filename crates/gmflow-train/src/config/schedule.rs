//! The course of the learning rate.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The learning rate after warm-up, as a factor of `train.lr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Stays at 1.
    #[default]
    Constant,
    /// Stays at 1 for the share `hold` of the steps after warm-up, then half a cosine to `final_ratio` at the last step.
    Cosine {
        /// The share of the steps at the full rate, in [0, 1).
        #[serde(default)]
        hold: f64,
        /// The factor at the last step.
        #[serde(default)]
        final_ratio: f64,
    },
}

impl Schedule {
    /// Checks both numbers.
    pub(crate) fn validate(self, field: &str) -> Result<()> {
        match self {
            Self::Cosine { hold, .. } if !(0.0..1.0).contains(&hold) => {
                Err(Error::config(format!("{field}.hold"), "a number in [0, 1)", hold))
            }
            Self::Cosine { final_ratio, .. } if !(0.0..=1.0).contains(&final_ratio) => {
                Err(Error::config(format!("{field}.final_ratio"), "a number in [0, 1]", final_ratio))
            }
            _ => Ok(()),
        }
    }

    /// The factor at a share `progress` of the steps after warm-up.
    pub(crate) fn factor(self, progress: f64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine { hold, final_ratio } => {
                let falling = ((progress - hold) / (1.0 - hold)).max(0.0);
                final_ratio + (1.0 - final_ratio) * 0.5 * (1.0 + (PI * falling).cos())
            }
        }
    }
}
