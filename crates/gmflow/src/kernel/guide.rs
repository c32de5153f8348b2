//! Guidance in one pass: from a network's velocities to the means of the mixtures over x0 and the shift that is asked for.

use super::arch::{Loop, vectorised};
use super::channels::{self, each};
use super::lanes::{Block, LANES, Row, Sink, Source, VECTOR, per_sample_sums};
use super::memory::{build, par_map};
use super::nll::Sizes;
use super::simd::{V, widest};
use super::tilt::Mixture;
use pulp::{Simd, WithSimd};

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
    /// The mean of the conditional mixture over x0 `[b c n]`.
    pub mean: Vec<f32>,
    /// The shift `[b c n]`; empty for none.
    pub shift: Vec<f32>,
    /// As in [`super::tilt::Shifted`].
    pub var: Vec<f32>,
    /// As in [`super::tilt::Shifted`].
    pub power: Vec<f32>,
}

/// From predictions of the velocity at (x `[b c n]`, t) to the means of the mixtures over x0 and the shift that guidance asks for. With
/// a rule other than off the predictions are those of the doubled batch [conditional, unconditional].
pub(super) fn guide(velocity: Mixture, x: &[f32], sizes: Sizes, t: f32, rule: ShiftRule) -> GuidedParts {
    let Sizes { k, c, n } = sizes;
    let b = x.len() / (c * n).max(1);
    let active = rule != ShiftRule::Off;
    let blocks = Block::all(b, n);
    let (mut shift, mut totals) = (Vec::new(), Vec::new());
    let mean = build(x.len(), |mean| {
        shift = build(if active { x.len() } else { 0 }, |shift| {
            let (mean, shift) = (Sink::new(mean, n), Sink::new(shift, n));
            let sums = par_map(
                blocks.clone(),
                2 * b * k * c * n,
                || Scratch::new(sizes),
                |scratch, block: Block| {
                    let sums = widest(Guiding { scratch, velocity, x, sizes, b, block, t, rule });
                    // SAFETY: every block comes up once.
                    unsafe {
                        mean.write(&block, &scratch.mean);
                        if active {
                            shift.write(&block, &scratch.difference);
                        }
                    }
                    block.sums(&sums)
                },
            );
            totals = per_sample_sums(b, &blocks, &sums);
        });
    });
    let (mut vars, mut powers) = (Vec::with_capacity(b), Vec::with_capacity(b));
    for (sample, &[var, da, aa]) in totals.iter().enumerate() {
        let var = var / n as f64;
        vars.push(var as f32);
        if !active {
            powers.push(0.0);
            continue;
        }
        let at = sample * c * n..(sample + 1) * c * n;
        let (shift, mean, x) = (&mut shift[at.clone()], &mean[at.clone()], &x[at]);
        // What remains may be much smaller than what was subtracted: its power is that of the numbers themselves.
        let (along, mut power) = (rule.along(da, aa) as f32, 0.0);
        let origin = matches!(rule, ShiftRule::Extrapolate { .. }).then_some(x);
        vectorised(Across { shift, mean, origin, along, power: &mut power });
        let power = power / (c * n) as f64;
        let factor = rule.factor(var, power);
        vectorised(Scale { values: shift, by: factor as f32 });
        powers.push((power * factor * factor) as f32);
    }
    GuidedParts { mean, shift, var: vars, power: powers }
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
    /// A vector's velocities and weights `[k c + k]`: see [`super::tilt`].
    vector: Vec<Row>,
    /// Rows `[c]`.
    x: Vec<Row>,
    mean: Vec<Row>,
    difference: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, .. }: Sizes) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        Self {
            means: [rows(k * c), rows(k * c)],
            log_weights: [rows(k), rows(k)],
            vector: rows((k * (c + 1)).div_ceil(LANES / VECTOR)),
            x: rows(c),
            mean: rows(c),
            difference: rows(c),
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

    /// The mean over x0 and the difference of the conditional from the unconditional one into the scratch. Returns, per lane, the variance,
    /// and the products of the axis with the difference and with itself.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [Row; 3] {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

/// Means and log weights of a block, and a word ahead for the block after it.
#[inline(always)]
fn side<'a>(
    velocity: Mixture<'a>,
    block: Block,
    (k, c, n): (usize, usize, usize),
    means: &'a mut [Row],
    log_weights: &'a mut [Row],
) -> (Source<'a>, Source<'a>) {
    block.prefetch_next(velocity.means, k * c, n);
    block.prefetch_next(velocity.log_weights, k, n);
    let means = Source::new(&block, velocity.means, k * c, n, means);
    (means, Source::new(&block, velocity.log_weights, k, n, log_weights))
}

impl Guiding<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) -> [Row; 3] {
        let Self { scratch, velocity, x, sizes, b, block, t, rule } = self;
        let Sizes { k, n, .. } = sizes;
        let active = rule != ShiftRule::Off;
        let extrapolate = matches!(rule, ShiftRule::Extrapolate { .. });
        let Scratch { means, log_weights, vector, x: room, mean, difference } = scratch;
        let x = Source::new(&block, x, C, n, room);
        let ([means, other_means], [log_weights, other_log_weights]) = (means, log_weights);
        let (means, log_weights) = side(velocity, block, (k, C, n), means, log_weights);
        let other = active.then(|| side(velocity, block.after(b), (k, C, n), other_means, other_log_weights));
        let within = block.per_sample(|sample| (2.0 * velocity.log_std[sample]).exp());
        let number = |x: f32| V::splat(simd, x);
        let (time, minus_time, per_channel) = (number(t), number(-t), number(1.0 / C as f32));
        let (vector, _) = S::as_mut_simd_f32s(vector.as_flattened_mut());
        let (components, weights) = vector[..k * (C + 1)].split_at_mut(k * C);
        let mut sums = [[0.0; LANES]; 3];
        for v in 0..block.vectors(simd) {
            let mut u = [number(0.0); C];
            for (k, (component, weight)) in components.chunks_exact_mut(C).zip(&mut *weights).enumerate() {
                let share = log_weights.at(simd, k, v).exp();
                *weight = share.bare();
                for (i, component) in component.iter_mut().enumerate() {
                    let value = means.at(simd, k * C + i, v);
                    u[i] = value.mul_add(share, u[i]);
                    *component = value.bare();
                }
            }
            let mut var = number(0.0);
            for (component, &weight) in components.chunks_exact(C).zip(&*weights) {
                let mut spread = number(0.0);
                for i in 0..C {
                    let offset = V::new(simd, component[i]) - u[i];
                    spread = offset.mul_add(offset, spread);
                }
                let within = V::load(simd, &within, v);
                var = spread.mul_add(per_channel, within).mul_add(V::new(simd, weight), var);
            }
            let mut unconditional = u;
            if let Some((means, log_weights)) = &other {
                unconditional = [number(0.0); C];
                for k in 0..k {
                    let share = log_weights.at(simd, k, v).exp();
                    unconditional =
                        each!(C, simd, i => means.at(simd, k * C + i, v).mul_add(share, unconditional[i]));
                }
            }
            let [mut da, mut aa] = [number(0.0); 2];
            for i in 0..C {
                let data = u[i].mul_add(minus_time, x.at(simd, i, v));
                let apart = (unconditional[i] - u[i]) * time;
                let axis = if extrapolate { u[i] * time } else { data };
                da = apart.mul_add(axis, da);
                aa = axis.mul_add(axis, aa);
                data.store(&mut mean[i], v);
                apart.store(&mut difference[i], v);
            }
            for (sum, value) in sums.iter_mut().zip([var * time * time, da, aa]) {
                value.store(sum, v);
            }
        }
        sums
    }
}
