//! Quantiles and ranks of mixtures on a line.
//!
//! Quantiles are looked for by the same safeguarded steps of the fourth order on the log of the distribution function as on the CPU, from
//! the quantile of a Gaussian with the mixture's mean and variance on: exponentials are cheap here, so that no polynomial goes before them.

use crate::kernel::gpu::LOWEST;
use crate::kernel::mixture::transport::types::{
    EXACT, FARTHEST, FARTHEST_RANK, FARTHEST_TAIL, INVERSE_ROOT_TAU, LAST_STEP, MAX_ITERATIONS, TAIL, TINY,
};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// A bracket of so much of its place's size is rounding.
const NARROW: f32 = f32::EPSILON;

/// Phi(-a) and exp(-a^2/2) for a >= 0.
#[cube]
fn lower_tail(a: f32) -> (f32, f32) {
    let a = a.min(FARTHEST_TAIL);
    let inverse = 1.0f32 / (a + 3.5f32);
    let t = 1.0f32 - 7.0f32 * inverse;
    let mut p = 0.0f32.runtime();
    #[unroll]
    for i in 0..8usize {
        p = p * t + f32::new(comptime!(TAIL[i]));
    }
    let bell = (a * a * (-0.5f32)).exp();
    (p * inverse * bell, bell)
}

/// Weights, normalised, from log weights.
#[cube]
pub(super) fn normalise(log_weights: &Array<f32>, weights: &mut Array<f32>, #[comptime] k: usize) {
    let mut top = LOWEST.runtime();
    for j in 0..k {
        top = top.max(log_weights[j]);
    }
    let mut total = 0.0f32.runtime();
    for j in 0..k {
        let share = (log_weights[j] - top).exp();
        weights[j] = share;
        total += share;
    }
    let inverse = 1.0f32 / total;
    for j in 0..k {
        weights[j] = (weights[j] * inverse).max(TINY);
    }
}

/// The quantile at Phi(z) of the mixture with standard deviation 1, by way of the lower tail: for z > 0 everything is mirrored.
#[cube]
pub(super) fn quantile(means: &Array<f32>, weights: &Array<f32>, z: f32, #[comptime] k: usize) -> f32 {
    let mut side = 1.0f32.runtime();
    if z > 0.0f32 {
        side = -1.0f32;
    }
    let depth = z.abs().min(FARTHEST);
    let (rank, _bell) = lower_tail(depth);
    let ln_rank = rank.ln();
    let mut least = 1e30f32.runtime();
    let mut largest = LOWEST.runtime();
    let mut first = 0.0f32.runtime();
    let mut second = 0.0f32.runtime();
    for j in 0..k {
        let mean = means[j] * side;
        least = least.min(mean);
        largest = largest.max(mean);
        first += mean * weights[j];
        second += mean * mean * weights[j];
    }
    // A mixture's quantile lies between those of its components.
    let mut lo = least - depth;
    let mut hi = largest - depth;
    let deviation = ((second - first * first).max(0.0f32) + 1.0f32).sqrt();
    let mut x = (first - deviation * depth).max(lo).min(hi);
    let mut left = MAX_ITERATIONS.runtime();
    while left > 0 {
        left -= 1;
        // The distribution function, and sums of densities times powers of u.
        let mut below = TINY.runtime();
        let mut s0 = TINY.runtime();
        let mut s1 = 0.0f32.runtime();
        let mut s2 = 0.0f32.runtime();
        for j in 0..k {
            let weight = weights[j];
            let u = x - means[j] * side;
            let (tail, bell) = lower_tail(u.abs());
            let mut share = tail;
            if u > 0.0f32 {
                share = 1.0f32 - tail;
            }
            below += share * weight;
            let density = bell * weight;
            s0 += density;
            s1 += density * u;
            s2 += density * u * u;
        }
        let residual = below.ln() - ln_rank;
        let inverse = 1.0f32 / s0;
        let slope = s0 * INVERSE_ROOT_TAU / below;
        let second = 0.0f32 - s1 * inverse;
        let third = s2 * inverse - 1.0f32;
        let curve = second - slope;
        let bend = slope * (slope * 2.0f32 - 3.0f32 * second) + third;
        // Newton's step and, as a factor, the next terms of the inverse function's series.
        let newton = 0.0f32 - residual / slope;
        let terms = newton * (curve * curve * 0.5f32 - bend / 6.0f32) - curve * 0.5f32;
        let factor = (newton * terms + 1.0f32).max(0.5f32).min(2.0f32);
        let step = newton * factor;
        let width = hi - lo;
        if residual > 0.0f32 {
            hi = x;
        } else {
            lo = x;
        }
        let next = x + step;
        let close = newton.abs() * curve.abs().max(1.0f32) < LAST_STEP;
        let useful = next > lo && next < hi && step.abs() < 0.5f32 * width;
        let exact = residual.abs() < EXACT;
        if !exact {
            if close || useful {
                x = next;
            } else {
                x = 0.5f32 * (lo + hi);
            }
        }
        if exact || close || hi - lo < NARROW * (1.0f32 + x.abs()) {
            left = 0usize;
        }
    }
    x * side
}

/// The standard normal of the same rank as x, and 1 where it is beyond f32.
#[cube]
pub(super) fn normal(means: &Array<f32>, weights: &Array<f32>, x: f32, #[comptime] k: usize) -> (f32, f32) {
    let mut below = TINY.runtime();
    let mut above = TINY.runtime();
    for j in 0..k {
        let u = x - means[j];
        let (tail, _bell) = lower_tail(u.abs());
        let mut share = tail;
        if u > 0.0f32 {
            share = 1.0f32 - tail;
        }
        below += share * weights[j];
        // Not 1 - share, which loses the tail.
        let mut other = 1.0f32 - tail;
        if u > 0.0f32 {
            other = tail;
        }
        above += other * weights[j];
    }
    let smaller = below.min(above);
    let mut beyond = 0.0f32.runtime();
    if smaller < FARTHEST_RANK {
        beyond = 1.0f32;
    }
    let ln_p = smaller.max(FARTHEST_RANK).min(0.5f32).ln();
    // Formula 26.2.23 of Abramowitz and Stegun, off by at most 4.5e-4, and Newton's steps on the log of the tail.
    let y = (ln_p * (-2.0f32)).sqrt();
    let above_line = (y * 0.010_328f32 + 0.802_853f32) * y + 2.515_517f32;
    let under_line = ((y * 0.001_308f32 + 0.189_269f32) * y + 1.432_788f32) * y + 1.0f32;
    let mut depth = y - above_line / under_line;
    #[unroll]
    for _ in 0..2usize {
        let (tail, bell) = lower_tail(depth);
        depth += (tail.ln() - ln_p) * tail / (bell * INVERSE_ROOT_TAU);
    }
    let mut result = depth;
    if below < above {
        result = 0.0f32 - depth;
    }
    (result, beyond)
}
