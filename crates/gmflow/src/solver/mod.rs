//! Solvers: stateless values with `init` and `step`, and explicit state.

mod gaussian;
mod mixture;
mod second_order;

pub use gaussian::{towards, transition};
pub use second_order::{SecondOrder, Visit};

use crate::guidance::Guided;
use crate::rng::{self, Purpose};
use crate::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// A solver and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SolverConfig {
    /// Euler sub-steps along the analytic velocity of the mixture.
    GmOde {
        /// 1 or 2.
        #[serde(default = "second")]
        order: u8,
        /// Sub-steps per network call; by default 128 shared among the steps.
        #[serde(default)]
        substeps: Option<usize>,
    },
    /// Exact reverse transitions from draws of the mixture.
    GmSde {
        /// 1 or 2.
        #[serde(default = "second")]
        order: u8,
    },
    /// x + dt u: the vanilla flow's solver, which is DDIM with eta = 0.
    Euler,
    /// Euler with a trapezoidal correction: two network calls per step, one in the last.
    Heun,
    /// The reverse transition from the mean with the posterior variance only.
    DdpmSmall,
    /// The reverse transition from the mean, its variance enlarged by that of standard normal data.
    DdpmLarge,
}

fn second() -> u8 {
    2
}

impl SolverConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::GmOde { order, .. } | Self::GmSde { order } if !(1..=2).contains(&order) => {
                Err(Error::config("order", "1 or 2", order))
            }
            Self::GmOde { substeps: Some(0), .. } => Err(Error::config("substeps", "at least 1", 0)),
            _ => Ok(()),
        }
    }

    /// Sub-steps of GM-ODE per network call where none are given: 8 for 4 and 6 steps on images, otherwise 128 shared among
    /// the steps and at least 2 on images.
    pub fn default_substeps(steps: usize, points: bool) -> usize {
        match steps {
            _ if points => 128usize.div_ceil(steps.max(1)),
            4 | 6 => 8,
            _ => (128 / steps.max(1)).max(2),
        }
    }

    /// The standard deviation that DDPM ascribes to x0 given x_t: 0 with small variance; with large variance that of a velocity
    /// with s = 1/sqrt(alpha^2 + sigma^2), as if data were standard normal.
    pub fn ddpm_std(&self, t: f64) -> f64 {
        match self {
            Self::DdpmLarge => t / ((1.0 - t).powi(2) + t * t).sqrt(),
            _ => 0.0,
        }
    }

    /// The state before the first step: `x` `[b c h w]` at t = 1.
    pub fn init(&self, x: Tensor<4>) -> SolverState {
        SolverState { x, previous: None }
    }

    /// One step from `span.t` down to `span.to`, with one call of `predict` (two for Heun).
    pub fn step(
        &self,
        state: SolverState,
        span: Span,
        predict: &mut dyn FnMut(&Tensor<4>, f64) -> Guided,
        draws: &mut dyn Draws,
    ) -> SolverState {
        match *self {
            Self::GmOde { order, substeps } => {
                let substeps = substeps.unwrap_or(span.default_substeps);
                mixture::ode_step(state, span, predict, mixture::Settings { order, substeps })
            }
            Self::GmSde { order } => mixture::sde_step(state, span, predict, order, draws),
            Self::Euler => gaussian::euler_step(state, span, predict),
            Self::Heun => gaussian::heun_step(state, span, predict),
            Self::DdpmSmall | Self::DdpmLarge => {
                gaussian::ddpm_step(state, span, predict, draws, self.ddpm_std(span.t))
            }
        }
    }
}

/// The interval of one step.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Which step, from 0.
    pub index: usize,
    /// The time it starts from, in (0, 1].
    pub t: f64,
    /// The time it lands on, in [0, t).
    pub to: f64,
    /// Sub-steps of GM-ODE where the solver names none.
    pub default_substeps: usize,
}

/// What a solver carries from step to step.
#[derive(Clone, Debug)]
pub struct SolverState {
    /// The sample `[b c h w]` at the current time.
    pub x: Tensor<4>,
    /// What a second-order step remembers.
    pub(crate) previous: Option<Visit>,
}

/// Where a solver's random numbers come from.
pub trait Draws {
    /// Standard normals `[b c h w]`.
    fn normal(&mut self, purpose: Purpose, step: usize, shape: [usize; 4]) -> Tensor<4>;
    /// Uniforms in [0, 1) `[b 1 h w]`, one per pixel.
    fn uniform(&mut self, purpose: Purpose, step: usize, shape: [usize; 4]) -> Tensor<4>;
}

/// One seed per sample: a sample is the same in any batch.
#[derive(Clone, Debug)]
pub struct SeededDraws {
    /// One seed per sample.
    pub seeds: Vec<u64>,
    /// Where the tensors are made.
    pub device: Device,
}

impl Draws for SeededDraws {
    fn normal(&mut self, purpose: Purpose, step: usize, [_, c, h, w]: [usize; 4]) -> Tensor<4> {
        rng::normal_batch(&self.seeds, purpose, step as u64, [c, h, w], &self.device)
    }

    fn uniform(&mut self, purpose: Purpose, step: usize, [b, _, h, w]: [usize; 4]) -> Tensor<4> {
        let values: Vec<f32> =
            self.seeds.iter().flat_map(|&seed| rng::uniforms(seed, purpose, step as u64, h * w)).collect();
        Tensor::from_data(TensorData::new(values, [b, 1, h, w]), &self.device)
    }
}
