//! Densities, moments with powers, products, and Monte-Carlo estimates.

use super::{GaussianMixture, IsoGaussian};
use burn::tensor::{Int, Tensor, activation::log_softmax};

/// What a division by a Gaussian leaves of every component's precision at least.
const LEAST_PRECISION: f64 = 1e-4;

fn half_log_two_pi(channels: usize) -> f64 {
    0.5 * channels as f64 * std::f64::consts::TAU.ln()
}

impl GaussianMixture {
    /// The log density `[b n k h w]` of every component at samples `[b n c h w]`, without its weight.
    pub fn component_log_probs(&self, samples: &Tensor<5>) -> Tensor<5> {
        let c = samples.dims()[2];
        let offset = samples.clone().unsqueeze_dim::<6>(2) - self.means.clone().unsqueeze_dim::<6>(1); // [b n k c h w]
        let log_std = self.log_std.clone().unsqueeze_dim::<6>(1); // [b 1 k 1 h w]
        let scaled = offset / log_std.clone().exp();
        let log_prob = scaled.powi_scalar(2).sum_dim(3) * -0.5 - log_std * c as f64 - half_log_two_pi(c);
        log_prob.squeeze_dim::<5>(3)
    }

    /// The log density `[b n h w]` at samples `[b n c h w]`, the constant C/2 log(2 pi) included.
    pub fn log_prob(&self, samples: &Tensor<5>) -> Tensor<4> {
        let log_weights = self.log_weights.clone().swap_dims(1, 2); // [b 1 k h w]
        let joint = self.component_log_probs(samples) + log_weights;
        let peak = joint.clone().detach().max_dim(2);
        let sum = (joint - peak.clone()).exp().sum_dim(2).log() + peak; // [b n 1 h w]
        sum.squeeze_dim::<4>(2)
    }

    /// The covariance `[b h w c c]` of every pixel's mixture.
    pub fn covariance(&self) -> Tensor<5> {
        let c = self.means.dims()[2];
        let weights = self.log_weights.clone().exp(); // [b k 1 h w]
        let mean = (self.means.clone() * weights.clone()).sum_dim(1);
        let offset = (self.means.clone() - mean).permute([0, 3, 4, 2, 1]); // [b h w c k]
        let weighted = offset.clone() * weights.clone().permute([0, 3, 4, 2, 1]);
        let within = ((self.log_std.clone() * 2.0).exp() * weights).sum_dim(1).permute([0, 3, 4, 1, 2]); // [b h w 1 1]
        let identity = Tensor::<2>::eye(c, &self.means.device()).reshape([1, 1, 1, c, c]);
        weighted.matmul(offset.swap_dims(3, 4)) + identity * within
    }

    /// The mean `[b c h w]` when every weight is raised to `power` and renormalised; power 1 is [`GaussianMixture::mean`].
    pub fn mean_with_power(&self, power: f64) -> Tensor<4> {
        let weights = log_softmax(self.log_weights.clone() * power, 1).exp();
        (self.means.clone() * weights).sum_dim(1).squeeze_dim::<4>(1)
    }

    /// The mixture m for which m^`power` is this mixture^`power` times the Gaussian^`gaussian_power`, (43)-(50).
    ///
    /// `power` is above 0; a negative `gaussian_power` divides. Where a division would take more than all of a component's
    /// precision, it takes all but a 10^-4th of the smallest component precision of that pixel.
    pub fn conflate(&self, gaussian: &IsoGaussian, power: f64, gaussian_power: f64) -> GaussianMixture {
        let wanted = gaussian.var.clone().recip() * (gaussian_power / power); // [b 1 h w]
        let smallest = (self.log_std.clone() * -2.0).exp().min_dim(1).squeeze_dim::<4>(1);
        let zeta = wanted.max_pair(smallest * (LEAST_PRECISION - 1.0));
        self.tilted(&(gaussian.mean.clone() * zeta.clone()), &zeta)
    }

    /// The product with another mixture, renormalised; component k1 of this and k2 of the other become k1 * K2 + k2.
    pub fn product(&self, other: &GaussianMixture) -> GaussianMixture {
        let (left, right) =
            (|x: &Tensor<5>| x.clone().unsqueeze_dim::<6>(2), |x: &Tensor<5>| x.clone().unsqueeze_dim(1));
        let (var, var_other) = ((left(&self.log_std) * 2.0).exp(), (right(&other.log_std) * 2.0).exp());
        let total = var.clone() + var_other.clone(); // [b k1 k2 1 h w], or 1 for k1 and k2 where the deviations are shared
        let (mean, mean_other) = (left(&self.means), right(&other.means));
        let c = self.means.dims()[2];
        let distance = (mean.clone() - mean_other.clone()).powi_scalar(2).sum_dim(3);
        let overlap = (distance / total.clone() + total.clone().log() * c as f64) * -0.5;
        let log_weights = left(&self.log_weights) + right(&other.log_weights) + overlap;
        let share = var_other / total.clone(); // the other's variance decides how much this mean counts
        let means = mean_other.clone() + (mean - mean_other) * share.clone();
        let log_std = (var * share).log() * 0.5;
        let [b, k1, k2, _, h, w] = log_std.dims();
        let [full1, full2] = [self.means.dims()[1], other.means.dims()[1]];
        let log_std = if k1 * k2 > 1 { log_std.expand([b, full1, full2, 1, h, w]) } else { log_std };
        GaussianMixture {
            means: joined(means),
            log_weights: log_softmax(joined(log_weights), 1),
            log_std: joined(log_std),
        }
    }

    /// Draws `[b n c h w]` from given components `[b n h w]` and standard normals `[b n c h w]`; the standard deviations
    /// are divided by the root of `sharpness`, 1 for the mixture itself.
    pub fn sample_components(&self, components: &Tensor<4, Int>, normal: &Tensor<5>, sharpness: f64) -> Tensor<5> {
        let k = self.means.dims()[1];
        let [b, n, c, h, w] = normal.dims();
        let index = components.clone().unsqueeze_dim::<5>(2); // [b n 1 h w]
        let mean = self.means.clone().gather(1, index.clone().expand([b, n, c, h, w]));
        let std = self.log_std.clone().exp() * sharpness.sqrt().recip();
        let std = if std.dims()[1] > 1 { std.expand([b, k, 1, h, w]).gather(1, index) } else { std };
        mean + normal.clone() * std
    }

    /// The entropy `[b 1 h w]` of every pixel's mixture, estimated from draws `[b n c h w]` of it.
    pub fn entropy(&self, samples: &Tensor<5>) -> Tensor<4> {
        self.log_prob(samples).mean_dim(1) * -1.0
    }

    /// The Kullback-Leibler divergence `[b 1 h w]` from `other`, estimated from draws `[b n c h w]` of this mixture.
    pub fn kl_divergence(&self, other: &GaussianMixture, samples: &Tensor<5>) -> Tensor<4> {
        (self.log_prob(samples) - other.log_prob(samples)).mean_dim(1)
    }
}

/// `[b k1 k2 ..]` to `[b k1*k2 ..]`.
fn joined(x: Tensor<6>) -> Tensor<5> {
    let [b, k1, k2, c, h, w] = x.dims();
    x.reshape([b, k1 * k2, c, h, w])
}

impl IsoGaussian {
    /// The log density `[b n h w]` at samples `[b n c h w]`, the constant C/2 log(2 pi) included.
    pub fn log_prob(&self, samples: &Tensor<5>) -> Tensor<4> {
        let c = samples.dims()[2];
        let squares = (samples.clone() - self.mean.clone().unsqueeze_dim::<5>(1)).powi_scalar(2).sum_dim(2);
        let distance = squares.squeeze_dim::<4>(2) / self.var.clone(); // [b n h w]
        (distance + self.var.clone().log() * c as f64) * -0.5 - half_log_two_pi(c)
    }

    /// This Gaussian^`power` times the other^`other_power`, renormalised. The joint precision has to be positive.
    pub fn conflate(&self, other: &IsoGaussian, power: f64, other_power: f64) -> IsoGaussian {
        // Multiplied through by both variances, so that neither precision is formed.
        let (mine, others) = (other.var.clone() * power, self.var.clone() * other_power);
        let total = mine.clone() + others.clone();
        IsoGaussian {
            mean: (self.mean.clone() * mine + other.mean.clone() * others) / total.clone(),
            var: self.var.clone() * other.var.clone() / total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    /// Two components in two dimensions at one pixel, each with its own standard deviation.
    fn two() -> GaussianMixture {
        GaussianMixture {
            means: tensor(&[1.0, 2.0, -1.0, 0.5], [1, 2, 2, 1, 1]),
            log_weights: tensor(&[0.25, 0.75], [1, 2, 1, 1, 1]).log(),
            log_std: tensor(&[0.5, 0.8], [1, 2, 1, 1, 1]).log(),
        }
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().try_to_vec().expect("f32 data")
    }

    fn density(x: [f32; 2]) -> f64 {
        let part = |weight: f64, mean: [f64; 2], var: f64| {
            let d = (f64::from(x[0]) - mean[0]).powi(2) + (f64::from(x[1]) - mean[1]).powi(2);
            weight * (-0.5 * d / var).exp() / (std::f64::consts::TAU * var)
        };
        part(0.25, [1.0, 2.0], 0.25) + part(0.75, [-1.0, 0.5], 0.64)
    }

    const POINTS: [f32; 6] = [0.3, -0.2, 1.1, 1.9, -4.0, 3.0];

    fn close(got: Vec<f32>, expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((f64::from(*got) - expected).abs() < 2e-5 * expected.abs().max(1.0), "{got} for {expected}");
        }
    }

    #[test]
    fn the_log_density_is_that_of_the_sum() {
        let expected: Vec<f64> = POINTS.chunks_exact(2).map(|x| density([x[0], x[1]]).ln()).collect();
        close(values(two().log_prob(&tensor(&POINTS, [1, 3, 2, 1, 1]))), &expected);
    }

    #[test]
    fn a_product_with_a_gaussian_is_proportional_to_the_product_of_densities() {
        let gaussian = IsoGaussian { mean: tensor(&[0.4, -0.3], [1, 2, 1, 1]), var: tensor(&[1.7], [1, 1, 1, 1]) };
        let points = tensor(&POINTS, [1, 3, 2, 1, 1]);
        for (power, gaussian_power) in [(1.0, 1.0), (2.0, 1.0), (0.7, 1.3), (1.0, -0.5)] {
            let joint = two().conflate(&gaussian, power, gaussian_power).log_prob(&points) * power;
            let apart = two().log_prob(&points) * power + gaussian.log_prob(&points) * gaussian_power;
            let constant = values(joint - apart);
            assert!(constant.iter().all(|c| (c - constant[0]).abs() < 1e-4), "{constant:?}");
        }
    }

    #[test]
    fn dividing_by_too_much_leaves_a_finite_mixture() {
        let gaussian = IsoGaussian { mean: tensor(&[0.4, -0.3], [1, 2, 1, 1]), var: tensor(&[0.01], [1, 1, 1, 1]) };
        let left = two().conflate(&gaussian, 1.0, -1.0);
        assert!(values(left.means).into_iter().chain(values(left.log_std)).all(f32::is_finite));
    }

    #[test]
    fn a_product_of_mixtures_is_proportional_to_the_product_of_densities() {
        let other = GaussianMixture {
            means: tensor(&[0.0, 1.0, 2.0, -1.0, 0.3, 0.2], [1, 3, 2, 1, 1]),
            log_weights: tensor(&[0.2, 0.5, 0.3], [1, 3, 1, 1, 1]).log(),
            log_std: tensor(&[0.9], [1, 1, 1, 1, 1]).log(),
        };
        let points = tensor(&POINTS, [1, 3, 2, 1, 1]);
        let joint = two().product(&other);
        assert_eq!(joint.means.dims(), [1, 6, 2, 1, 1]);
        let constant = values(joint.log_prob(&points) - two().log_prob(&points) - other.log_prob(&points));
        assert!(constant.iter().all(|c| (c - constant[0]).abs() < 1e-4), "{constant:?}");
    }

    #[test]
    fn conflating_gaussians_multiplies_their_densities_and_undoes_itself() {
        let one = IsoGaussian { mean: tensor(&[0.4, -0.3], [1, 2, 1, 1]), var: tensor(&[1.7], [1, 1, 1, 1]) };
        let two = IsoGaussian { mean: tensor(&[-1.0, 2.0], [1, 2, 1, 1]), var: tensor(&[0.4], [1, 1, 1, 1]) };
        let back = one.conflate(&two, 1.0, 1.0).conflate(&two, 1.0, -1.0);
        close(values(back.mean), &[0.4, -0.3]);
        close(values(back.var), &[1.7]);
        let mean = values(one.conflate(&two, 1.0, 1.0).mean);
        close(
            mean,
            &[(0.4 / 1.7 - 1.0 / 0.4) / (1.0 / 1.7 + 1.0 / 0.4), (-0.3 / 1.7 + 2.0 / 0.4) / (1.0 / 1.7 + 1.0 / 0.4)],
        );
    }

    #[test]
    fn covariance_of_two_components() {
        // The means differ by (2, 1.5), the weights' product is 0.1875; within: 0.25 * 0.25 + 0.75 * 0.64.
        let within = 0.25 * 0.25 + 0.75 * 0.64;
        let expected = [4.0 * 0.1875 + within, 3.0 * 0.1875, 3.0 * 0.1875, 2.25 * 0.1875 + within];
        close(values(two().covariance()), &expected);
    }

    #[test]
    fn a_mixture_does_not_diverge_from_itself_and_one_gaussian_has_the_known_entropy() {
        let points = tensor(&POINTS, [1, 3, 2, 1, 1]);
        close(values(two().kl_divergence(&two(), &points)), &[0.0]);
        let gaussian = GaussianMixture {
            means: tensor(&[1.0, 2.0], [1, 1, 2, 1, 1]),
            log_weights: tensor(&[0.0], [1, 1, 1, 1, 1]),
            log_std: tensor(&[0.5], [1, 1, 1, 1, 1]).log(),
        };
        // Two points one standard deviation away along both axes have the mean squared distance of the Gaussian.
        let normal = tensor(&[1.0, 1.0, -1.0, -1.0], [1, 2, 2, 1, 1]);
        let first = Tensor::<4, Int>::zeros([1, 2, 1, 1], &Device::flex());
        let drawn = gaussian.sample_components(&first, &normal, 1.0);
        close(values(drawn.clone()), &[1.5, 2.5, 0.5, 1.5]);
        close(values(gaussian.entropy(&drawn)), &[1.0 + (std::f64::consts::TAU * 0.25).ln()]);
    }
}
