//! The update of AdamW on plain numbers, in one pass over memory.

use crate::kernel::simd::arch::{Loop, vectorised};
use rayon::prelude::*;

/// The scalars of one update.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// What is left of the parameter after weight decay.
    pub(crate) keep: f32,
    /// The learning rate with the first moment's correction.
    pub(crate) rate: f32,
    /// The root of the second moment's correction.
    pub(crate) root: f32,
    pub(crate) eps: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    /// 1 - beta1.
    pub(crate) gain1: f32,
    /// 1 - beta2.
    pub(crate) gain2: f32,
    pub(crate) grad_scale: f32,
}

/// The update of a parameter and of its first and second moments, all of one length.
pub(crate) fn apply(update: Update, param: &mut [f32], grad: &[f32], [exp_avg, exp_avg_sq]: [&mut [f32]; 2]) {
    const TASK: usize = 16 * 1024;
    let moments = exp_avg.par_chunks_mut(TASK).zip(exp_avg_sq.par_chunks_mut(TASK));
    let values = param.par_chunks_mut(TASK).zip(grad.par_chunks(TASK));
    values.zip(moments).for_each(|((param, grad), (m, v))| vectorised(Piece { update, param, grad, m, v }));
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
