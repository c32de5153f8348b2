//! Which averages of the weights are kept, and how fast old weights fade from them.

use serde::{Deserialize, Serialize};

use super::validate::check;
use crate::{Error, Result};

/// One named average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// The name in the checkpoint, as in `ema.NAME.safetensors`.
    pub name: String,
    /// How fast old weights fade.
    pub decay: EmaDecay,
}

/// How fast old weights fade: the average becomes `decay * average + (1 - decay) * weights` after every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EmaDecay {
    /// The same decay at every step.
    Constant {
        /// Per step, in [0, 1).
        decay: f64,
    },
    /// A half-life in images that is at first limited to a share of the images seen, so that early weights fade.
    RampUp {
        /// The half-life in images once it is reached.
        half_life: f64,
        /// The largest half-life as a share of the images seen so far.
        #[serde(default = "default_ramp_ratio")]
        ratio: f64,
    },
    /// The power-function average of EDM2: `decay = (1 - 1/step)^(gamma + 1)`, whose width grows with training.
    Power {
        /// Standard deviation of the average's time profile, relative to the length of training; in (0, 0.28).
        std: f64,
    },
    /// The same by its exponent, begun late: until step `start` a copy of the weights, then a decay of
    /// `(1 - 1/(step - start))^(gamma + 1)`.
    PowerFrom {
        /// The exponent of the average's time profile.
        gamma: f64,
        /// The steps before it begins, such as those of the warm-up.
        #[serde(default)]
        start: u64,
    },
}

fn default_ramp_ratio() -> f64 {
    0.05
}

/// Relative standard deviation of the power function with exponent 0: the widest profile there is.
const WIDEST_POWER: f64 = 0.288_675_134_594_812_9;

impl EmaDecay {
    /// The decay after optimiser step `step`, counted from 1, with `batch_size` images per step.
    pub fn at(self, step: u64, batch_size: usize) -> f64 {
        let step = step.max(1) as f64;
        match self {
            Self::Constant { decay } => decay,
            Self::RampUp { half_life, ratio } => {
                let images = step * batch_size as f64;
                0.5f64.powf(batch_size as f64 / half_life.min(images * ratio).max(1e-8))
            }
            Self::Power { std } => (1.0 - 1.0 / step).powf(power_exponent(std) + 1.0),
            Self::PowerFrom { gamma, start } => {
                let since = (step - start as f64).max(1.0);
                (1.0 - 1.0 / since).powf(gamma + 1.0)
            }
        }
    }
}

/// The exponent gamma whose power profile t^gamma on [0, 1] has standard deviation `std`, by bisection.
///
/// The variance is (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), which falls as gamma rises from 0.
fn power_exponent(std: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 1e6f64);
    for _ in 0..200 {
        let gamma = 0.5 * (low + high);
        let variance = (gamma + 1.0) / ((gamma + 2.0).powi(2) * (gamma + 3.0));
        if variance > std * std { low = gamma } else { high = gamma }
    }
    0.5 * (low + high)
}

impl EmaConfig {
    /// Checks the name and the decay's domain; `field` is the entry's name in the configuration.
    pub(crate) fn validate(&self, field: &str) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let name_ok = !self.name.is_empty() && self.name.chars().all(plain);
        check(&format!("{field}.name"), name_ok, "letters, digits, - and _", &self.name)?;
        match self.decay {
            EmaDecay::Constant { decay } => {
                check(&format!("{field}.decay.decay"), (0.0..1.0).contains(&decay), "a number in [0, 1)", decay)
            }
            EmaDecay::RampUp { half_life, ratio } => {
                let ok = half_life.is_finite() && half_life > 0.0;
                check(&format!("{field}.decay.half_life"), ok, "a positive number of images", half_life)?;
                let ok = ratio.is_finite() && ratio > 0.0;
                check(&format!("{field}.decay.ratio"), ok, "a positive number", ratio)
            }
            EmaDecay::PowerFrom { gamma, .. } => {
                let ok = gamma.is_finite() && gamma >= 0.0;
                check(&format!("{field}.decay.gamma"), ok, "a number of at least 0", gamma)
            }
            EmaDecay::Power { std } if std > 1e-4 && std < WIDEST_POWER => Ok(()),
            EmaDecay::Power { std } => {
                Err(Error::config(format!("{field}.decay.std"), "a number between 0.0001 and 0.288", std))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_of_a_power_average_gives_its_width() {
        for std in [0.05, 0.1, 0.2] {
            let gamma = power_exponent(std);
            let variance = (gamma + 1.0) / ((gamma + 2.0).powi(2) * (gamma + 3.0));
            assert!((variance.sqrt() - std).abs() < 1e-9, "{std}: {}", variance.sqrt());
        }
    }
}
