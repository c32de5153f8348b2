//! The kernels of networks of rows in the tensor library's own operations.

use burn::tensor::{Tensor, activation};

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
