//! How fast this processor multiplies, measured once, and what follows from it: the products that numbers in bf16 take, and the numbers of
//! `--precision auto`.

use crate::kernel::device::on_cpu;
use crate::kernel::matmul::layout::{COLUMNS, GROUP, LINES, Line, ROWS, Span};
use crate::kernel::matmul::matrix::{Destination, Matrix, product};
use crate::kernel::matmul::multiply::multiply;
use crate::kernel::matmul::panel_tiles::{Ahead, Kind, Rows, Scales, Start, Tile};
use crate::kernel::matmul::precision::MatmulPrecision;
use burn::tensor::Device;
use gemm::Parallelism;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Rows of the measured product, and the length of its sums: a block of tokens of GM-DiT-XL/2.
const M: usize = 8 * ROWS;
const K: usize = 1152;

/// Rounds of the measurement, unless it takes longer than [`PATIENCE`].
const ROUNDS: usize = 24;
const PATIENCE: Duration = Duration::from_millis(10);
/// Rounds at the least.
const FEWEST: usize = 3;

/// How many times as fast as f32 the products in bf16 must be to be chosen. Rates on one machine differ by a few percent from call to call;
/// processors have twice the rate of f32, or 0.6 of it. So the choice is the same in every call.
pub const MARGIN: f64 = 1.15;

/// The speed of one thread's products with panels in its core's own cache, in GFLOP/s, where a multiplication and an addition are two
/// operations. The fastest of some short calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// In f32.
    pub f32: f64,
    /// In bf16 with the instruction for dot products, where there is one.
    pub bf16: Option<f64>,
    /// In bf16 that is widened to f32, where there is AVX-512.
    pub bf16_widened: Option<f64>,
    /// In 8-bit integers, where there is AVX512-VNNI.
    pub int8: Option<f64>,
}

/// The products that numbers in bf16 take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bf16Products {
    /// The dot product of AVX512-BF16.
    DotProduct,
    /// Widened to f32 and multiplied there: as exact, and faster where the dot product is slow.
    Widened,
}

/// 0: as measured.
static FORCED: AtomicU8 = AtomicU8::new(0);

/// Decides how numbers in bf16 are multiplied from now on, for tests and measurements; `None` lets the measured rates decide.
pub fn force_bf16_products(products: Option<Bf16Products>) {
    let number = match products {
        None => 0,
        Some(Bf16Products::DotProduct) => 1,
        Some(Bf16Products::Widened) => 2,
    };
    FORCED.store(number, Ordering::Relaxed);
}

/// How numbers in bf16 are multiplied: by the dot product, unless f32 is faster on this processor.
pub fn bf16_products() -> Bf16Products {
    match FORCED.load(Ordering::Relaxed) {
        1 => Bf16Products::DotProduct,
        2 => Bf16Products::Widened,
        _ => rates().bf16_products(),
    }
}

/// The tiles of products in bf16.
pub(crate) fn bf16_kind<'a>() -> Kind<'a> {
    match bf16_products() {
        Bf16Products::DotProduct => Kind::Bf16,
        Bf16Products::Widened => Kind::Bf16Widened,
    }
}

/// The rates of this processor, measured in the first call, which takes 10 to 20 ms, and kept.
pub fn rates() -> Rates {
    static RATES: OnceLock<Rates> = OnceLock::new();
    *RATES.get_or_init(Rates::measure)
}

/// The floats that a device multiplies fastest: bf16 where it is [`MARGIN`] times as fast as f32, otherwise f32. GPUs are not measured, and
/// compute in f32.
pub fn fastest_floats(device: &Device) -> MatmulPrecision {
    if on_cpu(device) && MatmulPrecision::Bf16.is_available() {
        rates().fastest_floats(bf16_products())
    } else {
        MatmulPrecision::F32
    }
}

impl Rates {
    /// By the rates alone.
    pub(crate) fn bf16_products(&self) -> Bf16Products {
        match self.bf16 {
            Some(bf16) if bf16 >= self.f32 => Bf16Products::DotProduct,
            _ => Bf16Products::Widened,
        }
    }

    /// The rate of bf16 with these products.
    pub fn of_bf16(&self, products: Bf16Products) -> Option<f64> {
        match products {
            Bf16Products::DotProduct => self.bf16,
            Bf16Products::Widened => self.bf16_widened,
        }
    }

    /// By the rates, where bf16 has these products.
    pub(crate) fn fastest_floats(&self, products: Bf16Products) -> MatmulPrecision {
        match self.of_bf16(products) {
            Some(bf16) if bf16 >= MARGIN * self.f32 => MatmulPrecision::Bf16,
            _ => MatmulPrecision::F32,
        }
    }

    /// Measures all kinds in turns, so that what disturbs one disturbs the others.
    fn measure() -> Self {
        let mut f32 = Timed::new(Work::new(Multiplied::F32));
        let kinds = [
            (MatmulPrecision::Bf16, Multiplied::Bf16),
            (MatmulPrecision::Bf16, Multiplied::Widened),
            (MatmulPrecision::Int8, Multiplied::Int8),
        ];
        let mut others = kinds.map(|(needs, kind)| needs.is_native().then(|| Timed::new(Work::new(kind))));
        let start = Instant::now();
        for round in 0..ROUNDS {
            if round >= FEWEST && start.elapsed() > PATIENCE {
                break;
            }
            f32.call();
            others.iter_mut().flatten().for_each(Timed::call);
        }
        let [bf16, bf16_widened, int8] = others.map(|timed| timed.map(|timed| timed.rate()));
        Self { f32: f32.rate(), bf16, bf16_widened, int8 }
    }
}

/// What is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Multiplied {
    F32,
    Bf16,
    Widened,
    Int8,
}

/// The operands of a product of ones, `[M K]` by `[K COLUMNS]`.
struct Work {
    kind: Multiplied,
    words: Vec<u32>,
    lines: Vec<Line>,
    spans: Vec<Span>,
    scales: Vec<f32>,
    out: Vec<f32>,
}

impl Work {
    fn new(kind: Multiplied) -> Self {
        let (numbers, one) = match kind {
            Multiplied::F32 => (1, 1f32.to_bits()),
            Multiplied::Bf16 | Multiplied::Widened => (2, 0x3f80_3f80),
            Multiplied::Int8 => (4, 0x0101_0101),
        };
        let (steps, groups) = (K / numbers, K / GROUP);
        Self {
            kind,
            words: vec![one; M * steps],
            lines: vec![Line([one; 16]); steps * LINES],
            spans: vec![Span { low: 0.0, scale: 1.0 }; M * groups],
            scales: vec![1.0; groups * 2 * COLUMNS],
            out: vec![0.0; M * COLUMNS],
        }
    }

    fn call(&mut self) {
        if !MatmulPrecision::F32.is_native() {
            return self.call_library();
        }
        let steps = self.words.len() / M;
        let rows = Rows { words: self.words.as_ptr(), row_stride: steps, step_stride: 1, tile_stride: ROWS * steps };
        let tile = Tile {
            rows,
            lines: &self.lines,
            columns: COLUMNS,
            start: Start::Zero,
            stride: COLUMNS,
            ahead: Ahead::NONE,
        };
        let kind = match self.kind {
            Multiplied::F32 => Kind::F32,
            Multiplied::Bf16 => Kind::Bf16,
            Multiplied::Widened => Kind::Bf16Widened,
            Multiplied::Int8 => Kind::Int8(Scales { columns: &self.scales, rows: self.spans.as_ptr() }),
        };
        // SAFETY: the operands have the sizes of the tile, and `measure` has looked for the instructions.
        unsafe { multiply(tile, self.out.as_mut_ptr(), M, kind) };
        std::hint::black_box(&mut self.out);
    }

    /// The same in f32 where there are no panels.
    fn call_library(&mut self) {
        let (a, b): (&[f32], &[Line]) = (bytemuck::cast_slice(&self.words), &self.lines);
        let b: &[f32] = bytemuck::cast_slice(b);
        let out = Destination::replace(self.out.as_mut_ptr(), COLUMNS);
        // SAFETY: the matrices have these sizes.
        unsafe {
            product([M, COLUMNS, K], out, [Matrix::rows(a, K), Matrix::rows(b, COLUMNS)], 1.0, Parallelism::None)
        };
        std::hint::black_box(&mut self.out);
    }
}

/// Work, and the shortest of its times.
struct Timed {
    work: Work,
    best: Duration,
}

impl Timed {
    /// After a call that brings the operands into the caches.
    fn new(mut work: Work) -> Self {
        work.call();
        Self { work, best: Duration::MAX }
    }

    fn call(&mut self) {
        let start = Instant::now();
        self.work.call();
        self.best = self.best.min(start.elapsed());
    }

    /// GFLOP/s.
    fn rate(&self) -> f64 {
        (2 * M * COLUMNS * K) as f64 / self.best.as_secs_f64().max(1e-9) / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of([f32, bf16]: [f64; 2]) -> Rates {
        Rates { f32, bf16: Some(bf16), bf16_widened: Some(0.8 * f32), int8: None }
    }

    #[test]
    fn the_faster_products_are_taken_with_a_margin() {
        for (rates, products, floats) in [
            ([261.0, 515.0], Bf16Products::DotProduct, MatmulPrecision::Bf16), // Zen 5
            ([100.0, 60.0], Bf16Products::Widened, MatmulPrecision::F32),      // Emerald Rapids
            ([100.0, 114.0], Bf16Products::DotProduct, MatmulPrecision::F32),  // within the margin
            ([100.0, 116.0], Bf16Products::DotProduct, MatmulPrecision::Bf16),
        ] {
            let rates = of(rates);
            assert_eq!(rates.bf16_products(), products, "{rates:?}");
            assert_eq!(rates.fastest_floats(products), floats, "{rates:?}");
        }
        assert_eq!(of([261.0, 515.0]).fastest_floats(Bf16Products::Widened), MatmulPrecision::F32);
        let none = Rates { f32: 50.0, bf16: None, bf16_widened: None, int8: None };
        assert_eq!(
            (none.bf16_products(), none.fastest_floats(none.bf16_products())),
            (Bf16Products::Widened, MatmulPrecision::F32)
        );
    }

    /// Every kind that is measured computes: a sum of K ones.
    #[test]
    fn what_is_timed_are_whole_products() {
        let kinds = [
            (MatmulPrecision::Bf16, Multiplied::Bf16),
            (MatmulPrecision::Bf16, Multiplied::Widened),
            (MatmulPrecision::Int8, Multiplied::Int8),
        ];
        let native = kinds.into_iter().filter(|(needs, _)| needs.is_native()).map(|(_, kind)| kind);
        for kind in [Multiplied::F32].into_iter().chain(native) {
            let mut work = Work::new(kind);
            work.call();
            assert!(work.out.iter().all(|sum| *sum == K as f32), "{kind:?}: {}", work.out[0]);
        }
    }

    #[test]
    fn rates_are_measured_once_and_are_numbers() {
        let first = rates();
        assert_eq!(first, rates());
        for rate in [Some(first.f32), first.bf16, first.bf16_widened, first.int8].into_iter().flatten() {
            assert!(rate.is_finite() && rate > 0.0, "{first:?}");
        }
        assert_eq!(first.bf16.is_some(), MatmulPrecision::Bf16.is_native());
        assert_eq!(first.int8.is_some(), MatmulPrecision::Int8.is_native());
    }
}
