//! What a solver's step does with a predicted mixture after guidance: the second-order change and the sub-steps, each in one pass.
//!
//! Reweighted mixtures are not stored. Guidance (7), (8), the second-order change and the posterior at another point (10) all multiply
//! the predicted mixture by exp(nu . (x0 - m) - zeta |x0 - m|^2 / 2) about its mean m, so their nu and zeta add up, and a pass works
//! out what it needs of the product from the prediction.

use super::lanes::{Block, LANES, Row, parts, per_sample_sums};
use super::math::ln;
use super::memory::{build, par_map};
use super::nll::Sizes;
use super::simd::{V, vectors};
use pulp::{Arch, Simd, WithSimd};

/// The smallest share of the variance that a shift leaves.
const MIN_REST: f32 = 1e-6;

/// One Euler sub-step along the velocity (x - E[x0 | x])/tau, with what (x, tau) tells beyond (x_t, t): the numbers are the same for all
/// samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OdeSubstep {
    /// What multiplies x_tau in the evidence nu.
    pub here: f32,
    /// What multiplies x_t, where the mixture was predicted, and is subtracted.
    pub there: f32,
    /// The evidence's precision zeta; with 0 there is none.
    pub zeta: f32,
    /// to/tau: the share of x_tau in the result.
    pub keep: f32,
}

/// The numbers of a second-order change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeRule {
    /// What (x, t) tells beyond the point of the previous prediction: here x - there x_previous, and zeta.
    pub evidence: [f32; 3],
    /// h/(2 h_previous).
    pub gain: f32,
    /// The noise of the prediction: these shares of variance and squared shift, both over h_previous^2.
    pub noise: [f32; 2],
}

/// Mixtures `[b k c n]`, `[b k n]`, `[b]`.
#[derive(Clone, Copy)]
pub(super) struct Mixture<'a> {
    pub means: &'a [f32],
    pub log_weights: &'a [f32],
    pub log_std: &'a [f32],
}

/// Mixtures over x0, their means and the shifts that they are reweighted by.
#[derive(Clone, Copy)]
pub(super) struct Shifted<'a> {
    pub mixture: Mixture<'a>,
    /// `[b c n]`.
    pub mean: &'a [f32],
    /// `[b c n]`; empty for none.
    pub shift: &'a [f32],
    /// The variance averaged over pixels `[b]`.
    pub var: &'a [f32],
    /// The mean square of the shift `[b]`.
    pub power: &'a [f32],
}

/// What multiplies a shift to give nu, and zeta, from the variance and the mean square of the shift: the target of guidance, whose
/// variance is less by the shift's share, divided by the Gaussian around the mean.
fn natural(var: f32, power: f32) -> (f32, f32) {
    let var = var.max(f32::MIN_POSITIVE);
    let share = power / var;
    let bounded = share.min(1.0 - MIN_REST);
    let rest = (1.0 - share).max(MIN_REST) * var;
    let shorten = if bounded > 0.0 { (bounded / share).sqrt().min(1.0) } else { 1.0 };
    (shorten / rest, bounded / rest)
}

/// The mixtures of a block, measured from their mean.
struct Centred {
    /// `[k c]`.
    means: Vec<Row>,
    /// `[k]`.
    log_weights: Vec<Row>,
    /// |means|^2 `[k]`.
    squares: Vec<Row>,
    /// Room for `[k]`.
    joint: Vec<Row>,
    /// The components' variance.
    var: Row,
}

impl Centred {
    /// The mean of the mixtures times exp(nu . y - zeta |y|^2 / 2), with y measured from their mean, for vector `v` of `out` `[c]`.
    #[inline(always)]
    fn tilted_mean<S: Simd>(&mut self, simd: S, v: usize, nu: &[Row], zeta: V<S>, out: &mut [Row]) {
        let Self { means, log_weights, squares, joint, var } = self;
        let at = |row: &Row| V::load(simd, row, v);
        let number = |x: f32| V::splat(simd, x);
        let (var, half) = (at(var), zeta * number(-0.5));
        let scale = number(1.0) / var.mul_add(zeta, number(1.0));
        let mut top = number(f32::NEG_INFINITY);
        let components = means.chunks_exact(out.len()).zip(squares.iter().zip(&*log_weights));
        for ((means, (squares, weight)), joint) in components.zip(&mut *joint) {
            let mut gain = half * at(squares);
            for (m, nu) in means.iter().zip(nu) {
                gain = at(m).mul_add(at(nu), gain);
            }
            let value = gain.mul_add(scale, at(weight));
            value.store(joint, v);
            top = top.max(value);
        }
        let mut total = number(0.0);
        for joint in &mut *joint {
            let share = (at(joint) - top).exp();
            share.store(joint, v);
            total = total + share;
        }
        let inverse = number(1.0) / total;
        let c = out.len();
        for (channel, (out, nu)) in out.iter_mut().zip(nu).enumerate() {
            let mut sum = number(0.0);
            for (m, share) in means.iter().skip(channel).step_by(c).zip(&*joint) {
                sum = at(m).mul_add(at(share), sum);
            }
            let mean = sum.mul_add(inverse, var * at(nu)) * scale;
            mean.store(out, v);
        }
    }

    /// The mixtures times the same, in place of themselves.
    #[inline(always)]
    fn tilt<S: Simd>(&mut self, simd: S, v: usize, nu: &[Row], zeta: V<S>) {
        let Self { means, log_weights, squares, var, .. } = self;
        let at = |row: &Row| V::load(simd, row, v);
        let number = |x: f32| V::splat(simd, x);
        let (var, half) = (at(var), zeta * number(-0.5));
        let scale = number(1.0) / var.mul_add(zeta, number(1.0));
        let mut top = number(f32::NEG_INFINITY);
        let components = means.chunks_exact_mut(nu.len()).zip(squares);
        for ((means, squares), weight) in components.zip(&mut *log_weights) {
            let mut gain = half * at(squares);
            for (m, nu) in means.iter_mut().zip(nu) {
                let (mean, nu) = (at(m), at(nu));
                gain = mean.mul_add(nu, gain);
                (var.mul_add(nu, mean) * scale).store(m, v);
            }
            let value = gain.mul_add(scale, at(weight));
            value.store(weight, v);
            top = top.max(value);
        }
        let mut total = number(0.0);
        for weight in &*log_weights {
            total = total + (at(weight) - top).exp();
        }
        let mut norm = [0.0; LANES];
        total.store(&mut norm, v);
        for total in &mut norm[v * S::F32_LANES..][..S::F32_LANES] {
            *total = ln(*total);
        }
        let norm = top + at(&norm);
        for weight in log_weights {
            (at(weight) - norm).store(weight, v);
        }
    }
}

/// A block's mixtures, and room for what is computed from them.
struct Scratch {
    mixture: Centred,
    /// Their mean `[c]`.
    mean: Vec<Row>,
    /// The shift in natural parameters, `[c]` and one row.
    nu: Vec<Row>,
    zeta: Row,
    /// Rows `[c]`.
    x: Vec<Row>,
    start: Vec<Row>,
    tilt: Vec<Row>,
    moved: Vec<Row>,
    out: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, .. }: Sizes) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let mixture =
            Centred { means: rows(k * c), log_weights: rows(k), squares: rows(k), joint: rows(k), var: [1.0; LANES] };
        let [mean, nu, x, start, tilt, moved, out] = [(); 7].map(|()| rows(c));
        Self { mixture, mean, nu, zeta: [0.0; LANES], x, start, tilt, moved, out }
    }

    /// Reads a block.
    #[inline(always)]
    fn load<S: Simd>(&mut self, simd: S, shifted: &Shifted, Sizes { k, c, n }: Sizes, block: Block) {
        let Mixture { means, log_weights, log_std } = shifted.mixture;
        let mixture = &mut self.mixture;
        block.load(means, k * c, n, &mut mixture.means);
        block.load(log_weights, k, n, &mut mixture.log_weights);
        block.load(shifted.mean, c, n, &mut self.mean);
        mixture.var = block.per_sample(|sample| (2.0 * log_std[sample]).exp());
        for v in 0..vectors(simd) {
            for (means, squares) in mixture.means.chunks_exact_mut(c).zip(&mut mixture.squares) {
                let mut sum = V::splat(simd, 0.0);
                for (m, mean) in means.iter_mut().zip(&self.mean) {
                    let offset = V::load(simd, m, v) - V::load(simd, mean, v);
                    sum = offset.mul_add(offset, sum);
                    offset.store(m, v);
                }
                sum.store(squares, v);
            }
        }
        if shifted.shift.is_empty() {
            self.nu.fill([0.0; LANES]);
            self.zeta = [0.0; LANES];
            return;
        }
        let natural = |sample: usize| natural(shifted.var[sample], shifted.power[sample]);
        self.zeta = block.per_sample(|sample| natural(sample).1);
        let factor = block.per_sample(|sample| natural(sample).0);
        block.load(shifted.shift, c, n, &mut self.nu);
        for v in 0..vectors(simd) {
            let factor = V::load(simd, &factor, v);
            for nu in &mut self.nu {
                (V::load(simd, nu, v) * factor).store(nu, v);
            }
        }
    }
}

/// The shift of `now` with the second-order change since `before`, whose predictions were made at `x_before`: `[b c n]`, and its mean
/// square `[b]`.
pub(super) fn second_order(
    (now, x): (Shifted, &[f32]),
    (before, x_before): (Shifted, &[f32]),
    sizes: Sizes,
    rule: ChangeRule,
) -> (Vec<f32>, Vec<f32>) {
    let Sizes { k, c, n } = sizes;
    let b = x.len() / (c * n).max(1);
    let (blocks, arch) = (Block::all(b, n), Arch::new());
    let mut totals = Vec::new();
    let shift = build(x.len(), |out| {
        let items = parts(out, c, n, &blocks).into_iter().zip(blocks.iter().copied()).collect();
        let sums = par_map(
            items,
            2 * b * k * c * n,
            || Scratch::new(sizes),
            |scratch, (mut out, block)| {
                let power = arch.dispatch(Changing { scratch, now, x, before, x_before, sizes, block, rule });
                block.store(&scratch.out, &mut out);
                block.sums(&[power])
            },
        );
        totals = per_sample_sums(b, &blocks, &sums);
    });
    (shift, totals.iter().map(|[power]| (power / (c * n) as f64) as f32).collect())
}

/// A block of [`second_order`].
struct Changing<'a> {
    scratch: &'a mut Scratch,
    now: Shifted<'a>,
    x: &'a [f32],
    before: Shifted<'a>,
    x_before: &'a [f32],
    sizes: Sizes,
    block: Block,
    rule: ChangeRule,
}

impl WithSimd for Changing<'_> {
    type Output = Row;

    /// The changed shift into the scratch's `out`; returns its square, added up over channels.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Row {
        let Self { scratch, now, x, before, x_before, sizes, block, rule } = self;
        let Sizes { c, n, .. } = sizes;
        let number = |x: f32| V::splat(simd, x);
        let [here, there, zeta] = rule.evidence.map(number);
        // Where the previous mixture's mean has moved to.
        scratch.load(simd, &before, sizes, block);
        block.load(x, c, n, &mut scratch.x);
        block.load(x_before, c, n, &mut scratch.start);
        for v in 0..vectors(simd) {
            let at = |row: &Row| V::load(simd, row, v);
            for channel in 0..c {
                let from_mean = zeta * at(&scratch.mean[channel]);
                let evidence = here * at(&scratch.x[channel]) - there * at(&scratch.start[channel]) - from_mean;
                (at(&scratch.nu[channel]) + evidence).store(&mut scratch.tilt[channel], v);
            }
            let precision = at(&scratch.zeta) + zeta;
            scratch.mixture.tilted_mean(simd, v, &scratch.tilt, precision, &mut scratch.moved);
            for (moved, mean) in scratch.moved.iter_mut().zip(&scratch.mean) {
                (at(moved) + at(mean)).store(moved, v);
            }
        }
        // The mean of the guided mixture now.
        let guided = !now.shift.is_empty();
        scratch.load(simd, &now, sizes, block);
        if guided {
            block.load(now.shift, c, n, &mut scratch.x);
        }
        let factor = block.per_sample(|sample| {
            let noise = rule.noise[0] * now.var[sample] + rule.noise[1] * now.power[sample];
            rule.gain * (1.0 - noise).max(0.0).sqrt()
        });
        let mut power = [0.0; LANES];
        for v in 0..vectors(simd) {
            let at = |row: &Row| V::load(simd, row, v);
            if guided {
                let zeta = at(&scratch.zeta);
                scratch.mixture.tilted_mean(simd, v, &scratch.nu, zeta, &mut scratch.out);
            }
            let mut sum = number(0.0);
            for (channel, out) in scratch.out.iter_mut().enumerate() {
                let (first, shift) =
                    if guided { (at(out), at(&scratch.x[channel])) } else { (number(0.0), number(0.0)) };
                let change = first + at(&scratch.mean[channel]) - at(&scratch.moved[channel]);
                let shift = change.mul_add(at(&factor), shift);
                sum = shift.mul_add(shift, sum);
                shift.store(out, v);
            }
            sum.store(&mut power, v);
        }
        power
    }
}

/// The samples `[b c n]` after all sub-steps from `x`, where the mixtures were predicted.
pub(super) fn ode_substeps(shifted: Shifted, x: &[f32], sizes: Sizes, substeps: &[OdeSubstep]) -> Vec<f32> {
    let Sizes { c, n, .. } = sizes;
    let (blocks, arch) = (Block::all(x.len() / (c * n).max(1), n), Arch::new());
    build(x.len(), |out| {
        let items = parts(out, c, n, &blocks).into_iter().zip(blocks.iter().copied()).collect();
        let work = shifted.mixture.means.len() * substeps.len();
        par_map(
            items,
            work,
            || Scratch::new(sizes),
            |scratch, (mut out, block)| {
                arch.dispatch(Stepping { scratch, shifted, x, sizes, block, substeps });
                block.store(&scratch.x, &mut out);
            },
        );
    })
}

/// A block of [`ode_substeps`].
struct Stepping<'a> {
    scratch: &'a mut Scratch,
    shifted: Shifted<'a>,
    x: &'a [f32],
    sizes: Sizes,
    block: Block,
    substeps: &'a [OdeSubstep],
}

impl WithSimd for Stepping<'_> {
    type Output = ();

    /// All sub-steps from `x`, into the scratch's `x`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scratch, shifted, x, sizes, block, substeps } = self;
        let c = sizes.c;
        scratch.load(simd, &shifted, sizes, block);
        block.load(x, c, sizes.n, &mut scratch.start);
        scratch.x.copy_from_slice(&scratch.start);
        for v in 0..vectors(simd) {
            let at = |row: &Row| V::load(simd, row, v);
            for substep in substeps {
                let [here, there, zeta] = [substep.here, substep.there, substep.zeta].map(|x| V::splat(simd, x));
                for channel in 0..c {
                    let from_mean = zeta * at(&scratch.mean[channel]);
                    let evidence = here * at(&scratch.x[channel]) - there * at(&scratch.start[channel]) - from_mean;
                    (at(&scratch.nu[channel]) + evidence).store(&mut scratch.tilt[channel], v);
                }
                let precision = at(&scratch.zeta) + zeta;
                scratch.mixture.tilted_mean(simd, v, &scratch.tilt, precision, &mut scratch.out);
                let [keep, rest] = [substep.keep, 1.0 - substep.keep].map(|x| V::splat(simd, x));
                for ((x, offset), mean) in scratch.x.iter_mut().zip(&scratch.out).zip(&scratch.mean) {
                    let x0 = at(mean) + at(offset);
                    at(x).mul_add(keep, x0 * rest).store(x, v);
                }
            }
        }
    }
}

/// The reweighted mixtures: means `[b k c n]`, log weights `[b k n]`, log standard deviations `[b]`.
pub(super) fn reweighted(shifted: Shifted, sizes: Sizes) -> [Vec<f32>; 3] {
    let Sizes { k, c, n } = sizes;
    let b = shifted.mixture.log_std.len();
    let (blocks, arch) = (Block::all(b, n), Arch::new());
    let mut log_weights = Vec::new();
    let means = build(b * k * c * n, |means| {
        log_weights = build(b * k * n, |weights| {
            let out = parts(means, k * c, n, &blocks).into_iter().zip(parts(weights, k, n, &blocks));
            let items = out.zip(blocks.iter().copied()).collect();
            par_map(
                items,
                b * k * c * n,
                || Scratch::new(sizes),
                |scratch, ((mut means, mut weights), block)| {
                    arch.dispatch(Reweighting { scratch, shifted, sizes, block });
                    block.store(&scratch.mixture.means, &mut means);
                    block.store(&scratch.mixture.log_weights, &mut weights);
                },
            );
        });
    });
    let log_std = shifted.mixture.log_std.iter().enumerate().map(|(sample, &log_std)| {
        let zeta = match shifted.shift {
            [] => 0.0,
            _ => natural(shifted.var[sample], shifted.power[sample]).1,
        };
        log_std - 0.5 * ((2.0 * log_std).exp() * zeta).ln_1p()
    });
    [means, log_weights, log_std.collect()]
}

/// A block of [`reweighted`].
struct Reweighting<'a> {
    scratch: &'a mut Scratch,
    shifted: Shifted<'a>,
    sizes: Sizes,
    block: Block,
}

impl WithSimd for Reweighting<'_> {
    type Output = ();

    /// The reweighted mixtures in place of those that were read.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scratch, shifted, sizes, block } = self;
        scratch.load(simd, &shifted, sizes, block);
        for v in 0..vectors(simd) {
            let at = |row: &Row| V::load(simd, row, v);
            scratch.mixture.tilt(simd, v, &scratch.nu, at(&scratch.zeta));
            for means in scratch.mixture.means.chunks_exact_mut(sizes.c) {
                for (m, mean) in means.iter_mut().zip(&scratch.mean) {
                    (at(m) + at(mean)).store(m, v);
                }
            }
        }
    }
}
