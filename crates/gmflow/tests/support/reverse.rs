//! The reverse transition of whole mixtures, which the losses and solvers are held to: the library itself needs its parts only.

use burn::tensor::Tensor;
use gmflow::mixture::{DataMixture, GaussianMixture};
use gmflow::path::ReverseTransition;

/// The mixture q(x_lo | x_hi) of (9): means c1 x_hi + c2 mean_k, variance c3 + c2^2 std^2, weights unchanged.
pub fn reverse_transition(data: &DataMixture, x_hi: &Tensor<4>, step: &ReverseTransition) -> GaussianMixture {
    let DataMixture(GaussianMixture { means, log_weights, log_std }) = data;
    let (c2, c3) = (step.c2.clone().unsqueeze_dim::<5>(1), step.c3.clone().unsqueeze_dim::<5>(1));
    let base = (x_hi.clone() * step.c1.clone()).unsqueeze_dim::<5>(1);
    let means = means.clone() * c2.clone() + base; // [b k c h w]
    let var = (log_std.clone() * 2.0).exp() * c2.powi_scalar(2) + c3;
    // A step that lands on t = 0 from a certain prediction has no variance; its density is bounded by this floor.
    let log_std = var.clamp_min(f32::MIN_POSITIVE).log() * 0.5;
    GaussianMixture { means, log_weights: log_weights.clone(), log_std }
}
