//! The optimiser's update and that of averages as operations of a backend, and the CPU backend's implementation: in place where nothing
//! else holds a tensor. No gradients are recorded.

use crate::kernel::nn::adamw::{Update, apply};
use crate::kernel::nn::ops::values;
use crate::kernel::simd::memory::par_rows;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};

/// Updates of parameters; tensors that belong together have as many values in the same order.
#[backend_extension(Flex, Cube: cfg(feature = "gpu"))]
pub trait OptimOps: Backend {
    /// A parameter and its moments after a step.
    fn adamw_update(
        param: FloatTensor<Self>,
        exp_avg: FloatTensor<Self>,
        exp_avg_sq: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        update: Update,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// average + share (values - average).
    fn lerp(average: FloatTensor<Self>, values: FloatTensor<Self>, share: f32) -> FloatTensor<Self>;
}

type Tensor = FloatTensor<Flex>;

/// The values of a tensor that is contiguous, to be changed; shared ones are copied first.
fn values_mut(x: &mut Tensor) -> &mut [f32] {
    match x.layout().contiguous_offsets() {
        Some((start, end)) => &mut x.storage_mut::<f32>()[start..end],
        None => &mut [],
    }
}

/// Of one layout; the tensor itself where it is.
fn contiguous(x: Tensor) -> Tensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

impl OptimOps for Flex {
    fn adamw_update(
        param: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        grad: Tensor,
        update: Update,
    ) -> (Tensor, Tensor, Tensor) {
        let [mut param, mut exp_avg, mut exp_avg_sq] = [param, exp_avg, exp_avg_sq].map(contiguous);
        let grad = contiguous(grad);
        let moments = [values_mut(&mut exp_avg), values_mut(&mut exp_avg_sq)];
        apply(update, values_mut(&mut param), values(&grad), moments);
        (param, exp_avg, exp_avg_sq)
    }

    fn lerp(average: Tensor, towards: Tensor, share: f32) -> Tensor {
        let (mut average, towards) = (contiguous(average), contiguous(towards));
        let towards = values(&towards);
        par_rows(values_mut(&mut average), 1, |first, piece| {
            for (value, towards) in piece.iter_mut().zip(&towards[first..]) {
                *value += share * (towards - *value);
            }
        });
        average
    }
}
