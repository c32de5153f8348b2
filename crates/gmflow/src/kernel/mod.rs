//! Row-wise and mixture kernels with their own backward pass.
//!
//! Networks call the functions of this module on tensors that are flat (`[rows channels]`) or images. Each is one pass over memory or
//! one matrix product on the CPU, choosing its vector instructions at run time; results do not depend on the number of
//! threads. Gradients are of first order. On GPUs the same functions are kernels of one source for all kinds, around the tensor library's
//! matrix products and convolutions.
//!
//! | room | what is in it |
//! |---|---|
//! | `simd` | vector instructions, lanes of pixels, elementary functions, buffers, threads |
//! | `matmul` | matrix products in f32, bf16 and 8-bit integers |
//! | `nn` | layers, convolutions, their gradients, the optimiser |
//! | `mixture` | the likelihood of mixtures, the step of a solver, the transport from normals |
//! | `gpu` | layers and likelihood on GPUs; step and transport have theirs beside the CPU's |
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::kernel::linear;
//!
//! let device = Device::flex();
//! let x = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
//! let weight = Tensor::<2>::from_floats([[3.0, 4.0], [0.5, 0.0]], &device); // [out in]
//! let y = linear(x, weight, Tensor::<1>::zeros([2], &device));
//! let values: Vec<f32> = y.into_data().iter().collect();
//! assert_eq!(values, [11.0, 0.5]);
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod device;
#[cfg(feature = "gpu")]
mod gpu;
mod matmul;
pub(crate) mod mixture;
mod nn;
pub(crate) mod simd;
#[cfg(test)]
mod tests;

pub(crate) use device::on_cpu;
pub use matmul::panels::PackedWeight;
pub use matmul::precision::{MatmulPrecision, PrecisionChoice};
pub use matmul::rates::{Bf16Products, MARGIN, Rates, bf16_products, fastest_floats, force_bf16_products, rates};
pub(crate) use mixture::transport::ops::{covariances, transport};
pub(crate) use mixture::transport::types::Direction;
pub use nn::optim::{AdamW, lerp, square_sums};
pub use simd::finite::all_finite;
pub use simd::memory::{in_pool, start_threads};

use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor};
use matmul::dense::Rows;
use mixture::nll_ops::MixtureOps;
use nn::conv::sizes::Window;
use nn::dropout::{DropoutOps, Mask};
use nn::image_ops::{GroupNormKind, ImageOps};
use nn::norm_conv_ops::{NormConvKind, NormConvOps, NormConvTensors};
use nn::ops::NetworkOps;
use nn::rows::Unary;
use std::sync::Arc;

/// Whether a network's prediction for a sample is the same to the last bit in any batch on this device. It is on CPUs with AVX-512, whose
/// matrix products add up every row in the same order. Other products choose the order by the number of rows.
pub fn is_same_in_any_batch(device: &Device) -> bool {
    on_cpu(device) && MatmulPrecision::F32.is_native()
}

/// x W^T + bias for `x` `[rows in]`, `weight` `[out in]` and `bias` `[out]`.
///
/// # Panics
/// Where the sizes do not fit each other; so do the other functions of this module.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    linear_in(x, weight, bias, MatmulPrecision::F32)
}

/// [`linear`], and its gradients, in the arithmetic that is asked for; in f32 where the processor does not have it.
///
/// # Panics
/// As [`linear`].
pub fn linear_in(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, arithmetic: MatmulPrecision) -> Tensor<2> {
    affine(x, weight, bias, Rows::Together, arithmetic)
}

/// [`linear`] with a weight that was packed for it; a row's result does not depend on the others. No gradients are recorded.
///
/// # Panics
/// As [`linear`], and where the processor does not have the panels' arithmetic.
pub fn linear_packed(x: Tensor<2>, weight: &Arc<PackedWeight>, bias: Tensor<1>) -> Tensor<2> {
    let y = <Dispatch as NetworkOps>::affine_packed(x.into_dispatch(), weight.clone(), bias.into_dispatch());
    Tensor::from_dispatch(y)
}

/// [`linear`] for a batch with one row per sample: a row's result does not depend on the others, to the last bit.
///
/// # Panics
/// As [`linear`].
pub fn linear_by_row(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    affine(x, weight, bias, Rows::Apart, MatmulPrecision::F32)
}

fn affine(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, rows: Rows, arithmetic: MatmulPrecision) -> Tensor<2> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NetworkOps>::affine(x, weight, bias, rows, arithmetic))
}

/// x sigmoid(x), element by element.
pub fn silu(x: Tensor<2>) -> Tensor<2> {
    unary(x, Unary::Silu)
}

/// The tanh approximation of GELU: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
pub fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    unary(x, Unary::GeluTanh)
}

/// Sine, element by element, for values up to 2^31.
pub fn sin(x: Tensor<2>) -> Tensor<2> {
    unary(x, Unary::Sin)
}

/// Cosine, element by element, for values up to 2^31.
pub fn cos(x: Tensor<2>) -> Tensor<2> {
    unary(x, Unary::Cos)
}

fn unary(x: Tensor<2>, kind: Unary) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as NetworkOps>::unary(x.into_dispatch(), kind))
}

/// LayerNorm without affine parameters over the channels of `x` `[b*n c]`, then (1 + scale) and shift `[b c]` of the
/// sample that the row belongs to.
pub fn modulate(x: Tensor<2>, shift: Tensor<2>, scale: Tensor<2>, eps: f64) -> Tensor<2> {
    let (x, shift, scale) = (x.into_dispatch(), shift.into_dispatch(), scale.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NetworkOps>::modulate(x, shift, scale, eps as f32))
}

/// x + gate y with `x`, `y` `[b*n c]` and the sample's `gate` `[b c]`.
pub fn gated_add(x: Tensor<2>, y: Tensor<2>, gate: Tensor<2>) -> Tensor<2> {
    let (x, y, gate) = (x.into_dispatch(), y.into_dispatch(), gate.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NetworkOps>::gated_add(x, y, gate))
}

/// Multi-head attention softmax(q k^T / sqrt(d)) v for `q`, `k`, `v` `[b*n heads*d]` of `batch` sequences.
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, batch: usize, heads: usize) -> Tensor<2> {
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NetworkOps>::multi_head_attention(q, k, v, batch, heads))
}

/// Log-softmax over the middle axis of `x` `[outer k inner]`.
pub fn log_softmax(x: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as NetworkOps>::plane_log_softmax(x.into_dispatch()))
}

/// -log sum_k exp(log_weights_k) N(target; means_k, s^2) without the constant c/2 log(2 pi), `[b n]`, for `means` `[b k*c n]`,
/// `log_weights` `[b k n]`, `log_std` `[b 1]` and `target` `[b c n]`, (6). Weights need not be normalised.
pub fn mixture_nll(means: Tensor<3>, log_weights: Tensor<3>, log_std: Tensor<2>, target: Tensor<3>) -> Tensor<2> {
    let (means, log_weights) = (means.into_dispatch(), log_weights.into_dispatch());
    let (log_std, target) = (log_std.into_dispatch(), target.into_dispatch());
    Tensor::from_dispatch(<Dispatch as MixtureOps>::mixture_nll(means, log_weights, log_std, target))
}

/// The convolution (correlation) of `x` `[b c h w]` with `weight` `[o c kh kw]`, plus `bias` `[o]`: `[b o h' w']`. `padding` zeros
/// stand above, below, left and right of the image, and h' = (h + top + bottom - kh) / stride + 1, rounded down.
///
/// # Panics
/// Where the sizes do not fit each other, the stride is 0, or the kernel is larger than the padded image.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, stride: usize, padding: [usize; 4]) -> Tensor<4> {
    conv2d_in(x, weight, bias, (stride, padding), MatmulPrecision::F32)
}

/// [`conv2d`], and its gradients, for a stride and padding, in the arithmetic that is asked for: in f32 where the processor does not have it.
///
/// In bf16 a convolution of 3x3 with stride 1 is Winograd's F(4x4, 3x3) with tiles rounded to bf16, which is off by 1.2 % of the size of the
/// result; others are sums of products of rounded numbers, off by 0.25 %.
///
/// # Panics
/// As [`conv2d`].
pub fn conv2d_in(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    (stride, padding): (usize, [usize; 4]),
    arithmetic: MatmulPrecision,
) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as ImageOps>::image_conv(x, weight, bias, Window { stride, padding }, arithmetic))
}

/// What [`norm_conv`] computes from.
#[derive(Clone, Debug)]
pub struct NormConv {
    /// `[b c h w]`.
    pub x: Tensor<4>,
    /// `[b d h w]`, the channels behind those of x.
    pub skip: Option<Tensor<4>>,
    /// Weight and bias `[c+d]` of the group norm.
    pub norm: [Tensor<1>; 2],
    /// Its groups, which divide the channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// A key for each sample, the layer's number and the rate of [`dropout`] behind SiLU.
    pub dropout: Option<(Arc<[u64]>, u64, f64)>,
    /// `[o c+d 3 3]`.
    pub weight: Tensor<4>,
    /// `[b o]`, added at every pixel.
    pub shift: Tensor<2>,
    /// `[b o h w]`, added to the result.
    pub residual: Option<Tensor<4>>,
}

/// The 3x3 convolution of silu(group norm(x and skip)), which keeps the size of the image, plus shift and residual: `[b o h w]`. Where the
/// processor has AVX512-BF16 and the image is at least 3x3 it and its gradients are computed in bf16 with sums in f32, in fewer passes over
/// memory than the parts; otherwise in f32.
///
/// # Panics
/// Where the sizes do not fit each other.
pub fn norm_conv(inputs: NormConv) -> Tensor<4> {
    let NormConv { x, skip, norm: [norm_weight, norm_bias], groups, eps, dropout, weight, shift, residual } = inputs;
    let dropout = dropout.map(|(keys, layer, rate)| Mask { keys, layer, rate });
    let kind = NormConvKind { groups, eps, dropout, has_skip: skip.is_some(), has_residual: residual.is_some() };
    let [skip, residual] = [skip, residual].map(|there| there.unwrap_or_else(|| x.clone()).into_dispatch());
    let tensors = NormConvTensors {
        x: x.into_dispatch(),
        skip,
        norm_weight: norm_weight.into_dispatch(),
        norm_bias: norm_bias.into_dispatch(),
        weight: weight.into_dispatch(),
        shift: shift.into_dispatch(),
        residual,
    };
    Tensor::from_dispatch(<Dispatch as NormConvOps>::image_norm_conv(tensors, kind))
}

/// Normalises `groups` groups of neighbouring channels of every sample of `x` `[b c h w]` to mean 0 and variance 1, then scales and
/// shifts each channel by `weight` and `bias` `[c]`; with `silu`, x sigmoid(x) follows.
///
/// # Panics
/// Where the sizes do not fit each other, or `groups` does not divide c.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    let kind = GroupNormKind { groups, eps, silu };
    Tensor::from_dispatch(<Dispatch as ImageOps>::image_group_norm(x, weight, bias, kind))
}

/// `x` `[b c h w]` plus `shift` `[b c]`, at every pixel.
///
/// # Panics
/// Where the sizes do not fit each other.
pub fn add_channels(x: Tensor<4>, shift: Tensor<2>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as ImageOps>::image_add_channels(x.into_dispatch(), shift.into_dispatch()))
}

/// `x` `[b c h w]` with every value at 0 with probability `rate`, and the others divided by 1 - `rate`. Which are dropped is a function
/// of the sample's key, the layer's number and the position in the sample, whatever the batch.
pub fn dropout(x: Tensor<4>, keys: Arc<[u64]>, layer: u64, rate: f64) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as DropoutOps>::dropout(x.into_dispatch(), Mask { keys, layer, rate }))
}

/// Every pixel of `x` `[b c h w]` as a block of 2x2: `[b c 2h 2w]`.
pub fn upsample_nearest2(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as ImageOps>::image_upsample2(x.into_dispatch()))
}
