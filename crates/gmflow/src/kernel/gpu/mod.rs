//! The kernels for GPUs: one source for CUDA, Vulkan and WebGPU, compiled when it first runs. Matrix products, convolutions and sums are
//! the tensor library's.

#![allow(
    clippy::manual_clamp,
    clippy::manual_is_multiple_of,
    clippy::needless_range_loop,
    reason = "kernels are written in the part of Rust that they may use"
)]

pub(crate) mod args;
mod mixture;
mod nn;

use crate::kernel::mixture::sizes::Sizes;
use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::{BufferArg, CubeCount, CubeDim};
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Below every log probability; kernels have no infinity.
pub(crate) const LOWEST: f32 = -1e30;

/// A tensor for results, beside `like`.
pub(crate) fn empty(like: &CubeTensor, shape: impl Into<Vec<usize>>) -> CubeTensor {
    let shape: Vec<usize> = shape.into();
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), like.dtype)
}

/// An input of a kernel.
pub(crate) fn input(x: &CubeTensor) -> BufferArg {
    into_contiguous(x.clone()).into_buffer_arg()
}

/// A kernel's result.
pub(crate) fn output(x: &CubeTensor) -> BufferArg {
    x.clone().into_buffer_arg()
}

/// The grid for `threads` threads.
pub(crate) fn grid(x: &CubeTensor, threads: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(&x.client, threads);
    (calculate_cube_count_elemwise(&x.client, threads, dim), dim)
}

/// The sizes of a tensor.
pub(crate) fn sizes<const D: usize>(x: &CubeTensor) -> [usize; D] {
    let shape = x.shape();
    std::array::from_fn(|i| shape[i])
}

/// The values of a tensor, on the host.
pub(crate) fn host(x: CubeTensor) -> Vec<f32> {
    let data = burn_cubecl::ops::into_data_sync(x);
    data.as_slice::<f32>().map_or_else(|_| data.iter::<f32>().collect(), <[f32]>::to_vec)
}

/// Components, channels and pixels of `[b k c h w]`.
pub(crate) fn mixture_sizes(means: &CubeTensor) -> Sizes {
    let [_, k, c, h, w] = sizes(means);
    Sizes { k, c, n: h * w }
}

/// The mean over the last axis.
pub(crate) fn mean_of(x: CubeTensor, axis: usize) -> CubeTensor {
    CubeBackend::float_mean_dim(x, axis)
}
