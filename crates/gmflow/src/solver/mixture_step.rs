//! Steps along a mixture, orders 1 and 2 (Algorithm 2 of the paper): what GM-ODE, GM-SDE and the baselines that are their special cases have
//! in common.

use super::interface::{Context, SolverState, Span, SubStep};
use super::previous::PreviousPrediction;
use super::transition::{euler_step, transition};
use crate::Result;
use crate::guidance::GuidedPrediction;
use crate::kernel::mixture::step::types::{CorrectedPrediction, OdeEnd, OdeStep, OdeSubstep};
use crate::mixture::spectral::Bases;
use crate::mixture::transport::Axes;
use crate::mixture::{DataMixture, IsoGaussian};
use crate::rng::Purpose;
use burn::tensor::Tensor;

/// How to step.
#[derive(Clone, Copy, Debug)]
pub(super) struct MixtureStep {
    pub order: u8,
    pub substeps: usize,
    pub motion: Motion,
}

/// What moves the sample.
#[derive(Clone, Copy, Debug)]
pub(super) enum Motion {
    /// Euler along the analytic velocity (x - E[x0 | x])/t.
    Velocity,
    /// The reverse transition from E[x0 | x], to which a standard deviation as a function of t is ascribed.
    Mean(fn(f64) -> f64),
    /// The reverse transition from a draw of x0, shaped by the spectrum network where `spectral` says so.
    Draw { spectral: bool },
}

/// One step in sub-steps, the posterior mixture moved to each point by (10); landing on 0, the x0 of the last sub-step is
/// the sample.
pub(super) fn step(
    state: SolverState,
    span: Span,
    context: &mut Context,
    settings: MixtureStep,
) -> Result<SolverState> {
    let second_order = context.second_order;
    let replaced = state.is_replaced();
    let (start, previous) = state.into_parts::<PreviousPrediction>();
    let previous = previous.filter(|_| settings.order > 1).map(|previous| match replaced {
        true => PreviousPrediction { mean_at_next: None, ..previous },
        false => previous,
    });
    let prediction = (context.predict)(&start, span.t);
    // Sub-steps are shown as tensor operations make them, and those alone correct a reweighting.
    let in_tensors = context.observe.is_some() || second_order.corrections > 0;
    let prediction = if in_tensors { prediction.into_reference() } else { prediction };
    let correction = previous.map(|previous| previous.correction(&start, span, second_order));
    let keep = |prediction: GuidedPrediction, start: Tensor<4>, x: Tensor<4>, mean_at_next| match settings.order {
        ..=1 => SolverState::new(x),
        _ => {
            let (t, h) = (span.t, span.t - span.to);
            SolverState::with_memory(x, PreviousPrediction { prediction, x: start, t, h, mean_at_next })
        }
    };
    if context.observe.is_none() && matches!(settings.motion, Motion::Velocity) {
        // The sample that the step ends at is where the next one wants to know of the mixture.
        let wanted = settings.order > 1 && span.to > 0.0;
        let to_next_mean = wanted.then(|| OdeSubstep::to_mean((span.t, span.to), second_order.convert));
        let times = span.substeps(settings.substeps);
        let OdeEnd { x, mean_at_next } = prediction.ode(&OdeStep { x: &start, times, correction, to_next_mean });
        return Ok(keep(prediction, start, x, to_next_mean.zip(mean_at_next)));
    }
    let prediction = prediction.guided();
    let CorrectedPrediction { mixture: data, target } = prediction.corrected(correction.as_ref());
    let mut x = start.clone();
    for i in 0..settings.substeps {
        let last = i + 1 == settings.substeps;
        let (t, to) = (span.substep(i, settings.substeps), span.substep(i + 1, settings.substeps));
        let index = span.index * settings.substeps + i;
        let mean = || if i == 0 { data.0.mean() } else { data.mean_at((&start, span.t), (&x, t)) };
        let (x0, std) = match settings.motion {
            Motion::Velocity => (mean(), None),
            Motion::Mean(std) => (mean(), Some(std(t))),
            Motion::Draw { spectral: true } => (spectral_draw(&data, &target, index, context)?, Some(0.0)),
            Motion::Draw { spectral: false } => (draw(&data, index, context), Some(0.0)),
        };
        x = match std {
            _ if to == 0.0 => x0.clone(),
            None => euler_step(&x, &x0, t, to),
            Some(std) => {
                let noise = context.draws.normal(Purpose::Transition, index, x.dims());
                transition(&x, &x0, (t, to), std, &noise)
            }
        };
        if let Some(observe) = &mut context.observe {
            observe(&SubStep { step: span.index, substep: i, last, mixture: &data, x0: &x0, x: &x });
        }
    }
    Ok(keep(prediction, start, x, None))
}

/// An independent draw of x0 at every pixel.
fn draw(data: &DataMixture, index: usize, context: &mut Context) -> Tensor<4> {
    let component = context.draws.component(index, &data.0);
    let [b, _, c, h, w] = data.0.means.dims();
    let normal = context.draws.normal(Purpose::WithinComponent, index, [b, c, h, w]);
    data.0.sample_component(&component, &normal)
}

/// A draw of x0 whose pixels are correlated by the power spectrum that the network predicts from the surrogate, (20).
fn spectral_draw(
    data: &DataMixture,
    surrogate: &IsoGaussian,
    index: usize,
    context: &mut Context,
) -> Result<Tensor<4>> {
    let Some(spectrum) = context.spectrum else { return Ok(draw(data, index, context)) };
    let white = context.draws.normal(Purpose::Spectral, index, surrogate.mean.dims());
    let basis = context.draws.basis(index);
    let bases = basis.as_ref().map_or(Bases::Shared, |basis| Bases::Given(basis, Axes::Basis));
    data.0.spectral_sample(&white, &spectrum.forward(surrogate), bases)
}
