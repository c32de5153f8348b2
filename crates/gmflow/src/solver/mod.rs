//! Solvers: stateless values with `init` and `step`, and explicit state.

mod gaussian;
mod mixture;
mod multistep;
mod second_order;

pub use gaussian::{euler_step, transition};
pub use second_order::{CorrectedPrediction, PreviousStep, SecondOrder, SecondOrderMode};

use crate::guidance::GuidedPrediction;
use crate::kernel::OdeSubstep;
use crate::mixture::{DataMixture, GaussianMixture};
use crate::network::SpectrumMlp;
use crate::path::Evidence;
use crate::rng::{self, Purpose};
use crate::{Error, Result, limits};
use burn::tensor::{Device, Int, Tensor, TensorData};
use mixture::{Motion, Settings};
use multistep::{Multistep, Node};
use second_order::PreviousPrediction;
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
        /// Whether the draws are shaped by the model's spectrum network; by default where it has one.
        #[serde(default)]
        spectral: Option<bool>,
    },
    /// x + dt u: the vanilla flow's solver, which is DDIM with eta = 0.
    Euler,
    /// Euler with a trapezoidal correction: two network calls per step, one in the last.
    Heun,
    /// The reverse transition from the mean with the posterior variance only.
    DdpmSmall {
        /// 1, or 2 for a mean with the second-order change of the mixture solvers.
        #[serde(default = "first")]
        order: u8,
        /// Sub-steps per network call, the mean moved to each point by the mixture.
        #[serde(default = "one")]
        substeps: usize,
    },
    /// The reverse transition from the mean, its variance enlarged by that of standard normal data.
    DdpmLarge {
        /// As with small variance.
        #[serde(default = "first")]
        order: u8,
        /// As with small variance.
        #[serde(default = "one")]
        substeps: usize,
    },
    /// DPM-Solver++ 2M: multistep of order 2.
    #[serde(rename = "dpmpp-2m")]
    Dpmpp2m,
    /// DPM-Solver++ 2M for the reverse stochastic equation.
    #[serde(rename = "dpmpp-2m-sde")]
    Dpmpp2mSde,
    /// DPM-Solver++ 2S: steps in pairs, of order 2.
    #[serde(rename = "dpmpp-2s")]
    Dpmpp2s,
    /// UniPC-2: the predictor of DPM-Solver++ 2M and a corrector of order 3 that needs no further call.
    #[serde(rename = "unipc")]
    UniPc,
    /// DEIS of order 2; as in diffusers, the last step is of order 1 where there are fewer than 15.
    Deis,
    /// SA-Solver, predictor and corrector of order 2.
    SaSolver {
        /// The share of the noise of the reverse stochastic equation that is added for t in [0.2, 0.8]; 0 is none.
        #[serde(default = "all")]
        tau: f64,
    },
}

fn first() -> u8 {
    1
}

fn one() -> usize {
    1
}

fn all() -> f64 {
    1.0
}

fn second() -> u8 {
    2
}

impl SolverConfig {
    /// DDPM with small variance as it is usually meant: first order, no sub-steps.
    pub const DDPM_SMALL: Self = Self::DdpmSmall { order: 1, substeps: 1 };
    /// DDPM with large variance, likewise.
    pub const DDPM_LARGE: Self = Self::DdpmLarge { order: 1, substeps: 1 };
    /// SA-Solver with all the noise.
    pub const SA_SOLVER: Self = Self::SaSolver { tau: 1.0 };

    /// Whether steps of a mixture solver change the prediction by the one before; multistep solvers do so in their own way.
    pub fn is_of_order_2(&self) -> bool {
        match *self {
            Self::GmOde { order, .. }
            | Self::GmSde { order, .. }
            | Self::DdpmSmall { order, .. }
            | Self::DdpmLarge { order, .. } => order == 2,
            _ => false,
        }
    }

    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        let (order, substeps) = match *self {
            Self::GmOde { order, substeps } => (order, substeps),
            Self::GmSde { order, .. } => (order, None),
            Self::DdpmSmall { order, substeps } | Self::DdpmLarge { order, substeps } => (order, Some(substeps)),
            Self::SaSolver { tau } if !(tau.is_finite() && tau >= 0.0) => {
                return Err(Error::config("tau", "a number of at least 0", tau));
            }
            _ => (1, None),
        };
        if !(1..=2).contains(&order) {
            return Err(Error::config("order", "1 or 2", order));
        }
        limits::count("substeps", substeps.unwrap_or(1), limits::MOST_STEPS)
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

    /// The state before the first step: `x` `[b c h w]` at t = 1.
    pub fn init(&self, x: Tensor<4>) -> SolverState {
        SolverState { x, previous: None, history: Vec::new() }
    }

    /// One step from `span.t` down to `span.to`, with one network call (two for Heun).
    ///
    /// # Errors
    /// A spectrum network that does not fit the samples.
    pub fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let mixture = |order, substeps, motion| Method::Mixture(Settings { order, substeps, motion });
        let method = match *self {
            Self::GmOde { order, substeps } => {
                mixture(order, substeps.unwrap_or(span.default_substeps), Motion::Velocity)
            }
            Self::GmSde { order, spectral } => mixture(order, 1, Motion::Draw { spectral: spectral.unwrap_or(true) }),
            Self::Euler => mixture(1, 1, Motion::Velocity),
            Self::Heun => Method::Heun,
            Self::DdpmSmall { order, substeps } => mixture(order, substeps, Motion::Mean(|_| 0.0)),
            Self::DdpmLarge { order, substeps } => mixture(order, substeps, Motion::Mean(ddpm_large_std)),
            Self::Dpmpp2m => Method::Multistep(Multistep::Dpmpp2m),
            Self::Dpmpp2mSde => Method::Multistep(Multistep::Dpmpp2mSde),
            Self::Dpmpp2s => Method::Multistep(Multistep::Dpmpp2s),
            Self::UniPc => Method::Multistep(Multistep::UniPc),
            Self::Deis => Method::Multistep(Multistep::Deis),
            Self::SaSolver { tau } => Method::Multistep(Multistep::SaSolver { tau }),
        };
        match method {
            Method::Mixture(settings) => mixture::step(state, span, context, settings),
            Method::Heun => Ok(gaussian::heun_step(state, span, context)),
            Method::Multistep(rule) => Ok(multistep::step(state, span, context, rule)),
        }
    }
}

/// The kinds of step.
enum Method {
    Mixture(Settings),
    Heun,
    Multistep(Multistep),
}

/// The standard deviation that DDPM with large variance ascribes to x0 given x_t: that of a velocity with
/// s = 1/sqrt(alpha^2 + sigma^2), as if data were standard normal.
pub fn ddpm_large_std(t: f64) -> f64 {
    t / ((1.0 - t).powi(2) + t * t).sqrt()
}

/// What a step needs from outside.
pub struct Context<'a> {
    /// The guided prediction at (x `[b c h w]`, t).
    pub predict: &'a mut dyn FnMut(&Tensor<4>, f64) -> GuidedPrediction,
    /// The random numbers.
    pub draws: &'a mut dyn NoiseSource,
    /// The network that shapes the draws of GM-SDE.
    pub spectrum: Option<&'a SpectrumMlp>,
    /// How steps of order 2 change the prediction.
    pub second_order: SecondOrder,
    /// Told of every sub-step, where somebody wants to know; GM-ODE is faster when it need not tell.
    pub observe: Option<&'a mut dyn FnMut(&SubStep)>,
}

/// What one sub-step did.
#[derive(Clone, Copy, Debug)]
pub struct SubStep<'a> {
    /// The step it belongs to, from 0.
    pub step: usize,
    /// Which sub-step of it, from 0.
    pub substep: usize,
    /// Whether it ends the step.
    pub last: bool,
    /// The mixture over x0 that the step goes by, at the step's start.
    pub mixture: &'a DataMixture,
    /// The x0 `[b c h w]` that the sub-step moved towards.
    pub x0: &'a Tensor<4>,
    /// The sample `[b c h w]` after it.
    pub x: &'a Tensor<4>,
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
    /// The shift s of the time grid; sub-steps are even before it.
    pub shift: f32,
}

impl Span {
    /// The time at which sub-step `i` of `n` starts; `i = n` is where the last one lands.
    pub(crate) fn substep(&self, i: usize, n: usize) -> f64 {
        let s = f64::from(self.shift);
        let even = |t: f64| t / (s - (s - 1.0) * t);
        let u = even(self.t) + (even(self.to) - even(self.t)) * i as f64 / n as f64;
        match i {
            0 => self.t,
            _ if i == n => self.to,
            _ => s * u / (1.0 + (s - 1.0) * u),
        }
    }
}

/// The sub-step from a point at tau, of which it keeps `keep`, with a mixture that was predicted at t; where nothing is `known` beyond the
/// prediction, the mixture stays as it is.
fn substep((t, tau): (f64, f64), known: bool, keep: f64) -> OdeSubstep {
    let Evidence { here, there, zeta } = Evidence::between(t, tau);
    let [here, there, zeta] = [here, there, zeta].map(|x| if known { x as f32 } else { 0.0 });
    OdeSubstep { here, there, zeta, keep: keep as f32 }
}

/// What a solver carries from step to step.
#[derive(Clone, Debug)]
pub struct SolverState {
    /// The sample `[b c h w]` at the current time.
    x: Tensor<4>,
    /// What a second-order step remembers.
    previous: Option<PreviousPrediction>,
    /// The last calls of a multistep solver, the newest first.
    history: Vec<Node>,
}

impl SolverState {
    /// The sample `[b c h w]` at the current time.
    pub fn x(&self) -> &Tensor<4> {
        &self.x
    }

    /// The same, when no further step follows.
    pub fn into_x(self) -> Tensor<4> {
        self.x
    }

    /// Goes on from another sample `[b c h w]` at the same time, with what the steps before have predicted.
    pub fn replace_x(&mut self, x: Tensor<4>) {
        self.x = x;
        if let Some(previous) = &mut self.previous {
            previous.foreseen = None;
        }
    }
}

/// Where a solver's random numbers come from. `index` counts the sub-steps of a run.
pub trait NoiseSource {
    /// Standard normals `[b c h w]`.
    fn normal(&mut self, purpose: Purpose, index: usize, shape: [usize; 4]) -> Tensor<4>;
    /// A component of the mixture for every pixel, `[b 1 1 h w]`.
    fn component(&mut self, index: usize, mixture: &GaussianMixture) -> Tensor<5, Int>;
    /// The basis `[b 1 1 c c]` of a spectral draw, where it is prescribed; by default it is computed.
    fn basis(&mut self, _index: usize) -> Option<Tensor<5>> {
        None
    }
}

/// One seed per sample: a sample is the same in any batch.
#[derive(Clone, Debug)]
pub struct SeededNoise {
    /// One seed per sample.
    pub seeds: Vec<u64>,
    /// Where the tensors are made.
    pub device: Device,
}

impl NoiseSource for SeededNoise {
    fn normal(&mut self, purpose: Purpose, index: usize, [_, c, h, w]: [usize; 4]) -> Tensor<4> {
        rng::normal_batch(&self.seeds, purpose, index as u64, [c, h, w], &self.device)
    }

    fn component(&mut self, index: usize, mixture: &GaussianMixture) -> Tensor<5, Int> {
        let [b, _, _, h, w] = mixture.means.dims();
        let uniforms = |&seed: &u64| rng::uniforms(seed, Purpose::Component, index as u64, h * w);
        let values: Vec<f32> = self.seeds.iter().flat_map(uniforms).collect();
        mixture.component(&Tensor::from_data(TensorData::new(values, [b, 1, h, w]), &self.device))
    }
}
