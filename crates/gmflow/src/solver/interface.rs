//! What all solvers have in common: the trait, and what goes in and out of a step.

use super::noise::NoiseSource;
use super::second_order::SecondOrder;
use crate::Result;
use crate::guidance::GuidedPrediction;
use crate::mixture::DataMixture;
use crate::network::SpectrumMlp;
use burn::tensor::Tensor;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// A solver of the reverse process: a stateless value; what it remembers from step to step is in the state.
pub trait Solver {
    /// The state before the first step: `x` `[b c h w]` at t = 1.
    fn init(&self, x: Tensor<4>) -> SolverState {
        SolverState::new(x)
    }

    /// One step from `span.t` down to `span.to`, with as many network calls as the solver takes.
    ///
    /// # Errors
    /// What the solver cannot do, such as draws with a spectrum network that does not fit the samples.
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState>;

    /// The order of convergence: the error of n steps goes with n to minus this power.
    fn order(&self) -> usize;
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
    /// Called after every sub-step, if given. GM-ODE is faster without it.
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

    /// When the sub-steps begin, and the end of the last one.
    pub(crate) fn substeps(&self, n: usize) -> Vec<f64> {
        (0..=n).map(|i| self.substep(i, n)).collect()
    }
}

/// What a solver carries from step to step.
#[derive(Clone)]
pub struct SolverState {
    x: Tensor<4>,
    memory: Option<Arc<dyn Any + Send + Sync>>,
    replaced: bool,
}

impl SolverState {
    /// Samples `[b c h w]` at the current time, and nothing else.
    pub fn new(x: Tensor<4>) -> Self {
        Self { x, memory: None, replaced: false }
    }

    /// Samples `[b c h w]`, and what the next step has to know, of whatever type.
    pub fn with_memory<T: Any + Send + Sync>(x: Tensor<4>, memory: T) -> Self {
        Self { x, memory: Some(Arc::new(memory)), replaced: false }
    }

    /// The sample `[b c h w]` at the current time.
    pub fn x(&self) -> &Tensor<4> {
        &self.x
    }

    /// The same, when no further step follows.
    pub fn into_x(self) -> Tensor<4> {
        self.x
    }

    /// The sample `[b c h w]` and what the last step left in memory, if it is of this type.
    pub fn into_parts<T: Any + Send + Sync + Clone>(self) -> (Tensor<4>, Option<T>) {
        let memory = self.memory.and_then(|memory| memory.downcast::<T>().ok());
        (self.x, memory.map(Arc::unwrap_or_clone))
    }

    /// Goes on from another sample `[b c h w]` at the same time, with what the steps before have predicted.
    pub fn replace_x(&mut self, x: Tensor<4>) {
        self.x = x;
        self.replaced = true;
    }

    /// Whether the sample is not the one that the last step ended at.
    pub fn is_replaced(&self) -> bool {
        self.replaced
    }
}

impl fmt::Debug for SolverState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SolverState").field("x", &self.x).finish_non_exhaustive()
    }
}
