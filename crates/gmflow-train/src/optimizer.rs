//! The state of AdamW, with PyTorch's semantics, and the factor of clipping.

use burn::tensor::Tensor;
use gmflow::kernel;

use crate::config::TrainConfig;
use crate::params::Values;

/// The state of AdamW: first and second moments in the network's parameter order, and the number of steps taken.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// First moments.
    pub exp_avg: Values,
    /// Second moments.
    pub exp_avg_sq: Values,
    /// Steps taken.
    pub step: u64,
}

impl AdamW {
    /// Zero moments beside such parameters.
    pub fn new(parameters: &Values) -> Self {
        let zeros = || parameters.iter().map(Tensor::zeros_like).collect();
        Self { exp_avg: zeros(), exp_avg_sq: zeros(), step: 0 }
    }

    /// Counts one more step and gives its rule.
    pub fn begin(&mut self, train: &TrainConfig, lr: f64) -> kernel::AdamW {
        self.step += 1;
        let [beta1, beta2] = train.betas;
        kernel::AdamW { lr, beta1, beta2, eps: train.eps, weight_decay: train.weight_decay }
    }
}

/// The factor that brings a gradient of this norm below `max_norm`, with PyTorch's 1e-6 in the denominator.
pub fn clip_factor(norm: f64, max_norm: Option<f64>) -> f64 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0))
}
