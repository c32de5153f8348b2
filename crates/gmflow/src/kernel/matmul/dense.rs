//! Matrix products, straight from the storage of both operands.

use crate::kernel::matmul::matrix::{Destination, Matrix, Target, Write, product};
use crate::kernel::matmul::packed;
use crate::kernel::matmul::panels::PackedWeight;
use crate::kernel::matmul::precision::MatmulPrecision;
use crate::kernel::matmul::rates::{Bf16Products, bf16_products};
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::math::sum;
use crate::kernel::simd::memory::{UninitVec, par_items, par_rows};
use gemm::Parallelism;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// [`product`] with rows of `n`, on all threads of the pool: the longer side of the result is cut into a piece per thread. The order
/// of summation does not depend on the cut. For matrices of this size that costs less than cutting inside the product.
///
/// # Safety
/// As [`product`].
unsafe fn par_product([m, n, k]: [usize; 3], out: *mut f32, write: Write, a: Matrix, b: Matrix) {
    /// Products smaller than this run on one thread.
    const SMALL: usize = 64 * 64 * 64;
    /// Pieces are multiples of this, so that the vector registers are full.
    const STEP: usize = 48;
    let threads = rayon::current_num_threads();
    let none = Parallelism::None;
    if threads == 1 || m * n * k <= SMALL {
        // SAFETY: the caller vouches for the matrices.
        return unsafe { product([m, n, k], Destination { data: out, row_stride: n, write }, [a, b], 1.0, none) };
    }
    let (side, out) = (m.max(n), Target(out));
    let length = side.div_ceil(threads).next_multiple_of(STEP);
    (0..side.div_ceil(length)).into_par_iter().for_each(|piece| {
        let first = piece * length;
        let len = length.min(side - first);
        // SAFETY: the piece lies within the matrices, and no other piece writes its part of the result.
        unsafe {
            if m >= n {
                product(
                    [len, n, k],
                    Destination { data: out.at(first * n), row_stride: n, write },
                    [a.skip_rows(first), b],
                    1.0,
                    none,
                );
            } else {
                product(
                    [m, len, k],
                    Destination { data: out.at(first), row_stride: n, write },
                    [a, b.skip_columns(first)],
                    1.0,
                    none,
                );
            }
        }
    });
}

/// How the rows of a linear layer are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// As one product of matrices; the order of summation may depend on their number.
    Together,
    /// Each on its own, as dot products: the same whatever rows stand beside it. With few rows, as the modulation of a small
    /// batch has, this takes the time in which the weights are read; a product packs them first.
    Apart,
}

/// Some columns of x W^T + bias, each with all its rows.
struct Columns<'a> {
    /// `[columns m]`.
    out: &'a mut [MaybeUninit<f32>],
    /// `[m k]`.
    x: &'a [f32],
    /// `[columns k]`.
    weight: &'a [f32],
    /// `[columns]`.
    bias: &'a [f32],
    k: usize,
}

impl Loop for Columns<'_> {
    #[inline(always)]
    fn run(self) {
        let k = self.k;
        let columns = self.out.chunks_exact_mut(self.x.len() / k).zip(self.weight.chunks_exact(k));
        for ((out, weight), bias) in columns.zip(self.bias) {
            for (out, x) in out.iter_mut().zip(self.x.chunks_exact(k)) {
                let products = sum(
                    k,
                    #[inline(always)]
                    |i| x[i] * weight[i],
                );
                out.write(bias + products);
            }
        }
    }
}

/// [`linear`] with every row on its own.
fn by_row(x: &[f32], weight: &[f32], bias: &[f32], [m, n, k]: [usize; 3]) -> Vec<f32> {
    /// Columns of one task at the most.
    const WIDTH: usize = 128;
    let mut columns = UninitVec::new(m * n);
    let pieces = columns.room().chunks_mut(WIDTH * m).zip(weight.chunks(WIDTH * k)).zip(bias.chunks(WIDTH));
    par_items(pieces.collect(), m * n * k, |((out, weight), bias)| vectorised(Columns { out, x, weight, bias, k }));
    // SAFETY: the caller has checked the sizes, and every column of every piece was written.
    let columns = unsafe { columns.assume_init() };
    if m == 1 {
        return columns;
    }
    (0..m).flat_map(|row| columns.iter().skip(row).step_by(m).copied()).collect()
}

/// The arithmetic of panels to compute in, where the processor multiplies panels. That is f32 where it has no instruction for bf16, or a slow
/// one: both operands are here in f32, so that nothing is gained by rounding them.
fn with_panels(arithmetic: MatmulPrecision) -> Option<MatmulPrecision> {
    let arithmetic = match arithmetic.with_gradients() {
        MatmulPrecision::Bf16 if bf16_products() == Bf16Products::Widened => MatmulPrecision::F32,
        arithmetic => arithmetic,
    };
    [arithmetic, MatmulPrecision::F32].into_iter().find(|arithmetic| arithmetic.is_native())
}

/// [`with_panels`] for a product of which nobody expects that its rows do not depend on their number: packing pays off with enough of
/// them.
fn with_panels_for(rows: usize, arithmetic: MatmulPrecision) -> Option<MatmulPrecision> {
    const FEW_ROWS: usize = 48;
    with_panels(arithmetic).filter(|_| rows >= FEW_ROWS)
}

/// x W^T + bias for x `[m k]` and W `[n k]`.
pub(crate) fn linear(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    [m, n, k]: [usize; 3],
    (rows, arithmetic): (Rows, MatmulPrecision),
) -> Vec<f32> {
    assert_eq!((x.len(), weight.len(), bias.len()), (m * k, n * k, n), "linear: sizes of x, weight and bias");
    if rows == Rows::Apart && m > 0 && k > 0 {
        return by_row(x, weight, bias, [m, n, k]);
    }
    if let Some(arithmetic) = with_panels(arithmetic) {
        let panels = PackedWeight::of_weight(weight, [n, k], arithmetic);
        return linear_packed(x, &panels, bias, [m, k]);
    }
    let mut out = UninitVec::new(m * n);
    par_rows(out.room(), n, |_, piece| {
        piece.chunks_mut(n).for_each(|row| {
            row.write_copy_of_slice(bias);
        });
    });
    let (a, b) = (Matrix::rows(x, k), Matrix::rows(weight, k).t());
    // SAFETY: the sizes were checked, and out was filled with the bias.
    unsafe {
        par_product([m, n, k], out.room().as_mut_ptr().cast(), Write::Add, a, b);
        out.assume_init()
    }
}

/// x W^T + bias for x `[m k]` and the panels of W^T.
pub(crate) fn linear_packed(x: &[f32], weight: &PackedWeight, bias: &[f32], [m, k]: [usize; 2]) -> Vec<f32> {
    assert_eq!((x.len(), weight.rows()), (m * k, k), "linear: sizes of x and weight");
    // SAFETY: the size of x was checked.
    unsafe { packed::product(Matrix::rows(x, k), m, weight, Some(bias)) }
}

/// The gradient with respect to x: grad W.
pub(crate) fn linear_grad_input(
    grad: &[f32],
    weight: &[f32],
    [m, n, k]: [usize; 3],
    arithmetic: MatmulPrecision,
) -> Vec<f32> {
    assert_eq!((grad.len(), weight.len()), (m * n, n * k), "linear: sizes of gradient and weight");
    if let Some(arithmetic) = with_panels_for(m, arithmetic) {
        // SAFETY: the sizes were checked.
        return unsafe {
            let panels = PackedWeight::pack(Matrix::rows(weight, k), [n, k], arithmetic.floats());
            packed::product(Matrix::rows(grad, n), m, &panels, None)
        };
    }
    let mut out = UninitVec::new(m * k);
    let (a, b) = (Matrix::rows(grad, n), Matrix::rows(weight, k));
    // SAFETY: the sizes were checked, and the product is all of out.
    unsafe {
        par_product([m, k, n], out.room().as_mut_ptr().cast(), Write::Replace, a, b);
        out.assume_init()
    }
}

/// The gradient with respect to the weight: grad^T x.
pub(crate) fn linear_grad_weight(
    grad: &[f32],
    x: &[f32],
    [m, n, k]: [usize; 3],
    arithmetic: MatmulPrecision,
) -> Vec<f32> {
    assert_eq!((grad.len(), x.len()), (m * n, m * k), "linear: sizes of gradient and x");
    if let Some(arithmetic) = with_panels_for(n.min(m), arithmetic) {
        // SAFETY: the sizes were checked.
        return unsafe {
            let panels = PackedWeight::pack(Matrix::rows(x, k), [m, k], arithmetic.floats());
            packed::product(Matrix::rows(grad, n).t(), n, &panels, None)
        };
    }
    let mut out = UninitVec::new(n * k);
    let (a, b) = (Matrix::rows(grad, n).t(), Matrix::rows(x, k));
    // SAFETY: the sizes were checked, and the product is all of out.
    unsafe {
        par_product([n, k, m], out.room().as_mut_ptr().cast(), Write::Replace, a, b);
        out.assume_init()
    }
}

struct ColumnSum<'a> {
    out: &'a mut [f32],
    x: &'a [f32],
}

impl Loop for ColumnSum<'_> {
    #[inline(always)]
    fn run(self) {
        let c = self.out.len();
        for row in self.x.chunks(c) {
            for (out, &x) in self.out.iter_mut().zip(row) {
                *out += x;
            }
        }
    }
}

/// The gradient with respect to the bias: the sum over rows of `c`. Rows are grouped by their number alone, so that any number of threads gives the same bits.
pub(crate) fn linear_grad_bias(grad: &[f32], c: usize) -> Vec<f32> {
    const ROWS: usize = 256;
    let partial = |x: &[f32]| {
        let mut out = vec![0.0; c];
        vectorised(ColumnSum { out: &mut out, x });
        out
    };
    let partials: Vec<Vec<f32>> = grad.par_chunks(ROWS * c).map(partial).collect();
    let mut out = vec![0.0; c];
    for x in &partials {
        vectorised(ColumnSum { out: &mut out, x });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_layer_of_any_number_of_rows_is_the_sum_of_products() {
        let (n, k) = (300, 37);
        let value = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let weight: Vec<f32> = (0..n * k).map(value).collect();
        let bias: Vec<f32> = (0..n).map(|i| value(i + 5)).collect();
        for (m, rows) in [0, 1, 2, 9, 70].into_iter().flat_map(|m| [(m, Rows::Together), (m, Rows::Apart)]) {
            let x: Vec<f32> = (0..m * k).map(|i| value(i + 11)).collect();
            let got = linear(&x, &weight, &bias, [m, n, k], (rows, MatmulPrecision::F32));
            assert_eq!(got.len(), m * n);
            for (i, got) in got.iter().enumerate() {
                let (x, weight) = (&x[i / n * k..][..k], &weight[i % n * k..][..k]);
                let products = x.iter().zip(weight).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let expected = f64::from(bias[i % n]) + products.sum::<f64>();
                assert!(
                    (f64::from(*got) - expected).abs() < 1e-5,
                    "{m} rows {rows:?}, element {i}: {got}, not {expected}"
                );
            }
        }
    }
}
