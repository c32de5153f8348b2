//! The optimiser's update of one parameter, in one pass over memory.

use super::arch::{Loop, vectorised};
use rayon::prelude::*;

/// AdamW with PyTorch's semantics: decoupled weight decay, bias-corrected moments, epsilon outside the root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

impl AdamW {
    /// Updates a parameter and its moments in place. `step` counts from 1; the gradient is multiplied by `grad_scale`, for
    /// clipping, on the way.
    ///
    /// # Panics
    /// Where the slices differ in length.
    pub fn update(
        &self,
        step: u64,
        grad_scale: f32,
        param: &mut [f32],
        grad: &[f32],
        exp_avg: &mut [f32],
        exp_avg_sq: &mut [f32],
    ) {
        const TASK: usize = 16 * 1024;
        assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3], "adamw: lengths of the slices");
        let t = step as f64;
        let update = Update {
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            rate: (self.lr / (1.0 - self.beta1.powf(t))) as f32,
            root: (1.0 / (1.0 - self.beta2.powf(t)).sqrt()) as f32,
            eps: self.eps as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            gain1: (1.0 - self.beta1) as f32,
            gain2: (1.0 - self.beta2) as f32,
            grad_scale,
        };
        let moments = exp_avg.par_chunks_mut(TASK).zip(exp_avg_sq.par_chunks_mut(TASK));
        let values = param.par_chunks_mut(TASK).zip(grad.par_chunks(TASK));
        values.zip(moments).for_each(|((param, grad), (m, v))| vectorised(Piece { update, param, grad, m, v }));
    }
}

/// The scalars of one update.
#[derive(Clone, Copy)]
struct Update {
    keep: f32,
    rate: f32,
    root: f32,
    eps: f32,
    beta1: f32,
    beta2: f32,
    gain1: f32,
    gain2: f32,
    grad_scale: f32,
}

struct Piece<'a> {
    update: Update,
    param: &'a mut [f32],
    grad: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Loop for Piece<'_> {
    #[inline(always)]
    fn run(self) {
        let u = self.update;
        let moments = self.m.iter_mut().zip(self.v.iter_mut());
        for ((param, &grad), (m, v)) in self.param.iter_mut().zip(self.grad).zip(moments) {
            let g = grad * u.grad_scale;
            *m = u.beta1 * *m + u.gain1 * g;
            *v = u.beta2 * *v + u.gain2 * g * g;
            *param = *param * u.keep - u.rate * *m / (v.sqrt() * u.root + u.eps);
        }
    }
}
