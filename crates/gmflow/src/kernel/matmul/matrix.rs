//! Matrices in memory and their product.

use crate::kernel::simd::memory::fill;
use gemm::Parallelism;
use std::mem::MaybeUninit;

/// A matrix in memory: first element and the distances between neighbours in a column and in a row.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) data: *const f32,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
}

// SAFETY: matrices are only read.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// A row-major matrix with rows of `width`.
    pub(crate) fn rows(data: &[f32], width: usize) -> Self {
        Self { data: data.as_ptr(), row_stride: width, column_stride: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    /// The matrix without its first rows.
    pub(crate) fn skip_rows(self, count: usize) -> Self {
        Self { data: self.data.wrapping_add(count * self.row_stride), ..self }
    }

    /// The matrix without its first columns.
    pub(crate) fn skip_columns(self, count: usize) -> Self {
        Self { data: self.data.wrapping_add(count * self.column_stride), ..self }
    }
}

/// Whether a product replaces the destination or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Replace,
    Add,
}

/// Where a product is written: its first element, and the distance between rows.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) data: *mut f32,
    pub(crate) row_stride: usize,
    pub(crate) write: Write,
}

impl Destination {
    /// To be replaced by the product.
    pub(crate) fn replace(data: *mut f32, row_stride: usize) -> Self {
        Self { data, row_stride, write: Write::Replace }
    }

    /// To be added to.
    pub(crate) fn add(data: *mut f32, row_stride: usize) -> Self {
        Self { data, row_stride, write: Write::Add }
    }
}

/// out = a b or out += a b, scaled by `scale`, with a `[m k]`, b `[k n]` and out `[m n]`.
///
/// # Safety
/// Every element of the three matrices must be inside one allocation each, out must be writable and overlap neither of the
/// others, and with [`Write::Add`] be initialised.
pub(crate) unsafe fn product(
    [m, n, k]: [usize; 3],
    out: Destination,
    [a, b]: [Matrix; 2],
    scale: f32,
    parallelism: Parallelism,
) {
    // SAFETY: the strides describe matrices that the caller vouches for.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data,
            1,
            out.row_stride as isize,
            out.write == Write::Add,
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

/// Where a product is written by several threads, each its own rows or columns.
pub(crate) struct Target(pub(crate) *mut f32);

// SAFETY: the pieces of a product are disjoint.
unsafe impl Sync for Target {}

impl Target {
    /// An output that is still to be written.
    pub(crate) fn of(out: &mut [MaybeUninit<f32>]) -> Self {
        Self(out.as_mut_ptr().cast())
    }

    /// Writes the same value in `len` places.
    ///
    /// # Safety
    /// They must lie within the output, and no other task may use them.
    pub(crate) unsafe fn fill(&self, offset: usize, len: usize, value: f32) {
        // SAFETY: the caller vouches for the places, in which any bits may stand.
        fill(unsafe { std::slice::from_raw_parts_mut(self.at(offset).cast(), len) }, value);
    }

    pub(crate) fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}
