//! Matrix products whose right operand was packed into panels: f32 with AVX-512, bf16 pairs with AVX512-BF16, and fours of 8-bit integers
//! with AVX512-VNNI.
//!
//! A panel holds 64 columns, step after step; a step is one row in f32, two rows in bf16 and four in int8, whose products are added in one
//! instruction. Weights are packed once, so that a product reads them in the order in which they lie, and the left operand is read where
//! it is. Every element of the result is summed in an order that depends on the length of the sum alone: rows do not change with
//! their number or place.

use crate::kernel::matmul::int8::Bytes;
use crate::kernel::matmul::layout::{COLUMNS, LINES, Line};
use crate::kernel::matmul::matrix::Matrix;
use crate::kernel::matmul::pack::{Stored, Widened, pack_panel};
use crate::kernel::matmul::precision::{FloatKind, MatmulPrecision};
use crate::kernel::simd::arch::vectorised;
use crate::kernel::simd::memory::UninitVec;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// A matrix `[k n]`, packed.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    /// `[panels steps LINES]`.
    pub(crate) lines: Vec<Line>,
    /// `[panels groups 2 COLUMNS]` of 8-bit integers, otherwise empty.
    pub(crate) scales: Vec<f32>,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) arithmetic: MatmulPrecision,
}

impl PackedWeight {
    /// Packs `b` `[k n]` in f32 or bf16.
    ///
    /// # Safety
    /// Every element of `b` must be readable, and either its rows' or its columns' elements lie side by side.
    pub(crate) unsafe fn pack(b: Matrix, [k, n]: [usize; 2], kind: FloatKind) -> Self {
        let steps = k.div_ceil(kind.precision().rows());
        let mut lines = UninitVec::new(n.div_ceil(COLUMNS) * steps * LINES);
        let panels = lines.room().par_chunks_mut((steps * LINES).max(1)).enumerate();
        panels.for_each(|(panel, lines)| {
            let first = panel * COLUMNS;
            // SAFETY: the caller vouches for the matrix, and the panel's columns lie within it.
            unsafe { pack_panel(b.skip_columns(first), [k, COLUMNS.min(n - first)], kind, lines) }
        });
        // SAFETY: every panel was written.
        let lines = unsafe { lines.assume_init() };
        Self { lines, scales: Vec::new(), n, k, arithmetic: kind.precision() }
    }

    /// Packs the weight `[n k]` of a linear layer.
    ///
    /// # Panics
    /// If there are not `n * k` values. [`MatmulPrecision::Int8`] needs a processor that has it ([`MatmulPrecision::is_available`]).
    pub fn of_weight(weight: &[f32], [n, k]: [usize; 2], arithmetic: MatmulPrecision) -> Self {
        assert_eq!(weight.len(), n * k, "panels: size of the weight");
        if arithmetic == MatmulPrecision::Int8 {
            return Self::of_bytes([n, k], |row, columns, out| out.copy_from_slice(&weight[row * k..][columns]));
        }
        // SAFETY: the size was checked.
        unsafe { Self::pack(Matrix::rows(weight, k).t(), [k, n], arithmetic.floats()) }
    }

    /// Rounds the weight `[n k]` of a linear layer to 8-bit integers; `read` copies a part of one row.
    fn of_bytes([n, k]: [usize; 2], read: impl Fn(usize, std::ops::Range<usize>, &mut [f32]) + Sync) -> Self {
        assert!(MatmulPrecision::Int8.is_native(), "panels: the processor does not multiply 8-bit integers");
        // SAFETY: just checked.
        let Bytes { lines, scales } = unsafe { Bytes::of_weight([n, k], read) };
        Self { lines, scales, n, k, arithmetic: MatmulPrecision::Int8 }
    }

    /// [`PackedWeight::of_weight`] of little-endian numbers in bf16, without a copy in f32; `None` where a number is not finite, and for panels
    /// in f32.
    pub(crate) fn of_bf16(weight: &[u8], [n, k]: [usize; 2], arithmetic: MatmulPrecision) -> Option<Self> {
        assert_eq!(weight.len(), 2 * n * k, "panels: size of the weight");
        match arithmetic {
            MatmulPrecision::F32 => None,
            MatmulPrecision::Bf16 => Self::as_stored(weight, [n, k]),
            MatmulPrecision::Int8 => {
                let panels = Self::of_bytes([n, k], |row, columns, out| {
                    let bytes = &weight[2 * (row * k + columns.start)..2 * (row * k + columns.end)];
                    vectorised(Widened { out, bytes });
                });
                panels.scales.iter().all(|scale| scale.is_finite()).then_some(panels)
            }
        }
    }

    /// Numbers in bf16 are taken as they are.
    fn as_stored(weight: &[u8], [n, k]: [usize; 2]) -> Option<Self> {
        let (steps, wrong) = (k.div_ceil(2), AtomicBool::new(false));
        let mut lines = UninitVec::new(n.div_ceil(COLUMNS) * steps * LINES);
        let panels = lines.room().par_chunks_mut((steps * LINES).max(1)).enumerate();
        panels.for_each(|(panel, lines)| {
            let rows = &weight[2 * k * panel * COLUMNS..];
            let mut finite = true;
            vectorised(Stored { rows: &rows[..rows.len().min(2 * k * COLUMNS)], k, lines, finite: &mut finite });
            if !finite {
                wrong.store(true, Ordering::Relaxed);
            }
        });
        // SAFETY: every line of every panel was written.
        let lines = unsafe { lines.assume_init() };
        (!wrong.into_inner()).then_some(Self { lines, scales: Vec::new(), n, k, arithmetic: MatmulPrecision::Bf16 })
    }

    /// The rows k.
    pub(crate) fn rows(&self) -> usize {
        self.k
    }

    /// The columns n.
    pub(crate) fn columns(&self) -> usize {
        self.n
    }

    pub(crate) fn steps(&self) -> usize {
        self.k.div_ceil(self.arithmetic.rows())
    }
}
