//! What networks of rows are made of: the row kernels, and the tensor library's matrix product.

use super::{rows, softmax};
use crate::kernel::gpu::{host, sizes};
use crate::kernel::matmul::dense::{self, Rows};
use crate::kernel::matmul::panels::PackedWeight;
use crate::kernel::matmul::precision::MatmulPrecision;
use crate::kernel::nn::ops::{NetworkGrads, NetworkOps};
use crate::kernel::nn::rows::Unary;
use burn::backend::Backend;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, FloatDType, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use std::sync::Arc;

/// Rows per sample and channels, from the rows of `x` and the samples of `per_sample`.
fn samples(x: &CubeTensor, per_sample: &CubeTensor) -> [usize; 2] {
    let ([rows, c], [b, width]) = (sizes(x), sizes(per_sample));
    assert!(b > 0 && rows % b == 0 && c == width, "{rows} rows of {c} for {b} samples of {width} channels");
    [rows / b, c]
}

/// In the type that products of this arithmetic take, on a device that has it.
fn factor(x: CubeTensor, arithmetic: MatmulPrecision) -> CubeTensor {
    let has = |dtype| CubeBackend::supports_dtype(&x.device, dtype);
    match arithmetic {
        MatmulPrecision::Bf16 if x.dtype == DType::F32 && has(DType::BF16) => {
            CubeBackend::float_cast(x, FloatDType::BF16)
        }
        _ => x,
    }
}

/// The product of two matrices in the arithmetic, in f32.
fn product(left: CubeTensor, right: CubeTensor, arithmetic: MatmulPrecision) -> CubeTensor {
    let y = CubeBackend::float_matmul(factor(left, arithmetic), factor(right, arithmetic));
    if y.dtype == DType::F32 { y } else { CubeBackend::float_cast(y, FloatDType::F32) }
}

/// Sequences of heads.
#[derive(Clone, Copy)]
struct Heads {
    b: usize,
    n: usize,
    heads: usize,
    d: usize,
}

impl Heads {
    fn new(q: &CubeTensor, b: usize, heads: usize) -> Self {
        let [rows, c] = sizes(q);
        Self { b, n: rows / b, heads, d: c / heads }
    }

    /// `[b*n heads*d]` as `[b heads n d]`.
    fn split(self, x: CubeTensor) -> CubeTensor {
        let Self { b, n, heads, d } = self;
        CubeBackend::float_swap_dims(CubeBackend::float_reshape(x, [b, n, heads, d].into()), 1, 2)
    }

    /// The other way round.
    fn join(self, x: CubeTensor) -> CubeTensor {
        let Self { b, n, heads, d } = self;
        CubeBackend::float_reshape(CubeBackend::float_swap_dims(x, 1, 2), [b * n, heads * d].into())
    }

    /// What products of queries and keys are multiplied by.
    fn scale(self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// The weights `[b heads n n]` of split queries and keys.
    fn weights(self, q: CubeTensor, k: CubeTensor) -> CubeTensor {
        let scores = CubeBackend::float_matmul(q, CubeBackend::float_transpose(k));
        softmax::softmax(scores, self.n, self.scale())
    }
}

fn planes(x: &CubeTensor) -> [usize; 2] {
    let [_, k, inner] = sizes(x);
    [k, inner]
}

impl NetworkOps for CubeBackend {
    /// Products of any number of rows go the same way. A weight may be in the arithmetic's type already.
    fn affine(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        _: Rows,
        arithmetic: MatmulPrecision,
    ) -> CubeTensor {
        let (x, weight) = (factor(x, arithmetic), factor(weight, arithmetic));
        rows::add_bias(&CubeBackend::float_matmul(x, CubeBackend::float_transpose(weight)), &bias)
    }

    /// On the CPU, which alone multiplies panels: networks on a GPU have none.
    fn affine_packed(x: CubeTensor, weight: Arc<PackedWeight>, bias: CubeTensor) -> CubeTensor {
        let ([m, k], device) = (sizes(&x), x.device.clone());
        let y = dense::linear_packed(&host(x), &weight, &host(bias), [m, k]);
        CubeBackend::float_from_data(TensorData::new(y, [m, weight.columns()]), &device)
    }

    fn unary(x: CubeTensor, kind: Unary) -> CubeTensor {
        match kind {
            Unary::Silu => rows::activate(&x, false),
            Unary::GeluTanh => rows::activate(&x, true),
            Unary::Sin => CubeBackend::float_sin(x),
            Unary::Cos => CubeBackend::float_cos(x),
        }
    }

    fn modulate(x: CubeTensor, shift: CubeTensor, scale: CubeTensor, eps: f32) -> CubeTensor {
        rows::modulate(&x, &shift, &scale, samples(&x, &scale), eps)
    }

    fn gated_add(x: CubeTensor, y: CubeTensor, gate: CubeTensor) -> CubeTensor {
        rows::gated_add(&x, &y, &gate, samples(&x, &gate))
    }

    /// The weights are in memory, `[b heads n n]`.
    fn multi_head_attention(q: CubeTensor, k: CubeTensor, v: CubeTensor, batch: usize, heads: usize) -> CubeTensor {
        let all = Heads::new(&q, batch, heads);
        let weights = all.weights(all.split(q), all.split(k));
        all.join(CubeBackend::float_matmul(weights, all.split(v)))
    }

    fn plane_log_softmax(x: CubeTensor) -> CubeTensor {
        softmax::log_softmax(&x, planes(&x))
    }
}

impl NetworkGrads for CubeBackend {
    fn linear_grad_input(grad: CubeTensor, weight: CubeTensor, arithmetic: MatmulPrecision) -> CubeTensor {
        product(grad, weight, arithmetic)
    }

    fn linear_grad_weight(grad: CubeTensor, x: CubeTensor, arithmetic: MatmulPrecision) -> CubeTensor {
        product(CubeBackend::float_transpose(grad), x, arithmetic)
    }

    fn linear_grad_bias(grad: CubeTensor) -> CubeTensor {
        let [_, n] = sizes(&grad);
        CubeBackend::float_reshape(CubeBackend::float_sum_dim(grad, 0), [n].into())
    }

    fn unary_grad(x: CubeTensor, grad: CubeTensor, kind: Unary) -> CubeTensor {
        match kind {
            Unary::Silu => rows::activate_grad(&x, &grad, false),
            Unary::GeluTanh => rows::activate_grad(&x, &grad, true),
            Unary::Sin => CubeBackend::float_mul(CubeBackend::float_cos(x), grad),
            Unary::Cos => CubeBackend::float_mul(CubeBackend::float_neg(CubeBackend::float_sin(x)), grad),
        }
    }

    fn modulate_grad(x: CubeTensor, scale: CubeTensor, grad: CubeTensor, eps: f32) -> [CubeTensor; 3] {
        rows::modulate_grad(&x, &scale, &grad, samples(&x, &scale), eps)
    }

    fn gated_add_grad(y: CubeTensor, gate: CubeTensor, grad: CubeTensor) -> [CubeTensor; 2] {
        rows::gated_add_grad(&y, &gate, &grad, samples(&y, &gate))
    }

    /// The weights are computed again.
    fn attention_grad(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        grad: CubeTensor,
        batch: usize,
        heads: usize,
    ) -> [CubeTensor; 3] {
        let all = Heads::new(&q, batch, heads);
        let [q, k, v, grad] = [q, k, v, grad].map(|x| all.split(x)); // [b heads n d]
        let weights = all.weights(q.clone(), k.clone()); // [b heads n n]
        let of_v = CubeBackend::float_matmul(CubeBackend::float_transpose(weights.clone()), grad.clone());
        let of_weights = CubeBackend::float_matmul(grad, CubeBackend::float_transpose(v));
        let of_scores = softmax::softmax_grad(&weights, of_weights, all.n, all.scale());
        let of_q = CubeBackend::float_matmul(of_scores.clone(), k);
        let of_k = CubeBackend::float_matmul(CubeBackend::float_transpose(of_scores), q);
        [of_q, of_k, of_v].map(|x| all.join(x))
    }

    fn log_softmax_grad(y: CubeTensor, grad: CubeTensor) -> CubeTensor {
        softmax::log_softmax_grad(&y, &grad, planes(&y))
    }
}
