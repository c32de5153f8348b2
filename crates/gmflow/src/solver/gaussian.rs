//! Steps that use the predicted mean only: the straight line, the reverse transition, and Heun's rule on them.

use super::{Context, SolverState, Span, SubStep};
use crate::mixture::DataMixture;
use crate::path::ReverseTransition;
use burn::tensor::Tensor;

/// x + (to - t) u with u = (x - x0)/t; landing on 0 this is x0 itself.
pub fn euler_step(x: &Tensor<4>, x0: &Tensor<4>, t: f64, to: f64) -> Tensor<4> {
    x.clone() * (to / t) + x0.clone() * (1.0 - to / t)
}

/// The trapezoidal rule on the velocity; the last step is Euler's, because the velocity at t = 0 is 0/0.
pub(super) fn heun_step(state: SolverState, span: Span, context: &mut Context) -> SolverState {
    let mut predict = |x: &Tensor<4>, t: f64| -> (DataMixture, Tensor<4>) {
        let mixture = (context.predict)(x, t).mixture();
        let mean = mixture.0.mean();
        (mixture, mean)
    };
    let (mixture, x0) = predict(&state.x, span.t);
    let mut x = euler_step(&state.x, &x0, span.t, span.to);
    if span.to > 0.0 {
        let (_, end) = predict(&x, span.to);
        let velocity = (state.x.clone() - x0.clone()) / span.t + (x - end) / span.to;
        x = state.x + velocity * (0.5 * (span.to - span.t));
    }
    if let Some(observe) = &mut context.observe {
        observe(&SubStep { step: span.index, substep: 0, last: true, mixture: &mixture, x0: &x0, x: &x });
    }
    SolverState { x, previous: None, history: Vec::new() }
}

/// A draw of x_lo ~ N(c1 x_hi + c2 x0, c3 + c2^2 std^2) from t down to `to`, with standard normals `noise` `[b c h w]`.
pub fn transition(x: &Tensor<4>, x0: &Tensor<4>, (t, to): (f64, f64), std: f64, noise: &Tensor<4>) -> Tensor<4> {
    let time = |t: f64| Tensor::<1>::from_floats([t as f32], &x.device());
    let ReverseTransition { c1, c2, c3 } = ReverseTransition::new(&time(to), &time(t));
    let std = (c3 + c2.clone().powi_scalar(2) * (std * std)).sqrt();
    x.clone() * c1 + x0.clone() * c2 + noise.clone() * std
}
