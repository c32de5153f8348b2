//! Convolutions of other kinds than F(4x4, 3x3) takes, as products of matrices with operands in bf16 and sums in f32: patches of the image, or
//! the image itself, are packed into panels where they are used.

use super::conv::with_lines;
use super::vectors::{LANES, first, in_line, pairs, transpose16, with_instructions};
use crate::kernel::matmul::layout::{COLUMNS, Line, ROWS};
use crate::kernel::matmul::matrix::{Matrix, Target};
use crate::kernel::matmul::multiply::multiply;
use crate::kernel::matmul::panel_tiles::{Ahead, Rows, Start, Tile};
use crate::kernel::matmul::rates::bf16_kind;
use crate::kernel::nn::conv::sizes::Sizes;
use crate::kernel::nn::conv::unfold::{Fold, patches};
use crate::kernel::simd::arch::vectorised;
use crate::kernel::simd::memory::{UninitVec, as_uninit};
use rayon::prelude::*;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// A left operand `[m k]` in pairs: `[m steps]`.
struct Left {
    words: Vec<u32>,
    steps: usize,
}

impl Left {
    /// Of rows of `k` side by side.
    fn of_rows(values: &[f32], k: usize) -> Self {
        let steps = k.div_ceil(2);
        let rows = values.len().checked_div(k).unwrap_or(0);
        let mut words = UninitVec::new(rows * steps);
        let pieces = words.room().par_chunks_exact_mut(steps.max(1)).zip(values.par_chunks_exact(k.max(1)));
        // SAFETY: the instructions were looked for, and a row has room for its pairs.
        pieces.with_min_len(64).for_each(|(words, values)| unsafe { round(values, words) });
        // SAFETY: `round` has written every word of every row.
        Self { words: unsafe { words.assume_init() }, steps }
    }

    /// Of a matrix of which the columns are given, `[k m]`.
    fn of_columns(values: &[f32], [m, k]: [usize; 2]) -> Self {
        let turned: Vec<f32> = (0..m).flat_map(|row| (0..k).map(move |i| i * m + row)).map(|at| values[at]).collect();
        Self::of_rows(&turned, k)
    }

    /// From row `first` on.
    fn rows(&self, first: usize) -> Rows {
        let words = self.words[first * self.steps..].as_ptr();
        Rows { words, row_stride: self.steps, step_stride: 1, tile_stride: ROWS * self.steps }
    }
}

with_instructions! {
    /// Rounds neighbours to pairs; an odd last one has zero beside it.
    ///
    /// # Safety
    /// The processor must have the instructions; so for all functions of this file.
    unsafe fn round(values: &[f32], words: &mut [MaybeUninit<u32>]) {
        for (values, words) in values.chunks(2 * LANES).zip(words.chunks_mut(LANES)) {
            // SAFETY: masked loads and stores stay within both.
            unsafe {
                let a = _mm512_maskz_loadu_ps(first(values.len()), values.as_ptr());
                let rest = values.len().saturating_sub(LANES);
                let b = _mm512_maskz_loadu_ps(first(rest), values.as_ptr().wrapping_add(LANES));
                _mm512_mask_storeu_epi32(words.as_mut_ptr().cast(), first(words.len()), in_line(a, b));
            }
        }
    }
}

with_instructions! {
    /// Packs `columns` columns of the matrix `[k columns]`, which lie side by side, in pairs of rows: `[steps COLUMNS]`.
    ///
    /// # Safety
    /// As [`round`]; the columns must exist, and there must be room for the words.
    unsafe fn pack_rows(x: Matrix, k: usize, columns: usize, words: &mut [u32]) {
        for (step, words) in words.chunks_exact_mut(COLUMNS).take(k.div_ceil(2)).enumerate() {
            let above = x.skip_rows(2 * step).data;
            let below = x.skip_rows(2 * step + 1).data;
            for j in (0..columns).step_by(LANES) {
                let mask = first(columns - j);
                // SAFETY: the caller vouches for the columns.
                unsafe {
                    let a = _mm512_maskz_loadu_ps(mask, above.wrapping_add(j));
                    let mut b = _mm512_setzero_ps();
                    if 2 * step + 1 < k {
                        b = _mm512_maskz_loadu_ps(mask, below.wrapping_add(j));
                    }
                    _mm512_storeu_si512(words[j..].as_mut_ptr().cast(), pairs(a, b));
                }
            }
        }
    }
}

with_instructions! {
    /// Packs the transpose of rows `[columns k]`, in pairs of neighbours: `[steps COLUMNS]`, where steps are a multiple of [`LANES`] and what
    /// does not exist is zero.
    ///
    /// # Safety
    /// As [`pack_rows`].
    unsafe fn pack_columns(x: Matrix, k: usize, columns: usize, words: &mut [u32]) {
        let mut rows = [[0u32; LANES]; LANES];
        for (block, words) in words.chunks_exact_mut(LANES * COLUMNS).take(k.div_ceil(2 * LANES)).enumerate() {
            let start = 2 * LANES * block;
            for column in (0..columns).step_by(LANES) {
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = [0; LANES];
                    if column + i < columns {
                        let from = x.skip_rows(column + i).data.wrapping_add(start);
                        // SAFETY: the caller vouches for the rows.
                        unsafe {
                            let a = _mm512_maskz_loadu_ps(first(k - start), from);
                            let rest = (k - start).saturating_sub(LANES);
                            let b = _mm512_maskz_loadu_ps(first(rest), from.wrapping_add(LANES));
                            _mm512_storeu_si512(row.as_mut_ptr().cast(), in_line(a, b));
                        }
                    }
                }
                // SAFETY: the block has room for the columns.
                unsafe { transpose16(rows.as_ptr().cast(), LANES, words[column..].as_mut_ptr(), COLUMNS) };
            }
        }
    }
}

/// out = left x for `m` rows from `row` on and the matrix `x` `[k n]`, plus what `out` holds if that is where sums start.
///
/// # Safety
/// The processor must have the instructions, x must be readable, and `out` must have rows of n that are `stride` apart and nobody else's.
unsafe fn pack_and_multiply(
    left: &Left,
    [m, n, k]: [usize; 3],
    x: Matrix,
    out: *mut f32,
    stride: usize,
    start: Start,
) {
    with_lines(left.steps * COLUMNS, |words| {
        for first in (0..n).step_by(COLUMNS) {
            let columns = COLUMNS.min(n - first);
            // SAFETY: the caller vouches for all.
            unsafe {
                pack_rows(x.skip_columns(first), k, columns, words);
                let lines: &[Line] = bytemuck::cast_slice(words);
                let tile = Tile { rows: left.rows(0), lines, columns, start, stride, ahead: Ahead::NONE };
                multiply(tile, out.wrapping_add(first), m, bf16_kind());
            }
        }
    });
}

/// The convolution of x `[b c h w]` with weight `[o c kh kw]`, plus bias `[o]`.
pub(super) fn conv(x: &[f32], weight: &[f32], bias: &[f32], sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let k = c * sizes.taps();
    let (plane, tiles, left) = (sizes.pixels(), sizes.tiles(c), Left::of_rows(weight, k));
    let mut values = UninitVec::new(b * o * plane);
    let out = Target::of(values.room());
    (0..b * tiles.len()).into_par_iter().for_each_init(Vec::new, |buffer, task| {
        let (sample, rows) = (task / tiles.len(), tiles[task % tiles.len()].clone());
        let x = patches(buffer, &x[sample * c * h * w..][..c * h * w], c, rows.clone(), sizes);
        let pixels = rows.len() * sizes.out[1];
        let at = sample * o * plane + rows.start * sizes.out[1];
        // SAFETY: no other task writes these pixels, which are set to the bias first.
        unsafe {
            for (channel, bias) in bias.iter().enumerate() {
                out.fill(at + channel * plane, pixels, *bias);
            }
            pack_and_multiply(&left, [o, pixels, k], x, out.at(at), plane, Start::Result);
        }
    });
    // SAFETY: the tiles cover the rows of a plane, and every channel's pixels were written.
    unsafe { values.assume_init() }
}

/// The gradient with respect to x.
pub(super) fn grad_input(grad: &[f32], weight: &[f32], sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let (k, plane) = (c * sizes.taps(), sizes.pixels());
    let left = Left::of_columns(weight, [k, o]);
    let mut dx = vec![0.0; b * c * h * w];
    let out = Target(dx.as_mut_ptr());
    (0..b).into_par_iter().for_each_init(Vec::new, |buffer, sample| {
        let at = sample * c * h * w;
        for rows in sizes.tiles(c) {
            let pixels = rows.len() * sizes.out[1];
            let grad = Matrix::rows(&grad[sample * o * plane + rows.start * sizes.out[1]..], plane);
            let size = [k, pixels, o];
            // SAFETY: no other task writes this sample.
            unsafe {
                if sizes.pointwise() {
                    pack_and_multiply(&left, size, grad, out.at(at), plane, Start::Zero);
                } else {
                    buffer.resize(k * pixels, 0.0);
                    pack_and_multiply(&left, size, grad, buffer.as_mut_ptr(), pixels, Start::Zero);
                    let dx = std::slice::from_raw_parts_mut(out.at(at), c * h * w);
                    vectorised(Fold { tile: buffer, dx, channels: c, rows, sizes });
                }
            }
        }
    });
    dx
}

/// The gradient with respect to the weight. Each task owns some of its columns and adds up the batch in order.
pub(super) fn grad_weight(grad: &[f32], x: &[f32], sizes: &Sizes) -> Vec<f32> {
    /// Columns of a task at the most.
    const WIDTH: usize = 32;
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let (taps, plane) = (sizes.taps(), sizes.pixels());
    let block = (WIDTH / taps).max(1);
    let mut dw = vec![0.0; o * c * taps];
    let out = Target(dw.as_mut_ptr());
    // By tiles of rows, which the pairs of neighbours must not cross.
    let tiles = sizes.tiles(block);
    let lefts: Vec<(Vec<u32>, usize)> = tiles
        .iter()
        .map(|rows| {
            let (start, pixels) = (rows.start * sizes.out[1], rows.len() * sizes.out[1]);
            let steps = pixels.div_ceil(2 * LANES) * LANES;
            let mut words = vec![0; b * o * steps];
            let planes = words.par_chunks_exact_mut(steps.max(1)).zip(grad.par_chunks_exact(plane.max(1)));
            // SAFETY: the instructions were looked for, a row has room for its pairs, and only pairs are written.
            planes.with_min_len(16).for_each(|(words, grad)| unsafe {
                round(&grad[start..][..pixels], as_uninit(words));
            });
            (words, steps)
        })
        .collect();
    (0..c.div_ceil(block)).into_par_iter().for_each_init(Vec::new, |buffer, task| {
        let first = task * block;
        let channels = block.min(c - first);
        let columns = channels * taps;
        for (sample, (rows, (words, steps))) in
            (0..b).flat_map(|i| tiles.iter().zip(&lefts).map(move |tile| (i, tile)))
        {
            let pixels = rows.len() * sizes.out[1];
            let x = &x[(sample * c + first) * h * w..][..channels * h * w];
            let x = patches(buffer, x, channels, rows.clone(), sizes);
            // Of the image itself a tile is a part.
            let x = if sizes.pointwise() { Matrix { row_stride: plane, ..x } } else { x };
            let words = words[sample * o * steps..].as_ptr();
            let left = Rows { words, row_stride: *steps, step_stride: 1, tile_stride: ROWS * steps };
            with_lines(steps * COLUMNS, |words| {
                for start in (0..columns).step_by(COLUMNS) {
                    let n = COLUMNS.min(columns - start);
                    // SAFETY: the patches hold these rows, and no other task writes these columns.
                    unsafe {
                        pack_columns(x.skip_rows(start), pixels, n, words);
                        let lines: &[Line] = bytemuck::cast_slice(words);
                        let tile = Tile {
                            rows: left,
                            lines,
                            columns: n,
                            start: Start::Result,
                            stride: c * taps,
                            ahead: Ahead::NONE,
                        };
                        multiply(tile, out.at(first * taps + start), o, bf16_kind());
                    }
                }
            });
        }
    });
    dw
}
