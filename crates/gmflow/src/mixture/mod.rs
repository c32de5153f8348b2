//! Gaussian mixtures, one per pixel, and everything that is known about them in closed form.

use burn::tensor::Tensor;

/// One K-component isotropic mixture per pixel, (4) of the paper.
#[derive(Clone, Debug)]
pub struct GaussianMixture {
    /// Component means `[b k c h w]`.
    pub means: Tensor<5>,
    /// Normalised log weights `[b k 1 h w]`: log-sum-exp over k is 0.
    pub log_weights: Tensor<5>,
    /// Natural log of the standard deviation `[b 1 1 1 1]`; axes k, h, w may be full where an operation says so.
    pub log_std: Tensor<5>,
}

/// One isotropic Gaussian per pixel.
#[derive(Clone, Debug)]
pub struct IsoGaussian {
    /// Mean `[b c h w]`.
    pub mean: Tensor<4>,
    /// Variance `[b 1 h w]` or `[b 1 1 1]`.
    pub var: Tensor<4>,
}

/// A mixture over the velocity u = (x_t - x0)/sigma: what a network predicts.
#[derive(Clone, Debug)]
pub struct VelocityMixture(pub GaussianMixture);

/// A mixture over the data x0: what samplers work with.
#[derive(Clone, Debug)]
pub struct DataMixture(pub GaussianMixture);
