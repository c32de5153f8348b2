//! The products of any number of rows with a panel.
//!
//! Numbers in bf16 that are multiplied as f32 are widened in registers where there are few rows. For more, a part of the panel, and one tile of
//! rows after the other, are widened into memory that a core's own caches hold.

use crate::kernel::matmul::layout::{COLUMNS, LINES, Line, ROWS};
use crate::kernel::matmul::panel_tiles::{Kind, Rows, Start, Tile, run};
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::memory::with_room;
use std::mem::MaybeUninit;

/// Rows that do not pay for a widened panel.
const FEW_ROWS: usize = 2 * ROWS;

/// Steps of pairs that are widened at a time: the panel stays in the second-level cache, the rows in the first.
const DEPTH: usize = 768;

/// Numbers of a line.
const LANES: usize = COLUMNS / LINES;

/// The products of `m` rows with the panel, into `out`.
///
/// # Safety
/// As [`run`].
pub(crate) unsafe fn multiply(tile: Tile, out: *mut f32, m: usize, kind: Kind) {
    // SAFETY: the caller vouches for all.
    unsafe {
        match kind {
            Kind::Bf16Widened if m > FEW_ROWS => multiply_widened(tile, out, m),
            _ => run(tile, out, m, kind),
        }
    }
}

/// The same of pairs in bf16. To the last bit the sums are those in f32 of their numbers.
///
/// # Safety
/// As [`run`], with AVX-512.
unsafe fn multiply_widened(tile: Tile, out: *mut f32, m: usize) {
    let mut start = tile.start;
    for (part, lines) in tile.lines.chunks(DEPTH * LINES).enumerate() {
        let steps = lines.len() / LINES;
        let (rows, ahead) = (tile.rows.skip_steps(part * DEPTH), tile.ahead.skip(part * DEPTH * LINES));
        let pairs_of_panel = lines.len();
        with_room(2 * steps * (COLUMNS + ROWS), |room| {
            let (panel, left) = room.split_at_mut(2 * steps * COLUMNS);
            vectorised(Widened::<COLUMNS> { out: panel, pairs: bytemuck::cast_slice(lines) });
            // SAFETY: every number was written, and the room begins with a line of the cache.
            let lines: &[Line] =
                unsafe { std::slice::from_raw_parts(panel.as_ptr().cast(), 2 * steps * COLUMNS / LANES) };
            for first in (0..m).step_by(ROWS) {
                let few = ROWS.min(m - first);
                let pairs = rows.skip_tiles(first / ROWS);
                let ahead = ahead.of_tile(first / ROWS, 2 * steps, pairs_of_panel);
                // SAFETY: the caller vouches for the rows and the result; as many numbers are written as the tile reads.
                unsafe {
                    let rows = widened_rows(pairs, few, steps, left);
                    run(Tile { rows, lines, start, ahead, ..tile }, out.add(first * tile.stride), few, Kind::F32);
                }
            }
        });
        start = Start::Result;
    }
}

/// Writes the numbers of a tile's rows, of which `count` exist, in the order in which their words stand.
///
/// # Safety
/// The rows must hold `steps` steps; where a step's words lie side by side there must be [`ROWS`] of them.
unsafe fn widened_rows(rows: Rows, count: usize, steps: usize, out: &mut [MaybeUninit<f32>]) -> Rows {
    let words = out.as_ptr().cast();
    if rows.step_stride == 1 {
        for (row, out) in out.chunks_exact_mut(2 * steps).enumerate().take(count) {
            // SAFETY: the caller vouches for the words.
            let pairs = unsafe { std::slice::from_raw_parts(rows.words.wrapping_add(row * rows.row_stride), steps) };
            vectorised(Widened::<1> { out, pairs });
        }
        return Rows { words, row_stride: 2 * steps, step_stride: 1, tile_stride: 0 };
    }
    assert_eq!([rows.row_stride, rows.step_stride], [1, ROWS], "panels: order of the left operand");
    // SAFETY: the caller vouches for the words.
    let pairs = unsafe { std::slice::from_raw_parts(rows.words, steps * ROWS) };
    vectorised(Widened::<ROWS> { out, pairs });
    Rows { words, row_stride: 1, step_stride: ROWS, tile_stride: 0 }
}

/// Pairs in bf16 as f32: of every `WIDTH` pairs the first numbers, then the second.
struct Widened<'a, const WIDTH: usize> {
    out: &'a mut [MaybeUninit<f32>],
    pairs: &'a [u32],
}

impl<const WIDTH: usize> Loop for Widened<'_, WIDTH> {
    #[inline(always)]
    fn run(self) {
        for (out, pairs) in self.out.chunks_exact_mut(2 * WIDTH).zip(self.pairs.chunks_exact(WIDTH)) {
            let (first, second) = out.split_at_mut(WIDTH);
            for ((first, second), pair) in first.iter_mut().zip(second).zip(pairs) {
                first.write(f32::from_bits(pair << 16));
                second.write(f32::from_bits(pair & 0xffff_0000));
            }
        }
    }
}
