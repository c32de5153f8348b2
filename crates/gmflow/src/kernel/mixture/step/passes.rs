//! The passes of a solver's step on tensors. Nothing here records gradients.

use crate::kernel::mixture::step::ops::{self as step_ops, Before, StepOps};
use crate::kernel::mixture::step::types::{OdeSubstep, SecondOrderRule, ShiftRule};
use crate::kernel::simd::channels;
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// Times are at least this, so that a velocity's logarithm of a standard deviation can be turned into that of x0.
const SHORTEST_TIME: f32 = 1e-6;

/// Mixtures over the velocity, as a network predicts them, of b samples or, with guidance, of the doubled batch [conditional,
/// unconditional].
#[derive(Clone, Debug)]
struct Velocity {
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
    fn into_dispatch(self) -> step_ops::Velocity<Dispatch> {
        step_ops::Velocity {
            means: self.means.into_dispatch(),
            log_weights: self.log_weights.into_dispatch(),
            log_std: self.log_std.into_dispatch(),
            t: self.t,
        }
    }
}

/// A network's predictions and what guidance asks for.
#[derive(Clone, Debug)]
pub(crate) struct GuidanceInputs {
    velocity: Velocity,
    /// Where they were made `[b c h w]`.
    x: Tensor<4>,
    rule: ShiftRule,
}

impl GuidanceInputs {
    /// Whether there are passes for mixtures of so many channels.
    pub(crate) fn has_passes(channels: usize) -> bool {
        channels::COMPILED.contains(&channels)
    }

    /// From velocities `[b k c h w]`, `[b k 1 h w]`, `[b 1 1 1 1]` at `x` `[b c h w]` and t.
    pub(crate) fn new([means, log_weights, log_std]: [Tensor<5>; 3], x: &Tensor<4>, t: f32, rule: ShiftRule) -> Self {
        Self { velocity: Velocity { means, log_weights, log_std, t: t.max(SHORTEST_TIME) }, x: x.clone(), rule }
    }

    fn dispatch(&self) -> step_ops::GuidanceInputs<Dispatch> {
        let Self { velocity, x, rule } = self.clone();
        step_ops::GuidanceInputs { velocity: velocity.into_dispatch(), x: x.into_dispatch(), rule }
    }

    /// With what the passes found.
    fn shifted(
        &self,
        [mean, var, shift, power]: [Tensor<4>; 4],
        centred: Tensor<1>,
        pixelwise: bool,
    ) -> GuidedMixtures {
        GuidedMixtures {
            velocity: self.velocity.clone(),
            centred,
            origin: self.x.clone(),
            mean,
            var,
            shift,
            power,
            pixelwise,
        }
    }

    /// The mixtures' means over x0 and the shifts of guidance, which are divided by the pixel's own variance where `pixelwise` says so.
    pub(crate) fn guided(&self, pixelwise: bool) -> GuidedMixtures {
        let (mean, var, shift, power, centred) = <Dispatch as StepOps>::step_guide(self.dispatch());
        let parts = [mean, var, shift, power].map(Tensor::from_dispatch);
        let all = self.shifted(parts, Tensor::from_dispatch(centred), pixelwise);
        match self.rule {
            // What has moved the components is no shift that they are still to be reweighted by.
            ShiftRule::Extrapolate { .. } => GuidedMixtures {
                power: all.power.zeros_like(),
                shift: Tensor::zeros([0; 4], &all.shift.device()),
                ..all.clone().moved(&all.shift)
            },
            _ => all,
        }
    }

    /// A whole step of GM-ODE at once: the samples `[b c h w]` after all sub-steps, with the change from where the prediction before would have
    /// the mean now, `[b c h w]`, and what the sub-step `ahead` makes of them, as [`GuidedMixtures::ode`] does. None where guidance extrapolates or
    /// the change moves the mixture: those are passes of their own.
    pub(crate) fn step(
        &self,
        pixelwise: bool,
        before: Option<(&Tensor<4>, SecondOrderRule)>,
        substeps: Vec<OdeSubstep>,
        ahead: Option<OdeSubstep>,
    ) -> Option<(Tensor<4>, Option<Tensor<4>>)> {
        if matches!(self.rule, ShiftRule::Extrapolate { .. }) || before.is_some_and(|(_, rule)| rule.alone) {
            return None;
        }
        let before = before.map_or(Before::Nothing, |(mean, rule)| Before::Step(mean.clone().into_dispatch(), rule));
        let (x, foreseen) = <Dispatch as StepOps>::step_at_once(self.dispatch(), pixelwise, before, substeps, ahead);
        Some((Tensor::from_dispatch(x), ahead.map(|_| Tensor::from_dispatch(foreseen))))
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
    pub(crate) origin: Tensor<4>,
    /// The mean of the mixtures over x0 `[b c h w]`.
    pub(crate) mean: Tensor<4>,
    /// Their variance averaged over pixels `[b 1 1 1]`.
    pub(crate) var: Tensor<4>,
    /// `[b c h w]`, or nothing at all.
    pub(crate) shift: Tensor<4>,
    /// The mean square of the shift `[b 1 1 1]`.
    pub(crate) power: Tensor<4>,
    /// Whether a shift is divided by the pixel's own variance along it, and not by `var`.
    pub(crate) pixelwise: bool,
}

impl GuidedMixtures {
    /// The same with all components moved by `change` `[b c h w]`.
    fn moved(self, change: &Tensor<4>) -> Self {
        Self { origin: self.origin + change.clone(), mean: self.mean + change.clone(), ..self }
    }

    /// The mixtures over x0 before they are reweighted: means `[b k c h w]`, log weights `[b k 1 h w]` and log standard deviations
    /// `[b 1 1 1 1]`.
    pub(crate) fn unshifted(&self) -> [Tensor<5>; 3] {
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

    /// The same with the second-order change, of the components or of the shift, from `before` `[b c h w]`, where the prediction before would
    /// have the mean now.
    pub(crate) fn changed(self, before: Tensor<4>, rule: SecondOrderRule) -> Self {
        let (now, before) = (self.clone().into_dispatch(), before.into_dispatch());
        let (shift, power) = <Dispatch as StepOps>::step_second_order(now, before, rule);
        let shift = Tensor::from_dispatch(shift);
        match rule.alone {
            true => self.moved(&shift),
            false => Self { shift, power: Tensor::from_dispatch(power), ..self },
        }
    }

    /// The samples `[b c h w]` after all sub-steps from `x`, with mixtures that were predicted at `start`.
    pub(crate) fn ode(self, [start, x]: [&Tensor<4>; 2], substeps: Vec<OdeSubstep>) -> Tensor<4> {
        Tensor::from_dispatch(<Dispatch as StepOps>::step_ode(
            self.into_dispatch(),
            start.clone().into_dispatch(),
            x.clone().into_dispatch(),
            substeps,
        ))
    }

    /// Means `[b k c h w]`, log weights `[b k 1 h w]` and log standard deviations of the reweighted mixtures: `[b 1 1 1 1]`, or `[b 1 1 h w]`
    /// where pixels were reweighted by their own variance.
    pub(crate) fn reweighted(self) -> [Tensor<5>; 3] {
        let (means, log_weights, log_std) = <Dispatch as StepOps>::step_reweighted(self.into_dispatch());
        [Tensor::from_dispatch(means), Tensor::from_dispatch(log_weights), Tensor::from_dispatch(log_std)]
    }
}
