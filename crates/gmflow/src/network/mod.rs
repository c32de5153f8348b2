//! Networks that predict a velocity mixture at every pixel.

use crate::mixture::VelocityMixture;
use burn::tensor::{Int, Tensor};

/// A network that predicts q(u | x_t).
pub trait Denoiser {
    /// Predicts at `x_t` `[b c h w]` and `t` `[b]` in [0, 1], conditioned on `class` `[b]` (the null class is the last
    /// row of the label table) where the network has classes.
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture;
}
