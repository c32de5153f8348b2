//! The passes of a solver's step on tensors. Nothing here records gradients.

use crate::guidance::probabilistic::ReweightScale;
use crate::kernel::mixture::step::ops::{self as step_ops, Previous, StepOps};
use crate::kernel::mixture::step::reference;
use crate::kernel::mixture::step::types::{
    CorrectedPrediction, Correction, OdeEnd, OdeStep, OdeSubstep, ShiftRule, StepPlan,
};
use crate::kernel::simd::channels;
use crate::mixture::{DataMixture, GaussianMixture};
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// Times are at least this, so that a velocity's logarithm of a standard deviation can be turned into that of x0.
const SHORTEST_TIME: f32 = 1e-6;

/// Mixtures over the velocity, as a network predicts them, of b samples or, with guidance, of the doubled batch [conditional,
/// unconditional].
#[derive(Clone, Debug)]
pub(crate) struct Velocity {
    /// `[b k c h w]`.
    means: Tensor<5>,
    /// `[b k 1 h w]`.
    log_weights: Tensor<5>,
    /// `[b 1 1 1 1]`.
    log_std: Tensor<5>,
    /// When they were predicted.
    t: f32,
}

impl Velocity {
    /// From `[b k c h w]`, `[b k 1 h w]` and `[b 1 1 1 1]`, predicted at t.
    pub(crate) fn new([means, log_weights, log_std]: [Tensor<5>; 3], t: f32) -> Self {
        Self { means, log_weights, log_std, t: t.max(SHORTEST_TIME) }
    }

    fn into_dispatch(self) -> step_ops::Velocity<Dispatch> {
        step_ops::Velocity {
            means: self.means.into_dispatch(),
            log_weights: self.log_weights.into_dispatch(),
            log_std: self.log_std.into_dispatch(),
            t: self.t,
        }
    }
}

/// Whether there are passes for mixtures of so many channels.
pub(crate) fn are_compiled_for(channels: usize) -> bool {
    channels::COMPILED.contains(&channels)
}

/// A network's predictions and what guidance asks for.
#[derive(Clone, Debug)]
pub(crate) struct GuidanceInputs {
    velocity: Velocity,
    /// Where they were made `[b c h w]`.
    x: Tensor<4>,
    rule: ShiftRule,
    /// Whether shifts are divided by the pixel's own variance.
    pixelwise: bool,
}

impl GuidanceInputs {
    /// From velocities predicted at `x` `[b c h w]`.
    pub(crate) fn new(velocity: Velocity, x: &Tensor<4>, rule: ShiftRule, pixelwise: bool) -> Self {
        Self { velocity, x: x.clone(), rule, pixelwise }
    }

    /// The same with mixtures at a temperature.
    pub(crate) fn tempered(self, temperature: f64) -> Self {
        let Velocity { means, log_weights, log_std, t } = self.velocity;
        let GaussianMixture { means, log_weights, log_std } =
            GaussianMixture { means, log_weights, log_std }.tempered(temperature);
        Self { velocity: Velocity { means, log_weights, log_std, t }, ..self }
    }

    fn dispatch(&self) -> step_ops::GuidanceInputs<Dispatch> {
        let Self { velocity, x, rule, pixelwise } = self.clone();
        step_ops::GuidanceInputs { velocity: velocity.into_dispatch(), x: x.into_dispatch(), rule, pixelwise }
    }

    /// The mixtures' means over x0 and the shifts of guidance.
    pub(crate) fn guided(&self) -> GuidedMixtures {
        let (mean, var, shift, power, centred) = <Dispatch as StepOps>::step_guide(self.dispatch());
        let [mean, var, shift, power] = [mean, var, shift, power].map(Tensor::from_dispatch);
        let (velocity, origin, pixelwise) = (self.velocity.clone(), self.x.clone(), self.pixelwise);
        let centred = Tensor::from_dispatch(centred);
        let guided = GuidedMixtures { velocity, centred, origin, mean, var, shift, power, pixelwise };
        match self.rule {
            // What has moved the components is no shift that they are still to be reweighted by.
            ShiftRule::Extrapolate { .. } => GuidedMixtures {
                power: guided.power.zeros_like(),
                shift: Tensor::zeros([0; 4], &guided.shift.device()),
                ..guided.clone().moved(&guided.shift)
            },
            _ => guided,
        }
    }

    /// A step of GM-ODE. It is one pass unless components are moved, by guidance that extrapolates or by the second-order change.
    pub(crate) fn ode(&self, step: &OdeStep) -> OdeEnd {
        let rule = step.correction.as_ref().map(Correction::rule);
        if matches!(self.rule, ShiftRule::Extrapolate { .. }) || rule.is_some_and(|rule| rule.translate) {
            return self.guided().ode(step);
        }
        let previous = match (&step.correction, rule) {
            (Some(correction), Some(rule)) => Previous::Step(correction.previous_mean.clone().into_dispatch(), rule),
            _ => Previous::Nothing,
        };
        let plan = StepPlan { substeps: OdeSubstep::all(&step.times), to_next_mean: step.to_next_mean };
        let (x, mean_at_next) = <Dispatch as StepOps>::step_at_once(self.dispatch(), previous, plan);
        let mean_at_next = step.to_next_mean.map(|_| Tensor::from_dispatch(mean_at_next));
        OdeEnd { x: Tensor::from_dispatch(x), mean_at_next }
    }
}

/// Predicted mixtures and the shift of their mean that they are reweighted by: what the passes of a solver's step work on.
#[derive(Clone, Debug)]
pub(crate) struct GuidedMixtures {
    /// The conditional ones count.
    velocity: Velocity,
    /// What the CPU's passes read of the mixtures.
    centred: Tensor<1>,
    /// Components over x0 have the means origin - t u, `[b c h w]`.
    origin: Tensor<4>,
    /// The mean of the mixtures over x0 `[b c h w]`.
    pub(crate) mean: Tensor<4>,
    /// Their variance averaged over pixels `[b 1 1 1]`.
    pub(crate) var: Tensor<4>,
    /// `[b c h w]`, or nothing at all.
    shift: Tensor<4>,
    /// The mean square of the shift `[b 1 1 1]`.
    power: Tensor<4>,
    /// Whether a shift is divided by the pixel's own variance along it, and not by `var`.
    pixelwise: bool,
}

impl GuidedMixtures {
    /// The same with all components moved by `change` `[b c h w]`.
    fn moved(self, change: &Tensor<4>) -> Self {
        Self { origin: self.origin + change.clone(), mean: self.mean + change.clone(), ..self }
    }

    /// The mixtures over x0 before they are reweighted: means `[b k c h w]`, log weights `[b k 1 h w]` and log standard deviations
    /// `[b 1 1 1 1]`.
    fn before_guidance(&self) -> [Tensor<5>; 3] {
        let b = self.origin.dims()[0];
        let first = |x: &Tensor<5>| x.clone().narrow(0, 0, b);
        let origin = self.origin.clone().unsqueeze_dim::<5>(1); // [b 1 c h w]
        let Velocity { means, log_weights, log_std, t } = &self.velocity;
        [origin - first(means) * *t, first(log_weights), first(log_std) + f64::from(*t).ln()]
    }

    fn into_dispatch(self) -> step_ops::GuidedMixtures<Dispatch> {
        step_ops::GuidedMixtures {
            velocity: self.velocity.into_dispatch(),
            centred: self.centred.into_dispatch(),
            origin: self.origin.into_dispatch(),
            mean: self.mean.into_dispatch(),
            var: self.var.into_dispatch(),
            shift: self.shift.into_dispatch(),
            power: self.power.into_dispatch(),
            pixelwise: self.pixelwise,
        }
    }

    /// The same with the second-order change, of the components or of the shift.
    fn second_order(self, correction: &Correction) -> Self {
        let rule = correction.rule();
        let (now, previous_mean) = (self.clone().into_dispatch(), correction.previous_mean.clone().into_dispatch());
        let (shift, power) = <Dispatch as StepOps>::step_second_order(now, previous_mean, rule);
        let shift = Tensor::from_dispatch(shift);
        match rule.translate {
            true => self.moved(&shift),
            false => Self { shift, power: Tensor::from_dispatch(power), ..self },
        }
    }

    fn with_correction(&self, correction: Option<&Correction>) -> Self {
        match correction {
            None => self.clone(),
            Some(correction) => self.clone().second_order(correction),
        }
    }

    /// A step of GM-ODE.
    pub(crate) fn ode(&self, step: &OdeStep) -> OdeEnd {
        let corrected = self.with_correction(step.correction.as_ref());
        let end = corrected.ode_substeps([step.x, step.x], OdeSubstep::all(&step.times));
        let mean_at_next = step.to_next_mean.map(|substep| self.clone().ode_substeps([step.x, &end], vec![substep]));
        OdeEnd { x: end, mean_at_next }
    }

    /// The mixtures to step with: guided, and with the second-order change.
    pub(crate) fn corrected(&self, correction: Option<&Correction>) -> CorrectedPrediction {
        let corrected = self.with_correction(correction);
        let mut target = reference::target((&self.mean, &self.var), corrected.shift());
        if correction.is_some_and(|correction| correction.rule().translate) {
            target.mean = target.mean + (corrected.mean.clone() - self.mean.clone());
        }
        CorrectedPrediction { mixture: corrected.reweighted(), target }
    }

    /// The shift that the mixtures are to be reweighted by.
    fn shift(&self) -> Option<&Tensor<4>> {
        (self.shift.dims()[0] > 0).then_some(&self.shift)
    }

    /// The same for tensor operations.
    pub(crate) fn into_reference(self) -> reference::GuidedMixtures {
        let [means, log_weights, log_std] = self.before_guidance();
        let shift = self.shift().cloned();
        reference::GuidedMixtures {
            mixture: DataMixture(GaussianMixture { means, log_weights, log_std }),
            mean: self.mean,
            var: self.var,
            shift,
            scale: if self.pixelwise { ReweightScale::Pixel } else { ReweightScale::Image },
        }
    }

    /// The samples `[b c h w]` after all sub-steps from `x`, with mixtures that were predicted at `start`.
    pub(crate) fn ode_substeps(self, [start, x]: [&Tensor<4>; 2], substeps: Vec<OdeSubstep>) -> Tensor<4> {
        Tensor::from_dispatch(<Dispatch as StepOps>::step_ode(
            self.into_dispatch(),
            start.clone().into_dispatch(),
            x.clone().into_dispatch(),
            substeps,
        ))
    }

    /// The reweighted mixtures; their log standard deviations are `[b 1 1 1 1]`, or `[b 1 1 h w]` where pixels were reweighted by their own
    /// variance.
    fn reweighted(self) -> DataMixture {
        let (means, log_weights, log_std) = <Dispatch as StepOps>::step_reweighted(self.into_dispatch());
        DataMixture(GaussianMixture {
            means: Tensor::from_dispatch(means),
            log_weights: Tensor::from_dispatch(log_weights),
            log_std: Tensor::from_dispatch(log_std),
        })
    }
}
