//! Multi-head attention without materialised heads: every task reads one head's columns of q, k and v where they lie, and
//! works on a block of queries whose scores stay in the cache.

use crate::kernel::matmul::matrix::{Destination, Matrix, Target, Write, product};
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::math::{exp, max, sum};
use crate::kernel::simd::memory::UninitVec;
use gemm::Parallelism;
use rayon::prelude::*;

/// Queries of one block.
const BLOCK: usize = 64;

/// Sizes of an attention: `batch` sequences of `n` tokens with `heads` heads of `d` channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) n: usize,
    pub(crate) heads: usize,
    pub(crate) d: usize,
}

impl Sizes {
    fn width(self) -> usize {
        self.heads * self.d
    }

    fn len(self) -> usize {
        self.batch * self.n * self.width()
    }

    fn scale(self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// Runs `f(offset of the head's first element, scratch)` for every head of every sequence, in parallel.
    fn for_heads(self, scratch: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        (0..self.batch * self.heads).into_par_iter().for_each_init(
            || vec![0.0; scratch],
            |scratch, i| f((i / self.heads) * self.n * self.width() + (i % self.heads) * self.d, scratch),
        );
    }
}

fn head(x: &[f32], offset: usize, width: usize) -> Matrix {
    Matrix { data: x.as_ptr().wrapping_add(offset), row_stride: width, column_stride: 1 }
}

/// Softmax of rows of `n`.
struct Softmax<'a> {
    scores: &'a mut [f32],
    n: usize,
}

impl Loop for Softmax<'_> {
    #[inline(always)]
    fn run(self) {
        for row in self.scores.chunks_mut(self.n) {
            let top = max(row);
            for v in row.iter_mut() {
                *v = exp(*v - top);
            }
            let inverse = 1.0
                / sum(
                    row.len(),
                    #[inline(always)]
                    |i| row[i],
                );
            for v in row.iter_mut() {
                *v *= inverse;
            }
        }
    }
}

/// Turns gradients of the weights into gradients of the scores, in place, for rows of `n`.
struct SoftmaxGrad<'a> {
    grad: &'a mut [f32],
    weights: &'a [f32],
    n: usize,
}

impl Loop for SoftmaxGrad<'_> {
    #[inline(always)]
    fn run(self) {
        for (grad, weights) in self.grad.chunks_mut(self.n).zip(self.weights.chunks(self.n)) {
            let n = weights.len();
            let grad = &mut grad[..n];
            let mean = sum(
                n,
                #[inline(always)]
                |i| grad[i] * weights[i],
            );
            for (g, &w) in grad.iter_mut().zip(weights) {
                *g = w * (*g - mean);
            }
        }
    }
}

/// softmax(q k^T / sqrt(d)) v, all `[batch*n heads*d]`.
pub(crate) fn attention(q: &[f32], k: &[f32], v: &[f32], sizes: Sizes) -> Vec<f32> {
    let (n, d, width) = (sizes.n, sizes.d, sizes.width());
    assert_eq!([q.len(), k.len(), v.len()], [sizes.len(); 3], "attention: sizes of q, k and v");
    let mut values = UninitVec::new(q.len());
    let out = Target::of(values.room());
    sizes.for_heads(BLOCK.min(n) * n, |offset, scores| {
        let (k, v) = (head(k, offset, width), head(v, offset, width));
        for first in (0..n).step_by(BLOCK) {
            let rows = BLOCK.min(n - first);
            let at = offset + first * width;
            let scores = &mut scores[..rows * n];
            // SAFETY: the sizes were checked; scores is ours, and so are the head's columns of out.
            unsafe {
                score(scores, head(q, at, width), k, [rows, n, d], sizes.scale());
                vectorised(Softmax { scores, n });
                let weights = Matrix::rows(scores, n);
                let none = Parallelism::None;
                product([rows, d, n], Destination::replace(out.at(at), width), [weights, v], 1.0, none);
            }
        }
    });
    // SAFETY: the columns of every head of every sequence were written.
    unsafe { values.assume_init() }
}

/// Scaled products of queries and keys.
///
/// # Safety
/// As [`product`].
unsafe fn score(scores: &mut [f32], q: Matrix, k: Matrix, sizes: [usize; 3], scale: f32) {
    let n = sizes[1];
    // SAFETY: the caller vouches for the matrices, and scores holds rows of n.
    unsafe { product(sizes, Destination::replace(scores.as_mut_ptr(), n), [q, k.t()], scale, Parallelism::None) };
}

/// Gradients with respect to q, k and v; the weights are computed again.
pub(crate) fn attention_grad(q: &[f32], k: &[f32], v: &[f32], grad: &[f32], sizes: Sizes) -> [Vec<f32>; 3] {
    let (n, d, width, scale) = (sizes.n, sizes.d, sizes.width(), sizes.scale());
    assert_eq!([q.len(), k.len(), v.len(), grad.len()], [sizes.len(); 4], "attention: sizes of q, k, v and gradient");
    let [mut dq_values, mut dk_values, mut dv_values] = [(); 3].map(|()| UninitVec::new(q.len()));
    // Tasks write the columns of their own heads only.
    let [dq, dk, dv] = [&mut dq_values, &mut dk_values, &mut dv_values].map(|values| Target::of(values.room()));
    let block = BLOCK.min(n) * n;
    sizes.for_heads(2 * block, |offset, scratch| {
        let (weights, dweights) = scratch.split_at_mut(block);
        let (k, v) = (head(k, offset, width), head(v, offset, width));
        for first in (0..n).step_by(BLOCK) {
            let rows = BLOCK.min(n - first);
            let at = offset + first * width;
            let (weights, dweights) = (&mut weights[..rows * n], &mut dweights[..rows * n]);
            let (q, grad) = (head(q, at, width), head(grad, at, width));
            let write = if first == 0 { Write::Replace } else { Write::Add };
            let none = Parallelism::None;
            // SAFETY: the sizes were checked; the scratch is ours, and so are the head's columns of the outputs. The first block
            // initialises dk and dv.
            unsafe {
                score(weights, q, k, [rows, n, d], scale);
                vectorised(Softmax { scores: weights, n });
                score(dweights, grad, v, [rows, n, d], 1.0);
                let w = Matrix::rows(weights, n);
                let to_dv = Destination { data: dv.at(offset), row_stride: width, write };
                product([n, d, rows], to_dv, [w.t(), grad], 1.0, none);
                vectorised(SoftmaxGrad { grad: dweights, weights, n });
                let dscores = Matrix::rows(dweights, n);
                product([rows, d, n], Destination::replace(dq.at(at), width), [dscores, k], scale, none);
                let to_dk = Destination { data: dk.at(offset), row_stride: width, write };
                product([n, d, rows], to_dk, [dscores.t(), q], scale, none);
            }
        }
    });
    // SAFETY: the columns of every head of every sequence were written.
    unsafe { [dq_values.assume_init(), dk_values.assume_init(), dv_values.assume_init()] }
}
