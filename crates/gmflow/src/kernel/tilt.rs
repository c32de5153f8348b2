//! What a solver's step does with a predicted mixture after guidance: the second-order change and the sub-steps, each in one pass.
//!
//! Reweighted mixtures are not stored. Guidance (7), (8), the second-order change and the posterior at another point (10) all multiply
//! the predicted mixture by exp(nu . (x0 - m) - zeta |x0 - m|^2 / 2) about its mean m, so their nu and zeta add up, and a pass works
//! out what it needs of the product from the prediction.

use super::channels::{self, each};
use super::lanes::{Block, LANES, Row, Sink, Source, VECTOR, per_sample_sums};
use super::memory::{build, par_map};
use super::nll::Sizes;
use super::simd::{V, widest};
use pulp::{Simd, WithSimd};

/// The smallest share of the variance that a shift leaves.
pub(super) const MIN_REST: f32 = 1e-6;
/// The smallest variance of a pixel that a shift is divided by, and the squared length of a shift that is nothing.
pub(crate) const SMALLEST_VAR: f32 = 1e-12;
pub(crate) const SMALLEST_LENGTH: f32 = 1e-30;

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
    /// Whether the change stands alone, for the mixtures to be moved by; otherwise it is added to the shift.
    pub alone: bool,
}

/// Mixtures `[b k c n]`, `[b k n]`, `[b]`; reweighted ones may have a standard deviation for each pixel, `[b n]`.
#[derive(Clone, Copy)]
pub(super) struct Mixture<'a> {
    pub means: &'a [f32],
    pub log_weights: &'a [f32],
    pub log_std: &'a [f32],
}

impl Mixture<'_> {
    /// How many there are.
    pub fn samples(&self, Sizes { k, n, .. }: Sizes) -> usize {
        self.log_weights.len() / (k * n).max(1)
    }

    /// The log standard deviation of a pixel.
    pub fn log_std_at(&self, sizes: Sizes, (sample, pixel): (usize, usize)) -> f32 {
        let per_sample = self.log_std.len() == self.samples(sizes);
        self.log_std[if per_sample { sample } else { sample * sizes.n + pixel }]
    }

    /// exp(`times` log_std) in the lanes of a block.
    pub fn stds(&self, sizes: Sizes, block: &Block, times: f32) -> Row {
        if self.log_std.len() == self.samples(sizes) {
            return block.per_sample(|sample| (times * self.log_std[sample]).exp());
        }
        let mut row = [1.0; LANES];
        for (lane, std) in row.iter_mut().enumerate() {
            if let Some(pixel) = block.pixel(lane) {
                *std = (times * self.log_std_at(sizes, pixel)).exp();
            }
        }
        row
    }
}

/// Predicted mixtures, their means and the shifts that they are reweighted by.
#[derive(Clone, Copy)]
pub(super) struct Shifted<'a> {
    /// Over the velocity, of `b` samples or more.
    pub velocity: Mixture<'a>,
    /// Components over x0 have the means origin - t u, `[b c n]`.
    pub origin: &'a [f32],
    /// When the velocities were predicted.
    pub t: f32,
    /// Over x0.
    /// `[b c n]`.
    pub mean: &'a [f32],
    /// `[b c n]`; empty for none.
    pub shift: &'a [f32],
    /// The variance averaged over pixels `[b]`.
    pub var: &'a [f32],
    /// The mean square of the shift `[b]`.
    pub power: &'a [f32],
    /// Whether a shift is divided by the pixel's own variance along it, and not by `var`.
    pub pixelwise: bool,
}

impl Shifted<'_> {
    /// Whether the shift is divided by the variance of each pixel.
    fn is_pixelwise(&self) -> bool {
        self.pixelwise && !self.shift.is_empty()
    }
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

/// Room for gathering and for what is kept of a block.
struct Scratch {
    /// `[k c]`; two mixtures are looked at in turn.
    means: Vec<Row>,
    /// `[k]`.
    log_weights: Vec<Row>,
    /// A vector's mixture: see [`Vector`].
    vector: Vec<Row>,
    /// Rows `[c]`.
    mean: Vec<Row>,
    origin: Vec<Row>,
    shift: Vec<Row>,
    x: Vec<Row>,
    start: Vec<Row>,
    out: Vec<Row>,
    /// Of what is written: `[k c]` and `[k]` where mixtures are.
    out_means: Vec<Row>,
    out_weights: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, .. }: Sizes, mixtures_out: bool) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let [mean, origin, shift, x, start, out] = [(); 6].map(|()| rows(c));
        let (out_means, out_weights) = if mixtures_out { (rows(k * c), rows(k)) } else { (Vec::new(), Vec::new()) };
        let vector = rows((k * (c + 3)).div_ceil(LANES / VECTOR));
        Self {
            means: rows(k * c),
            log_weights: rows(k),
            vector,
            mean,
            origin,
            shift,
            x,
            start,
            out,
            out_means,
            out_weights,
        }
    }
}

/// The mixtures of a block and what they are reweighted by.
struct Tilted<'a, const C: usize> {
    velocity: [Source<'a>; 2],
    mean: Source<'a>,
    origin: Source<'a>,
    shift: Option<Source<'a>>,
    /// Components.
    k: usize,
    room: &'a mut [Row],
    minus_time: f32,
    /// The components' variance.
    var: Row,
    /// The factor on the shift and the precision.
    natural: [Row; 2],
    /// Whether both are the pixel's own.
    pixelwise: bool,
}

impl<'a, const C: usize> Tilted<'a, C> {
    #[inline(always)]
    #[allow(clippy::type_complexity, reason = "the parts of a scratch")]
    fn new(
        shifted: &Shifted<'a>,
        block: &Block,
        Sizes { k, c, n }: Sizes,
        (means, log_weights, room): (&'a mut [Row], &'a mut [Row], &'a mut [Row]),
        (mean, origin, shift): (&'a mut [Row], &'a mut [Row], &'a mut [Row]),
    ) -> Self {
        let velocity = shifted.velocity;
        let natural = |sample: usize| match shifted.shift {
            _ if shifted.pixelwise => (0.0, 0.0),
            [] => (0.0, 0.0),
            _ => natural(shifted.var[sample], shifted.power[sample]),
        };
        block.prefetch_next(velocity.means, k * c, n);
        block.prefetch_next(velocity.log_weights, k, n);
        Self {
            velocity: [
                Source::new(block, velocity.means, k * c, n, means),
                Source::new(block, velocity.log_weights, k, n, log_weights),
            ],
            mean: Source::new(block, shifted.mean, c, n, mean),
            origin: Source::new(block, shifted.origin, c, n, origin),
            shift: (!shifted.shift.is_empty()).then(|| Source::new(block, shifted.shift, c, n, shift)),
            k,
            room,
            minus_time: -shifted.t,
            var: block.per_sample(|sample| ((2.0 * velocity.log_std[sample]).exp() * shifted.t) * shifted.t),
            natural: [block.per_sample(|sample| natural(sample).0), block.per_sample(|sample| natural(sample).1)],
            pixelwise: shifted.is_pixelwise(),
        }
    }

    /// Vector `v`.
    #[inline(always)]
    fn vector<S: Simd>(&mut self, simd: S, v: usize) -> Vector<'_, S, C> {
        let mean = each!(C, simd, i => self.mean.at(simd, i, v));
        let from_mean = each!(C, simd, i => self.origin.at(simd, i, v) - mean[i]);
        let var = V::load(simd, &self.var, v);
        let [mut factor, mut zeta] = [0, 1].map(|i| V::load(simd, &self.natural[i], v));
        let shift = match &self.shift {
            Some(shift) => each!(C, simd, i => shift.at(simd, i, v)),
            None => [V::splat(simd, 0.0); C],
        };
        let minus_time = V::splat(simd, self.minus_time);
        let (room, _) = S::as_mut_simd_f32s(self.room.as_flattened_mut());
        let (components, room) = room.split_at_mut(self.k * C);
        let (weights, room) = room.split_at_mut(self.k);
        let (squares, room) = room.split_at_mut(self.k);
        let [means, log_weights] = &self.velocity;
        let of_components = components.chunks_exact_mut(C).zip(&mut *weights).zip(&mut *squares).enumerate();
        for (k, ((component, weight), square)) in of_components {
            let mut sum = V::splat(simd, 0.0);
            for (i, component) in component.iter_mut().enumerate() {
                let offset = means.at(simd, k * C + i, v).mul_add(minus_time, from_mean[i]);
                sum = offset.mul_add(offset, sum);
                *component = offset.bare();
            }
            *weight = log_weights.at(simd, k, v).bare();
            *square = sum.bare();
        }
        if self.pixelwise {
            (factor, zeta) = own_natural(simd, components, weights, &shift, var);
        }
        Vector {
            simd,
            components,
            weights,
            squares,
            joint: &mut room[..self.k],
            var,
            mean,
            shift,
            nu: each!(C, simd, i => shift[i] * factor),
            zeta,
        }
    }
}

/// As [`natural`] of a sample, for pixels: from the variance of their mixtures along the shift, |shift|^-2 sum_k A_k (m_k . shift)^2 and that
/// of the components `var`, with their means measured from the mixtures' and log weights A_k.
#[inline(always)]
fn own_natural<S: Simd, const C: usize>(
    simd: S,
    components: &[S::f32s],
    log_weights: &[S::f32s],
    shift: &[V<S>; C],
    var: V<S>,
) -> (V<S>, V<S>) {
    let number = |x: f32| V::splat(simd, x);
    let mut spread = number(0.0);
    for (component, &log_weight) in components.chunks_exact(C).zip(log_weights) {
        let mut product = number(0.0);
        for i in 0..C {
            product = V::new(simd, component[i]).mul_add(shift[i], product);
        }
        spread = (product * product).mul_add(V::new(simd, log_weight).exp(), spread);
    }
    let mut length = number(SMALLEST_LENGTH);
    for shift in shift {
        length = shift.mul_add(*shift, length);
    }
    let var = (spread / length + var).max(number(SMALLEST_VAR));
    let share = length / var;
    let bounded = share.min(number(1.0 - MIN_REST));
    let rest = (number(1.0) - share).max(number(MIN_REST)) * var;
    ((bounded / share).sqrt() / rest, bounded / rest)
}

/// The mixtures of some pixels, measured from their mean and side by side: rows of images whose width is a power of two push each other
/// out of the cache.
struct Vector<'a, S: Simd, const C: usize> {
    simd: S,
    /// Their means `[k c]`.
    components: &'a mut [S::f32s],
    /// Log weights `[k]`.
    weights: &'a mut [S::f32s],
    /// The means' squares `[k]`.
    squares: &'a mut [S::f32s],
    /// Room for `[k]`.
    joint: &'a mut [S::f32s],
    /// The components' variance.
    var: V<S>,
    mean: [V<S>; C],
    shift: [V<S>; C],
    /// The shift in natural parameters.
    nu: [V<S>; C],
    zeta: V<S>,
}

impl<S: Simd, const C: usize> Vector<'_, S, C> {
    /// 1/(1 + var zeta). The joint log probabilities of the components times exp(nu . y - zeta |y|^2 / 2), with y measured from the mean,
    /// into `joint`, and the largest of them.
    #[inline(always)]
    fn joint(&mut self, nu: &[V<S>; C], zeta: V<S>) -> (V<S>, V<S>) {
        let simd = self.simd;
        let number = |x: f32| V::splat(simd, x);
        let half = zeta * number(-0.5);
        let scale = number(1.0) / self.var.mul_add(zeta, number(1.0));
        let mut top = number(f32::NEG_INFINITY);
        let components = self.components.chunks_exact(C).zip(&*self.squares).zip(&*self.weights);
        for (((component, &square), &weight), joint) in components.zip(&mut *self.joint) {
            let mut gain = half * V::new(simd, square);
            for i in 0..C {
                gain = V::new(simd, component[i]).mul_add(nu[i], gain);
            }
            let value = gain.mul_add(scale, V::new(simd, weight));
            *joint = value.bare();
            top = top.max(value);
        }
        (scale, top)
    }

    /// The mean of the mixtures times exp(nu . y - zeta |y|^2 / 2), both measured from their mean.
    #[inline(always)]
    fn tilted_mean(&mut self, nu: &[V<S>; C], zeta: V<S>) -> [V<S>; C] {
        let simd = self.simd;
        let (scale, top) = self.joint(nu, zeta);
        let (mut total, mut sums) = (V::splat(simd, 0.0), [V::splat(simd, 0.0); C]);
        for (component, &joint) in self.components.chunks_exact(C).zip(&*self.joint) {
            let share = (V::new(simd, joint) - top).exp();
            total = total + share;
            sums = each!(C, simd, i => V::new(simd, component[i]).mul_add(share, sums[i]));
        }
        let inverse = V::splat(simd, 1.0) / total;
        each!(C, simd, i => sums[i].mul_add(inverse, self.var * nu[i]) * scale)
    }

    /// nu and zeta with what a point tells beyond where the mixture was predicted: here x - there start.
    #[inline(always)]
    fn knowing(&self, [here, there, zeta]: [V<S>; 3], x: &[V<S>; C], start: &[V<S>; C]) -> ([V<S>; C], V<S>) {
        let nu = each!(C, self.simd, i => self.nu[i] + (here * x[i] - there * start[i] - zeta * self.mean[i]));
        (nu, self.zeta + zeta)
    }
}

/// The second-order change since `before`, whose predictions were made at `x_before`, alone or with the shift of `now`: `[b c n]`, and its
/// mean square `[b]`.
pub(super) fn second_order(
    (now, x): (Shifted, &[f32]),
    (before, x_before): (Shifted, &[f32]),
    sizes: Sizes,
    rule: ChangeRule,
) -> (Vec<f32>, Vec<f32>) {
    let Sizes { k, c, n } = sizes;
    let b = x.len() / (c * n).max(1);
    let blocks = Block::all(b, n);
    let mut totals = Vec::new();
    let shift = build(x.len(), |out| {
        let out = Sink::new(out, n);
        let sums = par_map(
            blocks.clone(),
            2 * b * k * c * n,
            || Scratch::new(sizes, false),
            |scratch, block| {
                let power = widest(Changing { scratch, now, x, before, x_before, sizes, block, rule });
                // SAFETY: every block comes up once.
                unsafe { out.write(&block, &scratch.out) };
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
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Changing<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) -> Row {
        let Self { scratch, now, x, before, x_before, sizes, block, rule } = self;
        let n = sizes.n;
        let [here, there, zeta] = rule.evidence;
        let evidence = [V::splat(simd, here), V::splat(simd, there), V::splat(simd, zeta)];
        let Scratch { means, log_weights, vector, mean, origin, shift, x: room, start, out, .. } = scratch;
        // Where the previous mixture's mean has moved to.
        {
            let x = Source::new(&block, x, C, n, room);
            let x_before = Source::new(&block, x_before, C, n, start);
            let of_mixture = (&mut means[..], &mut log_weights[..], &mut vector[..]);
            let mut mixture = Tilted::<C>::new(&before, &block, sizes, of_mixture, (mean, origin, shift));
            for v in 0..block.vectors(simd) {
                let mut mixture = mixture.vector(simd, v);
                let x = each!(C, simd, i => x.at(simd, i, v));
                let x_before = each!(C, simd, i => x_before.at(simd, i, v));
                let (nu, zeta) = mixture.knowing(evidence, &x, &x_before);
                let moved = mixture.tilted_mean(&nu, zeta);
                for (i, out) in out.iter_mut().enumerate() {
                    (moved[i] + mixture.mean[i]).store(out, v);
                }
            }
        }
        // The mean of the guided mixture now.
        let guided = !now.shift.is_empty();
        let factor = block.per_sample(|sample| {
            let noise = rule.noise[0] * now.var[sample] + rule.noise[1] * now.power[sample];
            rule.gain * (1.0 - noise).max(0.0).sqrt()
        });
        let mut power = [0.0; LANES];
        let mut mixture = Tilted::<C>::new(&now, &block, sizes, (means, log_weights, vector), (mean, origin, shift));
        for v in 0..block.vectors(simd) {
            let mut mixture = mixture.vector(simd, v);
            let (nu, zeta) = (mixture.nu, mixture.zeta);
            let mut first = mixture.mean;
            if guided {
                let offset = mixture.tilted_mean(&nu, zeta);
                first = each!(C, simd, i => first[i] + offset[i]);
            }
            let factor = V::load(simd, &factor, v);
            let mut sum = V::splat(simd, 0.0);
            for (i, out) in out.iter_mut().enumerate() {
                let change = first[i] - V::load(simd, out, v);
                let shift = if rule.alone { change * factor } else { change.mul_add(factor, mixture.shift[i]) };
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
    let blocks = Block::all(x.len() / (c * n).max(1), n);
    build(x.len(), |out| {
        let (out, work) = (Sink::new(out, n), x.len() * sizes.k * substeps.len());
        par_map(
            blocks,
            work,
            || Scratch::new(sizes, false),
            |scratch, block| {
                widest(Stepping { scratch, shifted, x, sizes, block, substeps });
                // SAFETY: every block comes up once.
                unsafe { out.write(&block, &scratch.out) };
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

    /// All sub-steps from `x`, into the scratch's `out`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Stepping<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, shifted, x, sizes, block, substeps } = self;
        let Scratch { means, log_weights, vector, mean, origin, shift, start, out, .. } = scratch;
        let start = Source::new(&block, x, C, sizes.n, start);
        let mut mixture =
            Tilted::<C>::new(&shifted, &block, sizes, (means, log_weights, vector), (mean, origin, shift));
        for v in 0..block.vectors(simd) {
            let mut mixture = mixture.vector(simd, v);
            let start = each!(C, simd, i => start.at(simd, i, v));
            let mut x = start;
            for substep in substeps {
                let number = |x: f32| V::splat(simd, x);
                let evidence = [number(substep.here), number(substep.there), number(substep.zeta)];
                let (nu, zeta) = mixture.knowing(evidence, &x, &start);
                let offset = mixture.tilted_mean(&nu, zeta);
                let (keep, rest) = (number(substep.keep), number(1.0 - substep.keep));
                x = each!(C, simd, i => x[i].mul_add(keep, (offset[i] + mixture.mean[i]) * rest));
            }
            for (i, out) in out.iter_mut().enumerate() {
                x[i].store(out, v);
            }
        }
    }
}

/// The reweighted mixtures over x0: means `[b k c n]`, log weights `[b k n]`, log standard deviations `[b]`, or `[b n]` where pixels were
/// reweighted by their own variance.
pub(super) fn reweighted(shifted: Shifted, sizes: Sizes) -> [Vec<f32>; 3] {
    let Sizes { k, c, n } = sizes;
    let b = shifted.var.len();
    let blocks = Block::all(b, n);
    let (mut log_weights, mut log_std) = (Vec::new(), vec![0.0; if shifted.is_pixelwise() { b * n } else { 0 }]);
    let means = build(b * k * c * n, |means| {
        log_weights = build(b * k * n, |weights| {
            let [means, weights, stds] = [means, weights, &mut log_std[..]].map(|out| Sink::new(out, n));
            par_map(
                blocks,
                b * k * c * n,
                || Scratch::new(sizes, true),
                |scratch, block| {
                    widest(Reweighting { scratch, shifted, sizes, block });
                    // SAFETY: every block comes up once.
                    unsafe {
                        means.write(&block, &scratch.out_means);
                        weights.write(&block, &scratch.out_weights);
                        if shifted.is_pixelwise() {
                            stds.write(&block, &scratch.out[..1]);
                        }
                    }
                },
            );
        });
    });
    if shifted.is_pixelwise() {
        return [means, log_weights, log_std];
    }
    let log_std = shifted.velocity.log_std[..b].iter().enumerate().map(|(sample, &log_std)| {
        let log_std = log_std + shifted.t.ln();
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

    /// The reweighted mixtures into the scratch.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Reweighting<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, shifted, sizes, block } = self;
        let Scratch { means, log_weights, vector, mean, origin, shift, out, out_means, out_weights, .. } = scratch;
        let log_std = block.per_sample(|sample| shifted.velocity.log_std[sample] + shifted.t.ln());
        let mut mixture =
            Tilted::<C>::new(&shifted, &block, sizes, (means, log_weights, vector), (mean, origin, shift));
        for v in 0..block.vectors(simd) {
            let mut mixture = mixture.vector(simd, v);
            let (nu, zeta) = (mixture.nu, mixture.zeta);
            let (scale, top) = mixture.joint(&nu, zeta);
            let mut total = V::splat(simd, 0.0);
            for &joint in &*mixture.joint {
                total = total + (V::new(simd, joint) - top).exp();
            }
            let norm = top + total.ln();
            scale.ln().mul_add(V::splat(simd, 0.5), V::load(simd, &log_std, v)).store(&mut out[0], v);
            let components = mixture.components.chunks_exact(C).zip(&*mixture.joint);
            let reweighted = out_means.chunks_exact_mut(C).zip(&mut *out_weights);
            for ((component, &joint), (means, weight)) in components.zip(reweighted) {
                (V::new(simd, joint) - norm).store(weight, v);
                for (i, to) in means.iter_mut().enumerate() {
                    let mean = mixture.var.mul_add(nu[i], V::new(simd, component[i]));
                    mean.mul_add(scale, mixture.mean[i]).store(to, v);
                }
            }
        }
    }
}
