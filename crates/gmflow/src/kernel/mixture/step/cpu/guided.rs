//! Predicted mixtures with the shift that they are reweighted by, and the means of the reweighted ones.
//!
//! Reweighted mixtures are not stored. Guidance (7), (8), the second-order change and the posterior at another point (10) all multiply
//! the predicted mixture by exp(nu . (x0 - m) - zeta |x0 - m|^2 / 2) about its mean m, so their nu and zeta add up, and a pass works
//! out what it needs of the product from the prediction.

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::types::{MIN_REST, OdeSubstep, SMALLEST_LENGTH, SMALLEST_VAR};
use crate::kernel::simd::channels::each;
use crate::kernel::simd::lanes::{Block, BlockReader, Packed, PerSample};
use crate::kernel::simd::pair::Pair;
use crate::kernel::simd::row::{LANES, Row, VECTOR};
use pulp::Simd;
use std::f32::consts::LOG2_E;

/// Numbers that [`GuidedMixtures::centred`] holds of a pixel: for each component its mean and the binary logarithm of its weight.
pub(crate) fn centred_rows(Sizes { k, c, .. }: Sizes) -> usize {
    k * (c + 1)
}

/// Predicted mixtures, their means and the shifts that they are reweighted by.
#[derive(Clone, Copy)]
pub(crate) struct GuidedMixtures<'a> {
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

impl<'a> GuidedMixtures<'a> {
    /// Whether the shift is divided by the variance of each pixel.
    pub(crate) fn is_pixelwise(&self) -> bool {
        self.pixelwise && !self.shift.is_empty()
    }
}

/// What multiplies a shift to give nu, and zeta, from the variance and the mean square of the shift: the target of guidance, whose
/// variance is less by the shift's share, divided by the Gaussian around the mean.
pub(crate) fn natural(var: f32, power: f32) -> (f32, f32) {
    let var = var.max(f32::MIN_POSITIVE);
    let share = power / var;
    let bounded = share.min(1.0 - MIN_REST);
    let rest = (1.0 - share).max(MIN_REST) * var;
    let shorten = if bounded > 0.0 { (bounded / share).sqrt().min(1.0) } else { 1.0 };
    (shorten / rest, bounded / rest)
}

/// Room for gathering and for what is kept of a block.
pub(crate) struct Scratch {
    /// What the components of two vectors weigh after a change `[k 2]`.
    pub(crate) joint: Vec<Row>,
    /// Rows `[c]`.
    pub(crate) mean: Vec<Row>,
    pub(crate) shift: Vec<Row>,
    pub(crate) next_shift: Vec<Row>,
    pub(crate) x: Vec<Row>,
    pub(crate) start: Vec<Row>,
    pub(crate) out: Vec<Row>,
    pub(crate) next_mean: Vec<Row>,
    /// Of what is written: `[k c]` and `[k]` where mixtures are.
    pub(crate) out_means: Vec<Row>,
    pub(crate) out_weights: Vec<Row>,
}

impl Scratch {
    pub(crate) fn new(Sizes { k, c, n }: Sizes, mixtures_out: bool) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let [mean, shift, next_shift, x, start, next_mean] =
            [(); 6].map(|()| rows(if Block::all_direct(n) { 0 } else { c }));
        let out = rows(if Block::all_direct(n) && !mixtures_out { 0 } else { c });
        let (out_means, out_weights) = if mixtures_out { (rows(k * c), rows(k)) } else { (Vec::new(), Vec::new()) };
        let joint = rows((2 * k).div_ceil(LANES / VECTOR));
        Self { joint, mean, shift, next_shift, x, start, out, next_mean, out_means, out_weights }
    }
}

/// What the mixtures of a block are reweighted by.
pub(crate) struct Tilt<'a> {
    pub(crate) shift: Option<BlockReader<'a>>,
    /// The factor on the shift and the precision.
    pub(crate) natural: [PerSample; 2],
    /// Whether both are the pixel's own.
    pub(crate) pixelwise: bool,
}

impl<'a> Tilt<'a> {
    #[inline(always)]
    pub(crate) fn new(mixtures: &GuidedMixtures<'a>, block: &Block, sizes: Sizes, room: &'a mut [Row]) -> Self {
        let natural = |sample: usize| match mixtures.shift {
            _ if mixtures.pixelwise => (0.0, 0.0),
            [] => (0.0, 0.0),
            _ => natural(mixtures.var[sample], mixtures.power[sample]),
        };
        Self {
            // SAFETY: channels, and vectors of the block are read.
            shift: (!mixtures.shift.is_empty())
                .then(|| unsafe { BlockReader::new(block, mixtures.shift, sizes.c, sizes.n, room) }),
            natural: [
                PerSample::new(block, |sample| natural(sample).0),
                PerSample::new(block, |sample| natural(sample).1),
            ],
            pixelwise: mixtures.is_pixelwise(),
        }
    }

    /// The shift, nu and zeta of two vectors, from their `k` components and their variance.
    #[inline(always)]
    pub(crate) fn vectors<S: Simd, const C: usize>(
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
pub(crate) struct Tilted<'a, const C: usize> {
    pub(crate) centred: Packed<'a>,
    pub(crate) mean: BlockReader<'a>,
    pub(crate) tilt: Tilt<'a>,
    /// Components.
    pub(crate) k: usize,
    pub(crate) joint: &'a mut [Row],
    /// The components' variance.
    pub(crate) var: PerSample,
}

impl<'a, const C: usize> Tilted<'a, C> {
    #[inline(always)]
    pub(crate) fn new(
        mixtures: &GuidedMixtures<'a>,
        block: &Block,
        sizes: Sizes,
        (joint, mean, shift): (&'a mut [Row], &'a mut [Row], &'a mut [Row]),
    ) -> Self {
        let Sizes { k, c, n } = sizes;
        Self {
            // SAFETY: rows of components, and vectors of the block are read.
            centred: unsafe { Packed::new(block, mixtures.centred, centred_rows(sizes)) },
            // SAFETY: as above, of channels.
            mean: unsafe { BlockReader::new(block, mixtures.mean, c, n, mean) },
            tilt: Tilt::new(mixtures, block, sizes, shift),
            k,
            joint,
            var: PerSample::new(block, |sample| ((2.0 * mixtures.log_std[sample]).exp() * mixtures.t) * mixtures.t),
        }
    }

    /// Two vectors.
    #[inline(always)]
    pub(crate) fn vectors<S: Simd>(&mut self, simd: S, v: [usize; 2]) -> Vectors<'_, S, C> {
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
pub(crate) struct Components<'a, S: Simd, const C: usize> {
    pub(crate) simd: S,
    pub(crate) packed: Packed<'a>,
    pub(crate) v: [usize; 2],
}

impl<S: Simd, const C: usize> Components<'_, S, C> {
    #[inline(always)]
    pub(crate) fn mean(&self, k: usize, i: usize) -> Pair<S> {
        Pair::packed(&self.packed, self.simd, k * (C + 1) + i, self.v)
    }

    /// The binary logarithm of a weight.
    #[inline(always)]
    pub(crate) fn log_weight(&self, k: usize) -> Pair<S> {
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
pub(crate) struct Vectors<'a, S: Simd, const C: usize> {
    pub(crate) simd: S,
    pub(crate) components: Components<'a, S, C>,
    /// Room for `[k]`.
    pub(crate) joint: &'a mut [[S::f32s; 2]],
    /// The components' variance.
    pub(crate) var: Pair<S>,
    pub(crate) mean: [Pair<S>; C],
    pub(crate) shift: [Pair<S>; C],
    /// The shift in natural parameters.
    pub(crate) nu: [Pair<S>; C],
    pub(crate) zeta: Pair<S>,
}

impl<S: Simd, const C: usize> Vectors<'_, S, C> {
    /// 1/(1 + var zeta). The binary logarithms of the joint probabilities of the components times exp(nu . y - zeta |y|^2 / 2), with y measured from the mean,
    /// into `joint`, and the largest of them.
    #[inline(always)]
    pub(crate) fn joint(&mut self, nu: &[Pair<S>; C], zeta: Pair<S>) -> (Pair<S>, Pair<S>) {
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
    pub(crate) fn tilted_mean(&mut self, nu: &[Pair<S>; C], zeta: Pair<S>) -> [Pair<S>; C] {
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
    pub(crate) fn substep(&mut self, x: &[Pair<S>; C], start: &[Pair<S>; C], substep: &Numbers<S>) -> [Pair<S>; C] {
        let simd = self.simd;
        let Numbers { of_x, of_start, zeta, keep } = *substep;
        let nu = each!(C, simd, i => self.nu[i] + (of_x * x[i] - of_start * start[i] - zeta * self.mean[i]));
        let offset = self.tilted_mean(&nu, self.zeta + zeta);
        let rest = Pair::splat(simd, 1.0) - keep;
        each!(C, simd, i => x[i].mul_add(keep, (offset[i] + self.mean[i]) * rest))
    }
}

/// An [`OdeSubstep`] in lanes.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<S: Simd> {
    pub(crate) of_x: Pair<S>,
    pub(crate) of_start: Pair<S>,
    pub(crate) zeta: Pair<S>,
    pub(crate) keep: Pair<S>,
}

impl<S: Simd> Numbers<S> {
    /// The same in all lanes.
    #[inline(always)]
    pub(crate) fn same(simd: S, substep: &OdeSubstep) -> Self {
        let number = |x: f32| Pair::splat(simd, x);
        let OdeSubstep { of_x_tau, of_x_t, zeta, keep } = *substep;
        Self { of_x: number(of_x_tau), of_start: number(of_x_t), zeta: number(zeta), keep: number(keep) }
    }
}
