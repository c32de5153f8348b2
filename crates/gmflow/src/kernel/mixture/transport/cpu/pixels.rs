//! Mixtures of pixels, gone through axis by axis.

use crate::kernel::mixture::transport::cpu::line::Line;
use crate::kernel::mixture::transport::types::{Axes, Direction, FARTHEST, TINY, Way};
use crate::kernel::simd::lanes::BlockReader;
use crate::kernel::simd::pair::Pair;
use crate::kernel::simd::row::Row;
use crate::kernel::simd::vector::V;
use pulp::Simd;
use std::f32::consts::LOG2_E;

/// The least power of 2 that a weight is told from.
const LEAST_POWER: f32 = -120.0;

/// The mixtures of the pixels of two vectors, side by side: rows of images whose width is a power of two push each other out of the cache.
pub(crate) struct Pixels<'a, S: Simd> {
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
    pub(crate) fn new(
        simd: S,
        [means_in, log_weights_in]: [&BlockReader; 2],
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
    pub(crate) fn between(&self, i: usize, j: usize) -> Pair<S> {
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
    pub(crate) fn map(
        &mut self,
        (values, basis): (&BlockReader, &[Row]),
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
