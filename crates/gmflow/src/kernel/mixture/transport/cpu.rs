//! The Knothe-Rosenblatt transport between standard normals and mixtures with pixels as lanes, in f32.
//!
//! [`PixelMixture`] says what is computed. Here a quantile is looked for with a polynomial in the place of Phi first, a third of the
//! work; from there one step of the fourth order on the log of the distribution function is enough for most, and bisection safeguards
//! the rest. The point is mirrored so that it always lies in the lower tail, where that function loses nothing. Lanes so far out in a
//! tail that f32 does not reach are left to [`PixelMixture`], in f64.

use crate::kernel::mixture::nll::Sizes;
use crate::kernel::mixture::step::cpu::tilt::Mixture;
use crate::kernel::simd::lanes::{Block, LANES, Row, Sink, Source, VECTOR};
use crate::kernel::simd::memory::{build, par_map};
use crate::kernel::simd::vector::{Pair, V, widest};
use crate::mixture::transport::{Axes, PixelMixture};
use nalgebra::DMatrix;
use pulp::{Simd, WithSimd};
use std::f32::consts::LOG2_E;

/// Standard normals beyond this are left to f64: the probability is near the smallest that f32 holds.
pub(crate) const FARTHEST: f32 = 12.0;
/// Phi of minus that.
pub(crate) const FARTHEST_RANK: f32 = 1.776_482e-33;
/// A step of this many standard deviations is the last: its error is about the fourth power.
pub(crate) const LAST_STEP: f32 = 0.07;
/// A difference of logs that is rounding.
pub(crate) const EXACT: f32 = 2e-7;
/// The search for a place to start from ends with a step of this many standard deviations,
const NEAR: f32 = 0.2;
/// or after so many steps.
const ROUGH_ITERATIONS: usize = 8;
/// It knows no tails beyond this: lanes further out start from there, moved by the difference.
const SHALLOW: f32 = 3.09;
/// Phi of minus that.
const SHALLOW_RANK: f32 = 1e-3;
/// 1/sqrt(2 pi).
pub(crate) const INVERSE_ROOT_TAU: f32 = 0.398_942_3;
/// What sums of probabilities start from: nothing beside those that are looked for, and nothing that is added becomes subnormal.
pub(crate) const TINY: f32 = 1e-37;
/// The least power of 2 that a weight is told from.
const LEAST_POWER: f32 = -120.0;
/// More than bisection needs to exhaust the bits of a bracket.
pub(crate) const MAX_ITERATIONS: usize = 64;

/// Beyond this f32 is about to underflow in tails.
pub(crate) const FARTHEST_TAIL: f32 = 12.8;
/// (a + 3.5) Phi(-a) exp(a^2/2) for a >= 0 as a polynomial of (a - 3.5)/(a + 3.5), the highest power first, fitted for the least relative
/// error: 3e-7.
pub(crate) const TAIL: [f32; 8] = [
    -8.105_203e-4,
    -2.954_526_7e-3,
    6.732_273e-3,
    1.737_140_6e-2,
    -1.161_014_6e-1,
    3.154_275_4e-1,
    -5.655_593e-1,
    7.444_16e-1,
];

/// Which way a transport goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Standard normals to draws.
    FromNormals,
    /// Points to the normals they come from.
    ToNormals,
}

/// What is mapped to what.
#[derive(Clone, Copy)]
struct Way {
    axes: Axes,
    direction: Direction,
}

/// The covariances `[b c c]` of mixtures, averaged over pixels.
pub(crate) fn covariances(mixture: Mixture, sizes: Sizes) -> Vec<f32> {
    let Sizes { c, n, .. } = sizes;
    let b = mixture.samples(sizes);
    let blocks = Block::all(b, n);
    let work = mixture.means.len();
    let sums = par_map(
        blocks.clone(),
        work,
        || Scratch::new(sizes),
        |scratch, block| {
            widest(Covarying { scratch, mixture, sizes, block });
            scratch.basis.iter().map(|row| block.sums(&[*row])).collect::<Vec<_>>()
        },
    );
    let mut totals = vec![0.0; b * c * c];
    for (block, sums) in blocks.iter().zip(sums) {
        for (entry, samples) in sums.iter().enumerate() {
            for (sample, [sum]) in samples.iter().enumerate() {
                totals[(block.first() + sample) * c * c + entry] += sum;
            }
        }
    }
    totals.into_iter().map(|total| (total / n as f64) as f32).collect()
}

/// Maps `values` `[b c n]`, with one basis per sample, `[b c c]` with a basis vector in every column.
pub(crate) fn transport(
    mixture: Mixture,
    values: &[f32],
    bases: &[f32],
    sizes: Sizes,
    axes: Axes,
    direction: Direction,
) -> Vec<f32> {
    let Sizes { k, c, n } = sizes;
    let (blocks, way) = (Block::all(mixture.samples(sizes), n), Way { axes, direction });
    let mut far = Vec::new();
    let mut mapped = build(values.len(), |out| {
        let out = Sink::new(out, n);
        // A root search costs about ten passes over the components.
        far = par_map(
            blocks,
            10 * k * values.len(),
            || Scratch::new(sizes),
            |scratch, block| {
                let far = widest(Mapping { scratch, mixture, values, bases, sizes, block, way });
                // SAFETY: every block comes up once.
                unsafe { out.write(&block, &scratch.out) };
                let lanes = far.iter().enumerate().filter(|(_, far)| **far > 0.0);
                lanes.filter_map(|(lane, _)| block.pixel(lane)).collect::<Vec<_>>()
            },
        );
    });
    for (sample, pixel) in far.into_iter().flatten() {
        let at = |row: usize| row * n + pixel;
        let read = |from: &[f32], row: usize| f64::from(from[at(row)]);
        let means: Vec<f64> = (0..k * c).map(|row| read(mixture.means, sample * k * c + row)).collect();
        let log_weights: Vec<f64> = (0..k).map(|row| read(mixture.log_weights, sample * k + row)).collect();
        let value: Vec<f64> = (0..c).map(|row| read(values, sample * c + row)).collect();
        let basis = DMatrix::from_row_iterator(c, c, bases[sample * c * c..][..c * c].iter().map(|&x| f64::from(x)));
        let std = f64::from(mixture.log_std_at(sizes, (sample, pixel))).exp();
        let mixture = PixelMixture { means: &means, log_weights: &log_weights, std };
        let result = match direction {
            Direction::FromNormals => mixture.at_normals(&value, &basis, axes),
            Direction::ToNormals => mixture.to_normals(&value, &basis, axes),
        };
        for (row, x) in result.into_iter().enumerate() {
            mapped[at(sample * c + row)] = x as f32;
        }
    }
    mapped
}

/// Room for a block.
struct Scratch {
    /// For gathering: `[k c]`, `[k]` and `[c]`.
    means: Vec<Row>,
    log_weights: Vec<Row>,
    values: Vec<Row>,
    /// Mixtures of two vectors: see [`Pixels`].
    vector: Vec<Row>,
    /// `[c c]`.
    basis: Vec<Row>,
    /// `[c]`.
    out: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, .. }: Sizes) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let vector = rows((2 * (k * c + 3 * k + 2 * c)).div_ceil(LANES / VECTOR));
        Self { means: rows(k * c), log_weights: rows(k), values: rows(c), vector, basis: rows(c * c), out: rows(c) }
    }
}

/// The mixtures of the pixels of two vectors, side by side: rows of images whose width is a power of two push each other out of the cache.
struct Pixels<'a, S: Simd> {
    simd: S,
    /// Means from their mean, `[k c]`.
    means: &'a mut [[S::f32s; 2]],
    /// Log weights to base 2, given the coordinates so far, `[k]`.
    log_weights: &'a mut [[S::f32s; 2]],
    /// The weights, normalised, `[k]`.
    weights: &'a mut [[S::f32s; 2]],
    /// The means along one axis, in standard deviations, `[k]`.
    on_axis: &'a mut [[S::f32s; 2]],
    /// The mixture's mean `[c]`.
    mean: &'a mut [[S::f32s; 2]],
    /// Coordinates `[c]`.
    along: &'a mut [[S::f32s; 2]],
}

impl<'a, S: Simd> Pixels<'a, S> {
    /// Vectors `v` of means `[k c]` and log weights `[k]`.
    #[inline(always)]
    fn new(
        simd: S,
        [means_in, log_weights_in]: [&Source; 2],
        (k, c): (usize, usize),
        v: [usize; 2],
        room: &'a mut [Row],
    ) -> Self {
        let (room, _) = S::as_mut_simd_f32s(room.as_flattened_mut());
        let (room, _) = room.as_chunks_mut();
        let (means, room) = room.split_at_mut(k * c);
        let (log_weights, room) = room.split_at_mut(k);
        let (weights, room) = room.split_at_mut(k);
        let (on_axis, room) = room.split_at_mut(k);
        let (mean, room) = room.split_at_mut(c);
        for (row, mean) in means.iter_mut().enumerate() {
            for (mean, v) in mean.iter_mut().zip(v) {
                *mean = means_in.at(simd, row, v).bare();
            }
        }
        for (row, weight) in log_weights.iter_mut().enumerate() {
            for (weight, v) in weight.iter_mut().zip(v) {
                *weight = (log_weights_in.at(simd, row, v) * V::splat(simd, LOG2_E)).bare();
            }
        }
        let mut pixels = Self { simd, means, log_weights, weights, on_axis, mean, along: &mut room[..c] };
        pixels.normalise();
        pixels.centre();
        pixels
    }

    /// Measures the means from their mean.
    #[inline(always)]
    fn centre(&mut self) {
        let (simd, c) = (self.simd, self.mean.len());
        for (channel, mean) in self.mean.iter_mut().enumerate() {
            let mut sum = Pair::splat(simd, 0.0);
            for (means, weight) in self.means.chunks_exact(c).zip(&*self.weights) {
                sum = Pair::new(simd, &means[channel]).mul_add(Pair::new(simd, weight), sum);
            }
            sum.keep(mean);
        }
        for means in self.means.chunks_exact_mut(c) {
            for (m, mean) in means.iter_mut().zip(&*self.mean) {
                (Pair::new(simd, m) - Pair::new(simd, mean)).keep(m);
            }
        }
    }

    /// The weights of the log weights.
    #[inline(always)]
    fn normalise(&mut self) {
        let simd = self.simd;
        let mut top = Pair::splat(simd, f32::NEG_INFINITY);
        for log_weight in &*self.log_weights {
            top = top.max(Pair::new(simd, log_weight));
        }
        let mut total = Pair::splat(simd, 0.0);
        for (log_weight, weight) in self.log_weights.iter().zip(&mut *self.weights) {
            let share = (Pair::new(simd, log_weight) - top).max(Pair::splat(simd, LEAST_POWER)).exp2();
            share.keep(weight);
            total = total + share;
        }
        let inverse = Pair::splat(simd, 1.0) / total;
        for weight in &mut *self.weights {
            (Pair::new(simd, weight) * inverse).max(Pair::splat(simd, TINY)).keep(weight);
        }
    }

    /// The covariance of channels `i` and `j` between components.
    #[inline(always)]
    fn between(&self, i: usize, j: usize) -> Pair<S> {
        let simd = self.simd;
        let mut sum = Pair::splat(simd, 0.0);
        for (means, weight) in self.means.chunks_exact(self.mean.len()).zip(&*self.weights) {
            sum = (Pair::new(simd, &means[i]) * Pair::new(simd, &means[j])).mul_add(Pair::new(simd, weight), sum);
        }
        sum
    }

    /// The means along an axis of the basis, in units that are 1 over `inverse` long.
    #[inline(always)]
    fn project(&mut self, basis: &[Row], axis: usize, inverse: Pair<S>, v: [usize; 2]) {
        let (simd, c) = (self.simd, self.mean.len());
        for (means, on_axis) in self.means.chunks_exact(c).zip(&mut *self.on_axis) {
            let mut sum = Pair::splat(simd, 0.0);
            for (mean, entries) in means.iter().zip(basis.chunks_exact(c)) {
                sum = Pair::new(simd, mean).mul_add(Pair::load(simd, &entries[axis], v), sum);
            }
            (sum * inverse).keep(on_axis);
        }
    }

    /// Fixes the coordinate along the axis.
    #[inline(always)]
    fn condition(&mut self, x: Pair<S>) {
        let simd = self.simd;
        for (log_weight, mean) in self.log_weights.iter_mut().zip(&*self.on_axis) {
            let u = x - Pair::new(simd, mean);
            (u * u).mul_add(Pair::splat(simd, -0.5 * LOG2_E), Pair::new(simd, log_weight)).keep(log_weight);
        }
        self.normalise();
    }

    /// Goes along the axes of the basis, from values to `out`; returns 1 where a lane is beyond f32.
    #[inline(always)]
    fn map(
        &mut self,
        values: &Source,
        basis: &[Row],
        out: &mut [Row],
        v: [usize; 2],
        std: Pair<S>,
        way: Way,
    ) -> Pair<S> {
        let (simd, c) = (self.simd, self.mean.len());
        let Way { axes, direction } = way;
        let from_normals = direction == Direction::FromNormals;
        let (zero, one) = (Pair::splat(simd, 0.0), Pair::splat(simd, 1.0));
        let inverse = one / std;
        for axis in 0..c {
            let mut sum = zero;
            for (channel, (mean, entries)) in self.mean.iter().zip(basis.chunks_exact(c)).enumerate() {
                let value = Pair::of(values, simd, channel, v);
                let value = if from_normals { value } else { (value - Pair::new(simd, mean)) * inverse };
                sum = value.mul_add(Pair::load(simd, &entries[axis], v), sum);
            }
            let straight = from_normals && axes == Axes::Basis;
            let value = if straight { Pair::of(values, simd, axis, v) } else { sum };
            value.keep(&mut self.along[axis]);
        }
        let mut far = zero;
        for axis in 0..c {
            self.project(basis, axis, inverse, v);
            let value = Pair::new(simd, &self.along[axis]);
            let line = Line { simd, means: &mut *self.on_axis, weights: &*self.weights };
            let (x, result) = if from_normals {
                far = one.only(Pair::splat(simd, FARTHEST).less(value.abs()), far);
                line.quantile(value)
            } else {
                let (normal, beyond) = line.normal(value);
                far = one.only(zero.less(beyond), far);
                (value, normal)
            };
            result.keep(&mut self.along[axis]);
            if axis + 1 < c {
                self.condition(x);
            }
        }
        let rows = out.iter_mut().zip(basis.chunks_exact(c)).enumerate();
        for (channel, (out, entries)) in rows {
            let mut sum = zero;
            for (along, entry) in self.along.iter().zip(entries) {
                sum = Pair::new(simd, along).mul_add(Pair::load(simd, entry, v), sum);
            }
            let straight = Pair::new(simd, &self.along[channel]);
            let value = match (direction, axes) {
                (Direction::FromNormals, _) => sum.mul_add(std, Pair::new(simd, &self.mean[channel])),
                (Direction::ToNormals, Axes::Channels) => sum,
                (Direction::ToNormals, Axes::Basis) => straight,
            };
            value.store(out, v);
        }
        far
    }
}

/// One-dimensional mixtures of Gaussians with standard deviation 1: means and weights `[k]`.
struct Line<'a, S: Simd> {
    simd: S,
    means: &'a mut [[S::f32s; 2]],
    weights: &'a [[S::f32s; 2]],
}

impl<S: Simd> Line<'_, S> {
    /// The quantiles at Phi(z), mirrored like the means, which are mirrored so that the rank is at most 1/2, and as they are.
    #[inline(always)]
    fn quantile(self, z: Pair<S>) -> (Pair<S>, Pair<S>) {
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
    fn normal(&self, x: Pair<S>) -> (Pair<S>, Pair<S>) {
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

/// A block of [`covariances`].
struct Covarying<'a> {
    scratch: &'a mut Scratch,
    mixture: Mixture<'a>,
    sizes: Sizes,
    block: Block,
}

impl WithSimd for Covarying<'_> {
    type Output = ();

    /// The covariances into the scratch's `basis`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scratch, mixture, sizes, block } = self;
        let Sizes { k, c, n } = sizes;
        let Scratch { means, log_weights, vector, basis, .. } = scratch;
        let means = Source::new(&block, mixture.means, k * c, n, means);
        let log_weights = Source::new(&block, mixture.log_weights, k, n, log_weights);
        let within = mixture.stds(sizes, &block, 2.0);
        for v in block.pairs(simd) {
            let pixels = Pixels::new(simd, [&means, &log_weights], (k, c), v, vector);
            for i in 0..c {
                for j in 0..=i {
                    let between = pixels.between(i, j);
                    let entry = if i == j { between + Pair::load(simd, &within, v) } else { between };
                    entry.store(&mut basis[i * c + j], v);
                    entry.store(&mut basis[j * c + i], v);
                }
            }
        }
    }
}

/// A block of [`transport`].
struct Mapping<'a> {
    scratch: &'a mut Scratch,
    mixture: Mixture<'a>,
    values: &'a [f32],
    bases: &'a [f32],
    sizes: Sizes,
    block: Block,
    way: Way,
}

impl WithSimd for Mapping<'_> {
    type Output = Row;

    /// The mapped values into the scratch's `out`; returns what is beyond f32.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Row {
        let Self { scratch, mixture, values, bases, sizes, block, way } = self;
        let Sizes { k, c, n } = sizes;
        let Scratch { means, log_weights, values: room, vector, basis, out } = scratch;
        let means = Source::new(&block, mixture.means, k * c, n, means);
        let log_weights = Source::new(&block, mixture.log_weights, k, n, log_weights);
        let values = Source::new(&block, values, c, n, room);
        for (entry, row) in basis.iter_mut().enumerate() {
            *row = block.per_sample(|sample| bases[sample * c * c + entry]);
        }
        let std = mixture.stds(sizes, &block, 1.0);
        let mut far = [0.0; LANES];
        for v in block.pairs(simd) {
            let mut pixels = Pixels::new(simd, [&means, &log_weights], (k, c), v, vector);
            pixels.map(&values, basis, out, v, Pair::load(simd, &std, v), way).store(&mut far, v);
        }
        far
    }
}
