//! The losses that train a network, (5), (6) and (9) of the paper.

use burn::tensor::{Int, Tensor};
use gmflow::network::Denoiser;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Smallest variance of the reverse transition itself. Without it a component on the sample has infinite density as t goes to 0.
const SMALLEST_VARIANCE: f64 = 1e-6;

/// The main network's loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossConfig {
    /// Half the squared distance of the mixture's mean to the velocity, summed over channels: ordinary flow matching.
    L2,
    /// The negative log density of a noisy sample a little earlier in time, (9).
    Transition {
        /// Lambda in (0, 1]: the share of the time that is stepped back. 1 is the plain negative log likelihood of data.
        transition_ratio: f64,
        /// Factor of the loss.
        #[serde(default = "one")]
        weight_scale: f64,
    },
}

fn one() -> f64 {
    1.0
}

impl LossConfig {
    /// Checks both numbers.
    pub(crate) fn validate(&self) -> Result<()> {
        match *self {
            Self::Transition { transition_ratio, .. } if !(transition_ratio > 0.0 && transition_ratio <= 1.0) => {
                Err(Error::config("loss.transition_ratio", "a number in (0, 1]", transition_ratio))
            }
            Self::Transition { weight_scale, .. } if !(weight_scale > 0.0 && weight_scale.is_finite()) => {
                Err(Error::config("loss.weight_scale", "a positive number", weight_scale))
            }
            _ => Ok(()),
        }
    }

    /// The mean loss `[1]` over pixels and batch, for data `x0` `[b c h w]` at times `t` `[b]`.
    pub fn evaluate(
        &self,
        network: &impl Denoiser,
        x0: Tensor<4>,
        class: Option<Tensor<1, Int>>,
        t: Tensor<1>,
        noise: Tensor<4>,
        transition_noise: Tensor<4>,
    ) -> Tensor<1> {
        match *self {
            Self::L2 => l2(network, x0, class, t, noise),
            Self::Transition { transition_ratio, weight_scale } => {
                let times = Times::new(t, transition_ratio);
                transition(network, x0, class, times, noise, transition_noise) * weight_scale
            }
        }
    }
}

/// Axes of a number per sample, beside `[b c h w]` and `[b k c h w]`.
fn per_sample<const D: usize>(values: Tensor<1>) -> Tensor<D> {
    let mut shape = [1; D];
    shape[0] = values.dims()[0];
    values.reshape(shape)
}

fn l2(
    network: &impl Denoiser,
    x0: Tensor<4>,
    class: Option<Tensor<1, Int>>,
    t: Tensor<1>,
    noise: Tensor<4>,
) -> Tensor<1> {
    let velocity = noise.clone() - x0.clone(); // [b c h w]
    let x_t = x0 + per_sample(t.clone()) * velocity.clone();
    let mixture = network.forward(x_t, t, class).0;
    let mean = (mixture.log_weights.exp() * mixture.means).sum_dim(1).squeeze_dim::<4>(1); // [b c h w]
    let channels = velocity.dims()[1] as f64;
    (mean - velocity).square().mean() * (0.5 * channels)
}

/// The times of a transition and its coefficients, each `[b]`.
struct Times {
    high: Tensor<1>,
    low: Tensor<1>,
    alpha_low: Tensor<1>,
    /// alpha_hi / alpha_lo.
    alpha_ratio: Tensor<1>,
}

impl Times {
    fn new(high: Tensor<1>, transition_ratio: f64) -> Self {
        let low = high.clone() * (1.0 - transition_ratio);
        let alpha_low: Tensor<1> = 1.0 - low.clone();
        let alpha_ratio = (1.0 - high.clone()) / alpha_low.clone();
        Self { high, low, alpha_low, alpha_ratio }
    }
}

fn transition(
    network: &impl Denoiser,
    x0: Tensor<4>,
    class: Option<Tensor<1, Int>>,
    Times { high, low, alpha_low, alpha_ratio }: Times,
    noise: Tensor<4>,
    transition_noise: Tensor<4>,
) -> Tensor<1> {
    // Forward: to the earlier time, and from there to the later one by (1).
    let x_low = x0 * per_sample(alpha_low.clone()) + noise * per_sample(low.clone());
    let beta = (high.clone().square() - (alpha_ratio.clone() * low.clone()).square()).clamp_min(0.0);
    let x_high = x_low.clone() * per_sample(alpha_ratio.clone()) + transition_noise * per_sample(beta.sqrt());
    // Back, by (9): x_lo has the components N(c1 x_hi + c2 (x_hi - t mean_k), c3 + (c2 t s)^2).
    let ratio = low.clone() / high.clone();
    let b: Tensor<1> = 1.0 - (ratio.clone() * alpha_ratio.clone()).square();
    let (c1, c2) = (ratio.square() * alpha_ratio, b.clone() * alpha_low);
    let c3 = b * low.square();
    let slope = c2.clone() * high.clone();
    let offset = x_low - x_high.clone() * per_sample(c1 + c2); // [b c h w]

    let mixture = network.forward(x_high, high, class).0;
    let channels = offset.dims()[1] as f64;
    let distance = mixture.means * per_sample(slope.clone()) + offset.unsqueeze_dim::<5>(1); // [b k c h w]
    let std = mixture.log_std.exp() * per_sample(slope);
    let variance = std.square() + per_sample(c3.clamp_min(SMALLEST_VARIANCE)); // [b 1 1 1 1]
    let exponent = distance.square().sum_dim(2) * (variance.clone().recip() * -0.5); // [b k 1 h w]
    let log_density = log_sum_exp(exponent + mixture.log_weights) - variance.log() * (0.5 * channels);
    -log_density.mean()
}

/// Over the components: `[b k 1 h w]` to `[b 1 1 h w]`. The shift by the maximum has no gradient of its own.
fn log_sum_exp(values: Tensor<5>) -> Tensor<5> {
    let largest = values.clone().detach().max_dim(1);
    (values - largest.clone()).exp().sum_dim(1).log() + largest
}
