//! Guidance in one pass: from a network's velocities to the means of the mixtures over x0 and the shift that is asked for.

use super::arch::{Loop, vectorised};
use super::channels;
use super::lanes::{Block, LANES, Packed, PackedMut, Row, Sink, Source, VECTOR, per_sample_sums};
use super::memory::build;
use super::nll::Sizes;
use super::simd::{V, widest};
use super::threads::Threads;
use super::tilt::{Mixture, centred_rows, per_sample};
use pulp::{Simd, WithSimd};
use std::f32::consts::LOG2_E;
use std::ops::Range;

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

/// A network's predictions at (x, t), and what guidance asks for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Over the velocity, the conditional ones.
    pub velocity: Mixture<'a>,
    /// The unconditional ones, of as many samples; with no rule but off there are none.
    pub unconditional: Option<Mixture<'a>>,
    /// `[b c n]`.
    pub x: &'a [f32],
    pub t: f32,
    pub rule: ShiftRule,
}

impl<'a> Asked<'a> {
    /// From predictions which, with a rule other than off, are those of the doubled batch [conditional, unconditional].
    pub fn new(velocity: Mixture<'a>, (x, t): (&'a [f32], f32), sizes: Sizes, rule: ShiftRule) -> Self {
        let b = x.len() / (sizes.c * sizes.n).max(1);
        let unconditional = (rule != ShiftRule::Off).then(|| velocity.of_samples(sizes, b..2 * b));
        Self { velocity: velocity.of_samples(sizes, 0..b), unconditional, x, t, rule }
    }

    /// Those of some samples.
    pub fn of_samples(self, sizes: Sizes, samples: Range<usize>) -> Self {
        Self {
            velocity: self.velocity.of_samples(sizes, samples.clone()),
            unconditional: self.unconditional.map(|mixture| mixture.of_samples(sizes, samples.clone())),
            x: per_sample(self.x, sizes.c * sizes.n, &samples),
            ..self
        }
    }
}

/// What [`guide`] finds.
#[derive(Default)]
pub(super) struct GuidedParts {
    /// The conditional mixtures over x0: see [`super::tilt::Shifted::centred`].
    pub centred: Vec<f32>,
    /// The mean of the conditional mixture over x0 `[b c n]`.
    pub mean: Vec<f32>,
    /// The shift `[b c n]`; empty for none.
    pub shift: Vec<f32>,
    /// As in [`super::tilt::Shifted`].
    pub var: Vec<f32>,
    /// As in [`super::tilt::Shifted`].
    pub power: Vec<f32>,
}

impl GuidedParts {
    /// Room for `b` samples, to be written by `fill`.
    pub fn build(b: usize, sizes: Sizes, rule: ShiftRule, fill: impl FnOnce(GuidedRoom)) -> Self {
        let (mut parts, pixels) = (Self::default(), b * sizes.c * sizes.n);
        let Self { shift, var, power, centred, .. } = &mut parts;
        let mean = build(pixels, |mean| {
            *shift = build(if rule == ShiftRule::Off { 0 } else { pixels }, |shift| {
                *centred = build(Packed::len(b, sizes.n, centred_rows(sizes)), |centred| {
                    *var = build(b, |var| {
                        *power = build(b, |power| fill(GuidedRoom { centred, mean, shift, var, power }));
                    });
                });
            });
        });
        Self { mean, ..parts }
    }
}

/// The same to be written to.
pub(super) struct GuidedRoom<'a> {
    pub centred: &'a mut [f32],
    pub mean: &'a mut [f32],
    pub shift: &'a mut [f32],
    pub var: &'a mut [f32],
    pub power: &'a mut [f32],
}

/// From predictions of the velocity to the means of the mixtures over x0 and the shift that guidance asks for.
pub(super) fn guide(asked: Asked, sizes: Sizes, room: &mut GuidedRoom, threads: Threads) {
    let Sizes { k, c, n } = sizes;
    let GuidedRoom { centred, mean, shift, var: vars, power: powers } = room;
    let (b, active) = (vars.len(), asked.rule != ShiftRule::Off);
    let blocks = Block::all(b, n);
    let (means, shifts) = (Sink::new(mean, n), Sink::new(shift, n));
    let rows = centred_rows(sizes);
    let sums = threads.map(
        blocks.iter().copied().zip(centred.chunks_mut(rows * LANES)).collect(),
        2 * b * k * c * n,
        || Scratch::new(sizes),
        |scratch, (block, centred): (Block, &mut [f32])| {
            let centred = PackedMut::new(centred, rows);
            let shifts = active.then_some(&shifts);
            let mut sums = [[0.0; LANES]; 3];
            widest(Guiding { scratch, centred, means: &means, shifts, sums: &mut sums, asked, sizes, block });
            block.sums(&sums)
        },
    );
    for (sample, &[var, da, aa]) in per_sample_sums(b, &blocks, &sums).iter().enumerate() {
        let var = var / n as f64;
        vars[sample] = var as f32;
        if !active {
            powers[sample] = 0.0;
            continue;
        }
        let at = sample * c * n..(sample + 1) * c * n;
        let (shift, mean, x) = (&mut shift[at.clone()], &mean[at.clone()], &asked.x[at]);
        // What remains may be much smaller than what was subtracted: its power is that of the numbers themselves.
        let (along, mut power) = (asked.rule.along(da, aa) as f32, 0.0);
        let origin = matches!(asked.rule, ShiftRule::Extrapolate { .. }).then_some(x);
        vectorised(Across { shift, mean, origin, along, power: &mut power });
        let power = power / (c * n) as f64;
        let factor = asked.rule.factor(var, power);
        vectorised(Scale { values: shift, by: factor as f32 });
        powers[sample] = (power * factor * factor) as f32;
    }
}

/// Subtracts a multiple of the axis, the mean or what it is short of `origin`, from a shift, and adds up the squares of what remains.
struct Across<'a> {
    shift: &'a mut [f32],
    mean: &'a [f32],
    origin: Option<&'a [f32]>,
    along: f32,
    power: &'a mut f64,
}

impl Loop for Across<'_> {
    #[inline(always)]
    fn run(self) {
        const PIECE: usize = 16 * VECTOR;
        let Self { shift, mean, origin, along, power } = self;
        for (i, (shift, mean)) in shift.chunks_mut(PIECE).zip(mean.chunks(PIECE)).enumerate() {
            match origin {
                None => shift.iter_mut().zip(mean).for_each(|(shift, mean)| *shift -= along * mean),
                Some(origin) => {
                    let axis = origin[i * PIECE..].iter().zip(mean).map(|(x, mean)| x - mean);
                    shift.iter_mut().zip(axis).for_each(|(shift, axis)| *shift -= along * axis);
                }
            }
            let mut squares = [0.0; VECTOR];
            for shift in shift.chunks(VECTOR) {
                squares.iter_mut().zip(shift).for_each(|(sum, shift)| *sum += shift * shift);
            }
            *power += squares.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
    }
}

/// Multiplies all values.
struct Scale<'a> {
    values: &'a mut [f32],
    by: f32,
}

impl Loop for Scale<'_> {
    #[inline(always)]
    fn run(self) {
        self.values.iter_mut().for_each(|value| *value *= self.by);
    }
}

/// Room for a block.
struct Scratch {
    /// For gathering, conditional and unconditional: `[k c]` and `[k]`.
    means: [Vec<Row>; 2],
    log_weights: [Vec<Row>; 2],
    /// The weights of some vectors `[k]`.
    shares: Vec<Row>,
    /// Rows `[c]`.
    x: Vec<Row>,
    mean: Vec<Row>,
    difference: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, n: pixels }: Sizes) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let gathered = |n: usize| rows(if Block::all_direct(pixels) { 0 } else { n });
        Self {
            means: [gathered(k * c), gathered(k * c)],
            log_weights: [gathered(k), gathered(k)],
            shares: rows(k),
            x: gathered(c),
            mean: rows(c),
            difference: rows(c),
        }
    }
}

/// A block of [`guide`].
struct Guiding<'a> {
    scratch: &'a mut Scratch,
    centred: PackedMut<'a>,
    means: &'a Sink<'a>,
    shifts: Option<&'a Sink<'a>>,
    /// Per lane: the variance, and the products of the axis with the difference and with itself.
    sums: &'a mut [Row; 3],
    asked: Asked<'a>,
    sizes: Sizes,
    block: Block,
}

impl WithSimd for Guiding<'_> {
    type Output = ();

    /// The mixtures into `centred`, their means over x0 into `means`, the difference of the conditional from the unconditional ones into
    /// `shifts`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd));
    }
}

/// Means and log weights of a block.
#[inline(always)]
fn side<'a>(
    velocity: Mixture<'a>,
    block: Block,
    (k, c, n): (usize, usize, usize),
    means: &'a mut [Row],
    log_weights: &'a mut [Row],
) -> (Source<'a>, Source<'a>) {
    let means = Source::new(&block, velocity.means, k * c, n, means);
    (means, Source::new(&block, velocity.log_weights, k, n, log_weights))
}

/// Vectors of a row that are read at a time, where the next row is a page further on.
const TOGETHER: usize = 4;

/// The mean velocity of some vectors; `KEEP` keeps what was read of the mixtures, and the components' weights.
#[inline(always)]
fn mean_velocity<S: Simd, const C: usize, const KEEP: bool>(
    simd: S,
    k: usize,
    (means, log_weights): &(Source, Source),
    at: [usize; TOGETHER],
    (keep, weights): (&mut PackedMut, &mut [Row]),
) -> [[V<S>; TOGETHER]; C] {
    let mut sums = [[V::splat(simd, 0.0); TOGETHER]; C];
    let lanes = TOGETHER * S::F32_LANES;
    let next = at[0] * S::F32_LANES + lanes;
    for (k, weights) in weights[..k].iter_mut().enumerate() {
        log_weights.prefetch(k, next, lanes);
        let row = k * (C + 1);
        let mut shares = [V::splat(simd, 0.0); TOGETHER];
        for (g, (share, v)) in shares.iter_mut().zip(at).enumerate() {
            let log_weight = log_weights.at(simd, k, v) * V::splat(simd, LOG2_E);
            if KEEP {
                keep.set(row + C, v, log_weight);
            }
            *share = log_weight.exp2_or_less();
            if KEEP {
                share.store(weights, g);
            }
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            means.prefetch(k * C + i, next, lanes);
            for (g, (sum, v)) in sums.iter_mut().zip(at).enumerate() {
                let value = means.at(simd, k * C + i, v);
                if KEEP {
                    keep.set(row + i, v, value);
                }
                *sum = value.mul_add(shares[g], *sum);
            }
        }
    }
    sums
}

impl Guiding<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, mut centred, means: all_means, shifts, sums, asked, sizes, block } = self;
        let Asked { velocity, unconditional, x, t, rule } = asked;
        let Sizes { k, n, .. } = sizes;
        let extrapolate = matches!(rule, ShiftRule::Extrapolate { .. });
        let Scratch { means, log_weights, shares, x: room, mean, difference } = scratch;
        let x = Source::new(&block, x, C, n, room);
        let ([means, other_means], [log_weights, other_log_weights]) = (means, log_weights);
        let predicted = side(velocity, block, (k, C, n), means, log_weights);
        let other = unconditional.map(|mixture| side(mixture, block, (k, C, n), other_means, other_log_weights));
        let within = block.per_sample(|sample| (2.0 * velocity.log_std[sample]).exp() * t * t);
        let number = |x: f32| V::splat(simd, x);
        let (time, minus_time, per_channel) = (number(t), number(-t), number(1.0 / C as f32));
        // SAFETY: every block comes up once.
        let mut mean = unsafe { all_means.target(&block, mean) };
        // SAFETY: the same.
        let mut difference = shifts.map(|shifts| unsafe { shifts.target(&block, difference) });
        let vectors = block.vectors(simd);
        centred.clear_from::<S>(vectors);
        for first in (0..vectors).step_by(TOGETHER) {
            // The last one stands in for those that are missing.
            let mut at = [0; TOGETHER];
            for (g, v) in at.iter_mut().enumerate() {
                *v = (first + g).min(vectors - 1);
            }
            let velocity = mean_velocity::<S, C, true>(simd, k, &predicted, at, (&mut centred, shares));
            let unconditional = match &other {
                Some(other) => mean_velocity::<S, C, false>(simd, k, other, at, (&mut centred, shares)),
                None => velocity,
            };
            for g in 0..TOGETHER.min(vectors - first) {
                let v = first + g;
                let mut var = number(0.0);
                for (k, share) in shares[..k].iter().enumerate() {
                    let (row, mut square) = (k * (C + 1), number(0.0));
                    for (i, velocity) in velocity.iter().enumerate() {
                        let offset = (centred.at(simd, row + i, v) - velocity[g]) * minus_time;
                        square = offset.mul_add(offset, square);
                        centred.set(row + i, v, offset);
                    }
                    var =
                        square.mul_add(per_channel, V::load(simd, &within, v)).mul_add(V::load(simd, share, g), var);
                }
                let [mut da, mut aa] = [number(0.0); 2];
                for i in 0..C {
                    let u = velocity[i][g];
                    let data = u.mul_add(minus_time, x.at(simd, i, v));
                    let apart = (unconditional[i][g] - u) * time;
                    let axis = if extrapolate { u * time } else { data };
                    da = apart.mul_add(axis, da);
                    aa = axis.mul_add(axis, aa);
                    mean.set(i, v, data);
                    if let Some(difference) = &mut difference {
                        difference.set(i, v, apart);
                    }
                }
                for (sum, value) in sums.iter_mut().zip([var, da, aa]) {
                    value.store(sum, v);
                }
            }
        }
        mean.finish();
        if let Some(difference) = difference {
            difference.finish();
        }
    }
}
