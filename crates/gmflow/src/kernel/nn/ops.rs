//! The kernels as operations of a backend, and the CPU backend's implementation.

use crate::kernel::matmul::dense::{self, Rows};
use crate::kernel::matmul::panels::PackedWeight;
use crate::kernel::matmul::precision::MatmulPrecision;
use crate::kernel::nn::attention::{self, Sizes};
use crate::kernel::nn::rows::{self, Unary};
use crate::kernel::nn::softmax;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;
use std::sync::Arc;

/// Operations that networks are made of; shapes are those of the functions in [`crate::kernel`].
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait NetworkOps: Backend {
    /// x W^T + bias.
    fn affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rows: Rows,
        arithmetic: MatmulPrecision,
    ) -> FloatTensor<Self>;
    /// The same with a packed weight; without gradients.
    fn affine_packed(x: FloatTensor<Self>, weight: Arc<PackedWeight>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    /// A function of every element.
    fn unary(x: FloatTensor<Self>, kind: Unary) -> FloatTensor<Self>;
    /// LayerNorm, scale and shift.
    fn modulate(
        x: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    /// x + gate y.
    fn gated_add(x: FloatTensor<Self>, y: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Multi-head attention over `batch` sequences.
    fn multi_head_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        batch: usize,
        heads: usize,
    ) -> FloatTensor<Self>;
    /// Log-softmax over the middle axis of `[outer k inner]`.
    fn plane_log_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Gradients of [`NetworkOps`], on a backend without autodiff.
pub trait NetworkGrads: Backend {
    /// Of linear, with respect to x.
    fn linear_grad_input(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        arithmetic: MatmulPrecision,
    ) -> FloatTensor<Self>;
    /// Of linear, with respect to the weight.
    fn linear_grad_weight(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        arithmetic: MatmulPrecision,
    ) -> FloatTensor<Self>;
    /// Of linear, with respect to the bias.
    fn linear_grad_bias(grad: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Of unary.
    fn unary_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>, kind: Unary) -> FloatTensor<Self>;
    /// Of modulate, with respect to x, shift and scale.
    fn modulate_grad(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f32,
    ) -> [FloatTensor<Self>; 3];
    /// Of gated_add, with respect to y and gate.
    fn gated_add_grad(
        y: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2];
    /// Of attention, with respect to q, k and v.
    fn attention_grad(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        batch: usize,
        heads: usize,
    ) -> [FloatTensor<Self>; 3];
    /// Of log_softmax, from its output.
    fn log_softmax_grad(y: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

type Tensor = FloatTensor<Flex>;

/// The values of a tensor that is contiguous.
pub(crate) fn values(x: &Tensor) -> &[f32] {
    let range = x.layout().contiguous_offsets();
    range.map_or(&[], |(start, end)| &x.storage::<f32>()[start..end])
}

/// The same with its values in order, or as it is where they are.
pub(crate) fn in_order(x: Tensor) -> Tensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Vec<usize>>) -> Tensor {
    Tensor::from_data(TensorData::new(values, shape.into()))
}

/// The sizes of a matrix.
fn matrix(x: &Tensor) -> [usize; 2] {
    let shape = x.shape();
    [shape[0], shape[1]]
}

/// Rows per sample and channels, from the rows of `x` and the samples of `per_sample`.
fn samples(x: &Tensor, per_sample: &Tensor) -> [usize; 2] {
    let ([rows, c], [b, width]) = (matrix(x), matrix(per_sample));
    assert!(b > 0 && rows % b == 0 && c == width, "{rows} rows of {c} for {b} samples of {width} channels");
    [rows / b, c]
}

fn attention_sizes(q: &Tensor, batch: usize, heads: usize) -> Sizes {
    let [rows, c] = matrix(q);
    Sizes { batch, n: rows / batch, heads, d: c / heads }
}

fn planes(x: &Tensor) -> [usize; 2] {
    let shape = x.shape();
    [shape[1], shape[2]]
}

impl NetworkOps for Flex {
    fn affine(x: Tensor, weight: Tensor, bias: Tensor, rows: Rows, arithmetic: MatmulPrecision) -> Tensor {
        let (x, weight, bias) = (x.to_contiguous(), weight.to_contiguous(), bias.to_contiguous());
        let ([m, k], [n, _]) = (matrix(&x), matrix(&weight));
        let how = (rows, arithmetic);
        tensor(dense::linear(values(&x), values(&weight), values(&bias), [m, n, k], how), [m, n])
    }

    fn affine_packed(x: Tensor, weight: Arc<PackedWeight>, bias: Tensor) -> Tensor {
        let (x, bias) = (x.to_contiguous(), bias.to_contiguous());
        let [m, k] = matrix(&x);
        tensor(dense::linear_packed(values(&x), &weight, values(&bias), [m, k]), [m, weight.columns()])
    }

    fn unary(x: Tensor, kind: Unary) -> Tensor {
        let x = x.to_contiguous();
        tensor(rows::unary(values(&x), kind), x.shape().to_vec())
    }

    fn modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: f32) -> Tensor {
        let (x, shift, scale) = (x.to_contiguous(), shift.to_contiguous(), scale.to_contiguous());
        let y = rows::modulate(values(&x), values(&shift), values(&scale), samples(&x, &scale), eps);
        tensor(y, matrix(&x))
    }

    fn gated_add(x: Tensor, y: Tensor, gate: Tensor) -> Tensor {
        let (x, y, gate) = (x.to_contiguous(), y.to_contiguous(), gate.to_contiguous());
        tensor(rows::gated_add(values(&x), values(&y), values(&gate), samples(&x, &gate)), matrix(&x))
    }

    fn multi_head_attention(q: Tensor, k: Tensor, v: Tensor, batch: usize, heads: usize) -> Tensor {
        let (q, k, v) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous());
        let sizes = attention_sizes(&q, batch, heads);
        tensor(attention::attention(values(&q), values(&k), values(&v), sizes), matrix(&q))
    }

    fn plane_log_softmax(x: Tensor) -> Tensor {
        let x = x.to_contiguous();
        let [k, inner] = planes(&x);
        tensor(softmax::log_softmax(values(&x), k, inner), x.shape().to_vec())
    }
}

impl NetworkGrads for Flex {
    fn linear_grad_input(grad: Tensor, weight: Tensor, arithmetic: MatmulPrecision) -> Tensor {
        let (grad, weight) = (grad.to_contiguous(), weight.to_contiguous());
        let ([m, n], [_, k]) = (matrix(&grad), matrix(&weight));
        tensor(dense::linear_grad_input(values(&grad), values(&weight), [m, n, k], arithmetic), [m, k])
    }

    fn linear_grad_weight(grad: Tensor, x: Tensor, arithmetic: MatmulPrecision) -> Tensor {
        let (grad, x) = (grad.to_contiguous(), x.to_contiguous());
        let ([m, n], [_, k]) = (matrix(&grad), matrix(&x));
        tensor(dense::linear_grad_weight(values(&grad), values(&x), [m, n, k], arithmetic), [n, k])
    }

    fn linear_grad_bias(grad: Tensor) -> Tensor {
        let grad = grad.to_contiguous();
        let [_, n] = matrix(&grad);
        tensor(dense::linear_grad_bias(values(&grad), n), [n])
    }

    fn unary_grad(x: Tensor, grad: Tensor, kind: Unary) -> Tensor {
        let (x, grad) = (x.to_contiguous(), grad.to_contiguous());
        tensor(rows::unary_grad(values(&x), values(&grad), kind), x.shape().to_vec())
    }

    fn modulate_grad(x: Tensor, scale: Tensor, grad: Tensor, eps: f32) -> [Tensor; 3] {
        let (x, scale, grad) = (x.to_contiguous(), scale.to_contiguous(), grad.to_contiguous());
        let sizes = samples(&x, &scale);
        let [dx, dshift, dscale] = rows::modulate_grad(values(&x), values(&scale), values(&grad), sizes, eps);
        [tensor(dx, matrix(&x)), tensor(dshift, matrix(&scale)), tensor(dscale, matrix(&scale))]
    }

    fn gated_add_grad(y: Tensor, gate: Tensor, grad: Tensor) -> [Tensor; 2] {
        let (y, gate, grad) = (y.to_contiguous(), gate.to_contiguous(), grad.to_contiguous());
        let [dy, dgate] = rows::gated_add_grad(values(&y), values(&gate), values(&grad), samples(&y, &gate));
        [tensor(dy, matrix(&y)), tensor(dgate, matrix(&gate))]
    }

    fn attention_grad(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, batch: usize, heads: usize) -> [Tensor; 3] {
        let (q, k, v, grad) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous(), grad.to_contiguous());
        let sizes = attention_sizes(&q, batch, heads);
        let grads = attention::attention_grad(values(&q), values(&k), values(&v), values(&grad), sizes);
        grads.map(|x| tensor(x, matrix(&q)))
    }

    fn log_softmax_grad(y: Tensor, grad: Tensor) -> Tensor {
        let (y, grad) = (y.to_contiguous(), grad.to_contiguous());
        let [k, inner] = planes(&y);
        tensor(softmax::log_softmax_grad(values(&y), values(&grad), k, inner), y.shape().to_vec())
    }
}
