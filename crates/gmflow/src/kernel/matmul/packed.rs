//! Products with a right operand that was packed into panels.

use crate::kernel::matmul::int8;
use crate::kernel::matmul::layout::{COLUMNS, LINES, ROWS, STEP, STEPS};
use crate::kernel::matmul::matrix::{Matrix, Target};
use crate::kernel::matmul::multiply::multiply;
use crate::kernel::matmul::pack::{Interleaved, Rounded};
use crate::kernel::matmul::panel_tiles::{Ahead, Kind, Rows, Scales, Start, Tile};
use crate::kernel::matmul::panels::PackedWeight;
use crate::kernel::matmul::precision::{FloatKind, MatmulPrecision};
use crate::kernel::matmul::rates::{Bf16Products, bf16_products};
use crate::kernel::simd::arch::vectorised;
use crate::kernel::simd::memory::{UninitVec, fill, par_rows, parts};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Tiles that are packed together.
const TILES: usize = 8;

/// The left operand of a product in words of one step.
enum Left {
    /// Rows in f32 where they lie.
    F32(Matrix),
    /// Rounded, `[m steps]`.
    Rows(Vec<u32>, usize),
    /// `[tiles steps ROWS]`.
    Tiles(Vec<u32>, usize),
    /// Rounded to 8-bit integers, `[m steps]`.
    Bytes(int8::Rounded, usize),
}

impl Left {
    /// # Safety
    /// Every element of `a` `[m k]` must be readable as long as this lives, and either its rows' or its columns' elements lie side by
    /// side.
    unsafe fn new(a: Matrix, [m, k]: [usize; 2], arithmetic: MatmulPrecision) -> Self {
        if a.column_stride != 1 {
            assert!(arithmetic != MatmulPrecision::Int8, "panels: order of the left operand in 8-bit integers");
            // SAFETY: the caller vouches for the elements.
            return unsafe { Self::tiles(a, [m, k], arithmetic.floats()) };
        }
        match arithmetic {
            MatmulPrecision::F32 => return Self::F32(a),
            // SAFETY: the caller vouches for the elements, and rows' lie side by side.
            MatmulPrecision::Int8 => return Self::Bytes(unsafe { int8::Rounded::new(a, [m, k]) }, k.div_ceil(STEP)),
            MatmulPrecision::Bf16 => {}
        }
        let steps = k.div_ceil(2);
        let mut words = UninitVec::new(m * steps);
        par_rows(words.room(), steps, |first, rows| {
            for (i, row) in rows.chunks_exact_mut(steps).enumerate() {
                // SAFETY: the caller vouches for the elements, and they lie side by side.
                let values = unsafe { std::slice::from_raw_parts(a.skip_rows(first + i).data, k) };
                let out = parts::<u32, u16>(row);
                fill(&mut out[k..], 0);
                vectorised(Rounded { out, values });
            }
        });
        // SAFETY: both halves of every word of every row were written.
        Self::Rows(unsafe { words.assume_init() }, steps)
    }

    /// A matrix whose columns' elements lie side by side.
    ///
    /// # Safety
    /// As [`Self::new`].
    unsafe fn tiles(a: Matrix, [m, k]: [usize; 2], kind: FloatKind) -> Self {
        const WIDTH: usize = TILES * ROWS;
        assert_eq!(a.row_stride, 1, "panels: order of the left operand");
        let steps = k.div_ceil(kind.precision().rows());
        let mut words = UninitVec::new(m.div_ceil(ROWS) * ROWS * steps);
        words.room().par_chunks_mut(WIDTH * steps).enumerate().for_each(|(group, out)| {
            let first = group * WIDTH;
            let rows = WIDTH.min(m - first);
            // SAFETY: the caller vouches for the elements, and they lie side by side.
            let column = |column: usize| unsafe {
                std::slice::from_raw_parts(a.skip_columns(column).skip_rows(first).data, rows)
            };
            let (mut words, zeros) = ([MaybeUninit::new(0); WIDTH], [0.0; WIDTH]);
            for step in 0..steps {
                match kind {
                    FloatKind::F32 => {
                        for (word, x) in words.iter_mut().zip(column(step)) {
                            word.write(x.to_bits());
                        }
                    }
                    FloatKind::Bf16 => {
                        let second = if 2 * step + 1 < k { column(2 * step + 1) } else { &zeros[..rows] };
                        vectorised(Interleaved { words: &mut words, rows: [column(2 * step), second] });
                    }
                }
                for (tile, words) in words.chunks_exact(ROWS).enumerate().take(rows.div_ceil(ROWS)) {
                    out[(tile * steps + step) * ROWS..][..ROWS].copy_from_slice(words);
                }
            }
        });
        // SAFETY: every step of every tile was written, with zeros in the place of rows that there are not.
        Self::Tiles(unsafe { words.assume_init() }, steps)
    }

    fn rows(&self) -> Rows {
        let rows = |words: *const u32, [row_stride, step_stride, tile_stride]: [usize; 3]| Rows {
            words,
            row_stride,
            step_stride,
            tile_stride,
        };
        match self {
            Self::F32(a) => rows(a.data.cast(), [a.row_stride, a.column_stride, ROWS * a.row_stride]),
            Self::Rows(words, steps) => rows(words.as_ptr(), [*steps, 1, ROWS * steps]),
            Self::Tiles(words, steps) => rows(words.as_ptr(), [1, ROWS, ROWS * steps]),
            Self::Bytes(rounded, steps) => rows(rounded.words.as_ptr(), [*steps, 1, ROWS * steps]),
        }
    }
}

/// Steps of one pass: a panel of them stays in the second-level cache.
const DEPTH: usize = 1536;

/// out += a b for `a` `[m k]`, the panels of b `[k n]` in f32 and rows of `out` that are `stride` apart, on this thread.
///
/// # Safety
/// Every element of `a` must be readable and either its rows' or its columns' elements lie side by side; `out` must hold `[m n]` that
/// nobody else uses.
pub(crate) unsafe fn add_product(a: Matrix, m: usize, b: &PackedWeight, out: *mut f32, stride: usize) {
    let steps = b.steps();
    assert!(
        b.arithmetic == MatmulPrecision::F32 && b.arithmetic.is_native(),
        "panels: sums of products in {:?}",
        b.arithmetic
    );
    // SAFETY: the caller vouches for a.
    let left = unsafe { Left::new(a, [m, b.k], b.arithmetic) };
    for (panel, lines) in b.lines.chunks((steps * LINES).max(1)).enumerate() {
        for (pass, lines) in lines.chunks(DEPTH * LINES).enumerate() {
            let (first, rows) = (panel * COLUMNS, left.rows().skip_steps(pass * DEPTH));
            let tile = Tile {
                rows,
                lines,
                columns: COLUMNS.min(b.n - first),
                start: Start::Result,
                stride,
                ahead: Ahead::NONE,
            };
            // SAFETY: the tiles lie within the operands and the result.
            unsafe { multiply(tile, out.add(first), m, Kind::F32) };
        }
    }
}

/// a b for `a` `[m k]` and the panels of b `[k n]`, plus `bias` `[n]` where there is one.
///
/// # Safety
/// Every element of `a` must be readable.
pub(crate) unsafe fn product(a: Matrix, m: usize, b: &PackedWeight, bias: Option<&[f32]>) -> Vec<f32> {
    let bf16 = if b.arithmetic == MatmulPrecision::Bf16 { bf16_products() } else { Bf16Products::DotProduct };
    // SAFETY: the caller vouches for a.
    unsafe { product_by(a, m, b, bias, bf16) }
}

/// [`product`] with these products of numbers in bf16. Widened, the sums are those of a product in f32 of the rounded numbers, to the last
/// bit.
///
/// # Safety
/// As there.
unsafe fn product_by(a: Matrix, m: usize, b: &PackedWeight, bias: Option<&[f32]>, bf16: Bf16Products) -> Vec<f32> {
    /// Products smaller than this run on one thread.
    const SMALL: usize = 64 * 64 * 64;
    let (n, steps) = (b.n, b.steps());
    assert!(bias.is_none_or(|bias| bias.len() == n), "panels: size of the bias");
    assert!(b.arithmetic.is_native(), "panels: the processor does not multiply {:?}", b.arithmetic);
    if n == 0 || m == 0 {
        return Vec::new();
    }
    if steps == 0 {
        return (0..m).flat_map(|_| bias.map_or_else(|| vec![0.0; n], <[f32]>::to_vec)).collect();
    }
    // SAFETY: the caller vouches for a.
    let left = unsafe { Left::new(a, [m, b.k], b.arithmetic) };
    let (depth, groups) = match b.arithmetic {
        MatmulPrecision::Int8 => (steps, steps.div_ceil(STEPS)),
        MatmulPrecision::F32 | MatmulPrecision::Bf16 => (steps.div_ceil(steps.div_ceil(DEPTH)), 0),
    };
    let panels = n.div_ceil(COLUMNS);
    let work = m * n * b.k;
    // Enough tasks that no thread waits long for the last one, none smaller than a few tiles.
    let chunks = (8 * rayon::current_num_threads()).div_ceil(panels).min(m.div_ceil(4 * ROWS));
    let chunk = m.div_ceil(chunks).next_multiple_of(ROWS);
    let mut values = UninitVec::new(m * n);
    let (rows, out) = (left.rows(), Target::of(values.room()));
    let task = |task: usize| {
        let (panel, row) = (task % panels, task / panels * chunk);
        let (first, m) = (panel * COLUMNS, chunk.min(m.saturating_sub(row)));
        let (columns, rows) = (COLUMNS.min(n - first), rows.skip_tiles(row / ROWS));
        let lines = &b.lines[panel * steps * LINES..][..steps * LINES];
        let kind = match (&left, b.arithmetic) {
            (Left::Bytes(rounded, _), _) => Kind::Int8(Scales {
                columns: &b.scales[panel * groups * 2 * COLUMNS..][..groups * 2 * COLUMNS],
                rows: rounded.spans.as_ptr().wrapping_add(row * groups),
            }),
            (_, MatmulPrecision::Bf16) => match bf16 {
                Bf16Products::DotProduct => Kind::Bf16,
                Bf16Products::Widened => Kind::Bf16Widened,
            },
            _ => Kind::F32,
        };
        for (pass, lines) in lines.chunks(depth * LINES).enumerate() {
            let start = match (pass, bias) {
                (0, Some(bias)) => Start::Bias(&bias[first..first + columns]),
                (0, None) => Start::Zero,
                _ => Start::Result,
            };
            // SAFETY: the tiles lie within the operands and the result, of which no other task writes these.
            unsafe {
                let ahead = if panel + 1 < panels { Ahead::behind(lines, steps * LINES) } else { Ahead::NONE };
                let tile = Tile { rows: rows.skip_steps(pass * depth), lines, columns, start, stride: n, ahead };
                multiply(tile, out.at(row * n + first), m, kind);
            }
        }
    };
    if work <= SMALL {
        (0..panels * chunks).for_each(task);
    } else {
        (0..panels * chunks).into_par_iter().for_each(task);
    }
    // SAFETY: the tasks cover all rows of all panels, whose first pass starts from nothing or the bias.
    unsafe { values.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::matmul::layout::GROUP;
    use crate::kernel::matmul::pack::bf16;

    /// Against sums in f64 of the rounded numbers: sizes that fill tiles, panels and passes and that do not, and operands of which
    /// either may be transposed.
    #[test]
    fn products_of_every_shape_and_order_are_sums_of_products() {
        let value = |i: usize| ((i * 7919 + 13) % 1013) as f32 / 500.0 - 1.0;
        for arithmetic in [MatmulPrecision::F32, MatmulPrecision::Bf16] {
            if !arithmetic.is_native() {
                eprintln!("SKIPPED: this processor does not multiply {arithmetic:?}");
                continue;
            }
            let all = [Bf16Products::DotProduct, Bf16Products::Widened];
            let ways = if arithmetic == MatmulPrecision::Bf16 { &all[..] } else { &all[..1] };
            let round = |x: f32| match arithmetic {
                MatmulPrecision::F32 => f64::from(x),
                _ => f64::from(f32::from_bits(bf16(x) << 16)),
            };
            let at = |matrix: Matrix, row: usize, column: usize| {
                // SAFETY: rows and columns lie within the matrices below.
                round(unsafe { *matrix.skip_rows(row).skip_columns(column).data })
            };
            for [m, n, k] in [[1, 1, 1], [6, 64, 2], [7, 65, 33], [13, 130, 3100], [70, 200, 37], [3, 5, 0]] {
                let (a, b): (Vec<f32>, Vec<f32>) =
                    ((0..m * k).map(value).collect(), (0..k * n).map(|i| value(i + 77)).collect());
                let bias: Vec<f32> = (0..n).map(|i| value(i + 5)).collect();
                let orders = [(false, false), (true, false), (false, true), (true, true)];
                for ((a_is_turned, b_is_turned), way) in
                    orders.into_iter().flat_map(|o| ways.iter().map(move |w| (o, *w)))
                {
                    let a_matrix = if a_is_turned { Matrix::rows(&a, m).t() } else { Matrix::rows(&a, k) };
                    let b_matrix = if b_is_turned { Matrix::rows(&b, k).t() } else { Matrix::rows(&b, n) };
                    // SAFETY: the matrices lie within a and b.
                    let got = unsafe {
                        let panels = PackedWeight::pack(b_matrix, [k, n], arithmetic.floats());
                        product_by(a_matrix, m, &panels, Some(&bias), way)
                    };
                    assert_eq!(got.len(), m * n);
                    for (i, got) in got.iter().enumerate() {
                        let (row, column) = (i / n, i % n);
                        let products = (0..k).map(|j| at(a_matrix, row, j) * at(b_matrix, j, column));
                        let want = f64::from(bias[column]) + products.clone().sum::<f64>();
                        // Sums are f32: their rounding goes with the size of what is added. The bf16 instruction rounds the
                        // sum of two products without the care of a fused one: a bias of 1/30 of a bit per step was seen.
                        let size = products.map(f64::abs).sum::<f64>();
                        let rounding = if arithmetic == MatmulPrecision::F32 { 5e-6 } else { 2e-5 };
                        assert!(
                            (f64::from(*got) - want).abs() < rounding * (1.0 + size),
                            "{arithmetic:?} {way:?} {m}x{n}x{k}, turned {a_is_turned} {b_is_turned}: {got}, not {want}"
                        );
                    }
                }
            }
        }
    }

    /// To the last bit: what is widened is multiplied as in f32, whether few rows or many stand together, and in parts of long sums.
    #[test]
    fn widened_products_are_those_in_f32_of_rounded_numbers() {
        if !MatmulPrecision::Bf16.is_native() {
            return eprintln!("SKIPPED: this processor does not multiply bf16");
        }
        let value = |i: usize| ((i * 7919 + 13) % 1013) as f32 / 500.0 - 1.0;
        let rounded = |x: &f32| f32::from_bits(bf16(*x) << 16);
        for [m, n, k] in [[1, 1, 1], [5, 64, 31], [12, 65, 33], [13, 130, 3101], [70, 200, 37], [100, 64, 1600]] {
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let weight: Vec<f32> = (0..n * k).map(|i| value(i + 77)).collect();
            let [a_rounded, weight_rounded] = [&a, &weight].map(|x| x.iter().map(rounded).collect::<Vec<f32>>());
            let pairs = PackedWeight::of_weight(&weight, [n, k], MatmulPrecision::Bf16);
            let floats = PackedWeight::of_weight(&weight_rounded, [n, k], MatmulPrecision::F32);
            for is_turned in [false, true] {
                let matrix = |a| if is_turned { Matrix::rows(a, m).t() } else { Matrix::rows(a, k) };
                // SAFETY: both are readable.
                let [got, want] = unsafe {
                    let way = Bf16Products::Widened;
                    [
                        product_by(matrix(&a), m, &pairs, None, way),
                        product_by(matrix(&a_rounded), m, &floats, None, way),
                    ]
                };
                assert!(got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{m}x{n}x{k} {is_turned}");
            }
        }
    }

    /// Against sums in f64 of the numbers themselves: an 8-bit number is off by at most half a step of its group, which is 1/254 of the
    /// largest weight and 1/510 of the distance between the ends of the left operand.
    #[test]
    fn products_in_int8_are_off_by_no_more_than_rounding() {
        if !MatmulPrecision::Int8.is_native() {
            return eprintln!("SKIPPED: this processor does not multiply 8-bit integers");
        }
        let value = |i: usize| ((i * 7919 + 13) % 1013) as f32 / 500.0 - 1.0;
        for [m, n, k] in [[1, 1, 1], [6, 64, 128], [7, 65, 33], [13, 130, 300], [70, 200, 1537], [3, 5, 0]] {
            // Groups of very different size, and a left operand whose middle is not zero.
            let size = |j: usize| if (j / GROUP).is_multiple_of(2) { 1.0 } else { 1e-3 };
            let a: Vec<f32> = (0..m * k).map(|i| size(i % k.max(1)) * (value(i) + 0.7)).collect();
            let weight: Vec<f32> = (0..n * k).map(|i| value(i + 77) * size(i / 128)).collect();
            let bias: Vec<f32> = (0..n).map(|i| value(i + 5)).collect();
            let panels = PackedWeight::of_weight(&weight, [n, k], MatmulPrecision::Int8);
            // SAFETY: a is readable.
            let got = unsafe { product(Matrix::rows(&a, k), m, &panels, Some(&bias)) };
            assert_eq!(got.len(), m * n);
            for (i, got) in got.iter().enumerate() {
                let (a, w) = (&a[i / n * k..][..k], &weight[i % n * k..][..k]);
                let (mut want, mut allowed) = (f64::from(bias[i % n]), 1e-5);
                for (a, w) in a.chunks(GROUP).zip(w.chunks(GROUP)) {
                    let (low, high) = a.iter().fold((a[0], a[0]), |(low, high), &x| (low.min(x), high.max(x)));
                    let largest = w.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
                    let (step_a, step_w) = (f64::from(high - low) / 510.0, f64::from(largest) / 254.0);
                    for (a, w) in a.iter().zip(w) {
                        let (a, w) = (f64::from(*a), f64::from(*w));
                        want += a * w;
                        allowed += 1.001 * (a.abs() * step_w + w.abs() * step_a + step_a * step_w);
                    }
                }
                let error = (f64::from(*got) - want).abs();
                assert!(error < allowed, "{m}x{n}x{k}: {got}, not {want} within {allowed}");
            }
        }
    }

    /// A number that is not finite must be seen in the result.
    #[test]
    fn what_is_not_finite_stays_so_in_int8() {
        if !MatmulPrecision::Int8.is_native() {
            return eprintln!("SKIPPED: this processor does not multiply 8-bit integers");
        }
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 77, 199] {
                let (mut x, mut weight) = (vec![0.5; 200], vec![0.25; 200]);
                let multiply = |x: &[f32], weight: &[f32]| {
                    let panels = PackedWeight::of_weight(weight, [1, 200], MatmulPrecision::Int8);
                    // SAFETY: x is readable.
                    let product = unsafe { product(Matrix::rows(x, 200), 1, &panels, None) };
                    product[0]
                };
                assert!((multiply(&x, &weight) - 25.0).abs() < 1e-3);
                x[at] = wrong;
                assert!(!multiply(&x, &weight).is_finite(), "{wrong} at {at}");
                x[at] = 0.5;
                weight[at] = wrong;
                assert!(!multiply(&x, &weight).is_finite(), "weight {wrong} at {at}");
            }
        }
    }

    #[test]
    fn rounding_is_that_of_half() {
        for bits in (0..u32::MAX).step_by(65_521) {
            let x = f32::from_bits(bits);
            let want = half::bf16::from_f32(x);
            assert!(bf16(x) as u16 == want.to_bits() || x.is_nan() && want.is_nan(), "{x}");
        }
    }
}
