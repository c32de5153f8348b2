//! The second-order change of the prediction (A.2 of the paper).

use crate::guidance::{Guided, power};
use crate::mixture::DataMixture;
use burn::tensor::Tensor;

/// A step's guided mixture, before any second-order change, and where it was predicted.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The mixture over x0.
    pub mixture: DataMixture,
    /// Where it was predicted, `[b c h w]`.
    pub x: Tensor<4>,
    /// At which time.
    pub t: f64,
    /// The length of the step that was made from there.
    pub h: f64,
}

/// The damping of the second-order change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecondOrder {
    /// The share of the variance that counts as the prediction's error.
    pub ca: f64,
    /// How much guidance adds to it.
    pub cb: f64,
}

impl Default for SecondOrder {
    fn default() -> Self {
        Self { ca: 0.005, cb: 1.0 }
    }
}

impl SecondOrder {
    /// The guidance shift plus the extrapolated change of the mean since the previous step, `[b c h w]`, for a step of length
    /// `h` from (x, t).
    ///
    /// The change is scaled by h/(2 h_prev) and damped by sqrt(max(0, 1 - ((cb w~)^2 + ca) s_c^2/h_prev^2)): where the
    /// prediction is uncertain compared with the step, the change is noise. Both shifts go into one reweighting of the
    /// unguided mixture, so errors do not accumulate.
    pub fn shift(
        &self,
        guided: &Guided,
        first: &DataMixture,
        previous: &Visit,
        (x, t, h): (&Tensor<4>, f64, f64),
    ) -> Tensor<4> {
        let moved = previous.mixture.mean_at((&previous.x, previous.t), (x, t));
        let mut noise = guided.var.clone() * self.ca;
        if let Some(shift) = &guided.shift {
            noise = noise + power(shift) * (self.cb * self.cb);
        }
        let keep = (noise / (previous.h * previous.h) * -1.0 + 1.0).clamp_min(0.0).sqrt();
        let change = (first.0.mean() - moved) * keep * (0.5 * h / previous.h);
        match &guided.shift {
            Some(shift) => shift.clone() + change,
            None => change,
        }
    }
}
