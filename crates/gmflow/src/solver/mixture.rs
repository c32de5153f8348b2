//! GM-ODE and GM-SDE, orders 1 and 2 (Algorithm 2 of the paper).

use super::gaussian::{towards, transition};
use super::{Draws, SecondOrder, SolverState, Span, Visit};
use crate::guidance::Guided;
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
    SolverState { x: transition(&state.x, &x0, (span.t, span.to), 0.0, &noise), previous }
}

/// The mixture to step with, and what the next second-order step remembers: the guided mixture before this step's
/// second-order change.
fn predicted(state: &SolverState, span: Span, predict: Predict, order: u8) -> (DataMixture, Option<Visit>) {
    let guided = predict(&state.x, span.t);
    let first = guided.mixture();
    if order == 1 {
        return (first, None);
    }
    let h = span.t - span.to;
    let data = match &state.previous {
        Some(previous) => {
            let here = (&state.x, span.t, h);
            guided.shifted(&SecondOrder::default().shift(&guided, &first, previous, here))
        }
        None => first.clone(),
    };
    (data, Some(Visit { mixture: first, x: state.x.clone(), t: span.t, h }))
}
