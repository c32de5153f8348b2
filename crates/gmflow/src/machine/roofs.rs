//! What the arithmetic units and the memory can do at most: multiply-adds of registers, and reading what no cache holds.

use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Independent sums, so that no multiply-add waits for the one before.
const SUMS: usize = 24;
/// Multiply-adds of each sum in one call, which takes a few milliseconds: long beside what threads need to begin together.
const TIMES: usize = 500_000;
/// Calls, of which the fastest counts. The first ones wake the wide units up.
const CALLS: usize = 30;
/// Bytes that are read, all threads together: many times the last cache.
const BYTES: usize = 256 << 20;
/// Readings, of which the fastest counts.
const READINGS: usize = 5;

/// The most that is reached by one thread, and by all threads of the pool together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Roof {
    /// By one thread.
    pub one: f64,
    /// By all.
    pub all: f64,
}

/// Roofs in GFLOP/s (a multiplication and an addition are two), where the processor has the instruction, and in GB/s.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Roofs {
    /// Threads of `all`.
    pub threads: usize,
    /// Multiply-adds in f32 of the widest vectors.
    pub f32: Option<Roof>,
    /// The dot product of pairs in bf16 (AVX512-BF16).
    pub bf16: Option<Roof>,
    /// The dot product of fours of 8-bit integers (AVX512-VNNI).
    pub int8: Option<Roof>,
    /// Reading memory, GB/s.
    pub memory: Roof,
}

/// A loop, and the operations of one call.
type Work = (fn(), f64);

impl Roofs {
    /// Measures them, which takes about a second.
    pub fn measure() -> Self {
        let threads = rayon::current_num_threads();
        let [f32, bf16, int8] = loops().map(|work| {
            work.map(|(work, operations)| Roof {
                one: rate(1, work, operations),
                all: rate(threads, work, operations),
            })
        });
        Self { threads, f32, bf16, int8, memory: Roof { one: reading(1), all: reading(threads) } }
    }
}

/// 1e9 operations per second of threads that do the same, in the fastest call.
fn rate(threads: usize, work: fn(), operations: f64) -> f64 {
    let seconds = fastest(threads, CALLS, |_| work());
    threads as f64 * operations / seconds / 1e9
}

/// Seconds from the common start of a call to the end of the last thread, in the fastest call.
fn fastest(threads: usize, calls: usize, work: impl Fn(usize) + Sync) -> f64 {
    let (arrived, work) = (&AtomicUsize::new(0), &work);
    let own = |thread: usize| -> Vec<(Instant, Instant)> {
        let call = |call: usize| {
            // Awake threads begin together.
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < (call + 1) * threads {
                std::thread::yield_now();
            }
            let start = Instant::now();
            work(thread);
            (start, Instant::now())
        };
        (0..calls).map(call).collect()
    };
    let all: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let own = &own;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || own(thread))).collect();
        let first = own(0);
        std::iter::once(first).chain(others.into_iter().filter_map(|thread| thread.join().ok())).collect()
    });
    let seconds = (0..calls).filter_map(|call| {
        let start = all.iter().map(|thread| thread[call].0).min()?;
        let end = all.iter().map(|thread| thread[call].1).max()?;
        Some((end - start).as_secs_f64())
    });
    seconds.fold(f64::INFINITY, f64::min).max(1e-9)
}

/// GB/s of threads that each read a part of memory that no cache holds.
fn reading(threads: usize) -> f64 {
    const WORDS: usize = BYTES / size_of::<u64>();
    let part = WORDS / threads;
    let parts: Vec<Vec<u64>> = (0..threads).map(|thread| vec![thread as u64 + 1; part]).collect();
    let seconds = fastest(threads, READINGS, |thread| {
        std::hint::black_box(parts[thread].iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
    });
    (threads * part * size_of::<u64>()) as f64 / seconds / 1e9
}

/// The loops that this processor has: f32, bf16, 8-bit integers.
#[cfg(target_arch = "x86_64")]
fn loops() -> [Option<Work>; 3] {
    let operations = |numbers: usize| (2 * numbers * SUMS * TIMES) as f64;
    let wide = is_x86_feature_detected!("avx512f");
    let f32: Option<Work> = if wide {
        // SAFETY: AVX-512 was found.
        Some((|| unsafe { x86::f32_wide() }, operations(16)))
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: AVX2 and FMA were found.
        Some((|| unsafe { x86::f32_narrow() }, operations(8)))
    } else {
        None
    };
    let bf16 = wide && is_x86_feature_detected!("avx512bf16");
    let int8 = wide && is_x86_feature_detected!("avx512vnni");
    [
        f32,
        // SAFETY: AVX512-BF16 was found.
        bf16.then_some((|| unsafe { x86::bf16() }, operations(32))),
        // SAFETY: AVX512-VNNI was found.
        int8.then_some((|| unsafe { x86::int8() }, operations(64))),
    ]
}

/// There are no kernels of our own for other processors, and no roofs.
#[cfg(not(target_arch = "x86_64"))]
fn loops() -> [Option<Work>; 3] {
    [None; 3]
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{SUMS, TIMES};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Multiply-adds of registers in AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(super) fn f32_wide() {
        let (a, b) = black_box((_mm512_set1_ps(0.5), _mm512_set1_ps(0.25)));
        let mut sums = [a; SUMS];
        for _ in 0..TIMES {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
    }

    /// The same in AVX2, which has 16 registers.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn f32_narrow() {
        let (a, b) = black_box((_mm256_set1_ps(0.5), _mm256_set1_ps(0.25)));
        let mut sums = [a; SUMS / 2];
        for _ in 0..2 * TIMES {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(a, b, *sum);
            }
        }
        black_box(sums);
    }

    /// Dot products of pairs in bf16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn bf16() {
        let (a, mut sums) = black_box((_mm512_set1_ps(0.5), [_mm512_setzero_ps(); SUMS]));
        let pairs = _mm512_cvtne2ps_pbh(a, a);
        for _ in 0..TIMES {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
            }
        }
        black_box(sums);
    }

    /// Dot products of fours of 8-bit integers.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8() {
        let (a, b) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..TIMES {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }
}
