//! Guidance: a shift of the predicted mean, carried out by reweighting the mixture or by extrapolating its mean.
//!
//! [`probabilistic`] and [`classifier_free`] say how the shift is found, [`interval`] says when there is one, and [`GuidedPrediction`] is
//! what a solver gets at every network call.

pub mod classifier_free;
pub mod interval;
mod prediction;
pub mod probabilistic;

pub use prediction::{GuidanceRule, GuidedPrediction};
pub use probabilistic::ReweightScale;

use crate::kernel::ShiftRule;
use crate::{Error, Result};
use burn::tensor::Tensor;
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
        /// How much of the shift's part along the conditional mean is removed, 0 to 1.
        orthogonal: f64,
    },
    /// Classifier-free guidance: every component moves by (w - 1)(mu_c - mu_u).
    ClassifierFree {
        /// w >= 1.
        scale: f64,
        /// How much of the shift's part along the conditional mean velocity is removed, 0 to 1.
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

/// The shift of the mean `[b c h w]` that guidance asks for: the direction mu_c - mu_u, less `orthogonal` times its projection
/// on `axis` (per sample, over c, h, w), then rescaled to the root-mean-square w~ s_c, or multiplied by w - 1.
pub fn shift(
    guidance: Guidance,
    conditional: &Tensor<4>,
    unconditional: &Tensor<4>,
    var: &Tensor<4>,
    axis: &Tensor<4>,
) -> Tensor<4> {
    let difference = conditional.clone() - unconditional.clone();
    match guidance {
        Guidance::Off => difference.zeros_like(),
        Guidance::Probabilistic { scale, orthogonal } => {
            probabilistic::shift(across(difference, axis, orthogonal), var, scale)
        }
        Guidance::ClassifierFree { scale, orthogonal } => {
            classifier_free::shift(across(difference, axis, orthogonal), scale)
        }
    }
}

/// A direction `[b c h w]` less `orthogonal` times its projection on `axis`, for each sample.
fn across(direction: Tensor<4>, axis: &Tensor<4>, orthogonal: f64) -> Tensor<4> {
    if orthogonal == 0.0 {
        return direction;
    }
    let along = power_of(&direction, axis) / power(axis).clamp_min(f32::MIN_POSITIVE);
    direction - axis.clone() * along * orthogonal
}

/// The mean square over c, h, w, `[b 1 1 1]`.
pub(crate) fn power(x: &Tensor<4>) -> Tensor<4> {
    power_of(x, x)
}

fn power_of(x: &Tensor<4>, y: &Tensor<4>) -> Tensor<4> {
    (x.clone() * y.clone()).mean_dim(1).mean_dim(2).mean_dim(3)
}
