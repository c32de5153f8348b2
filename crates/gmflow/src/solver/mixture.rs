//! Steps along a mixture: GM-ODE and GM-SDE, orders 1 and 2 (Algorithm 2 of the paper), and the baselines that are their
//! special cases.

use super::gaussian::{euler_step, transition};
use super::second_order::{PreviousPrediction, SecondOrderMode};
use super::{Context, SolverState, Span, SubStep, substep};
use crate::Result;
use crate::guidance::GuidedPrediction;
use crate::kernel::{GuidedMixtures, OdeSubstep};
use crate::mixture::spectral::Bases;
use crate::mixture::transport::Axes;
use crate::mixture::{DataMixture, GaussianMixture, IsoGaussian};
use crate::rng::Purpose;
use burn::tensor::Tensor;

/// How to step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
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
pub(super) fn step(state: SolverState, span: Span, context: &mut Context, settings: Settings) -> Result<SolverState> {
    let SolverState { x: start, previous, .. } = state;
    let guided = (context.predict)(&start, span.t);
    let previous = previous.filter(|_| settings.order > 1);
    let keep = |guided: GuidedPrediction, start: Tensor<4>, foreseen: Option<(OdeSubstep, Tensor<4>)>| {
        (settings.order > 1).then(|| PreviousPrediction {
            guided,
            x: start,
            t: span.t,
            h: span.t - span.to,
            foreseen,
        })
    };
    // The passes over a prediction can do all that is asked for, where nobody wants to know of sub-steps.
    let at_once = context.observe.is_none() && context.second_order.corrections == 0;
    if at_once && matches!(settings.motion, Motion::Velocity) {
        // The sample that the step ends at is where the next one wants to know of the mixture.
        let ahead = (settings.order > 1 && span.to > 0.0).then(|| context.second_order.foresight(span.t, span.to));
        let stepped = || {
            let before = match &previous {
                Some(previous) => Some(previous.change(&start, span, context.second_order)?),
                None => None,
            };
            let before = before.as_ref().map(|(mean, rule)| (mean, *rule));
            guided.ode(&start, before, ode_substeps(span, settings.substeps), ahead)
        };
        if let Some((x, foreseen)) = stepped() {
            let previous = keep(guided, start, ahead.zip(foreseen));
            return Ok(SolverState { x, previous, history: Vec::new() });
        }
    }
    let passes = if at_once { passes(&guided, &start, previous.as_ref(), span, context) } else { None };
    let Prediction { data, surrogate } = match passes {
        Some(mixture) => {
            let mut surrogate = guided.target((mixture.shift.dims()[0] > 0).then_some(&mixture.shift));
            if context.second_order.carry == SecondOrderMode::Translate {
                surrogate.mean = surrogate.mean + (mixture.mean.clone() - guided.mean().clone());
            }
            let [means, log_weights, log_std] = mixture.reweighted();
            Prediction { data: DataMixture(GaussianMixture { means, log_weights, log_std }), surrogate }
        }
        None => predicted(&guided, &start, previous.as_ref(), span, context),
    };
    let mut x = start.clone();
    for i in 0..settings.substeps {
        let last = i + 1 == settings.substeps;
        let (t, to) = (span.substep(i, settings.substeps), span.substep(i + 1, settings.substeps));
        let index = span.index * settings.substeps + i;
        let mean = || if i == 0 { data.0.mean() } else { data.mean_at((&start, span.t), (&x, t)) };
        let (x0, std) = match settings.motion {
            Motion::Velocity => (mean(), None),
            Motion::Mean(std) => (mean(), Some(std(t))),
            Motion::Draw { spectral: true } => (spectral_draw(&data, &surrogate, index, context)?, Some(0.0)),
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
    Ok(SolverState { x, previous: keep(guided, start, None), history: Vec::new() })
}

/// The prediction with its second-order change, where there are passes over it.
fn passes(
    guided: &GuidedPrediction,
    x: &Tensor<4>,
    previous: Option<&PreviousPrediction>,
    span: Span,
    context: &Context,
) -> Option<GuidedMixtures> {
    let mixture = guided.passes()?.clone();
    let Some(previous) = previous else { return Some(mixture) };
    let (before, rule) = previous.change(x, span, context.second_order)?;
    Some(mixture.changed(before, rule))
}

/// The numbers of all Euler sub-steps of a step.
fn ode_substeps(span: Span, n: usize) -> Vec<OdeSubstep> {
    let nth = |i: usize| {
        let (t, to) = (span.substep(i, n), span.substep(i + 1, n));
        // At the start nothing is known beyond the prediction.
        substep((span.t, t), i > 0, to / t)
    };
    (0..n).map(nth).collect()
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

/// What a step goes by.
struct Prediction {
    /// The mixture to step with.
    data: DataMixture,
    /// The Gaussian that the mixture was reweighted towards and moved with: what the spectrum network sees.
    surrogate: IsoGaussian,
}

/// The prediction with its second-order change, as tensors.
fn predicted(
    guided: &GuidedPrediction,
    x: &Tensor<4>,
    previous: Option<&PreviousPrediction>,
    span: Span,
    context: &Context,
) -> Prediction {
    let first = guided.mixture();
    let Some(previous) = previous else {
        return Prediction { data: first, surrogate: guided.target(guided.shift()) };
    };
    let here = (x, span.t, span.t - span.to);
    let changed = context.second_order.apply(guided, &first, &previous.visit(), here);
    Prediction { data: changed.mixture, surrogate: changed.target }
}
