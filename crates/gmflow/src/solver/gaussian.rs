//! The baselines that use the predicted mean only: Euler, Heun and DDPM.

use super::{Draws, SolverState, Span};
use crate::guidance::Guided;
use crate::path::ReverseTransition;
use crate::rng::Purpose;
use burn::tensor::Tensor;

type Predict<'a> = &'a mut dyn FnMut(&Tensor<4>, f64) -> Guided;

/// E[x0 | x_t] of the guided prediction.
fn mean(predict: Predict, x: &Tensor<4>, t: f64) -> Tensor<4> {
    let guided = predict(x, t);
    guided.shift.as_ref().map_or_else(|| guided.mean.clone(), |shift| guided.shifted(shift).0.mean())
}

/// x + (to - t) u with u = (x - x0)/t; landing on 0 this is x0 itself.
pub fn towards(x: &Tensor<4>, x0: &Tensor<4>, t: f64, to: f64) -> Tensor<4> {
    x.clone() * (to / t) + x0.clone() * (1.0 - to / t)
}

pub(super) fn euler_step(state: SolverState, span: Span, predict: Predict) -> SolverState {
    let x0 = mean(predict, &state.x, span.t);
    SolverState { x: towards(&state.x, &x0, span.t, span.to), previous: None }
}

/// The trapezoidal rule on the velocity; the last step is Euler's, because the velocity at t = 0 is 0/0.
pub(super) fn heun_step(state: SolverState, span: Span, predict: Predict) -> SolverState {
    let x0 = mean(predict, &state.x, span.t);
    let guess = towards(&state.x, &x0, span.t, span.to);
    if span.to == 0.0 {
        return SolverState { x: guess, previous: None };
    }
    let end = mean(predict, &guess, span.to);
    let velocity = (state.x.clone() - x0) / span.t + (guess - end) / span.to;
    SolverState { x: state.x + velocity * (0.5 * (span.to - span.t)), previous: None }
}

/// The reverse transition (9) from the predicted mean; the last step lands on the mean itself.
pub(super) fn ddpm_step(
    state: SolverState,
    span: Span,
    predict: Predict,
    draws: &mut dyn Draws,
    std: f64,
) -> SolverState {
    let x0 = mean(predict, &state.x, span.t);
    if span.to == 0.0 {
        return SolverState { x: x0, previous: None };
    }
    let noise = draws.normal(Purpose::Transition, span.index, state.x.dims());
    SolverState { x: transition(&state.x, &x0, (span.t, span.to), std, &noise), previous: None }
}

/// A draw of x_lo ~ N(c1 x_hi + c2 x0, c3 + c2^2 std^2) from t down to `to`, with standard normals `noise` `[b c h w]`.
pub fn transition(x: &Tensor<4>, x0: &Tensor<4>, (t, to): (f64, f64), std: f64, noise: &Tensor<4>) -> Tensor<4> {
    let time = |t: f64| Tensor::<1>::from_floats([t as f32], &x.device());
    let ReverseTransition { c1, c2, c3 } = ReverseTransition::new(&time(to), &time(t));
    let std = (c3 + c2.clone().powi_scalar(2) * (std * std)).sqrt();
    x.clone() * c1 + x0.clone() * c2 + noise.clone() * std
}
