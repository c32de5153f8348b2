//! Guidance in one pass: from a network's velocities to the means of the mixtures over x0 and the shift that is asked for.

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::sizes::{Mixture, per_sample};
use crate::kernel::mixture::step::cpu::guided::{GuidedMixtures, centred_rows};
use crate::kernel::mixture::step::types::ShiftRule;
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::channels;
use crate::kernel::simd::lanes::{
    Block, BlockReader, BlockWriter, Packed, PackedMut, PerSample, Summing, Sums, per_sample_sums,
};
use crate::kernel::simd::memory::UninitVec;
use crate::kernel::simd::row::{LANES, Row, VECTOR};
use crate::kernel::simd::threads::Threads;
use crate::kernel::simd::vector::{V, widest};
use pulp::{Simd, WithSimd};
use std::f32::consts::LOG2_E;
use std::mem::MaybeUninit;
use std::ops::Range;

/// A network's predictions at (x, t), and what guidance asks for.
#[derive(Clone, Copy)]
pub(crate) struct GuidanceInputs<'a> {
    /// Over the velocity, the conditional ones.
    pub velocity: Mixture<'a>,
    /// The unconditional ones, of as many samples; with no rule but off there are none.
    pub unconditional: Option<Mixture<'a>>,
    /// `[b c n]`.
    pub x: &'a [f32],
    pub t: f32,
    pub rule: ShiftRule,
    /// Whether shifts are divided by the pixel's own variance.
    pub pixelwise: bool,
}

impl<'a> GuidanceInputs<'a> {
    /// From predictions which, with a rule other than off, are those of the doubled batch [conditional, unconditional].
    pub fn new(
        velocity: Mixture<'a>,
        (x, t): (&'a [f32], f32),
        sizes: Sizes,
        (rule, pixelwise): (ShiftRule, bool),
    ) -> Self {
        let b = x.len() / (sizes.c * sizes.n).max(1);
        let unconditional = (rule != ShiftRule::Off).then(|| velocity.of_samples(sizes, b..2 * b));
        Self { velocity: velocity.of_samples(sizes, 0..b), unconditional, x, t, rule, pixelwise }
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
pub(crate) struct GuidedParts {
    /// The conditional mixtures over x0: see [`crate::kernel::mixture::step::cpu::guided::GuidedMixtures::centred`].
    pub centred: Vec<f32>,
    /// The mean of the conditional mixture over x0 `[b c n]`.
    pub mean: Vec<f32>,
    /// The shift `[b c n]`; empty for none.
    pub shift: Vec<f32>,
    /// As in [`crate::kernel::mixture::step::cpu::guided::GuidedMixtures`].
    pub var: Vec<f32>,
    /// As in [`crate::kernel::mixture::step::cpu::guided::GuidedMixtures`].
    pub power: Vec<f32>,
}

impl GuidedParts {
    /// [`guide`] on all threads, for `b` samples.
    pub fn new(inputs: GuidanceInputs, b: usize, sizes: Sizes) -> Self {
        let pixels = b * sizes.c * sizes.n;
        let of_shift = if inputs.rule == ShiftRule::Off { 0 } else { pixels };
        let mut centred = UninitVec::new(Packed::len(b, sizes.n, centred_rows(sizes)));
        let [mut mean, mut shift, mut var, mut power] = [pixels, of_shift, b, b].map(UninitVec::new);
        let room = GuidedRoom {
            centred: centred.room(),
            mean: mean.room(),
            shift: shift.room(),
            var: var.room(),
            power: power.room(),
        };
        guide(inputs, sizes, room, Threads::All);
        // SAFETY: `guide` writes all of its room.
        unsafe {
            let [centred, mean, shift] = [centred.assume_init(), mean.assume_init(), shift.assume_init()];
            Self { centred, mean, shift, var: var.assume_init(), power: power.assume_init() }
        }
    }
}

/// The same to be written to, for samples of which there are as many as `var` has places.
pub(crate) struct GuidedRoom<'a> {
    pub centred: &'a mut [MaybeUninit<f32>],
    pub mean: &'a mut [MaybeUninit<f32>],
    pub shift: &'a mut [MaybeUninit<f32>],
    pub var: &'a mut [MaybeUninit<f32>],
    pub power: &'a mut [MaybeUninit<f32>],
}

/// From predictions of the velocity to the means of the mixtures over x0 and the shift that guidance asks for. Writes all of the room, and
/// returns it as mixtures.
pub(crate) fn guide<'a>(
    inputs: GuidanceInputs<'a>,
    sizes: Sizes,
    room: GuidedRoom<'a>,
    threads: Threads,
) -> GuidedMixtures<'a> {
    let Sizes { k, c, n } = sizes;
    let GuidedRoom { centred, mean, shift, var: vars, power: powers } = room;
    let (b, active, rows) = (vars.len(), inputs.rule != ShiftRule::Off, centred_rows(sizes));
    let of_shift = if active { b * c * n } else { 0 };
    let lengths = [inputs.x.len(), mean.len(), shift.len(), centred.len(), powers.len()];
    assert_eq!(
        lengths,
        [b * c * n, b * c * n, of_shift, Packed::len(b, n, rows), b],
        "guidance: room for {b} samples"
    );
    let blocks = Block::all(b, n);
    let (means, shifts) = (BlockWriter::new(mean, n), BlockWriter::new(shift, n));
    let sums = threads.map(
        blocks.iter().copied().zip(centred.chunks_mut(rows * LANES)).collect(),
        2 * b * k * c * n,
        || Scratch::new(sizes),
        |scratch, (block, centred): (Block, &mut [MaybeUninit<f32>])| {
            // SAFETY: rows of components, and vectors of the block are read and set, and none is read before it was set.
            let centred = unsafe { PackedMut::new(centred, rows) };
            let shifts = active.then_some(&shifts);
            widest(Guiding { scratch, centred, means: &means, shifts, inputs, sizes, block })
        },
    );
    // SAFETY: every block has written its part of the mixtures, of the mean and, where there is one, of the shift.
    let (centred, mean, shift) =
        unsafe { (centred.assume_init_ref(), mean.assume_init_ref(), shift.assume_init_mut()) };
    for (sample, &[var, da, aa]) in per_sample_sums(b, &blocks, &sums).iter().enumerate() {
        let var = var / n as f64;
        vars[sample].write(var as f32);
        if !active {
            powers[sample].write(0.0);
            continue;
        }
        let at = sample * c * n..(sample + 1) * c * n;
        let (shift, mean, x) = (&mut shift[at.clone()], &mean[at.clone()], &inputs.x[at]);
        // What remains may be much smaller than what was subtracted: its power is that of the numbers themselves.
        let along = inputs.rule.along(da, aa) as f32;
        let origin = matches!(inputs.rule, ShiftRule::Extrapolate { .. }).then_some(x);
        let power = widest(Across { shift, mean, origin, along });
        let power = power / (c * n) as f64;
        let factor = inputs.rule.factor(var, power);
        vectorised(Scale { values: shift, by: factor as f32 });
        powers[sample].write((power * factor * factor) as f32);
    }
    // SAFETY: the sums are of all samples, and both numbers of each were written.
    let (var, power) = unsafe { (vars.assume_init_ref(), powers.assume_init_ref()) };
    let (log_std, t, pixelwise) = (inputs.velocity.log_std, inputs.t, inputs.pixelwise);
    GuidedMixtures { centred, log_std, t, mean, shift, var, power, pixelwise }
}

/// Subtracts a multiple of the axis, the mean or what it is short of `origin`, from a shift; the sum of the squares of what remains.
struct Across<'a> {
    shift: &'a mut [f32],
    mean: &'a [f32],
    origin: Option<&'a [f32]>,
    along: f32,
}

impl WithSimd for Across<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        /// Numbers whose squares are added up in f32, a vector upon the other.
        const PIECE: usize = 256 * VECTOR;
        let Self { shift, mean, origin, along } = self;
        let minus_along = V::splat(simd, -along);
        let mut power = 0.0;
        for (i, (shift, mean)) in shift.chunks_mut(PIECE).zip(mean.chunks(PIECE)).enumerate() {
            let (vectors, rest) = S::as_mut_simd_f32s(shift);
            let (means, other_means) = S::as_simd_f32s(mean);
            let origin = origin.map(|origin| S::as_simd_f32s(&origin[i * PIECE..][..mean.len()]));
            let mut squares = [V::splat(simd, 0.0); 2];
            for (v, (shift, mean)) in vectors.iter_mut().zip(means).enumerate() {
                let mean = V::new(simd, *mean);
                let axis = origin.map_or(mean, |(origin, _)| V::new(simd, origin[v]) - mean);
                let across = axis.mul_add(minus_along, V::new(simd, *shift));
                squares[v % 2] = across.mul_add(across, squares[v % 2]);
                *shift = across.bare();
            }
            power += (squares[0] + squares[1]).sum();
            for (v, (shift, mean)) in rest.iter_mut().zip(other_means).enumerate() {
                *shift -= along * origin.map_or(*mean, |(_, origin)| origin[v] - mean);
                power += f64::from(*shift * *shift);
            }
        }
        power
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
    /// The components' weights `[k]`.
    shares: Vec<Row>,
    /// The mean velocities, conditional and unconditional `[c]`.
    velocities: [Vec<Row>; 2],
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
            velocities: [rows(c), rows(c)],
            x: gathered(c),
            mean: gathered(c),
            difference: gathered(c),
        }
    }
}

/// A block of [`guide`].
struct Guiding<'a> {
    scratch: &'a mut Scratch,
    centred: PackedMut<'a>,
    means: &'a BlockWriter<'a>,
    shifts: Option<&'a BlockWriter<'a>>,
    inputs: GuidanceInputs<'a>,
    sizes: Sizes,
    block: Block,
}

impl WithSimd for Guiding<'_> {
    type Output = Sums<3>;

    /// The mixtures into `centred`, their means over x0 into `means`, the difference of the conditional from the unconditional ones into
    /// `shifts`. The sums of the variance, and of the products of the axis with the difference and with itself.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums<3> {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
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
) -> (BlockReader<'a>, BlockReader<'a>) {
    // SAFETY: rows of components and channels, and vectors of the block are read.
    let means = unsafe { BlockReader::new(&block, velocity.means, k * c, n, means) };
    // SAFETY: as above.
    (means, unsafe { BlockReader::new(&block, velocity.log_weights, k, n, log_weights) })
}

/// The mean velocity of a block into `mean`; `KEEP` keeps what was read of the mixtures, and the components' weights.
///
/// Rows of an image are read one after the other, each from front to back: they may be a page apart, and the processor fetches ahead within
/// a few pages at a time.
#[inline(always)]
fn mean_velocity<S: Simd, const C: usize, const KEEP: bool>(
    simd: S,
    (k, vectors): (usize, usize),
    velocity: &(BlockReader, BlockReader),
    mean: &mut [Row],
    (keep, weights): (&mut PackedMut, &mut [Row]),
) {
    for first in (0..k).step_by(2) {
        if first + 1 < k {
            add_components::<S, C, 2, KEEP>(simd, (first, vectors), velocity, mean, (&mut *keep, &mut *weights));
        } else {
            add_components::<S, C, 1, KEEP>(simd, (first, vectors), velocity, mean, (&mut *keep, &mut *weights));
        }
    }
}

/// Adds the components `first..first + N`.
#[inline(always)]
fn add_components<S: Simd, const C: usize, const N: usize, const KEEP: bool>(
    simd: S,
    (first, vectors): (usize, usize),
    (means, log_weights): &(BlockReader, BlockReader),
    mean: &mut [Row],
    (keep, weights): (&mut PackedMut, &mut [Row]),
) {
    for v in 0..vectors {
        let mut shares = [V::splat(simd, 0.0); N];
        for (k, share) in (first..).zip(&mut shares) {
            let log_weight = log_weights.at(simd, k, v) * V::splat(simd, LOG2_E);
            *share = log_weight.exp2_or_less();
            if KEEP {
                keep.set(k * (C + 1) + C, v, log_weight);
                share.store(&mut weights[k], v);
            }
        }
        for (i, mean) in mean[..C].iter_mut().enumerate() {
            let mut sum = if first == 0 { V::splat(simd, 0.0) } else { V::load(simd, mean, v) };
            for (k, &share) in (first..).zip(&shares) {
                let value = means.at(simd, k * C + i, v);
                if KEEP {
                    keep.set(k * (C + 1) + i, v, value);
                }
                sum = value.mul_add(share, sum);
            }
            sum.store(mean, v);
        }
    }
}

impl Guiding<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) -> Sums<3> {
        let Self { scratch, mut centred, means: all_means, shifts, inputs, sizes, block } = self;
        let GuidanceInputs { velocity, unconditional, x, t, rule, .. } = inputs;
        let Sizes { k, n, .. } = sizes;
        let extrapolate = matches!(rule, ShiftRule::Extrapolate { .. });
        let Scratch { means, log_weights, shares, velocities, x: room, mean, difference } = scratch;
        let [velocities, other_velocities] = velocities;
        // SAFETY: channels, and vectors of the block are read.
        let x = unsafe { BlockReader::new(&block, x, C, n, room) };
        let ([means, other_means], [log_weights, other_log_weights]) = (means, log_weights);
        let predicted = side(velocity, block, (k, C, n), means, log_weights);
        let other = unconditional.map(|mixture| side(mixture, block, (k, C, n), other_means, other_log_weights));
        let within = PerSample::new(&block, |sample| (2.0 * velocity.log_std[sample]).exp() * t * t);
        let number = |x: f32| V::splat(simd, x);
        let (time, minus_time, per_channel) = (number(t), number(-t), number(1.0 / C as f32));
        // SAFETY: every block comes up once, and channels and its vectors are set.
        let mut mean = unsafe { all_means.target(&block, C, mean) };
        // SAFETY: the same.
        let mut difference = shifts.map(|shifts| unsafe { shifts.target(&block, C, difference) });
        let vectors = block.vectors(simd);
        centred.clear_from::<S>(vectors);
        mean_velocity::<S, C, true>(simd, (k, vectors), &predicted, velocities, (&mut centred, shares));
        if let Some(other) = &other {
            mean_velocity::<S, C, false>(simd, (k, vectors), other, other_velocities, (&mut centred, shares));
        }
        let mut sums = Summing::new(simd, &block);
        for v in 0..vectors {
            let mut velocity = [number(0.0); C];
            for (velocity, mean) in velocity.iter_mut().zip(&*velocities) {
                *velocity = V::load(simd, mean, v);
            }
            let mut var = number(0.0);
            for (k, share) in shares[..k].iter().enumerate() {
                let (row, mut square) = (k * (C + 1), number(0.0));
                for (i, &velocity) in velocity.iter().enumerate() {
                    let offset = (centred.at(simd, row + i, v) - velocity) * minus_time;
                    square = offset.mul_add(offset, square);
                    centred.set(row + i, v, offset);
                }
                var = square.mul_add(per_channel, within.at(simd, v)).mul_add(V::load(simd, share, v), var);
            }
            let [mut da, mut aa] = [number(0.0); 2];
            for (i, &u) in velocity.iter().enumerate() {
                let data = u.mul_add(minus_time, x.at(simd, i, v));
                mean.set(i, v, data);
                if let Some(difference) = &mut difference {
                    let apart = (V::load(simd, &other_velocities[i], v) - u) * time;
                    let axis = if extrapolate { u * time } else { data };
                    da = apart.mul_add(axis, da);
                    aa = axis.mul_add(axis, aa);
                    difference.set(i, v, apart);
                }
            }
            sums.add(v, [var, da, aa]);
        }
        mean.finish();
        if let Some(difference) = difference {
            difference.finish();
        }
        sums.finish(&block)
    }
}
