//! Guidance in one pass: from a network's velocities to mixtures over x0, their means and the shift that is asked for.

use super::lanes::{Block, LANES, Part, Row, parts, per_sample_sums};
use super::memory::{build, par_map};
use super::nll::Sizes;
use super::simd::{V, vectors};
use super::tilt::Mixture;
use pulp::{Arch, Simd, WithSimd};

/// How the shift of the mean is found from the conditional and the unconditional prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ShiftRule {
    /// No shift; there is no unconditional prediction.
    Off,
    /// Along the difference of the means, with this share of its part along the conditional mean removed, as long as this share of the
    /// standard deviation.
    Probabilistic {
        /// w~.
        scale: f32,
        /// The share that is removed, 0 to 1.
        orthogonal: f32,
    },
    /// The difference, with this share of its part along the conditional velocity removed, times w - 1. All components move by it.
    Extrapolate {
        /// w.
        scale: f32,
        /// The share that is removed, 0 to 1.
        orthogonal: f32,
    },
}

impl ShiftRule {
    /// The share of the axis that is subtracted, from the products of difference and axis, and of the axis with itself.
    fn along(self, da: f64, aa: f64) -> f64 {
        match self {
            Self::Off => 0.0,
            Self::Probabilistic { orthogonal, .. } | Self::Extrapolate { orthogonal, .. } => {
                if aa > 0.0 {
                    f64::from(orthogonal) * da / aa
                } else {
                    0.0
                }
            }
        }
    }

    /// The factor on what remains, from the variance and the remainder's mean square.
    fn factor(self, var: f64, power: f64) -> f64 {
        match self {
            Self::Off => 0.0,
            Self::Extrapolate { scale, .. } => f64::from(scale) - 1.0,
            Self::Probabilistic { scale, .. } if power > 0.0 => f64::from(scale) * (var / power).sqrt(),
            Self::Probabilistic { .. } => 0.0,
        }
    }
}

/// What [`guide`] finds.
pub(super) struct GuidedParts {
    /// The conditional means over x0 `[b k c n]`.
    pub means: Vec<f32>,
    /// Their mean `[b c n]`.
    pub mean: Vec<f32>,
    /// The shift `[b c n]`; empty for none.
    pub shift: Vec<f32>,
    /// As in [`super::tilt::Shifted`].
    pub var: Vec<f32>,
    /// As in [`super::tilt::Shifted`].
    pub power: Vec<f32>,
}

/// From predictions of the velocity at (x `[b c n]`, t) to mixtures over x0, their means and the shift that guidance asks for. With a
/// rule other than off the predictions are those of the doubled batch [conditional, unconditional].
pub(super) fn guide(velocity: Mixture, x: &[f32], sizes: Sizes, t: f32, rule: ShiftRule) -> GuidedParts {
    let Sizes { k, c, n } = sizes;
    let b = x.len() / (c * n).max(1);
    let active = rule != ShiftRule::Off;
    let (blocks, arch) = (Block::all(b, n), Arch::new());
    let (mut mean, mut shift, mut totals) = (Vec::new(), Vec::new(), Vec::new());
    let mut means = build(b * k * c * n, |means| {
        mean = build(x.len(), |mean| {
            shift = build(if active { x.len() } else { 0 }, |shift| {
                let mut of_shift = parts(shift, c, n, if active { &blocks } else { &[] }).into_iter();
                let of_means = parts(means, k * c, n, &blocks).into_iter().zip(parts(mean, c, n, &blocks));
                let items = of_means.zip(&blocks).map(|(out, &block)| (out, of_shift.next(), block)).collect();
                let sums = par_map(
                    items,
                    2 * b * k * c * n,
                    || Scratch::new(sizes),
                    |scratch, item| {
                        let ((mut means, mut mean), shift, block): ((Part, Part), Option<Part>, Block) = item;
                        let sums = arch.dispatch(Guiding { scratch, velocity, x, sizes, b, block, t, rule });
                        block.store(&scratch.means, &mut means);
                        block.store(&scratch.mean, &mut mean);
                        if let Some(mut shift) = shift {
                            block.store(&scratch.difference, &mut shift);
                        }
                        block.sums(&sums)
                    },
                );
                totals = per_sample_sums(b, &blocks, &sums);
            });
        });
    });
    let (mut vars, mut powers) = (Vec::with_capacity(b), Vec::with_capacity(b));
    let extrapolate = matches!(rule, ShiftRule::Extrapolate { .. });
    for (sample, &[var, da, aa]) in totals.iter().enumerate() {
        let var = var / n as f64;
        vars.push(var as f32);
        if !active {
            powers.push(0.0);
            continue;
        }
        let along = rule.along(da, aa) as f32;
        let at = sample * c * n..(sample + 1) * c * n;
        let (shift, mean, x) = (&mut shift[at.clone()], &mut mean[at.clone()], &x[at]);
        // What remains may be much smaller than what was subtracted: its power is that of the numbers themselves.
        let mut power = 0.0;
        for ((shift, mean), x) in shift.iter_mut().zip(&*mean).zip(x) {
            let axis = if extrapolate { x - mean } else { *mean };
            *shift -= along * axis;
            power += f64::from(*shift * *shift);
        }
        let power = power / (c * n) as f64;
        let factor = rule.factor(var, power);
        powers.push(if extrapolate { 0.0 } else { (power * factor * factor) as f32 });
        shift.iter_mut().for_each(|shift| *shift *= factor as f32);
        if extrapolate {
            let add = |to: &mut [f32]| to.iter_mut().zip(&*shift).for_each(|(value, shift)| *value += shift);
            add(mean);
            means[sample * k * c * n..][..k * c * n].chunks_exact_mut(c * n).for_each(add);
        }
    }
    // What has moved all components is no shift that they are still to be reweighted by.
    let shift = if extrapolate { Vec::new() } else { shift };
    GuidedParts { means, mean, shift, var: vars, power: powers }
}

/// Room for a block.
struct Scratch {
    /// Velocities, then x0, `[k c]`.
    means: Vec<Row>,
    /// `[k]`.
    weights: Vec<Row>,
    /// Rows `[c]`.
    x: Vec<Row>,
    mean: Vec<Row>,
    difference: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, .. }: Sizes) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        Self { means: rows(k * c), weights: rows(k), x: rows(c), mean: rows(c), difference: rows(c) }
    }

    /// Reads velocities and their mean into `mean`.
    #[inline(always)]
    fn load<S: Simd>(&mut self, simd: S, velocity: Mixture, Sizes { k, c, n }: Sizes, block: Block) {
        block.load(velocity.means, k * c, n, &mut self.means);
        block.load(velocity.log_weights, k, n, &mut self.weights);
        for v in 0..vectors(simd) {
            let at = |row: &Row| V::load(simd, row, v);
            for weight in &mut self.weights {
                at(weight).exp().store(weight, v);
            }
            for (channel, mean) in self.mean.iter_mut().enumerate() {
                let mut sum = V::splat(simd, 0.0);
                for (u, weight) in self.means.iter().skip(channel).step_by(c).zip(&self.weights) {
                    sum = at(u).mul_add(at(weight), sum);
                }
                sum.store(mean, v);
            }
        }
    }
}

/// A block of [`guide`].
struct Guiding<'a> {
    scratch: &'a mut Scratch,
    velocity: Mixture<'a>,
    x: &'a [f32],
    sizes: Sizes,
    b: usize,
    block: Block,
    t: f32,
    rule: ShiftRule,
}

impl WithSimd for Guiding<'_> {
    type Output = [Row; 3];

    /// The means over x0, their mean, and the difference of the conditional from the unconditional mean into the scratch. Returns, per lane,
    /// the variance, and the products of the axis with the difference and with itself.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [Row; 3] {
        let Self { scratch, velocity, x, sizes, b, block, t, rule } = self;
        let c = sizes.c;
        block.load(x, c, sizes.n, &mut scratch.x);
        if rule != ShiftRule::Off {
            scratch.load(simd, velocity, sizes, block.after(b));
            scratch.difference.copy_from_slice(&scratch.mean);
        }
        scratch.load(simd, velocity, sizes, block);
        let Scratch { means, weights, x, mean, difference } = scratch;
        let within = block.per_sample(|sample| (2.0 * velocity.log_std[sample]).exp());
        let extrapolate = matches!(rule, ShiftRule::Extrapolate { .. });
        let number = |x: f32| V::splat(simd, x);
        let (time, minus_time, per_channel) = (number(t), number(-t), number(1.0 / c as f32));
        let mut sums = [[0.0; LANES]; 3];
        for v in 0..vectors(simd) {
            let at = |row: &Row| V::load(simd, row, v);
            let mut var = number(0.0);
            for (means, weight) in means.chunks_exact_mut(c).zip(&*weights) {
                let mut spread = number(0.0);
                for ((u, mean), x) in means.iter_mut().zip(&*mean).zip(&*x) {
                    let value = at(u);
                    let offset = value - at(mean);
                    spread = offset.mul_add(offset, spread);
                    value.mul_add(minus_time, at(x)).store(u, v);
                }
                var = spread.mul_add(per_channel, at(&within)).mul_add(at(weight), var);
            }
            let [mut da, mut aa] = [number(0.0); 2];
            for ((mean, difference), x) in mean.iter_mut().zip(&mut *difference).zip(&*x) {
                let u = at(mean);
                let data = u.mul_add(minus_time, at(x));
                let apart = (at(difference) - u) * time;
                let axis = if extrapolate { u * time } else { data };
                da = apart.mul_add(axis, da);
                aa = axis.mul_add(axis, aa);
                data.store(mean, v);
                apart.store(difference, v);
            }
            for (sum, value) in sums.iter_mut().zip([var * time * time, da, aa]) {
                value.store(sum, v);
            }
        }
        sums
    }
}
