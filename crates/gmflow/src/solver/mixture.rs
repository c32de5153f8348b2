//! Steps along a mixture: GM-ODE and GM-SDE, orders 1 and 2 (Algorithm 2 of the paper), and the baselines that are their
//! special cases.

use super::gaussian::{towards, transition};
use super::{Context, SolverState, Span, SubStep, Visit};
use crate::Result;
use crate::kernel::{OdeSubstep, mixture_ode};
use crate::mixture::spectral::Bases;
use crate::mixture::transport::Axes;
use crate::mixture::{DataMixture, GaussianMixture, IsoGaussian};
use crate::path::Evidence;
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
    let Prediction { data, surrogate, previous } = predicted(&state, span, context, settings.order);
    if let (Motion::Velocity, None, Some(x)) =
        (settings.motion, &context.observe, data.ode_substeps(&state.x, span, settings.substeps))
    {
        return Ok(SolverState { x, previous, history: Vec::new() });
    }
    let mut x = state.x.clone();
    for i in 0..settings.substeps {
        let last = i + 1 == settings.substeps;
        let (t, to) = (span.substep(i, settings.substeps), span.substep(i + 1, settings.substeps));
        let index = span.index * settings.substeps + i;
        let mean = || if i == 0 { data.0.mean() } else { data.mean_at((&state.x, span.t), (&x, t)) };
        let (x0, std) = match settings.motion {
            Motion::Velocity => (mean(), None),
            Motion::Mean(std) => (mean(), Some(std(t))),
            Motion::Draw { spectral: true } => (spectral_draw(&data, &surrogate, index, context)?, Some(0.0)),
            Motion::Draw { spectral: false } => (draw(&data, index, context), Some(0.0)),
        };
        x = match std {
            _ if to == 0.0 => x0.clone(),
            None => towards(&x, &x0, t, to),
            Some(std) => {
                let noise = context.draws.normal(Purpose::Transition, index, x.dims());
                transition(&x, &x0, (t, to), std, &noise)
            }
        };
        if let Some(observe) = &mut context.observe {
            observe(&SubStep { step: span.index, substep: i, last, mixture: &data, x0: &x0, x: &x });
        }
    }
    Ok(SolverState { x, previous, history: Vec::new() })
}

impl DataMixture {
    /// The end `[b c h w]` of all Euler sub-steps from `x` in one pass, where the mixture has the shapes that networks predict.
    fn ode_substeps(&self, x: &Tensor<4>, span: Span, n: usize) -> Option<Tensor<4>> {
        let GaussianMixture { means, log_weights, log_std } = &self.0;
        let [b, k, c, h, w] = means.dims();
        if log_std.dims() != [b, 1, 1, 1, 1] || log_weights.dims() != [b, k, 1, h, w] || x.dims() != [b, c, h, w] {
            return None;
        }
        let substeps = (0..n).map(|i| {
            let (t, to) = (span.substep(i, n), span.substep(i + 1, n));
            let Evidence { here, there, zeta } = Evidence::between(span.t, t);
            let keep = (to / t) as f32;
            // At the start nothing is known beyond the prediction.
            let known = if i == 0 { 0.0 } else { 1.0 };
            let [here, there, zeta] = [here, there, zeta].map(|x| (x * known) as f32);
            OdeSubstep { here, there, zeta, keep }
        });
        let means = means.clone().reshape([b, k * c, h * w]);
        let log_weights = log_weights.clone().reshape([b, k, h * w]);
        let x = x.clone().reshape([b, c, h * w]);
        let x = mixture_ode(means, log_weights, log_std.clone().reshape([b, 1]), x, substeps.collect());
        Some(x.reshape([b, c, h, w]))
    }
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
    /// The Gaussian that the mixture was reweighted towards: what the spectrum network sees.
    surrogate: IsoGaussian,
    /// What the next second-order step remembers: the guided mixture before this step's second-order change.
    previous: Option<Visit>,
}

fn predicted(state: &SolverState, span: Span, context: &mut Context, order: u8) -> Prediction {
    let guided = (context.predict)(&state.x, span.t);
    let first = guided.mixture();
    let h = span.t - span.to;
    let (data, shift) = match &state.previous {
        Some(previous) if order > 1 => {
            let changed = context.second_order.apply(&guided, &first, previous, (&state.x, span.t, h));
            (changed.mixture, Some(changed.shift))
        }
        _ => (first.clone(), guided.shift.clone()),
    };
    let surrogate = guided.target(shift.as_ref());
    let previous = (order > 1).then(|| Visit { mixture: first, x: state.x.clone(), t: span.t, h });
    Prediction { data, surrogate, previous }
}
