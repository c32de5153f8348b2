//! What a solver's step does with a predicted mixture after guidance: the second-order change and the sub-steps, each in one pass.
//!
//! Reweighted mixtures are not stored. Guidance (7), (8), the second-order change and the posterior at another point (10) all multiply
//! the predicted mixture by exp(nu . (x0 - m) - zeta |x0 - m|^2 / 2) about its mean m, so their nu and zeta add up, and a pass works
//! out what it needs of the product from the prediction.

use crate::kernel::mixture::nll::Sizes;
use crate::kernel::simd::channels::{self, each};
use crate::kernel::simd::lanes::{
    Block, LANES, Packed, PerSample, Row, Sink, Source, Summing, Sums, VECTOR, per_sample_sums,
};
use crate::kernel::simd::memory::{build, par_map};
use crate::kernel::simd::threads::Threads;
use crate::kernel::simd::vector::{Pair, widest};
use pulp::{Simd, WithSimd};
use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

/// The smallest share of the variance that a shift leaves.
pub(crate) const MIN_REST: f32 = 1e-6;
/// The smallest variance of a pixel that a shift is divided by, and the squared length of a shift that is nothing.
pub(crate) const SMALLEST_VAR: f32 = 1e-12;
pub(crate) const SMALLEST_LENGTH: f32 = 1e-30;

/// One Euler sub-step along the velocity (x - E[x0 | x])/tau, with what (x, tau) tells beyond (x_t, t): the numbers are the same for all
/// samples. One that keeps nothing of x ends at E[x0 | x].
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
    /// h/(2 h_previous).
    pub gain: f32,
    /// The noise of the prediction: these shares of variance and squared shift, both over h_previous^2.
    pub noise: [f32; 2],
    /// Whether the change stands alone, for the mixtures to be moved by; otherwise it is added to the shift.
    pub alone: bool,
}

/// Mixtures `[b k c n]`, `[b k n]`, `[b]`; reweighted ones may have a standard deviation for each pixel, `[b n]`.
#[derive(Clone, Copy)]
pub(crate) struct Mixture<'a> {
    pub means: &'a [f32],
    pub log_weights: &'a [f32],
    pub log_std: &'a [f32],
}

/// Of `[b n]` what belongs to some samples.
pub(crate) fn per_sample<'a>(values: &'a [f32], n: usize, samples: &Range<usize>) -> &'a [f32] {
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
pub(crate) fn centred_rows(Sizes { k, c, .. }: Sizes) -> usize {
    k * (c + 1)
}

/// Predicted mixtures, their means and the shifts that they are reweighted by.
#[derive(Clone, Copy)]
pub(crate) struct Shifted<'a> {
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
    shift_ahead: Vec<Row>,
    x: Vec<Row>,
    start: Vec<Row>,
    out: Vec<Row>,
    out_ahead: Vec<Row>,
    /// Of what is written: `[k c]` and `[k]` where mixtures are.
    out_means: Vec<Row>,
    out_weights: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, n }: Sizes, mixtures_out: bool) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let [mean, shift, shift_ahead, x, start, out_ahead] =
            [(); 6].map(|()| rows(if Block::all_direct(n) { 0 } else { c }));
        let out = rows(if Block::all_direct(n) && !mixtures_out { 0 } else { c });
        let (out_means, out_weights) = if mixtures_out { (rows(k * c), rows(k)) } else { (Vec::new(), Vec::new()) };
        let joint = rows((2 * k).div_ceil(LANES / VECTOR));
        Self { joint, mean, shift, shift_ahead, x, start, out, out_ahead, out_means, out_weights }
    }
}

/// What the mixtures of a block are reweighted by.
struct Tilt<'a> {
    shift: Option<Source<'a>>,
    /// The factor on the shift and the precision.
    natural: [PerSample; 2],
    /// Whether both are the pixel's own.
    pixelwise: bool,
}

impl<'a> Tilt<'a> {
    #[inline(always)]
    fn new(shifted: &Shifted<'a>, block: &Block, sizes: Sizes, room: &'a mut [Row]) -> Self {
        let natural = |sample: usize| match shifted.shift {
            _ if shifted.pixelwise => (0.0, 0.0),
            [] => (0.0, 0.0),
            _ => natural(shifted.var[sample], shifted.power[sample]),
        };
        Self {
            shift: (!shifted.shift.is_empty()).then(|| Source::new(block, shifted.shift, sizes.c, sizes.n, room)),
            natural: [
                PerSample::new(block, |sample| natural(sample).0),
                PerSample::new(block, |sample| natural(sample).1),
            ],
            pixelwise: shifted.is_pixelwise(),
        }
    }

    /// The shift, nu and zeta of two vectors, from their `k` components and their variance.
    #[inline(always)]
    fn vectors<S: Simd, const C: usize>(
        &self,
        components: Components<S, C>,
        k: usize,
        var: Pair<S>,
    ) -> ([Pair<S>; C], [Pair<S>; C], Pair<S>) {
        let Components { simd, v, .. } = components;
        let [factor, zeta] = &self.natural;
        let (mut factor, mut zeta) = (Pair::per_sample(factor, simd, v), Pair::per_sample(zeta, simd, v));
        let shift = match &self.shift {
            Some(shift) => each!(C, simd, i => Pair::of(shift, simd, i, v)),
            None => [Pair::splat(simd, 0.0); C],
        };
        if self.pixelwise {
            (factor, zeta) = own_natural(components, k, &shift, var);
        }
        (shift, each!(C, simd, i => shift[i] * factor), zeta)
    }
}

/// The mixtures of a block and what they are reweighted by.
struct Tilted<'a, const C: usize> {
    centred: Packed<'a>,
    mean: Source<'a>,
    tilt: Tilt<'a>,
    /// Components.
    k: usize,
    joint: &'a mut [Row],
    /// The components' variance.
    var: PerSample,
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
        Self {
            centred: Packed::new(block, shifted.centred, centred_rows(sizes)),
            mean: Source::new(block, shifted.mean, c, n, mean),
            tilt: Tilt::new(shifted, block, sizes, shift),
            k,
            joint,
            var: PerSample::new(block, |sample| ((2.0 * shifted.log_std[sample]).exp() * shifted.t) * shifted.t),
        }
    }

    /// Two vectors.
    #[inline(always)]
    fn vectors<S: Simd>(&mut self, simd: S, v: [usize; 2]) -> Vectors<'_, S, C> {
        let var = Pair::per_sample(&self.var, simd, v);
        let components = Components { simd, packed: self.centred, v };
        let (shift, nu, zeta) = self.tilt.vectors(components, self.k, var);
        let (joint, _) = S::as_mut_simd_f32s(self.joint.as_flattened_mut()).0.as_chunks_mut();
        Vectors {
            simd,
            components,
            joint: &mut joint[..self.k],
            var,
            mean: each!(C, simd, i => Pair::of(&self.mean, simd, i, v)),
            shift,
            nu,
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

    /// One sub-step from `x`, where the mixture was predicted at `start`.
    #[inline(always)]
    fn substep(&mut self, x: &[Pair<S>; C], start: &[Pair<S>; C], substep: &OdeSubstep) -> [Pair<S>; C] {
        let simd = self.simd;
        let number = |x: f32| Pair::splat(simd, x);
        let (here, there, zeta) = (number(substep.here), number(substep.there), number(substep.zeta));
        let nu = each!(C, simd, i => self.nu[i] + (here * x[i] - there * start[i] - zeta * self.mean[i]));
        let offset = self.tilted_mean(&nu, self.zeta + zeta);
        let (keep, rest) = (number(substep.keep), number(1.0 - substep.keep));
        each!(C, simd, i => x[i].mul_add(keep, (offset[i] + self.mean[i]) * rest))
    }
}

/// The second-order change from `before` `[b c n]`, where the prediction before would have the mean now, alone or with the shift of `now`,
/// into `out` `[b c n]`, and its mean square into `power` `[b]`.
pub(crate) fn second_order(
    now: Shifted,
    before: &[f32],
    sizes: Sizes,
    rule: ChangeRule,
    (out, power): (&mut [f32], &mut [f32]),
    threads: Threads,
) {
    let Sizes { k, c, n } = sizes;
    let b = power.len();
    let blocks = Block::all(b, n);
    let out = Sink::new(out, n);
    let sums = threads.map(
        blocks.clone(),
        b * k * c * n,
        || Scratch::new(sizes, false),
        |scratch, block| {
            let out = &out;
            widest(Changing { scratch, out, now, before, sizes, block, rule })
        },
    );
    for (power, [sum]) in power.iter_mut().zip(per_sample_sums(b, &blocks, &sums)) {
        *power = (sum / (c * n) as f64) as f32;
    }
}

/// A block of [`second_order`].
struct Changing<'a> {
    scratch: &'a mut Scratch,
    out: &'a Sink<'a>,
    now: Shifted<'a>,
    before: &'a [f32],
    sizes: Sizes,
    block: Block,
    rule: ChangeRule,
}

impl WithSimd for Changing<'_> {
    type Output = Sums<1>;

    /// The changed shift into `out`; the sum of its squares.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums<1> {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Changing<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) -> Sums<1> {
        let Self { scratch, out: sink, now, before, sizes, block, rule } = self;
        let Scratch { joint, mean, shift, start, out, .. } = scratch;
        // SAFETY: every block comes up once.
        let mut out = unsafe { sink.target(&block, C, out) };
        let before = Source::new(&block, before, C, sizes.n, start);
        let guided = !now.shift.is_empty();
        let factor = PerSample::new(&block, |sample| {
            let noise = rule.noise[0] * now.var[sample] + rule.noise[1] * now.power[sample];
            rule.gain * (1.0 - noise).max(0.0).sqrt()
        });
        let mut mixture = Tilted::<C>::new(&now, &block, sizes, (joint, mean, shift));
        let mut power = Summing::new(simd, &block);
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let (nu, zeta) = (mixture.nu, mixture.zeta);
            // The mean of the guided mixture now.
            let mut first = mixture.mean;
            if guided {
                let offset = mixture.tilted_mean(&nu, zeta);
                first = each!(C, simd, i => first[i] + offset[i]);
            }
            let factor = Pair::per_sample(&factor, simd, v);
            let mut sum = Pair::splat(simd, 0.0);
            for (i, &first) in first.iter().enumerate() {
                let change = first - Pair::of(&before, simd, i, v);
                let shift = if rule.alone { change * factor } else { change.mul_add(factor, mixture.shift[i]) };
                sum = shift.mul_add(shift, sum);
                shift.set(&mut out, i, v);
            }
            let [first, second] = sum.both();
            power.add(v[0], [first]);
            if v[1] > v[0] {
                power.add(v[1], [second]);
            }
        }
        out.finish();
        power.finish(&block)
    }
}

/// What a step tells the next one: by the mixtures without its own second-order change, from where the last sub-step ends, what one more ends
/// at, into `[b c n]`.
pub(crate) struct Ahead<'a> {
    pub shifted: Shifted<'a>,
    pub substep: OdeSubstep,
    pub out: &'a mut [f32],
}

/// The samples `[b c n]` after all sub-steps from `x`, with mixtures that were predicted at `start`, into `out`.
pub(crate) fn ode_substeps(
    shifted: Shifted,
    [start, x]: [&[f32]; 2],
    sizes: Sizes,
    substeps: &[OdeSubstep],
    ahead: Option<Ahead>,
    out: &mut [f32],
    threads: Threads,
) {
    let Sizes { c, n, .. } = sizes;
    let blocks = Block::all(x.len() / (c * n).max(1), n);
    let work = x.len() * sizes.k * (substeps.len() + usize::from(ahead.is_some()));
    let out = Sink::new(out, n);
    let ahead = ahead.map(|Ahead { shifted, substep, out }| (shifted, substep, Sink::new(out, n)));
    threads.map(
        blocks,
        work,
        || Scratch::new(sizes, false),
        |scratch, block| {
            let ahead = ahead.as_ref().map(|(shifted, substep, out)| (shifted, substep, out));
            widest(Stepping { scratch, out: &out, shifted, start, x, sizes, block, substeps, ahead });
        },
    );
}

/// A block of [`ode_substeps`].
struct Stepping<'a> {
    scratch: &'a mut Scratch,
    out: &'a Sink<'a>,
    shifted: Shifted<'a>,
    start: &'a [f32],
    x: &'a [f32],
    sizes: Sizes,
    block: Block,
    substeps: &'a [OdeSubstep],
    /// As in [`Ahead`].
    ahead: Option<(&'a Shifted<'a>, &'a OdeSubstep, &'a Sink<'a>)>,
}

impl WithSimd for Stepping<'_> {
    type Output = ();

    /// All sub-steps from `x`, into `out`, and the one ahead.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Stepping<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, out: sink, shifted, start, x, sizes, block, substeps, ahead } = self;
        let Scratch { joint, mean, shift, shift_ahead, x: room, start: start_room, out, out_ahead, .. } = scratch;
        // SAFETY: every block comes up once.
        let mut out = unsafe { sink.target(&block, C, out) };
        let mut ahead = ahead.map(|(shifted, substep, sink)| {
            // SAFETY: the same.
            let out = unsafe { sink.target(&block, C, out_ahead) };
            (Tilt::new(shifted, &block, sizes, shift_ahead), substep, out)
        });
        let start = Source::new(&block, start, C, sizes.n, start_room);
        let x = Source::new(&block, x, C, sizes.n, room);
        let mut mixture = Tilted::<C>::new(&shifted, &block, sizes, (joint, mean, shift));
        let k = mixture.k;
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let start = each!(C, simd, i => Pair::of(&start, simd, i, v));
            let mut x = each!(C, simd, i => Pair::of(&x, simd, i, v));
            // The sub-step ahead is one more in the same loop, so that its code is there once.
            for i in 0..=substeps.len() {
                let substep = match substeps.get(i) {
                    Some(substep) => substep,
                    None => {
                        x.into_iter().enumerate().for_each(|(i, x)| x.set(&mut out, i, v));
                        let Some((tilt, one_more, _)) = &ahead else { break };
                        (_, mixture.nu, mixture.zeta) = tilt.vectors(mixture.components, k, mixture.var);
                        *one_more
                    }
                };
                x = mixture.substep(&x, &start, substep);
            }
            if let Some((_, _, out)) = &mut ahead {
                for (i, x) in x.into_iter().enumerate() {
                    x.set(out, i, v);
                }
            }
        }
        out.finish();
        if let Some((_, _, out)) = ahead {
            out.finish();
        }
    }
}

/// The reweighted mixtures over x0: means `[b k c n]`, log weights `[b k n]`, log standard deviations `[b]`, or `[b n]` where pixels were
/// reweighted by their own variance.
pub(crate) fn reweighted(shifted: Shifted, sizes: Sizes) -> [Vec<f32>; 3] {
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
        let log_std = PerSample::new(&block, |sample| shifted.log_std[sample] + shifted.t.ln());
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
            scale.ln().mul_add(Pair::splat(simd, 0.5), Pair::per_sample(&log_std, simd, v)).store(&mut out[0], v);
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
