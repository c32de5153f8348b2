//! Classifier-free guidance (arXiv:2207.12598): the mean is extrapolated, and every component moves with it.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::guidance::classifier_free::shift;
//!
//! let direction = Tensor::<4>::full([1, 1, 2, 2], 0.5, &Device::flex());
//! assert_eq!(shift(direction, 3.0).max().into_scalar::<f32>(), 1.0);
//! ```

use crate::mixture::{DataMixture, GaussianMixture};
use crate::{Error, Result};
use burn::tensor::Tensor;

/// Checks the scale w.
pub(super) fn validate(scale: f64) -> Result<()> {
    match scale.is_finite() && scale >= 1.0 {
        true => Ok(()),
        false => Err(Error::config("cfg", "a number of at least 1", scale)),
    }
}

/// The shift `[b c h w]`: the direction times w - 1.
pub fn shift(direction: Tensor<4>, scale: f64) -> Tensor<4> {
    direction * (scale - 1.0)
}

/// The mixture with every component moved by `shift` `[b c h w]`.
pub fn moved(mixture: DataMixture, shift: &Tensor<4>) -> DataMixture {
    let means = mixture.0.means + shift.clone().unsqueeze_dim::<5>(1); // [b k c h w]
    DataMixture(GaussianMixture { means, ..mixture.0 })
}
