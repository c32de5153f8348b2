//! The kernels of networks in the tensor library's own operations: what GPUs run, and what the fused ones are tested against.

use super::{Arithmetic, Unary, Window};
use burn::tensor::module::{self, interpolate};
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions, PadMode};
use burn::tensor::{DType, Tensor, activation};

/// [`linear`], its product in the arithmetic that is asked for, or in f32 where the device does not have it.
pub fn linear_in(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, arithmetic: Arithmetic) -> Tensor<2> {
    match arithmetic {
        Arithmetic::Bf16 if arithmetic.is_available_on(&x.device()) => linear_cast(x, weight.cast(DType::BF16), bias),
        _ => linear(x, weight, bias),
    }
}

/// [`linear`] with a weight in bf16.
pub fn linear_cast(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    x.cast(DType::BF16).matmul(weight.transpose()).cast(DType::F32) + bias.unsqueeze() // [rows out]
}

/// A function of every element.
pub fn unary(x: Tensor<2>, kind: Unary) -> Tensor<2> {
    match kind {
        Unary::Silu => silu(x),
        Unary::GeluTanh => gelu_tanh(x),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
    }
}

/// Convolution of `x` `[b c h w]` with `weight` `[o c kh kw]`.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, window: Window) -> Tensor<4> {
    let Window { stride, padding: [top, bottom, left, right] } = window;
    let even = top == bottom && left == right;
    let (x, padding) =
        if even { (x, [top, left]) } else { (x.pad((left, right, top, bottom), PadMode::Constant(0.0)), [0, 0]) };
    module::conv2d(x, weight, Some(bias), ConvOptions::new([stride; 2], padding, [1; 2], 1))
}

/// Group norm of `x` `[b c h w]`, and SiLU where it is asked for.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let [b, c, h, w] = x.dims();
    let rows = x.reshape([b * groups, c / groups * h * w]);
    let centred = rows.clone() - rows.mean_dim(1);
    let var = centred.clone().powi_scalar(2).mean_dim(1); // [b*groups 1]
    let normal = (centred / (var + eps).sqrt()).reshape([b, c, h, w]);
    let y = normal * weight.reshape([1, c, 1, 1]) + bias.reshape([1, c, 1, 1]);
    if silu { activation::silu(y) } else { y }
}

/// `x` `[b c h w]` plus `shift` `[b c]`.
pub fn add_channels(x: Tensor<4>, shift: Tensor<2>) -> Tensor<4> {
    let [b, c] = shift.dims();
    x + shift.reshape([b, c, 1, 1])
}

/// Every pixel four times.
pub fn upsample_nearest2(x: Tensor<4>) -> Tensor<4> {
    let [_, _, h, w] = x.dims();
    interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([2 * h, 2 * w]))
}

/// x W^T + bias for `x` `[rows in]`, `weight` `[out in]` and `bias` `[out]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    x.matmul(weight.transpose()) + bias.unsqueeze() // [rows out]
}

/// x sigmoid(x), element by element.
pub fn silu(x: Tensor<2>) -> Tensor<2> {
    activation::silu(x)
}

/// The tanh approximation of GELU: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
pub fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044715) * 0.797_884_56;
    x * (inner.tanh() + 1.0) * 0.5
}

/// LayerNorm without affine parameters over the channels of `x` `[b*n c]`, then (1 + scale) and shift `[b c]` of the
/// sample that the row belongs to.
pub fn modulate(x: Tensor<2>, shift: Tensor<2>, scale: Tensor<2>, eps: f64) -> Tensor<2> {
    let [rows, c] = x.dims();
    let [b, _] = shift.dims();
    let centred = x.clone() - x.mean_dim(1);
    let var = centred.clone().powi_scalar(2).mean_dim(1); // [b*n 1]
    let normal = (centred / (var + eps).sqrt()).reshape([b, rows / b, c]); // [b n c]
    let y = normal * (scale + 1.0).unsqueeze_dim::<3>(1) + shift.unsqueeze_dim::<3>(1);
    y.reshape([rows, c])
}

/// x + gate y with `x`, `y` `[b*n c]` and the sample's `gate` `[b c]`.
pub fn gated_add(x: Tensor<2>, y: Tensor<2>, gate: Tensor<2>) -> Tensor<2> {
    let [rows, c] = x.dims();
    let [b, _] = gate.dims();
    let gated = y.reshape([b, rows / b, c]) * gate.unsqueeze_dim::<3>(1); // [b n c]
    x + gated.reshape([rows, c])
}

/// Multi-head attention softmax(q k^T / sqrt(d)) v for `q`, `k`, `v` `[b*n heads*d]` of `batch` sequences.
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, batch: usize, heads: usize) -> Tensor<2> {
    let [rows, c] = q.dims();
    let [n, d] = [rows / batch, c / heads];
    let split = |x: Tensor<2>| x.reshape([batch, n, heads, d]).swap_dims(1, 2); // [b heads n d]
    let (q, k, v) = (split(q), split(k), split(v));
    let weights = activation::softmax(q.matmul(k.swap_dims(2, 3)) / (d as f64).sqrt(), 3); // [b heads n n]
    weights.matmul(v).swap_dims(1, 2).reshape([rows, c])
}
