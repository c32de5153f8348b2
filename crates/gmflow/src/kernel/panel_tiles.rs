//! The inner loops of products with panels: up to six rows by 64 columns in registers.

/// 64 bytes: 16 columns of a step.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; 16]);

// SAFETY: words without padding.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above, and every bit pattern is valid.
unsafe impl bytemuck::Pod for Line {}

/// Lines of a step.
pub(super) const LINES: usize = 4;
/// Columns of a panel.
pub(super) const COLUMNS: usize = 16 * LINES;
/// Rows of a tile.
pub(super) const ROWS: usize = 6;

/// The left operand: words of one step, and the distances between the rows of a tile, between steps, and between tiles.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) words: *const u32,
    pub(super) row_stride: usize,
    pub(super) step_stride: usize,
    pub(super) tile_stride: usize,
}

// SAFETY: only read.
unsafe impl Sync for Rows {}

impl Rows {
    pub(super) fn skip_steps(self, count: usize) -> Self {
        Self { words: self.words.wrapping_add(count * self.step_stride), ..self }
    }

    pub(super) fn skip_tiles(self, count: usize) -> Self {
        Self { words: self.words.wrapping_add(count * self.tile_stride), ..self }
    }
}

/// What the sums start from.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    Zero,
    /// One value per column.
    Bias(&'a [f32]),
    /// What the result holds.
    Result,
}

/// Some steps of one panel, and where its rows come from.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) rows: Rows,
    /// `[steps LINES]`.
    pub(super) lines: &'a [Line],
    /// Columns of the result, the others are dropped.
    pub(super) columns: usize,
    pub(super) start: Start<'a>,
    /// Between rows of the result.
    pub(super) stride: usize,
}

/// The products of `m` rows with the panel, into `out`.
///
/// # Safety
/// The rows must hold all steps of the lines, `out` `m` rows of `columns`, and the processor must have AVX-512, with `bf16` also
/// AVX512-BF16.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn run(tile: Tile, out: *mut f32, m: usize, bf16: bool) {
    // SAFETY: the caller vouches for both.
    unsafe { if bf16 { x86::run_bf16(tile, out, m) } else { x86::run_f32(tile, out, m) } }
}

/// There are no such products on other processors: [`super::panels::Arithmetic::is_native`] says so.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn run(_: Tile, _: *mut f32, _: usize, _: bool) {
    unreachable!("panels are multiplied on x86-64 only");
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LINES, ROWS, Start, Tile};
    use std::arch::x86_64::*;

    /// One step: acc + a b.
    trait Multiply {
        /// # Safety
        /// The processor must have the instruction.
        unsafe fn add(acc: __m512, a: __m512i, b: __m512i) -> __m512;
    }

    struct F32;

    impl Multiply for F32 {
        #[inline(always)]
        unsafe fn add(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: the caller vouches for AVX-512.
            unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), acc) }
        }
    }

    struct Bf16;

    impl Multiply for Bf16 {
        #[inline(always)]
        unsafe fn add(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: the caller vouches for AVX512-BF16; vectors of 32 bf16 have no other form than 512 bits.
            unsafe {
                let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
                _mm512_dpbf16_ps(acc, pairs(a), pairs(b))
            }
        }
    }

    /// # Safety
    /// As [`super::run`].
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn run_f32(tile: Tile, out: *mut f32, m: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { all_rows::<F32>(tile, out, m) }
    }

    /// # Safety
    /// As [`super::run`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn run_bf16(tile: Tile, out: *mut f32, m: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { all_rows::<Bf16>(tile, out, m) }
    }

    #[inline(always)]
    unsafe fn all_rows<M: Multiply>(tile: Tile, out: *mut f32, m: usize) {
        let mut row = 0;
        while row < m {
            let tile = Tile { rows: tile.rows.skip_tiles(row / ROWS), ..tile };
            // SAFETY: the rows from here on are within what the caller vouches for.
            unsafe {
                let out = out.add(row * tile.stride);
                match m - row {
                    1 => some_rows::<M, 1>(tile, out),
                    2 => some_rows::<M, 2>(tile, out),
                    3 => some_rows::<M, 3>(tile, out),
                    4 => some_rows::<M, 4>(tile, out),
                    5 => some_rows::<M, 5>(tile, out),
                    _ => some_rows::<M, ROWS>(tile, out),
                }
            }
            row += ROWS;
        }
    }

    #[inline(always)]
    unsafe fn some_rows<M: Multiply, const R: usize>(tile: Tile, out: *mut f32) {
        let Tile { rows, lines, columns, start, stride } = tile;
        // Bit j of word i says whether column 16 i + j exists.
        let masks: [__mmask16; LINES] = std::array::from_fn(|line| {
            let left = columns.saturating_sub(16 * line).min(16);
            ((1u32 << left) - 1) as __mmask16
        });
        // SAFETY: masked loads and stores touch existing columns only; the rest is what the caller vouches for.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); LINES]; R];
            for (i, sums) in sums.iter_mut().enumerate() {
                for (line, sum) in sums.iter_mut().enumerate() {
                    *sum = match start {
                        Start::Zero => *sum,
                        Start::Bias(bias) => {
                            _mm512_maskz_loadu_ps(masks[line], bias.as_ptr().wrapping_add(16 * line))
                        }
                        Start::Result => _mm512_maskz_loadu_ps(masks[line], out.wrapping_add(i * stride + 16 * line)),
                    };
                }
            }
            let mut words = rows.words;
            for lines in lines.chunks_exact(LINES) {
                let b: [__m512i; LINES] =
                    std::array::from_fn(|line| _mm512_load_si512(lines[line].0.as_ptr().cast()));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(*words.wrapping_add(i * rows.row_stride) as i32);
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = M::add(*sum, a, b);
                    }
                }
                words = words.wrapping_add(rows.step_stride);
            }
            for (i, sums) in sums.iter().enumerate() {
                for (line, sum) in sums.iter().enumerate() {
                    _mm512_mask_storeu_ps(out.wrapping_add(i * stride + 16 * line), masks[line], *sum);
                }
            }
        }
    }
}
