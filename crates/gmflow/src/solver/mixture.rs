//! GM-ODE and GM-SDE, orders 1 and 2 (Algorithm 2 of the paper).

use super::gaussian::{towards, transition};
use super::{Draws, Previous, SolverState, Span};
use crate::guidance::{Guided, power};
use crate::mixture::DataMixture;
use crate::rng::Purpose;
use burn::tensor::Tensor;

type Predict<'a> = &'a mut dyn FnMut(&Tensor<4>, f64) -> Guided;

/// How GM-ODE steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub order: u8,
    pub substeps: usize,
}

/// The part ca of the second-order term's noise level (A.2).
const CA: f64 = 0.005;

/// Euler sub-steps along the analytic velocity (x - E[x0 | x])/t, the posterior mean moved to each point by (10).
pub(super) fn ode_step(state: SolverState, span: Span, predict: Predict, settings: Settings) -> SolverState {
    let (data, previous) = predicted(&state, span, predict, settings.order);
    let mut x = state.x.clone();
    for i in 0..settings.substeps {
        let at = |i: usize| span.t + (span.to - span.t) * i as f64 / settings.substeps as f64;
        let (t, to) = (at(i), if i + 1 == settings.substeps { span.to } else { at(i + 1) });
        let x0 = if i == 0 { data.0.mean() } else { data.mean_at((&state.x, span.t), (&x, t)) };
        x = towards(&x, &x0, t, to);
    }
    SolverState { x, previous }
}

/// Draws x0 from the mixture and x_lo from N(c1 x_hi + c2 x0, c3); landing on 0 the draw is the sample.
pub(super) fn sde_step(
    state: SolverState,
    span: Span,
    predict: Predict,
    order: u8,
    draws: &mut dyn Draws,
) -> SolverState {
    let (data, previous) = predicted(&state, span, predict, order);
    let shape = state.x.dims();
    let uniform = draws.uniform(Purpose::Component, span.index, shape);
    let normal = draws.normal(Purpose::WithinComponent, span.index, shape);
    let x0 = data.0.sample(&uniform, &normal);
    if span.to == 0.0 {
        return SolverState { x: x0, previous };
    }
    let noise = draws.normal(Purpose::Transition, span.index, shape);
    SolverState { x: transition(&state.x, &x0, span, 0.0, &noise), previous }
}

/// The mixture to step with, and what the next second-order step remembers: the guided mixture before this step's
/// second-order change.
fn predicted(state: &SolverState, span: Span, predict: Predict, order: u8) -> (DataMixture, Option<Previous>) {
    let guided = predict(&state.x, span.t);
    let first = guided.mixture();
    if order == 1 {
        return (first, None);
    }
    let h = span.t - span.to;
    let data = match &state.previous {
        Some(previous) => guided.shifted(&second_order_shift(&guided, &first, previous, state, span)),
        None => first.clone(),
    };
    (data, Some(Previous { mixture: first, x: state.x.clone(), t: span.t, h }))
}

/// The guidance shift plus the extrapolated change of the mean since the previous step (A.2).
///
/// The change is scaled by h/(2 h_prev) and damped by sqrt(max(0, 1 - (w~^2 + ca) s_c^2/h_prev^2)): where the prediction is
/// uncertain compared with the step, the change is noise. Both shifts go into one reweighting, so errors do not add up.
fn second_order_shift(
    guided: &Guided,
    first: &DataMixture,
    previous: &Previous,
    state: &SolverState,
    span: Span,
) -> Tensor<4> {
    let moved = previous.mixture.mean_at((&previous.x, previous.t), (&state.x, span.t));
    let scale2 = guided.shift.as_ref().map(|shift| power(shift)); // w~^2 s_c^2, [b 1 1 1]
    let noise = guided.var.clone() * CA + scale2.unwrap_or_else(|| guided.var.clone() * 0.0);
    let keep = (noise / (previous.h * previous.h) * -1.0 + 1.0).clamp_min(0.0).sqrt();
    let change = (first.0.mean() - moved) * keep * (0.5 * (span.t - span.to) / previous.h);
    match &guided.shift {
        Some(shift) => shift.clone() + change,
        None => change,
    }
}
