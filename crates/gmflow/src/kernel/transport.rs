//! The Knothe-Rosenblatt transport between standard normals and mixtures with pixels as lanes, in f32.
//!
//! [`PixelMixture`] says what is computed. Here a quantile is found by Newton's steps on the log of the distribution function, which
//! bisection safeguards; the point is mirrored so that it always lies in the lower tail, where that function loses nothing. Lanes so far
//! out in a tail that f32 does not reach are left to [`PixelMixture`], in f64.

use super::lanes::{Block, LANES, Row, parts};
use super::memory::{build, par_map};
use super::nll::Sizes;
use super::simd::{V, vectors};
use super::tilt::Mixture;
use crate::mixture::transport::{Axes, PixelMixture};
use nalgebra::DMatrix;
use pulp::{Arch, Simd, WithSimd};

/// Standard normals beyond this are left to f64: the probability is near the smallest that f32 holds.
const FARTHEST: f32 = 12.0;
/// A step of this many standard deviations is Newton's last: its error is about the square.
const LAST_STEP: f32 = 2e-4;
/// What sums of probabilities start from: nothing beside those that are looked for, and nothing that is added becomes subnormal.
const TINY: f32 = 1e-37;
/// More than bisection needs to exhaust the bits of a bracket.
const MAX_ITERATIONS: usize = 64;

/// Which way a transport goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Standard normals to draws.
    FromNormals,
    /// Points to the normals they come from.
    ToNormals,
}

/// The covariances `[b c c]` of mixtures, averaged over pixels.
pub(super) fn covariances(mixture: Mixture, sizes: Sizes) -> Vec<f32> {
    let Sizes { c, n, .. } = sizes;
    let b = mixture.log_std.len();
    let (blocks, arch) = (Block::all(b, n), Arch::new());
    let work = mixture.means.len();
    let sums = par_map(
        blocks.clone(),
        work,
        || Scratch::new(sizes),
        |scratch, block| {
            arch.dispatch(Covarying { scratch, mixture, sizes, block });
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
pub(super) fn transport(
    mixture: Mixture,
    values: &[f32],
    bases: &[f32],
    sizes: Sizes,
    axes: Axes,
    direction: Direction,
) -> Vec<f32> {
    let Sizes { k, c, n } = sizes;
    let (blocks, arch) = (Block::all(mixture.log_std.len(), n), Arch::new());
    let mut far = Vec::new();
    let mut mapped = build(values.len(), |out| {
        let items = parts(out, c, n, &blocks).into_iter().zip(blocks.iter().copied()).collect();
        // A root search costs about ten evaluations.
        far = par_map(
            items,
            10 * k * values.len(),
            || Scratch::new(sizes),
            |scratch, (mut out, block)| {
                let far = arch.dispatch(Mapping { scratch, mixture, values, bases, sizes, block, axes, direction });
                block.store(&scratch.out, &mut out);
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
        let std = f64::from(mixture.log_std[sample]).exp();
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
    /// Means from their mean, then along the basis, `[k c]`.
    means: Vec<Row>,
    /// Log weights given the coordinates so far `[k]`.
    log_weights: Vec<Row>,
    /// Their exponentials, normalised, `[k]`.
    weights: Vec<Row>,
    /// The means along one axis `[k]`.
    on_axis: Vec<Row>,
    /// The mixture's mean `[c]`.
    mean: Vec<Row>,
    /// `[c c]`.
    basis: Vec<Row>,
    /// Rows `[c]`.
    values: Vec<Row>,
    along: Vec<Row>,
    out: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, .. }: Sizes) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let [log_weights, weights, on_axis] = [(); 3].map(|()| rows(k));
        let [mean, values, along, out] = [(); 4].map(|()| rows(c));
        Self { means: rows(k * c), log_weights, weights, on_axis, mean, basis: rows(c * c), values, along, out }
    }

    /// Reads mixtures; the means are left as they are, `mean` and `weights` are computed.
    #[inline(always)]
    fn load<S: Simd>(&mut self, simd: S, mixture: Mixture, Sizes { k, c, n }: Sizes, block: Block) {
        block.load(mixture.means, k * c, n, &mut self.means);
        block.load(mixture.log_weights, k, n, &mut self.log_weights);
        for v in 0..vectors(simd) {
            self.normalise(simd, v);
            let at = |row: &Row| V::load(simd, row, v);
            for (channel, mean) in self.mean.iter_mut().enumerate() {
                let mut sum = V::splat(simd, 0.0);
                for (m, weight) in self.means.iter().skip(channel).step_by(c).zip(&self.weights) {
                    sum = at(m).mul_add(at(weight), sum);
                }
                sum.store(mean, v);
            }
            for means in self.means.chunks_exact_mut(c) {
                for (m, mean) in means.iter_mut().zip(&self.mean) {
                    (at(m) - at(mean)).store(m, v);
                }
            }
        }
    }

    /// The weights of the log weights.
    #[inline(always)]
    fn normalise<S: Simd>(&mut self, simd: S, v: usize) {
        let at = |row: &Row| V::load(simd, row, v);
        let mut top = V::splat(simd, f32::NEG_INFINITY);
        for log_weight in &self.log_weights {
            top = top.max(at(log_weight));
        }
        let mut total = V::splat(simd, 0.0);
        for (log_weight, weight) in self.log_weights.iter().zip(&mut self.weights) {
            let share = (at(log_weight) - top).exp();
            share.store(weight, v);
            total = total + share;
        }
        let inverse = V::splat(simd, 1.0) / total;
        for weight in &mut self.weights {
            (at(weight) * inverse).max(V::splat(simd, TINY)).store(weight, v);
        }
    }

    /// Goes along the axes of the basis; returns 1 where a lane is beyond f32.
    #[inline(always)]
    fn map<S: Simd>(&mut self, simd: S, v: usize, std: V<S>, axes: Axes, direction: Direction) -> V<S> {
        let c = self.mean.len();
        let at = |row: &Row| V::load(simd, row, v);
        let number = |x: f32| V::splat(simd, x);
        let inverse = number(1.0) / std;
        let from_normals = direction == Direction::FromNormals;
        let rotate = from_normals && axes == Axes::Basis;
        for (axis, along) in self.along.iter_mut().enumerate() {
            let mut sum = number(0.0);
            for (channel, (value, mean)) in self.values.iter().zip(&self.mean).enumerate() {
                let value = if from_normals { at(value) } else { at(value) - at(mean) };
                sum = value.mul_add(at(&self.basis[channel * c + axis]), sum);
            }
            if rotate { at(&self.values[axis]) } else { sum }.store(along, v);
        }
        let (zero, one) = (number(0.0), number(1.0));
        let mut far = zero;
        for axis in 0..c {
            for (means, on_axis) in self.means.chunks_exact(c).zip(&mut self.on_axis) {
                let mut sum = zero;
                for (channel, m) in means.iter().enumerate() {
                    sum = at(m).mul_add(at(&self.basis[channel * c + axis]), sum);
                }
                sum.store(on_axis, v);
            }
            let line = Line { means: &self.on_axis, weights: &self.weights, std, inverse, v };
            let value = at(&self.along[axis]);
            let x = if from_normals {
                far = one.only(number(FARTHEST).less(value.abs()), far);
                let x = line.quantile(simd, value);
                x.store(&mut self.along[axis], v);
                x
            } else {
                let (normal, beyond) = line.normal(simd, value);
                far = one.only(zero.less(beyond), far);
                normal.store(&mut self.along[axis], v);
                value
            };
            if axis + 1 == c {
                break;
            }
            for (log_weight, mean) in self.log_weights.iter_mut().zip(&self.on_axis) {
                let z = (x - at(mean)) * inverse;
                (z * z).mul_add(number(-0.5), at(log_weight)).store(log_weight, v);
            }
            self.normalise(simd, v);
        }
        for (channel, (out, mean)) in self.out.iter_mut().zip(&self.mean).enumerate() {
            let mut sum = if from_normals { at(mean) } else { zero };
            for (axis, along) in self.along.iter().enumerate() {
                sum = at(along).mul_add(at(&self.basis[channel * c + axis]), sum);
            }
            let straight = !from_normals && axes == Axes::Basis;
            if straight { at(&self.along[channel]) } else { sum }.store(out, v);
        }
        far
    }
}

/// One-dimensional mixtures in vector `v` of rows `[k]`.
struct Line<'a, S: Simd> {
    means: &'a [Row],
    weights: &'a [Row],
    std: V<S>,
    inverse: V<S>,
    v: usize,
}

impl<S: Simd> Line<'_, S> {
    /// The quantiles at Phi(z).
    #[inline(always)]
    fn quantile(&self, simd: S, z: V<S>) -> V<S> {
        let number = |x: f32| V::splat(simd, x);
        let (zero, one, half) = (number(0.0), number(1.0), number(0.5));
        let components = || {
            let load = |row: &Row| V::load(simd, row, self.v);
            self.means.iter().zip(self.weights).map(move |(mean, weight)| (load(mean), load(weight)))
        };
        // Mirrored so that the rank is at most 1/2.
        let side = number(-1.0).only(zero.less(z), one);
        let depth = z.abs().min(number(FARTHEST));
        let target = (lower_tail(simd, depth).0).ln();
        let (mut lo, mut hi) = (number(f32::INFINITY), number(f32::NEG_INFINITY));
        let (mut first, mut second) = (zero, zero);
        for (mean, weight) in components() {
            let mean = mean * side;
            lo = lo.min(mean);
            hi = hi.max(mean);
            first = mean.mul_add(weight, first);
            second = (mean * mean).mul_add(weight, second);
        }
        let spread = (second - first * first).max(zero) + self.std * self.std;
        // A mixture's quantile lies between those of its components.
        let reach = self.std * depth;
        (lo, hi) = (lo - reach, hi - reach);
        let mut x = (first - spread.sqrt() * depth).max(lo).min(hi);
        let (resolution, last) = (number(f32::EPSILON), number(LAST_STEP) * self.std);
        // Lanes that have arrived stay where they are: from there rounding alone would lead them on.
        let mut done = zero.less(zero);
        for _ in 0..MAX_ITERATIONS {
            let (mut below, mut density) = (number(TINY), number(TINY));
            for (mean, weight) in components() {
                let u = (x - mean * side) * self.inverse;
                let (tail, bell) = lower_tail(simd, u.abs());
                let cdf = tail.only(u.less(zero), one - tail);
                below = cdf.mul_add(weight, below);
                density = bell.mul_add(weight, density);
            }
            let residual = below.ln() - target;
            let step = residual * below * self.std / density;
            let high = zero.less(residual);
            let width = hi - lo;
            hi = x.only(high, hi);
            lo = lo.only(high, x);
            let newton = x - step;
            // Where there is hardly any density a step leads out of the bracket and is not taken.
            let inside = simd.and_m32s(lo.less(newton), newton.less(hi));
            let useful = simd.and_m32s(inside, step.abs().less(half * width));
            let close = step.abs().less(last);
            let next = newton.only(simd.or_m32s(close, useful), half * (lo + hi));
            x = x.only(done, next);
            let narrow = (hi - lo).less(resolution * (self.std + x.abs()));
            done = simd.or_m32s(done, simd.or_m32s(close, narrow));
            if zero.only(done, one).largest() <= 0.0 {
                break;
            }
        }
        x * side
    }

    /// The standard normals of the same rank as x, and 1 where they are beyond f32.
    #[inline(always)]
    fn normal(&self, simd: S, x: V<S>) -> (V<S>, V<S>) {
        let number = |x: f32| V::splat(simd, x);
        let (zero, one) = (number(0.0), number(1.0));
        let (mut below, mut above) = (number(TINY), number(TINY));
        for (mean, weight) in self.means.iter().zip(self.weights) {
            let (mean, weight) = (V::load(simd, mean, self.v), V::load(simd, weight, self.v));
            let u = (x - mean) * self.inverse;
            let tail = lower_tail(simd, u.abs()).0;
            let (left, other) = (u.less(zero), one - tail);
            below = tail.only(left, other).mul_add(weight, below);
            above = other.only(left, tail).mul_add(weight, above);
        }
        let smaller = below.min(above);
        let least = number(lower_tail_of_farthest());
        let beyond = one.only(smaller.less(least), zero);
        let ln_p = smaller.max(least).min(number(0.5)).ln();
        // Formula 26.2.23 of Abramowitz and Stegun, off by at most 4.5e-4, and Newton's steps on the log of the tail.
        let y = (ln_p * number(-2.0)).sqrt();
        let above_line = y.mul_add(number(0.010_328), number(0.802_853)).mul_add(y, number(2.515_517));
        let under_line = y.mul_add(number(0.001_308), number(0.189_269)).mul_add(y, number(1.432_788));
        let mut depth = y - above_line / under_line.mul_add(y, one);
        for _ in 0..2 {
            let (tail, bell) = lower_tail(simd, depth);
            depth = depth + (tail.ln() - ln_p) * tail / bell;
        }
        ((zero - depth).only(below.less(above), depth), beyond)
    }
}

/// Phi(-a) and the density at a >= 0 of the standard normal. Beyond 12.8, where f32 is about to underflow, the values stay.
///
/// (a + 2.5) Phi(-a) exp(a^2/2) as a polynomial of (a - 2.5)/(a + 2.5), fitted for the least relative error: 2.5e-7 in f32.
#[inline(always)]
fn lower_tail<S: Simd>(simd: S, a: V<S>) -> (V<S>, V<S>) {
    const COEFFICIENTS: [f32; 9] = [
        -3.018_576_5e-4,
        6.589_009e-4,
        2.509_175_4e-3,
        -1.586_311_5e-3,
        -1.637_959e-2,
        9.232_807e-3,
        1.319_860_8e-1,
        -4.336_918_3e-1,
        7.066_567e-1,
    ];
    const INVERSE_ROOT_TAU: f32 = 0.398_942_3;
    let number = |x: f32| V::splat(simd, x);
    let a = a.min(number(12.8));
    let inverse = number(1.0) / (a + number(2.5));
    let t = inverse.mul_add(number(-5.0), number(1.0));
    let mut p = number(-1.430_619_5e-4);
    for coefficient in COEFFICIENTS {
        p = p.mul_add(t, number(coefficient));
    }
    let bell = (a * a * number(-0.5)).exp();
    (p * inverse * bell, bell * number(INVERSE_ROOT_TAU))
}

/// Phi of minus [`FARTHEST`].
fn lower_tail_of_farthest() -> f32 {
    1.776_482e-33
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
        let c = sizes.c;
        scratch.load(simd, mixture, sizes, block);
        let within = block.per_sample(|sample| (2.0 * mixture.log_std[sample]).exp());
        let Scratch { means, weights, basis, .. } = scratch;
        for v in 0..vectors(simd) {
            let at = |row: &Row| V::load(simd, row, v);
            for i in 0..c {
                for j in 0..=i {
                    let mut sum = if i == j { at(&within) } else { V::splat(simd, 0.0) };
                    for (means, weight) in means.chunks_exact(c).zip(&*weights) {
                        sum = (at(&means[i]) * at(&means[j])).mul_add(at(weight), sum);
                    }
                    sum.store(&mut basis[i * c + j], v);
                    sum.store(&mut basis[j * c + i], v);
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
    axes: Axes,
    direction: Direction,
}

impl WithSimd for Mapping<'_> {
    type Output = Row;

    /// The mapped values into the scratch's `out`; returns what is beyond f32.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Row {
        let Self { scratch, mixture, values, bases, sizes, block, axes, direction } = self;
        let c = sizes.c;
        scratch.load(simd, mixture, sizes, block);
        block.load(values, c, sizes.n, &mut scratch.values);
        for (entry, row) in scratch.basis.iter_mut().enumerate() {
            *row = block.per_sample(|sample| bases[sample * c * c + entry]);
        }
        let std = block.per_sample(|sample| mixture.log_std[sample].exp());
        let mut far = [0.0; LANES];
        for v in 0..vectors(simd) {
            let std = V::load(simd, &std, v);
            scratch.map(simd, v, std, axes, direction).store(&mut far, v);
        }
        far
    }
}
