//! Mean squares of images, and projections.

use burn::tensor::Tensor;

/// A direction `[b c h w]` less `orthogonal` times its projection on `axis`, for each sample.
pub(crate) fn across(direction: Tensor<4>, axis: &Tensor<4>, orthogonal: f64) -> Tensor<4> {
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
