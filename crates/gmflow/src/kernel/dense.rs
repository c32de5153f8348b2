//! Matrix products, straight from the storage of both operands.

use super::memory::build;
use super::rows;
use gemm::Parallelism;

/// A matrix in memory: first element and the distances between neighbours in a column and in a row.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub(super) data: *const f32,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl Matrix {
    /// A row-major matrix with rows of `width`.
    pub(super) fn rows(data: &[f32], width: usize) -> Self {
        Self { data: data.as_ptr(), row_stride: width, column_stride: 1 }
    }

    /// The transpose.
    pub(super) fn t(self) -> Self {
        Self { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }
}

/// Whether a product replaces the destination or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    Replace,
    Add,
}

/// out = a b or out += a b, scaled by `scale`, with a `[m k]`, b `[k n]` and out `[m n]` in rows of `out_stride`.
///
/// # Safety
/// Every element of the three matrices must be inside one allocation each, out must be writable and overlap neither of the
/// others, and with [`Write::Add`] be initialised.
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn product(
    [m, n, k]: [usize; 3],
    out: *mut f32,
    out_stride: usize,
    write: Write,
    a: Matrix,
    b: Matrix,
    scale: f32,
    parallelism: Parallelism,
) {
    // SAFETY: the strides describe matrices that the caller vouches for.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            out_stride as isize,
            write == Write::Add,
            a.data,
            a.column_stride as isize,
            a.row_stride as isize,
            b.data,
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// All threads of the pool that the caller runs in, where there is work for them.
fn parallelism([m, n, k]: [usize; 3]) -> Parallelism {
    const SMALL: usize = 64 * 64 * 64;
    let threads = rayon::current_num_threads();
    if threads == 1 || m * n * k <= SMALL { Parallelism::None } else { Parallelism::Rayon(threads) }
}

/// x W^T + bias for x `[m k]` and W `[n k]`.
pub(super) fn linear(x: &[f32], weight: &[f32], bias: &[f32], [m, n, k]: [usize; 3]) -> Vec<f32> {
    assert_eq!((x.len(), weight.len(), bias.len()), (m * k, n * k, n), "linear: sizes of x, weight and bias");
    build(m * n, |out| {
        super::memory::par_rows(out, n, |_, piece| piece.chunks_mut(n).for_each(|row| row.copy_from_slice(bias)));
        let (a, b) = (Matrix::rows(x, k), Matrix::rows(weight, k).t());
        // SAFETY: the sizes were checked, and out was filled with the bias.
        unsafe { product([m, n, k], out.as_mut_ptr(), n, Write::Add, a, b, 1.0, parallelism([m, n, k])) };
    })
}

/// The gradient with respect to x: grad W.
pub(super) fn linear_grad_input(grad: &[f32], weight: &[f32], [m, n, k]: [usize; 3]) -> Vec<f32> {
    assert_eq!((grad.len(), weight.len()), (m * n, n * k), "linear: sizes of gradient and weight");
    build(m * k, |out| {
        let (a, b) = (Matrix::rows(grad, n), Matrix::rows(weight, k));
        // SAFETY: the sizes were checked.
        unsafe { product([m, k, n], out.as_mut_ptr(), k, Write::Replace, a, b, 1.0, parallelism([m, n, k])) };
    })
}

/// The gradient with respect to the weight: grad^T x.
pub(super) fn linear_grad_weight(grad: &[f32], x: &[f32], [m, n, k]: [usize; 3]) -> Vec<f32> {
    assert_eq!((grad.len(), x.len()), (m * n, m * k), "linear: sizes of gradient and x");
    build(n * k, |out| {
        let (a, b) = (Matrix::rows(grad, n).t(), Matrix::rows(x, k));
        // SAFETY: the sizes were checked.
        unsafe { product([n, k, m], out.as_mut_ptr(), k, Write::Replace, a, b, 1.0, parallelism([m, n, k])) };
    })
}

/// The gradient with respect to the bias.
pub(super) fn linear_grad_bias(grad: &[f32], n: usize) -> Vec<f32> {
    rows::column_sum(grad, n)
}
