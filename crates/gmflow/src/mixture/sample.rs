//! Drawing from a mixture.

use super::GaussianMixture;
use burn::tensor::{Int, Tensor};

impl GaussianMixture {
    /// One draw per pixel `[b c h w]`: the component from a uniform in [0, 1) `[b 1 h w]`, then the component's Gaussian from
    /// standard normals `[b c h w]`.
    pub fn sample(&self, uniform: &Tensor<4>, normal: &Tensor<4>) -> Tensor<4> {
        self.sample_component(&self.component(uniform), normal)
    }

    /// The component `[b 1 1 h w]` that a uniform in [0, 1) `[b 1 h w]` stands for, through the cumulated weights.
    pub fn component(&self, uniform: &Tensor<4>) -> Tensor<5, Int> {
        let k = self.means.dims()[1];
        let cumulated = self.log_weights.clone().exp().cumsum(1); // [b k 1 h w]
        let u = uniform.clone().unsqueeze_dim::<5>(1);
        // The components whose cumulated weight the uniform has passed; rounding may leave the last sum below 1.
        u.greater_equal(cumulated).int().sum_dim(1).clamp_max((k - 1) as i64) // [b 1 1 h w]
    }

    /// A draw `[b c h w]` from the given components `[b 1 1 h w]` with standard normals `[b c h w]`.
    pub fn sample_component(&self, component: &Tensor<5, Int>, normal: &Tensor<4>) -> Tensor<4> {
        let [b, k, c, h, w] = self.means.dims();
        let mean = self.means.clone().gather(1, component.clone().expand([b, 1, c, h, w])).squeeze_dim::<4>(1);
        let std = self.log_std.clone().exp();
        let std = if std.dims()[1] > 1 { std.expand([b, k, 1, h, w]).gather(1, component.clone()) } else { std };
        mean + normal.clone() * std.squeeze_dim::<4>(1)
    }
}
