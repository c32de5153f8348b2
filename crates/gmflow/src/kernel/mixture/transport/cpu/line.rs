//! Quantiles and ranks of mixtures on a line.

use crate::kernel::mixture::transport::types::{
    EXACT, FARTHEST, FARTHEST_RANK, FARTHEST_TAIL, INVERSE_ROOT_TAU, LAST_STEP, MAX_ITERATIONS, TAIL, TINY,
};
use crate::kernel::simd::pair::Pair;
use pulp::Simd;
use std::f32::consts::LOG2_E;

/// The search for a place to start from ends with a step of this many standard deviations,
const NEAR: f32 = 0.2;

/// or after so many steps.
const ROUGH_ITERATIONS: usize = 8;

/// It knows no tails beyond this: lanes further out start from there, moved by the difference.
const SHALLOW: f32 = 3.09;

/// Phi of minus that.
const SHALLOW_RANK: f32 = 1e-3;

/// One-dimensional mixtures of Gaussians with standard deviation 1: means and weights `[k]`.
pub(crate) struct Line<'a, S: Simd> {
    pub(crate) simd: S,
    pub(crate) means: &'a mut [[S::f32s; 2]],
    pub(crate) weights: &'a [[S::f32s; 2]],
}

impl<S: Simd> Line<'_, S> {
    /// The quantiles at Phi(z), mirrored like the means, which are mirrored so that the rank is at most 1/2, and as they are.
    #[inline(always)]
    pub(crate) fn quantile(self, z: Pair<S>) -> (Pair<S>, Pair<S>) {
        let simd = self.simd;
        let number = |x: f32| Pair::splat(simd, x);
        let (zero, one) = (number(0.0), number(1.0));
        let side = number(-1.0).only(zero.less(z), one);
        let depth = z.abs().min(number(FARTHEST));
        let rank = lower_tail(simd, depth).0;
        let (mut least, mut largest) = (number(f32::INFINITY), number(f32::NEG_INFINITY));
        let (mut first, mut second) = (zero, zero);
        for (mean, weight) in self.means.iter_mut().zip(self.weights) {
            let (mirrored, weight) = (Pair::new(simd, mean) * side, Pair::new(simd, weight));
            mirrored.keep(mean);
            least = least.min(mirrored);
            largest = largest.max(mirrored);
            let share = mirrored * weight;
            first = first + share;
            second = mirrored.mul_add(share, second);
        }
        let deviation = ((second - first * first).max(zero) + one).sqrt();
        // A mixture's quantile lies between those of its components.
        let shallow = depth.min(number(SHALLOW));
        let start = first - deviation * shallow;
        let near = self.approach(start, rank.max(number(SHALLOW_RANK)), [least - shallow, largest - shallow]);
        let x = self.settle(near - (depth - shallow), rank.ln(), [least - depth, largest - depth]);
        (x, x * side)
    }

    /// About the quantile at `rank`: Newton's steps, with a polynomial in the place of Phi.
    ///
    /// Phi(u) - 1/2 = u P(u^2) within 1e-3; where P ends, Phi is 0 or 1 and its slope 0.
    #[inline(always)]
    fn approach(&self, start: Pair<S>, rank: Pair<S>, [mut lo, mut hi]: [Pair<S>; 2]) -> Pair<S> {
        const END: f32 = 3.25;
        const PHI: [f32; 5] = [1.038_566_3e-5, -4.173_838_2e-4, 6.819_748e-3, -6.060_65e-2, 3.957_3e-1];
        const SLOPE: [f32; 5] = [9.0 * PHI[0], 7.0 * PHI[1], 5.0 * PHI[2], 3.0 * PHI[3], PHI[4]];
        let simd = self.simd;
        let number = |x: f32| Pair::splat(simd, x);
        let (half, close) = (number(0.5), number(NEAR));
        let (end, minus_end) = (number(END), number(-END));
        let mut x = start.max(lo).min(hi);
        let mut done = half.less(number(0.0));
        for _ in 0..ROUGH_ITERATIONS {
            let (mut below, mut slope) = (half - rank, number(TINY));
            for (mean, weight) in self.means.iter().zip(self.weights) {
                let weight = Pair::new(simd, weight);
                let u = (x - Pair::new(simd, mean)).max(minus_end).min(end);
                let square = u * u;
                let (mut p, mut derivative) = (number(PHI[0]), number(SLOPE[0]));
                for (&of_p, &of_derivative) in PHI[1..].iter().zip(&SLOPE[1..]) {
                    p = p.mul_add(square, number(of_p));
                    derivative = derivative.mul_add(square, number(of_derivative));
                }
                below = p.mul_add(u * weight, below);
                slope = derivative.mul_add(weight, slope);
            }
            let newton = x - below / slope;
            let high = number(0.0).less(below);
            hi = x.only(high, hi);
            lo = lo.only(high, x);
            let step = (newton - x).abs();
            let inside = lo.less(newton).and(newton.less(hi));
            let useful = inside.and(step.less(half * (hi - lo)));
            let arrived = step.less(close);
            let next = newton.only(arrived.or(useful), half * (lo + hi));
            x = x.only(done, next);
            done = done.or(arrived);
            if done.all() {
                break;
            }
        }
        x
    }

    /// The quantiles from points near them: steps of the fourth order on the log of the distribution function, safeguarded by bisection.
    #[inline(always)]
    fn settle(&self, start: Pair<S>, ln_rank: Pair<S>, [mut lo, mut hi]: [Pair<S>; 2]) -> Pair<S> {
        let simd = self.simd;
        let number = |x: f32| Pair::splat(simd, x);
        let (zero, one, half) = (number(0.0), number(1.0), number(0.5));
        let mut x = start.max(lo).min(hi);
        // Lanes that have arrived stay where they are: from there rounding alone would lead them on.
        let mut done = one.less(zero);
        for _ in 0..MAX_ITERATIONS {
            // The distribution function F, and sums of densities times powers of u.
            let mut below = number(TINY);
            let (mut s0, mut s1, mut s2) = (number(TINY), zero, zero);
            for (mean, weight) in self.means.iter().zip(self.weights) {
                let weight = Pair::new(simd, weight);
                let u = x - Pair::new(simd, mean);
                let (tail, bell) = lower_tail(simd, u.abs());
                below = tail.only(u.less(zero), one - tail).mul_add(weight, below);
                let density = bell * weight;
                let slope = density * u;
                s0 = s0 + density;
                s1 = s1 + slope;
                s2 = slope.mul_add(u, s2);
            }
            let residual = below.ln() - ln_rank;
            // Derivatives: the first of Y = ln F, the second and the third of F over its first, the same of Y.
            let inverse = one / s0;
            let slope = s0 * number(INVERSE_ROOT_TAU) / below;
            let second = zero - s1 * inverse;
            let third = s2.mul_add(inverse, number(-1.0));
            let curve = second - slope;
            let bend = slope.mul_add(slope * number(2.0) - number(3.0) * second, third);
            // Newton's step and, as a factor, the next terms of the inverse function's series.
            let newton = (zero - residual) / slope;
            let terms =
                newton.mul_add((curve * curve).mul_add(half, bend * number(-1.0 / 6.0)), curve * number(-0.5));
            let factor = newton.mul_add(terms, one).max(half).min(number(2.0));
            let step = newton * factor;
            let next = x + step;
            let high = zero.less(residual);
            let width = hi - lo;
            hi = x.only(high, hi);
            lo = lo.only(high, x);
            // Where there is hardly any density a step leads out of the bracket and is not taken.
            let inside = lo.less(next).and(next.less(hi));
            let useful = inside.and(step.abs().less(half * width));
            let close = (newton.abs() * curve.abs().max(one)).less(number(LAST_STEP));
            let next = next.only(close.or(useful), half * (lo + hi));
            // What remains is rounding.
            let exact = residual.abs().less(number(EXACT));
            let next = x.only(exact, next);
            x = x.only(done, next);
            let narrow = (hi - lo).less(number(f32::EPSILON) * (one + x.abs()));
            done = done.or(exact).or(close).or(narrow);
            if done.all() {
                break;
            }
        }
        x
    }

    /// The standard normals of the same rank as x, and 1 where they are beyond f32.
    #[inline(always)]
    pub(crate) fn normal(&self, x: Pair<S>) -> (Pair<S>, Pair<S>) {
        let simd = self.simd;
        let number = |x: f32| Pair::splat(simd, x);
        let (zero, one) = (number(0.0), number(1.0));
        let (mut below, mut above) = (number(TINY), number(TINY));
        for (mean, weight) in self.means.iter().zip(self.weights) {
            let (u, weight) = (x - Pair::new(simd, mean), Pair::new(simd, weight));
            let tail = lower_tail(simd, u.abs()).0;
            let (left, other) = (u.less(zero), one - tail);
            below = tail.only(left, other).mul_add(weight, below);
            above = other.only(left, tail).mul_add(weight, above);
        }
        let smaller = below.min(above);
        let least = number(FARTHEST_RANK);
        let beyond = one.only(smaller.less(least), zero);
        let ln_p = smaller.max(least).min(number(0.5)).ln();
        // Formula 26.2.23 of Abramowitz and Stegun, off by at most 4.5e-4, and Newton's steps on the log of the tail.
        let y = (ln_p * number(-2.0)).sqrt();
        let above_line = y.mul_add(number(0.010_328), number(0.802_853)).mul_add(y, number(2.515_517));
        let under_line = y.mul_add(number(0.001_308), number(0.189_269)).mul_add(y, number(1.432_788));
        let mut depth = y - above_line / under_line.mul_add(y, one);
        for _ in 0..2 {
            let (tail, bell) = lower_tail(simd, depth);
            depth = depth + (tail.ln() - ln_p) * tail / (bell * number(INVERSE_ROOT_TAU));
        }
        ((zero - depth).only(below.less(above), depth), beyond)
    }
}

/// Phi(-a) and exp(-a^2/2) for a >= 0, by [`TAIL`]; from [`FARTHEST_TAIL`] on the values stay.
#[inline(always)]
fn lower_tail<S: Simd>(simd: S, a: Pair<S>) -> (Pair<S>, Pair<S>) {
    let number = |x: f32| Pair::splat(simd, x);
    let a = a.min(number(FARTHEST_TAIL));
    let inverse = number(1.0) / (a + number(3.5));
    let t = inverse.mul_add(number(-7.0), number(1.0));
    let mut p = number(TAIL[0]);
    for &coefficient in &TAIL[1..] {
        p = p.mul_add(t, number(coefficient));
    }
    let bell = (a * a * number(-0.5 * LOG2_E)).exp2();
    (p * inverse * bell, bell)
}
