//! Probabilistic guidance, (7) and (8) of the paper: the mixture is reweighted so that the mean of its surrogate moves.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::guidance::probabilistic::shift;
//!
//! let device = Device::flex();
//! let direction = Tensor::<4>::full([1, 1, 2, 2], 3.0, &device);
//! let var = Tensor::<4>::full([1, 1, 1, 1], 4.0, &device);
//! // Half a standard deviation, however long the direction is.
//! let off = (shift(direction, &var, 0.5) - 1.0).abs().max().into_scalar::<f32>();
//! assert!(off < 1e-6);
//! ```

use super::power::power;
use crate::{Error, Result};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The variance that a shift of the mean is divided by to reweight a mixture, whose mean then moves by its own covariance times the
/// quotient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReweightScale {
    /// That of the image, averaged over pixels and channels, as published. Where a pixel's own is n times as large, its mean moves n times as
    /// far as it was asked to.
    #[default]
    Image,
    /// The pixel's own along the shift: its mean moves as far as it was asked to, as long as its components reach.
    Pixel,
}

impl ReweightScale {
    pub(crate) fn is_image(&self) -> bool {
        *self == Self::Image
    }
}

/// Checks the scale w~.
pub(super) fn validate(scale: f64) -> Result<()> {
    match (0.0..1.0).contains(&scale) {
        true => Ok(()),
        false => Err(Error::config("guidance", "a number in [0, 1)", scale)),
    }
}

/// The shift `[b c h w]` along `direction` `[b c h w]` with the root-mean-square w~ s_c, from the variance s_c^2 `[b 1 1 1]`.
pub fn shift(direction: Tensor<4>, var: &Tensor<4>, scale: f64) -> Tensor<4> {
    let rms = power(&direction).sqrt().clamp_min(f32::MIN_POSITIVE);
    direction * (var.clone().sqrt() * scale / rms)
}
