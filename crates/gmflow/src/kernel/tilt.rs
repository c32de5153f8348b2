//! What a solver's step does with a predicted mixture after guidance: the second-order change and the sub-steps, each in one pass.
//!
//! Reweighted mixtures are not stored. Guidance (7), (8), the second-order change and the posterior at another point (10) all multiply
//! the predicted mixture by exp(nu . (x0 - m) - zeta |x0 - m|^2 / 2) about its mean m, so their nu and zeta add up, and a pass works
//! out what it needs of the product from the prediction.

use super::channels::{self, each};
use super::lanes::{Block, LANES, Packed, Row, Sink, Source, VECTOR, per_sample_sums};
use super::memory::{build, par_map};
use super::nll::Sizes;
use super::simd::{Pair, widest};
use super::threads::Threads;
use pulp::{Simd, WithSimd};
use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

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

/// Of `[b n]` what belongs to some samples.
pub(super) fn per_sample<'a>(values: &'a [f32], n: usize, samples: &Range<usize>) -> &'a [f32] {
    &values[samples.start * n..samples.end * n]
}

impl<'a> Mixture<'a> {
    /// Those of some samples.
    pub fn of_samples(self, sizes: Sizes, samples: Range<usize>) -> Self {
        let Sizes { k, c, n } = sizes;
        let stds = if self.log_std.len() == self.samples(sizes) { 1 } else { n };
        Self {
            means: per_sample(self.means, k * c * n, &samples),
            log_weights: per_sample(self.log_weights, k * n, &samples),
            log_std: per_sample(self.log_std, stds, &samples),
        }
    }

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

/// Numbers that [`Shifted::centred`] holds of a pixel: for each component its mean and the binary logarithm of its weight.
pub(super) fn centred_rows(Sizes { k, c, .. }: Sizes) -> usize {
    k * (c + 1)
}

/// Predicted mixtures, their means and the shifts that they are reweighted by.
#[derive(Clone, Copy)]
pub(super) struct Shifted<'a> {
    /// The mixtures over x0, measured from their means: [`Packed`] rows, [`centred_rows`] of them.
    pub centred: &'a [f32],
    /// The log standard deviations of the velocities, of `b` samples or more.
    pub log_std: &'a [f32],
    /// When the velocities were predicted.
    pub t: f32,
    /// The means over x0 `[b c n]`.
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

impl<'a> Shifted<'a> {
    /// Those of some samples.
    pub fn of_samples(self, sizes: Sizes, samples: Range<usize>) -> Self {
        let pixels = sizes.c * sizes.n;
        let centred = |samples| Packed::len(samples, sizes.n, centred_rows(sizes));
        Self {
            centred: &self.centred[centred(samples.start)..centred(samples.end)],
            log_std: per_sample(self.log_std, 1, &samples),
            mean: per_sample(self.mean, pixels, &samples),
            shift: if self.shift.is_empty() { &[] } else { per_sample(self.shift, pixels, &samples) },
            var: per_sample(self.var, 1, &samples),
            power: per_sample(self.power, 1, &samples),
            ..self
        }
    }

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
    /// What the components of two vectors weigh after a change `[k 2]`.
    joint: Vec<Row>,
    /// Rows `[c]`.
    mean: Vec<Row>,
    shift: Vec<Row>,
    x: Vec<Row>,
    start: Vec<Row>,
    out: Vec<Row>,
    /// Of what is written: `[k c]` and `[k]` where mixtures are.
    out_means: Vec<Row>,
    out_weights: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, n }: Sizes, mixtures_out: bool) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let [mean, shift, x, start] = [(); 4].map(|()| rows(if Block::all_direct(n) { 0 } else { c }));
        let (out_means, out_weights) = if mixtures_out { (rows(k * c), rows(k)) } else { (Vec::new(), Vec::new()) };
        let joint = rows((2 * k).div_ceil(LANES / VECTOR));
        Self { joint, mean, shift, x, start, out: rows(c), out_means, out_weights }
    }
}

/// The mixtures of a block and what they are reweighted by.
struct Tilted<'a, const C: usize> {
    centred: Packed<'a>,
    mean: Source<'a>,
    shift: Option<Source<'a>>,
    /// Components.
    k: usize,
    joint: &'a mut [Row],
    /// The components' variance.
    var: Row,
    /// The factor on the shift and the precision.
    natural: [Row; 2],
    /// Whether both are the pixel's own.
    pixelwise: bool,
}

impl<'a, const C: usize> Tilted<'a, C> {
    #[inline(always)]
    fn new(
        shifted: &Shifted<'a>,
        block: &Block,
        sizes: Sizes,
        (joint, mean, shift): (&'a mut [Row], &'a mut [Row], &'a mut [Row]),
    ) -> Self {
        let Sizes { k, c, n } = sizes;
        let natural = |sample: usize| match shifted.shift {
            _ if shifted.pixelwise => (0.0, 0.0),
            [] => (0.0, 0.0),
            _ => natural(shifted.var[sample], shifted.power[sample]),
        };
        Self {
            centred: Packed::new(block, shifted.centred, centred_rows(sizes)),
            mean: Source::new(block, shifted.mean, c, n, mean),
            shift: (!shifted.shift.is_empty()).then(|| Source::new(block, shifted.shift, c, n, shift)),
            k,
            joint,
            var: block.per_sample(|sample| ((2.0 * shifted.log_std[sample]).exp() * shifted.t) * shifted.t),
            natural: [block.per_sample(|sample| natural(sample).0), block.per_sample(|sample| natural(sample).1)],
            pixelwise: shifted.is_pixelwise(),
        }
    }

    /// Two vectors.
    #[inline(always)]
    fn vectors<S: Simd>(&mut self, simd: S, v: [usize; 2]) -> Vectors<'_, S, C> {
        let var = Pair::load(simd, &self.var, v);
        let [factor, zeta] = &self.natural;
        let (mut factor, mut zeta) = (Pair::load(simd, factor, v), Pair::load(simd, zeta, v));
        let shift = match &self.shift {
            Some(shift) => each!(C, simd, i => Pair::of(shift, simd, i, v)),
            None => [Pair::splat(simd, 0.0); C],
        };
        let components = Components { simd, packed: self.centred, v };
        if self.pixelwise {
            (factor, zeta) = own_natural(components, self.k, &shift, var);
        }
        let (joint, _) = S::as_mut_simd_f32s(self.joint.as_flattened_mut()).0.as_chunks_mut();
        Vectors {
            simd,
            components,
            joint: &mut joint[..self.k],
            var,
            mean: each!(C, simd, i => Pair::of(&self.mean, simd, i, v)),
            shift,
            nu: each!(C, simd, i => shift[i] * factor),
            zeta,
        }
    }
}

/// The components of the mixtures of a vector's pixels, measured from their mean.
#[derive(Clone, Copy)]
struct Components<'a, S: Simd, const C: usize> {
    simd: S,
    packed: Packed<'a>,
    v: [usize; 2],
}

impl<S: Simd, const C: usize> Components<'_, S, C> {
    #[inline(always)]
    fn mean(&self, k: usize, i: usize) -> Pair<S> {
        Pair::packed(&self.packed, self.simd, k * (C + 1) + i, self.v)
    }

    /// The binary logarithm of a weight.
    #[inline(always)]
    fn log_weight(&self, k: usize) -> Pair<S> {
        Pair::packed(&self.packed, self.simd, k * (C + 1) + C, self.v)
    }
}

/// As [`natural`] of a sample, for pixels: from the variance of their mixtures along the shift, |shift|^-2 sum_k A_k (m_k . shift)^2 and that
/// of the components `var`, with their means measured from the mixtures' and log weights A_k.
#[inline(always)]
fn own_natural<S: Simd, const C: usize>(
    components: Components<S, C>,
    k: usize,
    shift: &[Pair<S>; C],
    var: Pair<S>,
) -> (Pair<S>, Pair<S>) {
    let number = |x: f32| Pair::splat(components.simd, x);
    let mut spread = number(0.0);
    for k in 0..k {
        let mut product = number(0.0);
        for (i, &shift) in shift.iter().enumerate() {
            product = components.mean(k, i).mul_add(shift, product);
        }
        spread = (product * product).mul_add(components.log_weight(k).exp2_or_less(), spread);
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

/// The mixtures of some pixels and what they are reweighted by.
struct Vectors<'a, S: Simd, const C: usize> {
    simd: S,
    components: Components<'a, S, C>,
    /// Room for `[k]`.
    joint: &'a mut [[S::f32s; 2]],
    /// The components' variance.
    var: Pair<S>,
    mean: [Pair<S>; C],
    shift: [Pair<S>; C],
    /// The shift in natural parameters.
    nu: [Pair<S>; C],
    zeta: Pair<S>,
}

impl<S: Simd, const C: usize> Vectors<'_, S, C> {
    /// 1/(1 + var zeta). The binary logarithms of the joint probabilities of the components times exp(nu . y - zeta |y|^2 / 2), with y measured from the mean,
    /// into `joint`, and the largest of them.
    #[inline(always)]
    fn joint(&mut self, nu: &[Pair<S>; C], zeta: Pair<S>) -> (Pair<S>, Pair<S>) {
        let number = |x: f32| Pair::splat(self.simd, x);
        let half = zeta * number(-0.5);
        let scale = number(1.0) / self.var.mul_add(zeta, number(1.0));
        let binary = scale * number(LOG2_E);
        let mut top = number(f32::NEG_INFINITY);
        for (k, joint) in self.joint.iter_mut().enumerate() {
            let mut gain = number(0.0);
            for (i, &nu) in nu.iter().enumerate() {
                let mean = self.components.mean(k, i);
                gain = mean.mul_add(mean.mul_add(half, nu), gain);
            }
            let value = gain.mul_add(binary, self.components.log_weight(k));
            value.keep(joint);
            top = top.max(value);
        }
        (scale, top)
    }

    /// The mean of the mixtures times exp(nu . y - zeta |y|^2 / 2), both measured from their mean.
    #[inline(always)]
    fn tilted_mean(&mut self, nu: &[Pair<S>; C], zeta: Pair<S>) -> [Pair<S>; C] {
        let simd = self.simd;
        let (scale, top) = self.joint(nu, zeta);
        let (mut total, mut sums) = (Pair::splat(simd, 0.0), [Pair::splat(simd, 0.0); C]);
        for (k, joint) in self.joint.iter().enumerate() {
            let share = (Pair::new(simd, joint) - top).exp2_or_less();
            total = total + share;
            sums = each!(C, simd, i => self.components.mean(k, i).mul_add(share, sums[i]));
        }
        let inverse = Pair::splat(simd, 1.0) / total;
        each!(C, simd, i => sums[i].mul_add(inverse, self.var * nu[i]) * scale)
    }

    /// nu and zeta with what a point tells beyond where the mixture was predicted: here x - there start.
    #[inline(always)]
    fn knowing(
        &self,
        [here, there, zeta]: [Pair<S>; 3],
        x: &[Pair<S>; C],
        start: &[Pair<S>; C],
    ) -> ([Pair<S>; C], Pair<S>) {
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
    threads: Threads,
) -> (Vec<f32>, Vec<f32>) {
    let Sizes { k, c, n } = sizes;
    let b = x.len() / (c * n).max(1);
    let blocks = Block::all(b, n);
    let mut totals = Vec::new();
    let shift = build(x.len(), |out| {
        let out = Sink::new(out, n);
        let sums = threads.map(
            blocks.clone(),
            2 * b * k * c * n,
            || Scratch::new(sizes, false),
            |scratch, block| {
                let out = &out;
                let mut power = [[0.0; LANES]];
                let [lanes] = &mut power;
                widest(Changing { scratch, out, power: lanes, now, x, before, x_before, sizes, block, rule });
                block.sums(&power)
            },
        );
        totals = per_sample_sums(b, &blocks, &sums);
    });
    (shift, totals.iter().map(|[power]| (power / (c * n) as f64) as f32).collect())
}

/// A block of [`second_order`].
struct Changing<'a> {
    scratch: &'a mut Scratch,
    out: &'a Sink<'a>,
    /// The square of the shift, added up over channels.
    power: &'a mut Row,
    now: Shifted<'a>,
    x: &'a [f32],
    before: Shifted<'a>,
    x_before: &'a [f32],
    sizes: Sizes,
    block: Block,
    rule: ChangeRule,
}

impl WithSimd for Changing<'_> {
    type Output = ();

    /// The changed shift into `out`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd));
    }
}

impl Changing<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, out: sink, power, now, x, before, x_before, sizes, block, rule } = self;
        let n = sizes.n;
        let [here, there, zeta] = rule.evidence;
        let evidence = [Pair::splat(simd, here), Pair::splat(simd, there), Pair::splat(simd, zeta)];
        let Scratch { joint, mean, shift, x: room, start, out, .. } = scratch;
        // SAFETY: every block comes up once.
        let mut out = unsafe { sink.target(&block, out) };
        // Where the previous mixture's mean has moved to.
        {
            let x = Source::new(&block, x, C, n, room);
            let x_before = Source::new(&block, x_before, C, n, start);
            let mut mixture = Tilted::<C>::new(&before, &block, sizes, (joint, mean, shift));
            for v in block.pairs(simd) {
                let mut mixture = mixture.vectors(simd, v);
                let x = each!(C, simd, i => Pair::of(&x, simd, i, v));
                let x_before = each!(C, simd, i => Pair::of(&x_before, simd, i, v));
                let (nu, zeta) = mixture.knowing(evidence, &x, &x_before);
                let moved = mixture.tilted_mean(&nu, zeta);
                for (i, &moved) in moved.iter().enumerate() {
                    (moved + mixture.mean[i]).set(&mut out, i, v);
                }
            }
        }
        // The mean of the guided mixture now.
        let guided = !now.shift.is_empty();
        let factor = block.per_sample(|sample| {
            let noise = rule.noise[0] * now.var[sample] + rule.noise[1] * now.power[sample];
            rule.gain * (1.0 - noise).max(0.0).sqrt()
        });
        let mut mixture = Tilted::<C>::new(&now, &block, sizes, (joint, mean, shift));
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let (nu, zeta) = (mixture.nu, mixture.zeta);
            let mut first = mixture.mean;
            if guided {
                let offset = mixture.tilted_mean(&nu, zeta);
                first = each!(C, simd, i => first[i] + offset[i]);
            }
            let factor = Pair::load(simd, &factor, v);
            let mut sum = Pair::splat(simd, 0.0);
            for (i, &first) in first.iter().enumerate() {
                let change = first - Pair::was_set(&out, simd, i, v);
                let shift = if rule.alone { change * factor } else { change.mul_add(factor, mixture.shift[i]) };
                sum = shift.mul_add(shift, sum);
                shift.set(&mut out, i, v);
            }
            sum.store(power, v);
        }
        out.finish();
    }
}

/// The samples `[b c n]` after all sub-steps from `x`, where the mixtures were predicted, into `out`.
pub(super) fn ode_substeps(
    shifted: Shifted,
    x: &[f32],
    sizes: Sizes,
    substeps: &[OdeSubstep],
    out: &mut [f32],
    threads: Threads,
) {
    let Sizes { c, n, .. } = sizes;
    let blocks = Block::all(x.len() / (c * n).max(1), n);
    let (out, work) = (Sink::new(out, n), x.len() * sizes.k * substeps.len());
    threads.map(
        blocks,
        work,
        || Scratch::new(sizes, false),
        |scratch, block| {
            widest(Stepping { scratch, out: &out, shifted, x, sizes, block, substeps });
        },
    );
}

/// A block of [`ode_substeps`].
struct Stepping<'a> {
    scratch: &'a mut Scratch,
    out: &'a Sink<'a>,
    shifted: Shifted<'a>,
    x: &'a [f32],
    sizes: Sizes,
    block: Block,
    substeps: &'a [OdeSubstep],
}

impl WithSimd for Stepping<'_> {
    type Output = ();

    /// All sub-steps from `x`, into `out`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Stepping<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, out: sink, shifted, x, sizes, block, substeps } = self;
        let Scratch { joint, mean, shift, start, out, .. } = scratch;
        // SAFETY: every block comes up once.
        let mut out = unsafe { sink.target(&block, out) };
        let start = Source::new(&block, x, C, sizes.n, start);
        let mut mixture = Tilted::<C>::new(&shifted, &block, sizes, (joint, mean, shift));
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let start = each!(C, simd, i => Pair::of(&start, simd, i, v));
            let mut x = start;
            for substep in substeps {
                let number = |x: f32| Pair::splat(simd, x);
                let evidence = [number(substep.here), number(substep.there), number(substep.zeta)];
                let (nu, zeta) = mixture.knowing(evidence, &x, &start);
                let offset = mixture.tilted_mean(&nu, zeta);
                let (keep, rest) = (number(substep.keep), number(1.0 - substep.keep));
                x = each!(C, simd, i => x[i].mul_add(keep, (offset[i] + mixture.mean[i]) * rest));
            }
            for (i, x) in x.into_iter().enumerate() {
                x.set(&mut out, i, v);
            }
        }
        out.finish();
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
    let log_std = shifted.log_std[..b].iter().enumerate().map(|(sample, &log_std)| {
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
        let Scratch { joint, mean, shift, out, out_means, out_weights, .. } = scratch;
        let log_std = block.per_sample(|sample| shifted.log_std[sample] + shifted.t.ln());
        let mut mixture = Tilted::<C>::new(&shifted, &block, sizes, (joint, mean, shift));
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let (nu, zeta) = (mixture.nu, mixture.zeta);
            let (scale, top) = mixture.joint(&nu, zeta);
            let mut total = Pair::splat(simd, 0.0);
            for joint in &*mixture.joint {
                total = total + (Pair::new(simd, joint) - top).exp2_or_less();
            }
            let norm = total.ln().mul_add(Pair::splat(simd, LOG2_E), top);
            scale.ln().mul_add(Pair::splat(simd, 0.5), Pair::load(simd, &log_std, v)).store(&mut out[0], v);
            let reweighted = out_means.chunks_exact_mut(C).zip(&mut *out_weights);
            for ((k, joint), (means, weight)) in mixture.joint.iter().enumerate().zip(reweighted) {
                ((Pair::new(simd, joint) - norm) * Pair::splat(simd, LN_2)).store(weight, v);
                for (i, to) in means.iter_mut().enumerate() {
                    let mean = mixture.var.mul_add(nu[i], mixture.components.mean(k, i));
                    mean.mul_add(scale, mixture.mean[i]).store(to, v);
                }
            }
        }
    }
}
