//! From matrices to the lines of panels.

use crate::kernel::matmul::layout::{COLUMNS, LINES, Line};
use crate::kernel::matmul::matrix::Matrix;
use crate::kernel::matmul::precision::FloatKind;
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::memory::{as_uninit, fill, parts};
use std::mem::MaybeUninit;

/// Columns and steps that are transposed together.
const BLOCK: usize = 16;

/// Packs the `[k n]` of one panel.
///
/// # Safety
/// As [`PackedWeight::pack`].
pub(crate) unsafe fn pack_panel(b: Matrix, [k, n]: [usize; 2], kind: FloatKind, lines: &mut [MaybeUninit<Line>]) {
    if n < COLUMNS {
        fill(lines, Line::default());
    }
    if b.column_stride != 1 && b.row_stride == 1 {
        // SAFETY: the caller vouches for the elements.
        return unsafe { pack_columns(b, [k, n], kind, lines) };
    }
    // SAFETY: the caller vouches for the elements, and they lie side by side.
    let row = |row: usize| unsafe { std::slice::from_raw_parts(b.data.add(row * b.row_stride), n) };
    for (step, lines) in lines.chunks_exact_mut(LINES).enumerate() {
        let words = parts::<Line, u32>(lines);
        match kind {
            FloatKind::F32 => {
                for (word, x) in words.iter_mut().zip(row(step)) {
                    word.write(x.to_bits());
                }
            }
            FloatKind::Bf16 if 2 * step + 1 < k => {
                vectorised(Interleaved { words, rows: [row(2 * step), row(2 * step + 1)] })
            }
            FloatKind::Bf16 => {
                for (word, x) in words.iter_mut().zip(row(2 * step)) {
                    word.write(bf16(*x));
                }
            }
        }
    }
}

/// Pairs of one element of either row.
pub(crate) struct Interleaved<'a> {
    pub(crate) words: &'a mut [MaybeUninit<u32>],
    pub(crate) rows: [&'a [f32]; 2],
}

impl Loop for Interleaved<'_> {
    #[inline(always)]
    fn run(self) {
        let [first, second] = self.rows;
        for (word, (first, second)) in self.words.iter_mut().zip(first.iter().zip(second)) {
            word.write(bf16(*first) | bf16(*second) << 16);
        }
    }
}

/// [`pack_panel`] of columns whose elements lie side by side, as those of a transposed weight do.
///
/// # Safety
/// As there.
unsafe fn pack_columns(b: Matrix, [k, n]: [usize; 2], kind: FloatKind, lines: &mut [MaybeUninit<Line>]) {
    let rows = BLOCK * kind.precision().rows();
    for (block, lines) in lines.chunks_mut(BLOCK * LINES).enumerate() {
        let first = block * rows;
        for line in 0..n.div_ceil(BLOCK) {
            let mut words = [[0; BLOCK]; BLOCK];
            for (column, words) in words.iter_mut().enumerate().take(n - line * BLOCK) {
                let start = b.skip_rows(first).skip_columns(line * BLOCK + column).data;
                // SAFETY: the caller vouches for the elements, and they lie side by side.
                let values = unsafe { std::slice::from_raw_parts(start, rows.min(k - first)) };
                match kind {
                    FloatKind::F32 => words.iter_mut().zip(values).for_each(|(word, x)| *word = x.to_bits()),
                    FloatKind::Bf16 => {
                        // SAFETY: only numbers are written.
                        let out = unsafe { as_uninit(bytemuck::cast_slice_mut::<u32, u16>(words)) };
                        vectorised(Rounded { out, values });
                    }
                }
            }
            for (step, lines) in lines.chunks_exact_mut(LINES).enumerate() {
                lines[line].write(Line::of_step(&words, step));
            }
        }
    }
}

/// The rows `[n k]` of a weight's panel as they are stored.
pub(crate) struct Stored<'a> {
    pub(crate) rows: &'a [u8],
    pub(crate) k: usize,
    pub(crate) lines: &'a mut [MaybeUninit<Line>],
    pub(crate) finite: &'a mut bool,
}

impl Loop for Stored<'_> {
    #[inline(always)]
    fn run(self) {
        const EXPONENT: u16 = 0x7f80;
        let Self { rows, k, lines, finite } = self;
        let bytes = 4 * BLOCK;
        for line in 0..LINES {
            for (block, lines) in lines.chunks_mut(BLOCK * LINES).enumerate() {
                let mut words = [[0u32; BLOCK]; BLOCK];
                let columns = rows.chunks_exact(2 * k).skip(line * BLOCK);
                for (words, row) in words.iter_mut().zip(columns) {
                    let row = &row[block * bytes..];
                    let row = &row[..row.len().min(bytes)];
                    let numbers: &mut [u16] = bytemuck::cast_slice_mut(words);
                    for (number, bytes) in numbers.iter_mut().zip(row.chunks_exact(2)) {
                        *number = u16::from_le_bytes([bytes[0], bytes[1]]);
                    }
                    *finite &= numbers.iter().all(|number| number & EXPONENT != EXPONENT);
                }
                for (step, lines) in lines.chunks_exact_mut(LINES).enumerate() {
                    lines[line].write(Line::of_step(&words, step));
                }
            }
        }
    }
}

/// Little-endian numbers in bf16.
pub(crate) struct Widened<'a> {
    pub(crate) out: &'a mut [f32],
    pub(crate) bytes: &'a [u8],
}

impl Loop for Widened<'_> {
    #[inline(always)]
    fn run(self) {
        for (out, bytes) in self.out.iter_mut().zip(self.bytes.as_chunks::<2>().0) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
        }
    }
}

/// The bits of x rounded to bf16, to the nearest and on a tie to the even one.
#[inline(always)]
pub(crate) fn bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

/// Neighbours rounded to bf16.
pub(crate) struct Rounded<'a> {
    pub(crate) out: &'a mut [MaybeUninit<u16>],
    pub(crate) values: &'a [f32],
}

impl Loop for Rounded<'_> {
    #[inline(always)]
    fn run(self) {
        for (out, x) in self.out.iter_mut().zip(self.values) {
            out.write(bf16(*x) as u16);
        }
    }
}
