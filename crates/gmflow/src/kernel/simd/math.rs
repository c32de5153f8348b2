//! Elementary functions without branches, which compilers vectorise. Polynomials are the single-precision ones of the
//! Cephes library; errors are a few units in the last place.
#![allow(clippy::excessive_precision)]

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// Adding and subtracting this rounds a small f32 to an integer, which then stands in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;
/// The same for f64.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;

/// e^x, with x bounded to [-87, 88]; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_375) + n * 2.121_944_40e-4;
    let mut p = 1.987_569_15e-4;
    p = p * r + 1.398_199_95e-3;
    p = p * r + 8.333_451_9e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_1e-1;
    let power = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23);
    (p * r * r + r + 1.0) * power
}

/// 1/(1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// (sin x, cos x), for |x| up to 2^31.
#[inline(always)]
pub(crate) fn sin_cos(x: f32) -> (f32, f32) {
    let wide = f64::from(x);
    let shifted = wide * FRAC_2_PI + ROUND_F64;
    let quadrant = shifted.to_bits() as u32;
    let r = (wide - (shifted - ROUND_F64) * FRAC_PI_2) as f32;
    let z = r * r;
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * r + r;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let (s, c) = if quadrant & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let flip = |v: f32, bit: u32| f32::from_bits(v.to_bits() ^ ((bit & 2) << 30));
    (flip(s, quadrant), flip(c, quadrant.wrapping_add(1)))
}

/// The sum of f(i) for i in 0..n, in 16 lanes: the order does not depend on the instruction set.
#[inline(always)]
pub(crate) fn sum(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0f32; LANES];
    let whole = n / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(start + lane);
        }
    }
    let tail: f32 = (whole..n).map(f).sum();
    lanes.iter().sum::<f32>() + tail
}

/// [`sum`] of values of double precision.
#[inline(always)]
pub(crate) fn sum_f64(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0f64; LANES];
    let whole = n / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += f(start + lane);
        }
    }
    let tail: f64 = (whole..n).map(f).sum();
    lanes.iter().sum::<f64>() + tail
}

/// The greatest of a row.
#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [f32::MIN; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for (greatest, &v) in lanes.iter_mut().zip(block) {
            *greatest = greatest.max(v);
        }
    }
    rest.iter().chain(&lanes).fold(f32::MIN, |a, &b| a.max(b))
}
