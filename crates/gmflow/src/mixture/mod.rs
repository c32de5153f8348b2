//! Gaussian mixtures, one per pixel, and everything that is known about them in closed form.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::mixture::GaussianMixture;
//!
//! let device = Device::flex();
//! let mixture = GaussianMixture {
//!     means: Tensor::<1>::from_floats([-1.0, 3.0], &device).reshape([1, 2, 1, 1, 1]),
//!     log_weights: Tensor::<1>::from_floats([0.75, 0.25], &device).log().reshape([1, 2, 1, 1, 1]),
//!     log_std: Tensor::zeros([1, 1, 1, 1, 1], &device),
//! };
//! assert!(mixture.mean().into_scalar::<f32>().abs() < 1e-6);
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod density;
mod sample;
pub mod spectral;

/// The Knothe-Rosenblatt transport between standard normals and a mixture, pixel by pixel, on the host in f64.
///
/// ```
/// use gmflow::mixture::transport::{Axes, PixelMixture, eigenbasis};
///
/// let mixture = PixelMixture { means: &[1.0, 2.0], log_weights: &[0.0], std: 0.5 };
/// let basis = eigenbasis(mixture.covariance());
/// let point = mixture.at_normals(&[0.0, 0.0], &basis, Axes::Channels);
/// assert!((point[0] - 1.0).abs() < 1e-9 && (point[1] - 2.0).abs() < 1e-9);
/// ```
pub mod transport {
    pub use crate::kernel::mixture::transport::reference::{PixelMixture, eigenbasis};
    pub use crate::kernel::mixture::transport::types::Axes;
}

pub use crate::kernel::mixture::transport::univariate;

use burn::tensor::{Tensor, activation::log_softmax};

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

impl GaussianMixture {
    /// Whether this has the shapes that networks predict: one standard deviation per sample.
    pub(crate) fn is_plain(&self) -> bool {
        let [b, k, _, h, w] = self.means.dims();
        self.log_weights.dims() == [b, k, 1, h, w] && self.log_std.dims() == [b, 1, 1, 1, 1]
    }

    /// Whether all components of a pixel have one standard deviation, as those of reweighted mixtures.
    pub(crate) fn is_plain_by_pixel(&self) -> bool {
        let [b, k, _, h, w] = self.means.dims();
        self.is_plain() || (self.log_weights.dims() == [b, k, 1, h, w] && self.log_std.dims() == [b, 1, 1, h, w])
    }

    /// The mean `[b c h w]`, (11).
    pub fn mean(&self) -> Tensor<4> {
        (self.means.clone() * self.log_weights.clone().exp()).sum_dim(1).squeeze_dim::<4>(1)
    }

    /// The isotropic Gaussian with the mixture's mean and a C-th of its covariance's trace, (11), (12).
    pub fn to_iso_gaussian(&self) -> IsoGaussian {
        let weights = self.log_weights.clone().exp(); // [b k 1 h w]
        let mean = (self.means.clone() * weights.clone()).sum_dim(1); // [b 1 c h w]
        let spread = (self.means.clone() - mean.clone()).powi_scalar(2).mean_dim(2) * weights.clone(); // [b k 1 h w]
        let within = (self.log_std.clone() * 2.0).exp() * weights;
        let var = (spread + within).sum_dim(1).squeeze_dim::<4>(1); // [b 1 h w]
        IsoGaussian { mean: mean.squeeze_dim::<4>(1), var }
    }

    /// The variance `[b 1 h w]` along `direction` `[b c h w]`, whose squared length is `length` `[b 1 h w]`, about the mean `[b c h w]`.
    pub(crate) fn var_along(&self, mean: &Tensor<4>, direction: &Tensor<4>, length: &Tensor<4>) -> Tensor<4> {
        let offsets = self.means.clone() - mean.clone().unsqueeze_dim::<5>(1);
        let products = (offsets * direction.clone().unsqueeze_dim::<5>(1)).sum_dim(2).powi_scalar(2); // [b k 1 h w]
        let weights = self.log_weights.clone().exp();
        let spread = (products * weights.clone()).sum_dim(1).squeeze_dim::<4>(1);
        let within = ((self.log_std.clone() * 2.0).exp() * weights).sum_dim(1).squeeze_dim::<4>(1);
        spread / length.clone() + within
    }

    /// The mixture at a temperature in (0, 1): log weights are divided by it and renormalised, variances multiplied. 1 and more change
    /// nothing; less than 1e-4 counts as that.
    pub fn tempered(self, temperature: f64) -> GaussianMixture {
        /// The lowest.
        const COLDEST: f64 = 1e-4;
        if temperature >= 1.0 {
            return self;
        }
        let temperature = temperature.max(COLDEST);
        GaussianMixture {
            means: self.means,
            log_weights: log_softmax(self.log_weights / temperature, 1),
            log_std: self.log_std + 0.5 * temperature.ln(),
        }
    }

    /// The mixture times exp(nu . x - zeta |x|^2 / 2), renormalised: the conflation (43)-(50) in natural parameters.
    ///
    /// `nu` is `[b c h w]`, `zeta` >= 0 broadcasts to `[b 1 h w]`. No difference of nearly equal precisions is formed:
    /// each component becomes mean (m + v nu)/(1 + v zeta), variance v/(1 + v zeta), and its log weight gains
    /// m . (nu - zeta m / 2)/(1 + v zeta) up to a constant. With one standard deviation per component `[b k 1 h w]`, what is
    /// that constant otherwise differs between components and counts: v |nu|^2 / (2 (1 + v zeta)) - C/2 ln(1 + v zeta).
    pub fn tilted(&self, nu: &Tensor<4>, zeta: &Tensor<4>) -> GaussianMixture {
        let (nu, zeta) = (nu.clone().unsqueeze_dim::<5>(1), zeta.clone().unsqueeze_dim::<5>(1)); // [b 1 c h w]
        let var = (self.log_std.clone() * 2.0).exp();
        let scale = var.clone() * zeta.clone() + 1.0;
        let gain = self.means.clone() * (nu.clone() - self.means.clone() * (zeta * 0.5));
        let mut gain = gain.sum_dim(2) / scale.clone(); // [b k 1 h w]
        if self.log_std.dims()[1] > 1 {
            let squares = nu.clone().powi_scalar(2).sum_dim(2) * var.clone() / scale.clone();
            gain = gain + (squares - scale.clone().log() * nu.dims()[2] as f64) * 0.5;
        }
        GaussianMixture {
            means: (self.means.clone() + nu * var) / scale.clone(),
            log_weights: log_softmax(self.log_weights.clone() + gain, 1),
            log_std: self.log_std.clone() - scale.log() * 0.5,
        }
    }

    /// [`GaussianMixture::tilted`] with x measured from `center` `[b c h w]`: times exp(nu . (x - center) - zeta |x - center|^2 / 2).
    /// Where the tilt is sharp and its peak near the mixture, much less is lost to rounding.
    pub fn tilted_about(&self, center: &Tensor<4>, nu: &Tensor<4>, zeta: &Tensor<4>) -> GaussianMixture {
        let center = center.clone().unsqueeze_dim::<5>(1);
        let centred = GaussianMixture { means: self.means.clone() - center.clone(), ..self.clone() };
        let tilted = centred.tilted(nu, zeta);
        GaussianMixture { means: tilted.means + center, ..tilted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    fn points() -> GaussianMixture {
        let device = Device::flex();
        GaussianMixture {
            means: Tensor::<2>::from_floats([[1.0, 2.0], [-1.0, 0.5]], &device).reshape([1, 2, 2, 1, 1]),
            log_weights: Tensor::<1>::from_floats([0.25, 0.75], &device).log().reshape([1, 2, 1, 1, 1]),
            log_std: Tensor::<1>::from_floats([0.5], &device).log().reshape([1, 1, 1, 1, 1]),
        }
    }

    #[test]
    fn moments_of_two_components() {
        let surrogate = points().to_iso_gaussian();
        let device = Device::flex();
        let mean = Tensor::<1>::from_floats([-0.5, 0.875], &device).reshape([1, 2, 1, 1]);
        surrogate.mean.into_data().assert_approx_eq::<f32>(&mean.into_data(), Tolerance::absolute(1e-6));
        // (0.75 + 0.421875)/2 between the components and 0.25 within them.
        let var = Tensor::<1>::from_floats([0.8359375], &device).reshape([1, 1, 1, 1]);
        surrogate.var.into_data().assert_approx_eq::<f32>(&var.into_data(), Tolerance::absolute(1e-6));
    }

    #[test]
    fn tilting_by_nothing_changes_nothing_and_by_everything_leaves_the_point() {
        let device = Device::flex();
        let (nu, zeta) = (Tensor::<4>::zeros([1, 2, 1, 1], &device), Tensor::<4>::zeros([1, 1, 1, 1], &device));
        let same = points().tilted(&nu, &zeta);
        same.means.into_data().assert_approx_eq::<f32>(&points().means.into_data(), Tolerance::absolute(1e-6));
        let sharp = points().tilted(&(nu + 3e6), &(zeta + 1e6));
        let expected = Tensor::<4>::full([1, 2, 1, 1], 3.0, &device);
        sharp.mean().into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-4));
    }
}
