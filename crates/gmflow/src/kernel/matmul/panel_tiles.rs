//! The inner loops of products with panels: up to six rows by 64 columns in registers.

use crate::kernel::matmul::layout::{COLUMNS, LINES, Line, ROWS, Span};

/// The left operand: words of one step, and the distances between the rows of a tile, between steps, and between tiles.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) words: *const u32,
    pub(crate) row_stride: usize,
    pub(crate) step_stride: usize,
    pub(crate) tile_stride: usize,
}

// SAFETY: only read.
unsafe impl Sync for Rows {}

impl Rows {
    pub(crate) fn skip_steps(self, count: usize) -> Self {
        Self { words: self.words.wrapping_add(count * self.step_stride), ..self }
    }

    pub(crate) fn skip_tiles(self, count: usize) -> Self {
        Self { words: self.words.wrapping_add(count * self.tile_stride), ..self }
    }
}

/// What the sums start from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    Zero,
    /// One value per column.
    Bias(&'a [f32]),
    /// What the result holds.
    Result,
}

/// What the integers of a product stand for.
#[derive(Clone, Copy)]
pub(crate) struct Scales<'a> {
    /// `[groups 2 COLUMNS]` of the panel.
    pub(crate) columns: &'a [f32],
    /// `[rows groups]` from the first row on.
    pub(crate) rows: *const Span,
}

// SAFETY: only read.
unsafe impl Sync for Scales<'_> {}

/// The instructions of a product.
#[derive(Clone, Copy)]
pub(crate) enum Kind<'a> {
    F32,
    /// The dot product of AVX512-BF16.
    Bf16,
    /// Pairs in bf16 that are widened to f32 in registers: the same sums, but of one product after the other.
    Bf16Widened,
    /// All steps of the panel at once.
    Int8(Scales<'a>),
}

/// Lines that are multiplied after those of a tile, and that are fetched meanwhile: where weights come from memory, that hides its time.
#[derive(Clone, Copy)]
pub(crate) struct Ahead(*const Line);

impl Ahead {
    /// Nothing is fetched.
    pub(crate) const NONE: Self = Self(std::ptr::null());
    /// Steps of a tile in which [`Self::LINES`] lines are fetched.
    const STEPS: usize = 16;
    const LINES: usize = 2;

    /// The lines that lie `distance` lines behind the first of `lines`.
    pub(crate) fn behind(lines: &[Line], distance: usize) -> Self {
        Self(lines.as_ptr().wrapping_add(distance))
    }

    /// What a tile of `steps` steps fetches that comes after `tiles` others, of `lines` lines in all.
    pub(crate) fn of_tile(self, tiles: usize, steps: usize, lines: usize) -> Self {
        let done = tiles * steps / Self::STEPS * Self::LINES;
        if done < lines { self.skip(done) } else { Self::NONE }
    }

    /// The lines from that many on.
    pub(crate) fn skip(self, lines: usize) -> Self {
        if self.0.is_null() { self } else { Self(self.0.wrapping_add(lines)) }
    }
}

/// Some steps of one panel, and where its rows come from.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    pub(crate) rows: Rows,
    /// `[steps LINES]`.
    pub(crate) lines: &'a [Line],
    /// Columns of the result, the others are dropped.
    pub(crate) columns: usize,
    pub(crate) start: Start<'a>,
    /// Between rows of the result.
    pub(crate) stride: usize,
    pub(crate) ahead: Ahead,
}

/// The products of `m` rows with the panel, into `out`.
///
/// # Safety
/// The rows must hold all steps of the lines and the scales all their groups, `out` `m` rows of `columns`, and the processor must have
/// AVX-512, for the dot product of bf16 also AVX512-BF16, for int8 AVX512-VNNI.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn run(tile: Tile, out: *mut f32, m: usize, kind: Kind) {
    // SAFETY: the caller vouches for all.
    unsafe {
        match kind {
            Kind::F32 => x86::run_f32(tile, out, m),
            Kind::Bf16 => x86::run_bf16(tile, out, m),
            Kind::Bf16Widened => x86::run_bf16_widened(tile, out, m),
            Kind::Int8(scales) => x86::run_int8(tile, scales, out, m),
        }
    }
}

/// There are no such products on other processors: [`crate::kernel::matmul::precision::MatmulPrecision::is_native`] says so.
#[cfg(not(target_arch = "x86_64"))]
#[allow(clippy::unreachable, reason = "`is_native` says that there are none")]
pub(crate) unsafe fn run(_: Tile, _: *mut f32, _: usize, _: Kind) {
    unreachable!("panels are multiplied on x86-64 only");
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Ahead, COLUMNS, LINES, Line, ROWS, Rows, Scales, Start, Tile};
    use crate::kernel::matmul::layout::STEPS;
    use std::arch::x86_64::*;

    /// One step: sum + a b.
    trait Multiply {
        /// Sixteen sums.
        type Sum: Copy;

        /// # Safety
        /// The processor must have the instruction.
        unsafe fn add(sum: Self::Sum, a: __m512i, b: __m512i) -> Self::Sum;
    }

    #[derive(Clone, Copy)]
    struct F32;

    impl Multiply for F32 {
        type Sum = __m512;

        #[inline(always)]
        unsafe fn add(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: the caller vouches for AVX-512.
            unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), acc) }
        }
    }

    #[derive(Clone, Copy)]
    struct Bf16;

    impl Multiply for Bf16 {
        type Sum = __m512;

        #[inline(always)]
        unsafe fn add(acc: __m512, a: __m512i, b: __m512i) -> __m512 {
            // SAFETY: the caller vouches for AVX512-BF16; vectors of 32 bf16 have no other form than 512 bits.
            unsafe {
                let pairs = |x: __m512i| std::mem::transmute::<__m512i, __m512bh>(x);
                _mm512_dpbf16_ps(acc, pairs(a), pairs(b))
            }
        }
    }

    /// Pairs of bf16 that are widened.
    #[derive(Clone, Copy)]
    struct Widened;

    struct Int8;

    impl Multiply for Int8 {
        type Sum = __m512i;

        #[inline(always)]
        unsafe fn add(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: the caller vouches for AVX512-VNNI.
            unsafe { _mm512_dpbusd_epi32(sum, a, b) }
        }
    }

    /// # Safety
    /// As [`super::run`].
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn run_f32(tile: Tile, out: *mut f32, m: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { all_rows(tile, out, m, Floats::<F32>(std::marker::PhantomData)) }
    }

    /// # Safety
    /// As [`super::run`].
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(crate) unsafe fn run_bf16(tile: Tile, out: *mut f32, m: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { all_rows(tile, out, m, Floats::<Bf16>(std::marker::PhantomData)) }
    }

    /// # Safety
    /// As [`super::run`].
    #[target_feature(enable = "avx512f")]
    pub(crate) unsafe fn run_bf16_widened(tile: Tile, out: *mut f32, m: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { all_rows(tile, out, m, Floats::<Widened>(std::marker::PhantomData)) }
    }

    /// # Safety
    /// As [`super::run`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(crate) unsafe fn run_int8(tile: Tile, scales: Scales, out: *mut f32, m: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { all_rows(tile, out, m, scales) }
    }

    /// What is done with the rows of a tile.
    trait Body: Copy {
        /// `R` rows of `tile`, of which the first is row `row` of all, into `out`.
        ///
        /// # Safety
        /// As [`super::run`].
        unsafe fn rows<const R: usize>(self, tile: Tile, row: usize, out: *mut f32);
    }

    #[inline(always)]
    unsafe fn all_rows(tile: Tile, out: *mut f32, m: usize, body: impl Body) {
        let mut row = 0;
        while row < m {
            let (tiles, lines) = (row / ROWS, tile.lines.len());
            let ahead = tile.ahead.of_tile(tiles, lines / LINES, lines);
            let tile = Tile { rows: tile.rows.skip_tiles(tiles), ahead, ..tile };
            // SAFETY: the rows from here on are within what the caller vouches for.
            unsafe {
                let out = out.add(row * tile.stride);
                match m - row {
                    1 => body.rows::<1>(tile, row, out),
                    2 => body.rows::<2>(tile, row, out),
                    3 => body.rows::<3>(tile, row, out),
                    4 => body.rows::<4>(tile, row, out),
                    5 => body.rows::<5>(tile, row, out),
                    _ => body.rows::<ROWS>(tile, row, out),
                }
            }
            row += ROWS;
        }
    }

    /// Bit j of word i says whether column 16 i + j exists.
    #[inline(always)]
    fn masks(columns: usize) -> [__mmask16; LINES] {
        std::array::from_fn(|line| {
            let left = columns.saturating_sub(16 * line).min(16);
            ((1u32 << left) - 1) as __mmask16
        })
    }

    /// What a line of sums starts from.
    ///
    /// # Safety
    /// The columns of the mask must exist in `start` and `out`.
    #[inline(always)]
    unsafe fn begin(start: Start, line: usize, mask: __mmask16, out: *const f32) -> __m512 {
        // SAFETY: masked loads touch existing columns only.
        unsafe {
            match start {
                Start::Zero => _mm512_setzero_ps(),
                Start::Bias(bias) => _mm512_maskz_loadu_ps(mask, bias.as_ptr().wrapping_add(16 * line)),
                Start::Result => _mm512_maskz_loadu_ps(mask, out.wrapping_add(16 * line)),
            }
        }
    }

    /// Adds the products of `R` rows with the first `L` lines of some steps of a panel to their sums.
    ///
    /// # Safety
    /// As [`super::run`].
    #[inline(always)]
    unsafe fn add_steps<M: Multiply, const R: usize, const L: usize>(
        sums: &mut [[M::Sum; L]; R],
        rows: Rows,
        (lines, ahead): (&[Line], Ahead),
    ) {
        let mut words = rows.words;
        for (part, lines) in lines.chunks(Ahead::STEPS * LINES).enumerate() {
            if !ahead.0.is_null() {
                for line in 0..Ahead::LINES {
                    let line = ahead.0.wrapping_add(part * Ahead::LINES + line);
                    // SAFETY: nothing is read.
                    unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) };
                }
            }
            for lines in lines.chunks_exact(LINES) {
                // SAFETY: the caller vouches for the rows and the instructions.
                unsafe {
                    let b: [__m512i; L] =
                        std::array::from_fn(|line| _mm512_load_si512(lines[line].0.as_ptr().cast()));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let a = _mm512_set1_epi32(*words.wrapping_add(i * rows.row_stride) as i32);
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = M::add(*sum, a, b);
                        }
                    }
                }
                words = words.wrapping_add(rows.step_stride);
            }
        }
    }

    /// The steps of a panel whose sums are f32.
    trait Steps: Copy {
        /// Adds the products of `R` rows with the first `L` lines of some steps of a panel to their sums.
        ///
        /// # Safety
        /// As [`super::run`].
        unsafe fn add<const R: usize, const L: usize>(
            sums: &mut [[__m512; L]; R],
            rows: Rows,
            lines: (&[Line], Ahead),
        );
    }

    impl<M: Multiply<Sum = __m512> + Copy> Steps for M {
        #[inline(always)]
        unsafe fn add<const R: usize, const L: usize>(
            sums: &mut [[__m512; L]; R],
            rows: Rows,
            lines: (&[Line], Ahead),
        ) {
            // SAFETY: the caller vouches for it.
            unsafe { add_steps::<M, R, L>(sums, rows, lines) }
        }
    }

    impl Steps for Widened {
        #[inline(always)]
        unsafe fn add<const R: usize, const L: usize>(
            sums: &mut [[__m512; L]; R],
            rows: Rows,
            (lines, _): (&[Line], Ahead),
        ) {
            let mut words = rows.words;
            for lines in lines.chunks_exact(LINES) {
                // SAFETY: the caller vouches for the rows and the instructions.
                unsafe {
                    add_halves::<false, R, L>(sums, words, rows.row_stride, lines);
                    add_halves::<true, R, L>(sums, words, rows.row_stride, lines);
                }
                words = words.wrapping_add(rows.step_stride);
            }
        }
    }

    /// The products of the first or the second numbers of pairs. The lines are read for each, as there are no registers to keep them.
    ///
    /// # Safety
    /// As [`super::run`].
    #[inline(always)]
    unsafe fn add_halves<const SECOND: bool, const R: usize, const L: usize>(
        sums: &mut [[__m512; L]; R],
        words: *const u32,
        row_stride: usize,
        lines: &[Line],
    ) {
        // SAFETY: the caller vouches for the rows and the instructions.
        unsafe {
            let mut columns = [_mm512_setzero_ps(); L];
            for (column, pairs) in columns.iter_mut().zip(lines) {
                *column = widened::<SECOND>(_mm512_load_si512(pairs.0.as_ptr().cast()));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = widened::<SECOND>(_mm512_set1_epi32(*words.wrapping_add(i * row_stride) as i32));
                for (sum, b) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
        }
    }

    /// The lower or the upper halves of words, which are bf16, as f32.
    #[inline(always)]
    unsafe fn widened<const SECOND: bool>(pairs: __m512i) -> __m512 {
        // SAFETY: the caller vouches for AVX-512.
        unsafe {
            _mm512_castsi512_ps(match SECOND {
                true => _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32)),
                false => _mm512_slli_epi32::<16>(pairs),
            })
        }
    }

    /// Sums in f32.
    #[derive(Clone, Copy)]
    struct Floats<M>(std::marker::PhantomData<fn() -> M>);

    impl<M: Steps> Body for Floats<M> {
        #[inline(always)]
        unsafe fn rows<const R: usize>(self, tile: Tile, _: usize, out: *mut f32) {
            // SAFETY: the caller vouches for it.
            unsafe {
                match tile.columns.div_ceil(16) {
                    1 => self.lines::<R, 1>(tile, out),
                    2 => self.lines::<R, 2>(tile, out),
                    _ => self.lines::<R, LINES>(tile, out),
                }
            }
        }
    }

    impl<M: Steps> Floats<M> {
        /// [`Body::rows`] where the columns that exist are in the first `L` lines.
        ///
        /// # Safety
        /// As there.
        #[inline(always)]
        unsafe fn lines<const R: usize, const L: usize>(self, tile: Tile, out: *mut f32) {
            let Tile { rows, lines, columns, start, stride, ahead } = tile;
            let masks = masks(columns);
            // SAFETY: masked loads and stores touch existing columns only; the rest is what the caller vouches for.
            unsafe {
                let mut sums = [[_mm512_setzero_ps(); L]; R];
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (line, sum) in sums.iter_mut().enumerate() {
                        *sum = begin(start, line, masks[line], out.wrapping_add(i * stride));
                    }
                }
                M::add(&mut sums, rows, (lines, ahead));
                for (i, sums) in sums.iter().enumerate() {
                    for (line, sum) in sums.iter().enumerate() {
                        _mm512_mask_storeu_ps(out.wrapping_add(i * stride + 16 * line), masks[line], *sum);
                    }
                }
            }
        }
    }

    impl Body for Scales<'_> {
        /// Integers within a group, f32 from group to group: the sums of the groups before wait in `out`.
        #[inline(always)]
        unsafe fn rows<const R: usize>(self, tile: Tile, row: usize, out: *mut f32) {
            let Tile { rows, lines, columns, mut start, stride, ahead } = tile;
            let masks = masks(columns);
            let groups = self.columns.len() / (2 * COLUMNS);
            let each = lines.chunks(STEPS * LINES).zip(self.columns.chunks_exact(2 * COLUMNS));
            for (group, (lines, scales)) in each.enumerate() {
                // SAFETY: as for sums in f32; rows have a span for each group.
                unsafe {
                    let mut sums = [[_mm512_setzero_si512(); LINES]; R];
                    let ahead = ahead.of_tile(group, STEPS, usize::MAX);
                    add_steps::<Int8, R, LINES>(&mut sums, rows.skip_steps(group * STEPS), (lines, ahead));
                    for (i, sums) in sums.iter().enumerate() {
                        let span = *self.rows.wrapping_add((row + i) * groups + group);
                        let (low, scale) = (_mm512_set1_ps(span.low), _mm512_set1_ps(span.scale));
                        let out = out.wrapping_add(i * stride);
                        for (line, sum) in sums.iter().enumerate() {
                            let of_column = scales.as_ptr().wrapping_add(16 * line);
                            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(*sum), _mm512_loadu_ps(of_column));
                            let before = begin(start, line, masks[line], out);
                            let both = _mm512_fmadd_ps(low, _mm512_loadu_ps(of_column.wrapping_add(COLUMNS)), before);
                            let after = _mm512_fmadd_ps(scale, product, both);
                            _mm512_mask_storeu_ps(out.wrapping_add(16 * line), masks[line], after);
                        }
                    }
                }
                start = Start::Result;
            }
        }
    }
}
