//! Numbers as 8-bit integers, for products with AVX512-VNNI: neighbours of a sum share a scale.
//!
//! In a group of [`GROUP`] numbers a weight is s p with p from -127 to 127, and a number of the left operand l + r q with q from 0 to 255.
//! Their products come to r s (sum of q p) + l s (sum of p): the first sum is one of integers and exact, the second is known
//! with the weight.

use crate::kernel::matmul::layout::{COLUMNS, GROUP, LINES, Line, STEP, STEPS, Span};
use crate::kernel::matmul::matrix::Matrix;
use crate::kernel::simd::memory::{UninitVec, parts};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Numbers of a vector.
const LANES: usize = 16;

/// Smaller scales are none: their inverse would overflow.
const LEAST: f32 = 1e-30;

/// The bytes of a right operand `[k n]` in panels.
pub(crate) struct Bytes {
    /// `[panels steps LINES]`.
    pub(crate) lines: Vec<Line>,
    /// `[panels groups 2 COLUMNS]`: a column's scale in a group, and what its bytes there come to.
    pub(crate) scales: Vec<f32>,
}

impl Bytes {
    /// Rounds the weight `[n k]` of a linear layer, of which `read` copies a part of one row.
    ///
    /// # Safety
    /// The processor must have the instructions of [`crate::kernel::matmul::precision::MatmulPrecision::Int8`].
    pub(crate) unsafe fn of_weight(
        [n, k]: [usize; 2],
        read: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
    ) -> Self {
        let (panels, steps, groups) = (n.div_ceil(COLUMNS), k.div_ceil(STEP), k.div_ceil(GROUP));
        let mut scales = vec![0.0; panels * groups * 2 * COLUMNS];
        let mut lines = UninitVec::new(panels * steps * LINES);
        let panels = lines.room().par_chunks_mut((steps * LINES).max(1));
        let scale_panels = scales.par_chunks_mut((groups * 2 * COLUMNS).max(1));
        panels.zip(scale_panels).enumerate().for_each(|(panel, (lines, scales))| {
            let pieces = lines.chunks_mut(STEPS * LINES).zip(scales.chunks_exact_mut(2 * COLUMNS));
            for (group, (lines, scales)) in pieces.enumerate() {
                let numbers = group * GROUP..k.min((group + 1) * GROUP);
                for first in (0..COLUMNS).step_by(LANES) {
                    let mut words = [[0; STEPS]; LANES];
                    for (i, words) in words.iter_mut().enumerate() {
                        let (column, row) = (first + i, panel * COLUMNS + first + i);
                        if row < n {
                            let mut values = [0.0; GROUP];
                            read(row, numbers.clone(), &mut values[..numbers.len()]);
                            // SAFETY: the caller vouches for the processor.
                            let [scale, sum] = unsafe { round_weights(&values, bytemuck::cast_mut(words)) };
                            scales[column] = scale;
                            scales[COLUMNS + column] = sum;
                        }
                    }
                    for (step, lines) in lines.chunks_exact_mut(LINES).enumerate() {
                        lines[first / LANES].write(Line::of_step(&words, step));
                    }
                }
            }
        });
        // SAFETY: all lines of all steps of every panel were written.
        Self { lines: unsafe { lines.assume_init() }, scales }
    }
}

/// A left operand `[m k]`, rounded.
pub(crate) struct Rounded {
    /// `[m steps]`.
    pub(crate) words: Vec<u32>,
    /// `[m groups]`.
    pub(crate) spans: Vec<Span>,
}

impl Rounded {
    /// # Safety
    /// Every element of `a` `[m k]` must be readable, its rows' elements must lie side by side, and the processor must have the
    /// instructions.
    pub(crate) unsafe fn new(a: Matrix, [m, k]: [usize; 2]) -> Self {
        /// Rows of a task.
        const ROWS: usize = 8;
        let (steps, groups) = (k.div_ceil(STEP), k.div_ceil(GROUP));
        let mut spans = vec![Span { low: 0.0, scale: 0.0 }; m * groups];
        let mut words = UninitVec::new(m * steps);
        let tasks = words.room().par_chunks_mut((ROWS * steps).max(1));
        let span_tasks = spans.par_chunks_mut((ROWS * groups).max(1));
        tasks.zip(span_tasks).enumerate().for_each(|(task, (words, spans))| {
            let rows = words.chunks_exact_mut(steps).zip(spans.chunks_exact_mut(groups));
            for (i, (words, spans)) in rows.enumerate() {
                // SAFETY: the caller vouches for the elements, and they lie side by side.
                let values = unsafe { std::slice::from_raw_parts(a.skip_rows(task * ROWS + i).data, k) };
                let bytes = parts::<u32, u8>(words).chunks_mut(GROUP);
                for ((values, bytes), span) in values.chunks(GROUP).zip(bytes).zip(spans) {
                    // SAFETY: the caller vouches for the processor.
                    *span = unsafe {
                        match (values.first_chunk(), bytes.first_chunk_mut()) {
                            (Some(values), Some(bytes)) => round_numbers(values, bytes),
                            _ => {
                                let (mut all, mut rounded) = ([values[0]; GROUP], [MaybeUninit::new(0); GROUP]);
                                all[..values.len()].copy_from_slice(values);
                                let span = round_numbers(&all, &mut rounded);
                                bytes.copy_from_slice(&rounded[..bytes.len()]);
                                span
                            }
                        }
                    };
                }
            }
        });
        // SAFETY: the groups of a row are its words, and every group of every row was written.
        Self { words: unsafe { words.assume_init() }, spans }
    }
}

/// Rounds a group of weights; returns its scale, and what its bytes come to. What is not finite leaves a scale that is not.
///
/// # Safety
/// The processor must have the instructions of [`crate::kernel::matmul::precision::MatmulPrecision::Int8`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn round_weights(values: &[f32; GROUP], bytes: &mut [u8; GROUP]) -> [f32; 2] {
    use std::arch::x86_64::*;
    let values = values.as_chunks::<LANES>().0;
    // SAFETY: loads and stores are of one chunk.
    unsafe {
        let (mut largest, mut wrong) = (_mm512_setzero_ps(), _mm512_setzero_ps());
        for values in values {
            let x = _mm512_loadu_ps(values.as_ptr());
            largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
            wrong = _mm512_fmadd_ps(x, _mm512_setzero_ps(), wrong);
        }
        let scale = _mm512_reduce_max_ps(largest) / 127.0;
        let inverse = _mm512_set1_ps(if scale > LEAST { scale.recip() } else { 0.0 });
        let mut total = _mm512_setzero_si512();
        for (values, bytes) in values.iter().zip(bytes.as_chunks_mut::<LANES>().0) {
            let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(values.as_ptr()), inverse));
            total = _mm512_add_epi32(total, rounded);
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(rounded));
        }
        let scale = scale + _mm512_reduce_add_ps(wrong);
        [scale, scale * _mm512_reduce_add_epi32(total) as f32]
    }
}

/// Rounds a group of the left operand; what is not finite leaves a span that is not.
///
/// # Safety
/// As [`round_weights`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn round_numbers(values: &[f32; GROUP], bytes: &mut [MaybeUninit<u8>; GROUP]) -> Span {
    use std::arch::x86_64::*;
    let values = values.as_chunks::<LANES>().0;
    // SAFETY: loads and stores are of one chunk.
    unsafe {
        let first = _mm512_set1_ps(values[0][0]);
        let (mut low, mut high, mut wrong) = (first, first, _mm512_setzero_ps());
        for values in values {
            let x = _mm512_loadu_ps(values.as_ptr());
            low = _mm512_min_ps(low, x);
            high = _mm512_max_ps(high, x);
            wrong = _mm512_fmadd_ps(x, _mm512_setzero_ps(), wrong);
        }
        let low = _mm512_reduce_min_ps(low);
        let scale = (_mm512_reduce_max_ps(high) - low) / 255.0;
        let (from, inverse) = (_mm512_set1_ps(low), _mm512_set1_ps(if scale > LEAST { scale.recip() } else { 0.0 }));
        for (values, bytes) in values.iter().zip(bytes.as_chunks_mut::<LANES>().0) {
            let x = _mm512_sub_ps(_mm512_loadu_ps(values.as_ptr()), from);
            let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(rounded));
        }
        Span { low: low + _mm512_reduce_add_ps(wrong), scale }
    }
}

/// There are no products of bytes on other processors.
#[cfg(not(target_arch = "x86_64"))]
#[allow(clippy::unreachable, reason = "`is_native` says that there are none")]
unsafe fn round_weights(_: &[f32; GROUP], _: &mut [u8; GROUP]) -> [f32; 2] {
    unreachable!("bytes are multiplied on x86-64 only");
}

/// There are no products of bytes on other processors.
#[cfg(not(target_arch = "x86_64"))]
#[allow(clippy::unreachable, reason = "`is_native` says that there are none")]
unsafe fn round_numbers(_: &[f32; GROUP], _: &mut [MaybeUninit<u8>; GROUP]) -> Span {
    unreachable!("bytes are multiplied on x86-64 only");
}
