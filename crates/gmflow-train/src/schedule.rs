//! The learning rate as a function of the step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
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

    fn factor(self, progress: f64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Cosine { hold, final_ratio } => {
                let falling = ((progress - hold) / (1.0 - hold)).max(0.0);
                final_ratio + (1.0 - final_ratio) * 0.5 * (1.0 + (PI * falling).cos())
            }
        }
    }
}

/// The learning rate of optimiser step `step`, counted from 0, of `total_steps`.
///
/// During warm-up it is `lr * (step + 1) / warmup_steps`, so the first step already moves the weights; then the schedule
/// runs from 1 at the end of warm-up to its final value at `total_steps`.
pub fn learning_rate(train: &TrainConfig, step: u64, total_steps: u64) -> f64 {
    if step < train.warmup_steps {
        return train.lr * (step + 1) as f64 / train.warmup_steps as f64;
    }
    let span = total_steps.saturating_sub(train.warmup_steps).max(1);
    let progress = (step - train.warmup_steps) as f64 / span as f64;
    train.lr * train.schedule.factor(progress.min(1.0))
}
