//! The passes of a solver's step as operations of a backend, and the CPU backend's implementation. No gradients are recorded.

use crate::kernel::mixture::sizes::Mixture;
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::cpu::guide::{self, GuidedParts};
use crate::kernel::mixture::step::cpu::ode::{Plan, SubSteps};
use crate::kernel::mixture::step::cpu::{Step, ode_step};
use crate::kernel::mixture::step::cpu::{guided, ode, reweight, second_order};
use crate::kernel::mixture::step::types::{OdeSubstep, SecondOrderRule, ShiftRule, StepPlan};
use crate::kernel::nn::ops::{in_order, tensor, values};
use crate::kernel::simd::memory::UninitVec;
use crate::kernel::simd::threads::Threads;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, ExtensionType, Flex, TensorMetadata, backend_extension};

/// Mixtures over the velocity, as a network predicts them, of `b` samples or, with guidance, of the doubled batch [conditional,
/// unconditional].
#[derive(Clone, ExtensionType)]
pub struct Velocity<B: Backend> {
    /// `[b k c h w]`.
    pub means: FloatTensor<B>,
    /// `[b k 1 h w]`.
    pub log_weights: FloatTensor<B>,
    /// `[b 1 1 1 1]`.
    pub log_std: FloatTensor<B>,
    /// When they were predicted.
    pub t: f32,
}

/// Predicted mixtures and the shift of the mean that they are reweighted by.
#[derive(Clone, ExtensionType)]
pub struct GuidedMixtures<B: Backend> {
    /// The first `b` of them count.
    #[extension_type]
    pub velocity: Velocity<B>,
    /// On the CPU what its passes read of the mixtures: see [`guided::GuidedMixtures`]. Nothing elsewhere.
    pub centred: FloatTensor<B>,
    /// Components over x0 have the means origin - t u, `[b c h w]`.
    pub origin: FloatTensor<B>,
    /// The mean over x0 `[b c h w]`.
    pub mean: FloatTensor<B>,
    /// The variance averaged over pixels `[b 1 1 1]`.
    pub var: FloatTensor<B>,
    /// `[b c h w]`; nothing where there is none.
    pub shift: FloatTensor<B>,
    /// The mean square of the shift `[b 1 1 1]`.
    pub power: FloatTensor<B>,
    /// Whether a shift is divided by the pixel's own variance along it, and not by `var`.
    pub pixelwise: bool,
}

/// The previous step, where its prediction changes the current one.
#[derive(Clone, ExtensionType)]
pub enum Previous<B: Backend> {
    /// There is none.
    Nothing,
    /// Its posterior mean at the current point `[b c h w]`, and how the change is carried out.
    Step(FloatTensor<B>, SecondOrderRule),
}

/// What a network predicted, and what guidance asks for.
#[derive(Clone, ExtensionType)]
pub struct GuidanceInputs<B: Backend> {
    /// What it predicted.
    #[extension_type]
    pub velocity: Velocity<B>,
    /// Where `[b c h w]`.
    pub x: FloatTensor<B>,
    /// Guidance.
    pub rule: ShiftRule,
    /// Whether shifts are divided by the pixel's own variance.
    pub pixelwise: bool,
}

/// The passes; see [`crate::kernel::mixture::step::cpu`].
#[allow(clippy::type_complexity, reason = "the macro reads the tuples of tensors that methods return")]
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait StepOps: Backend {
    /// Mean over x0, variance, shift and its mean square, and what the CPU's passes read, as in [`GuidedMixtures`].
    fn step_guide(
        #[extension_type] inputs: GuidanceInputs<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// The second-order change since the previous step's posterior mean at the current point, alone or with the shift of `now`, and its mean
    /// square.
    fn step_second_order(
        #[extension_type] now: GuidedMixtures<Self>,
        previous_mean: FloatTensor<Self>,
        rule: SecondOrderRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// The samples after all sub-steps from `x`, with mixtures that were predicted at `start`.
    fn step_ode(
        #[extension_type] mixture: GuidedMixtures<Self>,
        start: FloatTensor<Self>,
        x: FloatTensor<Self>,
        substeps: Vec<OdeSubstep>,
    ) -> FloatTensor<Self>;
    /// The three in one: the samples after all sub-steps from where they were predicted, and the posterior mean there by the mixtures without
    /// the change, or nothing. Guidance may not extrapolate, and the change may not move the mixtures.
    fn step_at_once(
        #[extension_type] inputs: GuidanceInputs<Self>,
        #[extension_type] previous: Previous<Self>,
        plan: StepPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Means, log weights and log standard deviations of the reweighted mixtures, the last for each pixel where it goes by pixels.
    fn step_reweighted(
        #[extension_type] mixture: GuidedMixtures<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

type Tensor = FloatTensor<Flex>;

impl GuidedMixtures<Flex> {
    fn contiguous(self) -> Self {
        Self {
            velocity: Velocity { log_std: in_order(self.velocity.log_std), ..self.velocity },
            mean: in_order(self.mean),
            var: in_order(self.var),
            shift: in_order(self.shift),
            power: in_order(self.power),
            ..self
        }
    }

    fn borrow(&self) -> guided::GuidedMixtures<'_> {
        guided::GuidedMixtures {
            centred: values(&self.centred),
            log_std: values(&self.velocity.log_std),
            t: self.velocity.t,
            mean: values(&self.mean),
            shift: values(&self.shift),
            var: values(&self.var),
            power: values(&self.power),
            pixelwise: self.pixelwise,
        }
    }
}

/// Components, channels and pixels of `[b k c h w]`.
fn sizes(means: &Tensor) -> Sizes {
    let shape = means.shape();
    Sizes { k: shape[1], c: shape[2], n: shape[3] * shape[4] }
}

impl GuidanceInputs<Flex> {
    fn contiguous(self) -> Self {
        let Velocity { means, log_weights, log_std, t } = self.velocity;
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(in_order);
        Self { velocity: Velocity { means, log_weights, log_std, t }, x: in_order(self.x), ..self }
    }

    fn borrow(&self) -> guide::GuidanceInputs<'_> {
        let Velocity { means, log_weights, log_std, t } = &self.velocity;
        let velocity = Mixture { means: values(means), log_weights: values(log_weights), log_std: values(log_std) };
        guide::GuidanceInputs::new(velocity, (values(&self.x), *t), sizes(means), (self.rule, self.pixelwise))
    }
}

/// Mean, variance, shift and its mean square, and the mixtures of samples of the shape `[b c h w]`.
fn guided(parts: GuidedParts, shape: Vec<usize>) -> [Tensor; 5] {
    let GuidedParts { centred, mean, shift, var, power } = parts;
    let per_sample = [shape[0], 1, 1, 1];
    let of_shift = if shift.is_empty() { vec![0; 4] } else { shape.clone() };
    let (mean, centred_len) = (tensor(mean, shape), [centred.len()]);
    let [var, power] = [var, power].map(|values| tensor(values, per_sample));
    [mean, var, tensor(shift, of_shift), power, tensor(centred, centred_len)]
}

impl StepOps for Flex {
    fn step_guide(inputs: GuidanceInputs<Self>) -> (Tensor, Tensor, Tensor, Tensor, Tensor) {
        let inputs = inputs.contiguous();
        let (sizes, shape) = (sizes(&inputs.velocity.means), inputs.x.shape().to_vec());
        guided(GuidedParts::new(inputs.borrow(), shape[0], sizes), shape).into()
    }

    fn step_second_order(
        now: GuidedMixtures<Self>,
        previous_mean: Tensor,
        rule: SecondOrderRule,
    ) -> (Tensor, Tensor) {
        let (now, previous_mean) = (now.contiguous(), in_order(previous_mean));
        let sizes = sizes(&now.velocity.means);
        let lengths = [&previous_mean, &now.var].map(|values_of| values(values_of).len());
        let [mut shift, mut power] = lengths.map(UninitVec::new);
        let room = (shift.room(), power.room());
        second_order::second_order(now.borrow(), values(&previous_mean), sizes, rule, room, Threads::All);
        // SAFETY: the pass writes all of its room.
        let (shift, power) = unsafe { (shift.assume_init(), power.assume_init()) };
        (tensor(shift, previous_mean.shape().to_vec()), tensor(power, now.var.shape().to_vec()))
    }

    fn step_ode(mixture: GuidedMixtures<Self>, start: Tensor, x: Tensor, substeps: Vec<OdeSubstep>) -> Tensor {
        let (mixture, start, x) = (mixture.contiguous(), in_order(start), in_order(x));
        let (shape, sizes) = (x.shape().to_vec(), sizes(&mixture.velocity.means));
        let steps = SubSteps { start: values(&start), x: values(&x), substeps: Plan::Same(&substeps), next: None };
        let mut out = UninitVec::new(values(&x).len());
        ode::ode_substeps(mixture.borrow(), steps, sizes, out.room(), Threads::All);
        // SAFETY: the pass writes all of its room.
        tensor(unsafe { out.assume_init() }, shape)
    }

    fn step_at_once(inputs: GuidanceInputs<Self>, previous: Previous<Self>, plan: StepPlan) -> (Tensor, Tensor) {
        let inputs = inputs.contiguous();
        let previous = match previous {
            Previous::Nothing => None,
            Previous::Step(mean, rule) => Some((in_order(mean), rule)),
        };
        let previous = previous.as_ref().map(|(mean, rule)| (values(mean), *rule));
        let step = Step { inputs: inputs.borrow(), previous, plan: &plan };
        let (x, mean_at_next) = ode_step(step, sizes(&inputs.velocity.means));
        let next_shape = if plan.to_next_mean.is_some() { inputs.x.shape().to_vec() } else { vec![0; 4] };
        (tensor(x, inputs.x.shape().to_vec()), tensor(mean_at_next, next_shape))
    }

    fn step_reweighted(mixture: GuidedMixtures<Self>) -> (Tensor, Tensor, Tensor) {
        let mixture = mixture.contiguous();
        let (Sizes { k, c, .. }, x) = (sizes(&mixture.velocity.means), mixture.mean.shape());
        let [means, log_weights, log_std] = reweight::reweighted(mixture.borrow(), sizes(&mixture.velocity.means));
        let [b, h, w] = [x[0], x[2], x[3]];
        let of_std = if log_std.len() == b { [b, 1, 1, 1, 1] } else { [b, 1, 1, h, w] };
        (tensor(means, [b, k, c, h, w]), tensor(log_weights, [b, k, 1, h, w]), tensor(log_std, of_std))
    }
}

/// The same without autodiff.
fn inner<B: Backend, C: CheckpointStrategy>(mixture: GuidedMixtures<Autodiff<B, C>>) -> GuidedMixtures<B> {
    let GuidedMixtures { velocity, centred, origin, mean, var, shift, power, pixelwise } = mixture;
    let [centred, origin, mean] = [centred, origin, mean].map(Autodiff::<B, C>::inner);
    let [var, shift, power] = [var, shift, power].map(Autodiff::<B, C>::inner);
    GuidedMixtures { velocity: inner_velocity(velocity), centred, origin, mean, var, shift, power, pixelwise }
}

fn inner_velocity<B: Backend, C: CheckpointStrategy>(velocity: Velocity<Autodiff<B, C>>) -> Velocity<B> {
    let Velocity { means, log_weights, log_std, t } = velocity;
    let [means, log_weights, log_std] = [means, log_weights, log_std].map(Autodiff::<B, C>::inner);
    Velocity { means, log_weights, log_std, t }
}

fn inner_inputs<B: Backend, C: CheckpointStrategy>(inputs: GuidanceInputs<Autodiff<B, C>>) -> GuidanceInputs<B> {
    let GuidanceInputs { velocity, x, rule, pixelwise } = inputs;
    GuidanceInputs { velocity: inner_velocity(velocity), x: Autodiff::<B, C>::inner(x), rule, pixelwise }
}

impl<B: StepOps, C: CheckpointStrategy> StepOps for Autodiff<B, C> {
    fn step_guide(
        inputs: GuidanceInputs<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (mean, var, shift, power, centred) = B::step_guide(inner_inputs(inputs));
        [mean, var, shift, power, centred].map(Self::from_inner).into()
    }

    fn step_at_once(
        inputs: GuidanceInputs<Self>,
        previous: Previous<Self>,
        plan: StepPlan,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let previous = match previous {
            Previous::Nothing => Previous::Nothing,
            Previous::Step(mean, rule) => Previous::Step(Self::inner(mean), rule),
        };
        let (x, mean_at_next) = B::step_at_once(inner_inputs(inputs), previous, plan);
        (Self::from_inner(x), Self::from_inner(mean_at_next))
    }

    fn step_second_order(
        now: GuidedMixtures<Self>,
        previous_mean: FloatTensor<Self>,
        rule: SecondOrderRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (shift, power) = B::step_second_order(inner(now), Self::inner(previous_mean), rule);
        (Self::from_inner(shift), Self::from_inner(power))
    }

    fn step_ode(
        mixture: GuidedMixtures<Self>,
        start: FloatTensor<Self>,
        x: FloatTensor<Self>,
        substeps: Vec<OdeSubstep>,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::step_ode(inner(mixture), Self::inner(start), Self::inner(x), substeps))
    }

    fn step_reweighted(mixture: GuidedMixtures<Self>) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (means, log_weights, log_std) = B::step_reweighted(inner(mixture));
        (Self::from_inner(means), Self::from_inner(log_weights), Self::from_inner(log_std))
    }
}
