//! The forward process and its reverse: diffusion, transitions, and conversions between velocity and data.
//!
//! x_t = (1 - t) x0 + t eps and u = (x_t - x0)/t. Times are tensors `[b]`, one per sample.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::path::forward_diffusion;
//!
//! let device = Device::flex();
//! let (x0, noise) = (Tensor::<4>::ones([1, 1, 1, 1], &device), Tensor::<4>::zeros([1, 1, 1, 1], &device));
//! let x_t = forward_diffusion(&x0, &Tensor::<1>::full([1], 0.25, &device), &noise);
//! assert_eq!(x_t.into_scalar::<f32>(), 0.75);
//! ```

use crate::mixture::{DataMixture, GaussianMixture, VelocityMixture};
use burn::tensor::Tensor;

/// One number per sample as `[b 1 1 ..]`.
pub(crate) fn per_sample<const D: usize>(values: &Tensor<1>) -> Tensor<D> {
    let mut shape = [1; D];
    shape[0] = values.dims()[0];
    values.clone().reshape(shape)
}

/// The natural logarithm of t, finite at t = 0 so that a mixture moved there is narrow and not NaN.
fn log_time(t: &Tensor<1>) -> Tensor<1> {
    t.clone().clamp_min(1e-6).log()
}

impl VelocityMixture {
    /// The same mixture over x0 = x_t - t u: means x_t - t mean, standard deviation t s, weights unchanged.
    pub fn to_data(&self, x_t: &Tensor<4>, t: &Tensor<1>) -> DataMixture {
        let VelocityMixture(GaussianMixture { means, log_weights, log_std }) = self;
        let means = x_t.clone().unsqueeze_dim::<5>(1) - means.clone() * per_sample::<5>(t); // [b k c h w]
        let log_std = log_std.clone() + per_sample::<5>(&log_time(t));
        DataMixture(GaussianMixture { means, log_weights: log_weights.clone(), log_std })
    }
}

/// x_t = (1 - t) x0 + t eps.
pub fn forward_diffusion(x0: &Tensor<4>, t: &Tensor<1>, noise: &Tensor<4>) -> Tensor<4> {
    let t = per_sample::<4>(t);
    x0.clone() * (t.clone() * -1.0 + 1.0) + noise.clone() * t
}

/// The forward step (1): x_hi = a x_lo + sqrt(beta) eps with a = alpha_hi/alpha_lo, beta = sigma_hi^2 - a^2 sigma_lo^2.
///
/// From t = 1 to t = 1 the ratio a is 0/0; it is taken as 1, the step that changes nothing.
pub fn forward_transition(x_lo: &Tensor<4>, t_lo: &Tensor<1>, t_hi: &Tensor<1>, noise: &Tensor<4>) -> Tensor<4> {
    let (lo, hi) = (per_sample::<4>(t_lo), per_sample::<4>(t_hi));
    let a = alpha_ratio(&lo, &hi);
    let beta = (hi.powi_scalar(2) - (a.clone() * lo).powi_scalar(2)).clamp_min(0.0);
    x_lo.clone() * a + noise.clone() * beta.sqrt()
}

/// alpha_hi/alpha_lo for times `[b 1 1 1]`, 1 where both are zero.
fn alpha_ratio(lo: &Tensor<4>, hi: &Tensor<4>) -> Tensor<4> {
    let (alpha_lo, alpha_hi) = (lo.clone() * -1.0 + 1.0, hi.clone() * -1.0 + 1.0);
    let at_noise = alpha_lo.clone().lower_equal_elem(0.0);
    let ratio = alpha_hi / alpha_lo.mask_fill(at_noise.clone(), 1.0);
    ratio.mask_fill(at_noise, 1.0)
}

/// The coefficients of the reverse transition (9), `[b 1 1 1]` each: x_lo ~ N(c1 x_hi + c2 x0, c3).
#[derive(Clone, Debug)]
pub struct ReverseTransition {
    /// r^2 a.
    pub c1: Tensor<4>,
    /// b alpha_lo.
    pub c2: Tensor<4>,
    /// b sigma_lo^2, a variance.
    pub c3: Tensor<4>,
}

impl ReverseTransition {
    /// From t_hi down to t_lo, with r = sigma_lo/sigma_hi, a = alpha_hi/alpha_lo and b = 1 - (r a)^2.
    pub fn new(t_lo: &Tensor<1>, t_hi: &Tensor<1>) -> Self {
        let (lo, hi) = (per_sample::<4>(t_lo), per_sample::<4>(t_hi));
        let a = alpha_ratio(&lo, &hi);
        let r = lo.clone() / hi.clamp_min(1e-12);
        let b = ((r.clone() * a.clone()).powi_scalar(2) * -1.0 + 1.0).clamp_min(0.0);
        let alpha_lo = lo.clone() * -1.0 + 1.0;
        Self { c1: r.powi_scalar(2) * a, c2: b.clone() * alpha_lo, c3: b * lo.powi_scalar(2) }
    }
}

impl DataMixture {
    /// The posterior of x0 at another point (x_tau, tau), tau <= t, without the network, (10).
    pub fn at(&self, from: (&Tensor<4>, f64), to: (&Tensor<4>, f64)) -> DataMixture {
        let (nu, zeta) = evidence(from, to);
        DataMixture(self.0.tilted(&nu, &zeta))
    }

    /// The mean `[b c h w]` of [`DataMixture::at`], which is E[x0 | x_tau].
    pub fn mean_at(&self, from: (&Tensor<4>, f64), to: (&Tensor<4>, f64)) -> Tensor<4> {
        self.at(from, to).0.mean()
    }
}

/// The time that stands for t = 0 where a time divides.
const EARLIEST: f64 = 1e-6;

/// What (x_tau, tau) tells of x0 beyond (x_t, t), in natural parameters: nu = `of_x_tau` x_tau - `of_x_t` x_t and zeta >= 0.
pub(crate) struct Evidence {
    pub(crate) of_x_tau: f64,
    pub(crate) of_x_t: f64,
    pub(crate) zeta: f64,
}

impl Evidence {
    pub(crate) fn between(t: f64, tau: f64) -> Self {
        // At tau = 0 the point is x0 itself; this close to it the evidence already outweighs any prediction that f32 can hold.
        let (t, tau) = (t.max(EARLIEST), tau.max(EARLIEST));
        let zeta = ((1.0 - tau) / tau).powi(2) - ((1.0 - t) / t).powi(2);
        Self { of_x_tau: (1.0 - tau) / (tau * tau), of_x_t: (1.0 - t) / (t * t), zeta: zeta.max(0.0) }
    }
}

/// nu `[b c h w]` and zeta `[1 1 1 1]` of [`Evidence`].
fn evidence((x_t, t): (&Tensor<4>, f64), (x_tau, tau): (&Tensor<4>, f64)) -> (Tensor<4>, Tensor<4>) {
    let Evidence { of_x_tau, of_x_t, zeta } = Evidence::between(t, tau);
    let nu = x_tau.clone() * of_x_tau - x_t.clone() * of_x_t;
    let zeta = Tensor::full([1, 1, 1, 1], zeta, &nu.device());
    (nu, zeta)
}

impl DataMixture {
    /// The first `n` samples of the batch, and the rest.
    pub(crate) fn split(self, n: usize) -> (DataMixture, DataMixture) {
        let part = |range: std::ops::Range<usize>| {
            let cut = |x: &Tensor<5>| x.clone().slice_dim(0, range.clone());
            DataMixture(GaussianMixture {
                means: cut(&self.0.means),
                log_weights: cut(&self.0.log_weights),
                log_std: cut(&self.0.log_std),
            })
        };
        (part(0..n), part(n..self.0.means.dims()[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tolerance};

    #[test]
    fn at_time_zero_the_posterior_mean_is_the_point() {
        let device = Device::flex();
        let mixture = DataMixture(GaussianMixture {
            means: Tensor::<1>::from_floats([1.0, 2.0, -1.0, 0.5], &device).reshape([1, 2, 2, 1, 1]),
            log_weights: Tensor::<1>::from_floats([0.25, 0.75], &device).log().reshape([1, 2, 1, 1, 1]),
            log_std: Tensor::<1>::from_floats([-1.0], &device).reshape([1, 1, 1, 1, 1]),
        });
        let point = |x: [f32; 2]| Tensor::<1>::from_floats(x, &device).reshape([1, 2, 1, 1]);
        let mean = mixture.mean_at((&point([0.3, -0.4]), 0.5), (&point([0.7, 0.1]), 0.0));
        mean.into_data().assert_approx_eq::<f32>(&point([0.7, 0.1]).into_data(), Tolerance::absolute(1e-5));
    }
}
