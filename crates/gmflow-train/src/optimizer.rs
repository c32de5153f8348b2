//! AdamW with PyTorch's semantics, and the norm that clipping needs.

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
    beta1: f32,
    beta2: f32,
    eps: f32,
    decay: f32,
    step_size: f32,
    inverse_root_correction: f32,
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
        let power = self.step as f64;
        let [beta1, beta2] = train.betas;
        AdamWStep {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: train.eps as f32,
            decay: (1.0 - lr * train.weight_decay) as f32,
            step_size: (lr / (1.0 - beta1.powf(power))) as f32,
            inverse_root_correction: (1.0 / (1.0 - beta2.powf(power)).sqrt()) as f32,
            gradient_scale: gradient_scale as f32,
        }
    }

    /// Moves parameter `index`; an empty gradient leaves it alone, as PyTorch does without a gradient.
    pub fn apply(&mut self, step: &AdamWStep, index: usize, values: &mut [f32], gradient: &[f32]) {
        let (Some(first), Some(second)) = (self.exp_avg.get_mut(index), self.exp_avg_sq.get_mut(index)) else {
            return;
        };
        if gradient.is_empty() {
            return;
        }
        values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
            .for_each(|((values, gradient), (first, second))| step.apply(values, gradient, first, second));
    }
}

impl AdamWStep {
    fn apply(&self, values: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
        let moments = first.iter_mut().zip(second);
        for ((value, gradient), (m, v)) in values.iter_mut().zip(gradient).zip(moments) {
            let g = gradient * self.gradient_scale;
            *m += (1.0 - self.beta1) * (g - *m);
            *v = self.beta2 * *v + (1.0 - self.beta2) * g * g;
            // PyTorch adds eps after the root and its bias correction.
            let denominator = v.sqrt() * self.inverse_root_correction + self.eps;
            *value = *value * self.decay - self.step_size * (*m / denominator);
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
