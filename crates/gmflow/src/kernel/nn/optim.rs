//! The optimiser: AdamW, moving averages and norms of gradients.

use crate::kernel::nn::adamw::{Update, apply};
use crate::kernel::nn::optim_ops::OptimOps;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
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
        [exp_avg, exp_avg_sq]: [&mut [f32]; 2],
    ) {
        assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3], "adamw: lengths of the slices");
        apply(self.at(step, grad_scale), param, grad, [exp_avg, exp_avg_sq]);
    }

    /// The same of tensors on any device, in place where nothing else holds them; returns the parameter and its moments. None records
    /// gradients.
    ///
    /// # Panics
    /// Where the numbers of values differ.
    pub fn update_tensors(
        &self,
        step: u64,
        grad_scale: f32,
        param: Tensor<1>,
        grad: Tensor<1>,
        [exp_avg, exp_avg_sq]: [Tensor<1>; 2],
    ) -> (Tensor<1>, [Tensor<1>; 2]) {
        let sizes = [&grad, &exp_avg, &exp_avg_sq].map(Tensor::dims);
        assert_eq!(sizes, [param.dims(); 3], "adamw: numbers of values");
        let (param, exp_avg, exp_avg_sq) = <Dispatch as OptimOps>::adamw_update(
            param.into_dispatch(),
            exp_avg.into_dispatch(),
            exp_avg_sq.into_dispatch(),
            grad.into_dispatch(),
            self.at(step, grad_scale),
        );
        (Tensor::from_dispatch(param), [exp_avg, exp_avg_sq].map(Tensor::from_dispatch))
    }

    /// The scalars of a step.
    fn at(&self, step: u64, grad_scale: f32) -> Update {
        let t = step as f64;
        Update {
            keep: (1.0 - self.lr * self.weight_decay) as f32,
            rate: (self.lr / (1.0 - self.beta1.powf(t))) as f32,
            root: (1.0 / (1.0 - self.beta2.powf(t)).sqrt()) as f32,
            eps: self.eps as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            gain1: (1.0 - self.beta1) as f32,
            gain2: (1.0 - self.beta2) as f32,
            grad_scale,
        }
    }
}

/// Moves `average` towards `values` by `share` of the way, in place where nothing else holds it. Neither records gradients.
///
/// # Panics
/// Where the numbers of values differ.
pub fn lerp(average: Tensor<1>, values: Tensor<1>, share: f32) -> Tensor<1> {
    assert_eq!(average.dims(), values.dims(), "lerp: numbers of values");
    Tensor::from_dispatch(<Dispatch as OptimOps>::lerp(average.into_dispatch(), values.into_dispatch(), share))
}

/// The sum of squares of each tensor, and the tensors again. On the CPU it is taken in f64 and in an order that does not depend on the
/// number of threads, on GPUs in f32. No gradients are recorded.
pub fn square_sums(tensors: Vec<Tensor<1>>) -> (Vec<Tensor<1>>, Vec<f64>) {
    if tensors.iter().all(|x| crate::kernel::device::on_cpu(&x.device())) {
        // Taken and given back, so that a tensor that nothing else holds is not copied.
        return tensors.into_iter().map(square_sum).unzip();
    }
    let sum =
        |x: &Tensor<1>| if x.dims() == [0] { Tensor::zeros([1], &x.device()) } else { (x.clone() * x.clone()).sum() };
    let sums = Tensor::cat(tensors.iter().map(sum).collect(), 0).into_data(); // one transfer for all
    (tensors, sums.iter::<f64>().collect())
}

/// The same of one tensor on the CPU.
fn square_sum(x: Tensor<1>) -> (Tensor<1>, f64) {
    /// Values that one task sums up; fixed, so that sums have one order.
    const CHUNK: usize = 1 << 14;
    let chunk_sum = |chunk: &[f32]| chunk.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
    let device = x.device();
    let data = x.into_data();
    let sum = match data.as_slice::<f32>() {
        Ok(values) => values.par_chunks(CHUNK).map(chunk_sum).collect::<Vec<f64>>().iter().sum(),
        Err(_) => data.iter::<f64>().map(|value| value * value).sum(),
    };
    (Tensor::from_data(data, &device), sum)
}
