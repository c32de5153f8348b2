//! From a point and the x0 that is ascribed to it to an earlier time: the straight line, and the reverse transition.

use crate::path::ReverseTransition;
use burn::tensor::Tensor;

/// x + (to - t) u with u = (x - x0)/t; landing on 0 this is x0 itself.
pub fn euler_step(x: &Tensor<4>, x0: &Tensor<4>, t: f64, to: f64) -> Tensor<4> {
    x.clone() * (to / t) + x0.clone() * (1.0 - to / t)
}

/// A draw of x_lo ~ N(c1 x_hi + c2 x0, c3 + c2^2 std^2) from t down to `to`, with standard normals `noise` `[b c h w]`.
pub fn transition(x: &Tensor<4>, x0: &Tensor<4>, (t, to): (f64, f64), std: f64, noise: &Tensor<4>) -> Tensor<4> {
    let time = |t: f64| Tensor::<1>::from_floats([t as f32], &x.device());
    let ReverseTransition { c1, c2, c3 } = ReverseTransition::new(&time(to), &time(t));
    let std = (c3 + c2.clone().powi_scalar(2) * (std * std)).sqrt();
    x.clone() * c1 + x0.clone() * c2 + noise.clone() * std
}
