//! The shift of the mean that guidance asks for.

use super::config::Guidance;
use super::power::across;
use super::{classifier_free, probabilistic};
use burn::tensor::Tensor;

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
