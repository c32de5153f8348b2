//! AdamW with PyTorch's semantics, and the norm that clipping needs.

use gmflow::kernel;
use rayon::prelude::*;

use crate::config::TrainConfig;
use crate::params::Buffers;

/// Elements that one task handles; fixed, so that sums have one order whatever the number of threads.
const CHUNK: usize = 1 << 14;

/// The state of AdamW: first and second moments in the network's parameter order, and the number of steps taken.
#[derive(Clone, Debug)]
pub struct AdamW {
    /// First moments.
    pub exp_avg: Buffers,
    /// Second moments.
    pub exp_avg_sq: Buffers,
    /// Steps taken.
    pub step: u64,
}

/// The numbers of one AdamW step.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    rule: kernel::AdamW,
    gradient_scale: f32,
}

impl AdamW {
    /// Zero moments for parameters of these sizes.
    pub fn new(parameters: &Buffers) -> Self {
        let zeros = || parameters.iter().map(|values| vec![0.0; values.len()]).collect();
        Self { exp_avg: zeros(), exp_avg_sq: zeros(), step: 0 }
    }

    /// Counts one more step and gives its numbers; gradients are multiplied by `gradient_scale`.
    pub fn begin(&mut self, train: &TrainConfig, lr: f64, gradient_scale: f64) -> AdamWStep {
        self.step += 1;
        let [beta1, beta2] = train.betas;
        let (eps, weight_decay) = (train.eps, train.weight_decay);
        let rule = kernel::AdamW { lr, beta1, beta2, eps, weight_decay };
        AdamWStep { rule, gradient_scale: gradient_scale as f32 }
    }

    /// Moves parameter `index`; an empty gradient leaves it alone, as PyTorch does without a gradient.
    pub fn apply(&mut self, step: &AdamWStep, index: usize, values: &mut [f32], gradient: &[f32]) {
        let (Some(first), Some(second)) = (self.exp_avg.get_mut(index), self.exp_avg_sq.get_mut(index)) else {
            return;
        };
        if !gradient.is_empty() {
            step.rule.update(self.step, step.gradient_scale, values, gradient, first, second);
        }
    }
}

/// The sum of squares of each buffer, summed in f64 in a fixed order.
pub fn square_sums(gradients: &Buffers) -> Vec<f64> {
    let chunk_sum = |chunk: &[f32]| chunk.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
    gradients
        .iter()
        .map(|values| values.par_chunks(CHUNK).map(chunk_sum).collect::<Vec<f64>>().iter().sum())
        .collect()
}

/// The factor that brings a gradient of this norm below `max_norm`, with PyTorch's 1e-6 in the denominator.
pub fn clip_factor(norm: f64, max_norm: Option<f64>) -> f64 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0))
}
