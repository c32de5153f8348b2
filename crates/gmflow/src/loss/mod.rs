//! Training losses: the likelihood of a mixture, its transition form, and the squared error of the baseline.
//!
//! ```
//! use gmflow::loss::LossConfig;
//!
//! assert!(LossConfig::Transition { transition_ratio: 0.5, weight_scale: 1.0 }.validate().is_ok());
//! assert!(LossConfig::Transition { transition_ratio: 1.5, weight_scale: 1.0 }.validate().is_err());
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

pub mod host;
mod spectral;

pub use spectral::{spectral_loss, spectral_power};

use crate::kernel::mixture_nll;
use crate::mixture::{GaussianMixture, VelocityMixture};
use crate::network::Denoiser;
use crate::path::{ReverseTransition, forward_diffusion, forward_transition, per_sample};
use crate::{Error, Result};
use burn::tensor::{Int, Tensor, activation};
use serde::{Deserialize, Serialize};

/// The loss a denoiser is trained with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossConfig {
    /// Half the squared error of the mean velocity, summed over channels: ordinary flow matching.
    L2,
    /// The negative log-likelihood of a reverse transition of length `transition_ratio` t, (5), (6) and (9).
    Transition {
        /// lambda in (0, 1]; 1 is the plain negative log-likelihood of x0.
        transition_ratio: f64,
        /// A factor on the loss.
        #[serde(default = "unit")]
        weight_scale: f64,
    },
}

fn unit() -> f64 {
    1.0
}

/// A loss and the prediction it comes from.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The mean over batch and pixels, `[1]`, with gradients into the network.
    pub loss: Tensor<1>,
    /// What the network predicted.
    pub velocity: VelocityMixture,
    /// Where it predicted it, `[b c h w]`.
    pub x_t: Tensor<4>,
}

/// What a loss is evaluated on: data, labels, times and all random draws.
#[derive(Clone, Debug)]
pub struct LossBatch {
    /// Data `[b c h w]`.
    pub x0: Tensor<4>,
    /// Labels `[b]`, where the network has classes.
    pub class: Option<Tensor<1, Int>>,
    /// Times `[b]` in (0, 1].
    pub t: Tensor<1>,
    /// Standard normals `[b c h w]` of the forward diffusion.
    pub noise: Tensor<4>,
    /// Standard normals `[b c h w]` of the forward transition; unused by [`LossConfig::L2`].
    pub transition_noise: Tensor<4>,
}

impl LossConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Transition { transition_ratio: r, .. } if !(r > 0.0 && r <= 1.0) => {
                Err(Error::config("transition_ratio", "a number in (0, 1]", r))
            }
            Self::Transition { weight_scale: w, .. } if !(w.is_finite() && w > 0.0) => {
                Err(Error::config("weight_scale", "a positive number", w))
            }
            _ => Ok(()),
        }
    }

    /// The mean loss over the batch and its pixels, with the one prediction that it takes.
    pub fn evaluate(&self, network: &impl Denoiser, batch: LossBatch) -> Evaluation {
        let LossBatch { x0, class, t, noise, transition_noise } = batch;
        match *self {
            Self::L2 => {
                let x_t = forward_diffusion(&x0, &t, &noise);
                let channels = x0.dims()[1] as f64;
                let velocity = network.forward(x_t.clone(), t, class);
                let error = velocity.0.mean() - (noise - x0); // [b c h w]
                Evaluation { loss: error.powi_scalar(2).mean() * (0.5 * channels), velocity, x_t }
            }
            Self::Transition { transition_ratio, weight_scale } => {
                let t_lo = t.clone() * (1.0 - transition_ratio);
                let x_lo = forward_diffusion(&x0, &t_lo, &noise);
                let x_t = forward_transition(&x_lo, &t_lo, &t, &transition_noise);
                let velocity = network.forward(x_t.clone(), t.clone(), class);
                let loss = transition_nll(&velocity, (&x_lo, &t_lo), (&x_t, &t)).mean() * weight_scale;
                Evaluation { loss, velocity, x_t }
            }
        }
    }
}

/// The smallest variance of the reverse transition itself that the loss is evaluated with: without it a component on the
/// sample has infinite density as t goes to 0.
const SMALLEST_VARIANCE: f64 = 1e-6;

/// The smallest step of the mean by a velocity that is divided by: that of a transition at t = 0.
const SMALLEST_STEP: f64 = 1e-6;

/// -log q(x_lo | x_hi) of the reverse transition (9) under a prediction made at (x_hi, t_hi), `[b h w]`, without the constant
/// C/2 log(2 pi).
///
/// The transition's means are (c1 + c2) x_hi - q mean_k with q = c2 t_hi, so that the likelihood is that of the velocity
/// ((c1 + c2) x_hi - x_lo)/q under the predicted means themselves: nothing of their size is computed but the gradient.
pub fn transition_nll(
    velocity: &VelocityMixture,
    (x_lo, t_lo): (&Tensor<4>, &Tensor<1>),
    (x_hi, t_hi): (&Tensor<4>, &Tensor<1>),
) -> Tensor<3> {
    let ReverseTransition { c1, c2, c3 } = ReverseTransition::new(t_lo, t_hi);
    let step = (c2.clone() * per_sample::<4>(t_hi)).clamp_min(SMALLEST_STEP); // [b 1 1 1]
    let target = (x_hi.clone() * (c1 + c2) - x_lo.clone()) / step.clone();
    let (c3, factor) = (c3.clamp_min(SMALLEST_VARIANCE).unsqueeze_dim::<5>(1), step.clone().unsqueeze_dim::<5>(1));
    let GaussianMixture { means, log_weights, log_std } = velocity.0.clone();
    let var = (log_std * 2.0).exp() * factor.clone().powi_scalar(2) + c3;
    let log_std = bounded_log_std(&(var.log() * 0.5)) - factor.log();
    let channels = x_lo.dims()[1] as f64;
    let scale = step.log().squeeze_dim::<3>(1) * channels; // [b 1 1]
    likelihood(&GaussianMixture { means, log_weights, log_std }, &target) + scale
}

/// -log q(target), `[b h w]`, without the constant C/2 log(2 pi), (6). The mixture's `log_std` may also be given per channel.
pub fn nll(mixture: &GaussianMixture, target: &Tensor<4>) -> Tensor<3> {
    likelihood(&GaussianMixture { log_std: bounded_log_std(&mixture.log_std), ..mixture.clone() }, target)
}

/// [`nll`] of a mixture whose `log_std` is bounded.
fn likelihood(mixture: &GaussianMixture, target: &Tensor<4>) -> Tensor<3> {
    let [b, k, c, h, w] = mixture.means.dims();
    let one_std = mixture.log_std.dims() == [b, 1, 1, 1, 1];
    if !one_std || target.dims() != [b, c, h, w] || mixture.log_weights.dims() != [b, k, 1, h, w] {
        return broadcast_nll(mixture, mixture.log_std.clone(), target);
    }
    let means = mixture.means.clone().reshape([b, k * c, h * w]);
    let log_weights = mixture.log_weights.clone().reshape([b, k, h * w]);
    let target = target.clone().reshape([b, c, h * w]);
    mixture_nll(means, log_weights, mixture.log_std.clone().reshape([b, 1]), target).reshape([b, h, w])
}

/// [`nll`] for every shape that broadcasts.
fn broadcast_nll(mixture: &GaussianMixture, log_std: Tensor<5>, target: &Tensor<4>) -> Tensor<3> {
    let channels = target.dims()[1] as f64;
    let squares = (target.clone().unsqueeze_dim::<5>(1) - mixture.means.clone()).powi_scalar(2); // [b k c h w]
    let precision = (log_std.clone() * -2.0).exp();
    let (distance, log_scale) = match log_std.dims()[2] {
        1 => (squares.sum_dim(2) * precision, log_std * channels),
        _ => ((squares * precision).sum_dim(2), log_std.sum_dim(2)),
    };
    let log_joint = mixture.log_weights.clone() - distance * 0.5 - log_scale; // [b k 1 h w]
    // The shift by the largest term is a constant of the gradient, so it is kept out of the graph.
    let largest = log_joint.clone().detach().max_dim(1);
    let sum = (log_joint - largest.clone()).exp().sum_dim(1).log() + largest; // [b 1 1 h w]
    (sum * -1.0).squeeze_dims::<3>(&[1, 2])
}

/// The smallest log standard deviation that a likelihood is evaluated with, and how sharp the knee there is.
const LOWEST: f64 = -10.0;
const SHARPNESS: f64 = 8.0;

/// The log standard deviation that a likelihood is evaluated with: bounded from below at -10 with a smooth knee, so that a network
/// which is certain of everything gets a finite loss whose gradient keeps its sign. Above -9 it changes less than 5e-5.
fn bounded_log_std(log_std: &Tensor<5>) -> Tensor<5> {
    activation::softplus(log_std.clone() - LOWEST, SHARPNESS) + LOWEST
}
