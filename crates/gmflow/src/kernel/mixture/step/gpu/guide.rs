//! Guidance: the means of the mixtures over x0 and the shift that is asked for.

use super::guided::{Predicted, predicted};
use crate::kernel::gpu::args::{Shape, ShapeLaunch};
use crate::kernel::gpu::{empty, grid, input, mean_of, mixture_sizes, output, sizes};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::ops::GuidanceInputs;
use crate::kernel::mixture::step::types::ShiftRule;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// What [`guide_kernel`] finds.
#[derive(CubeType, CubeLaunch)]
struct Found {
    /// `[b c n]`.
    mean: Box<[f32]>,
    /// The conditional from the unconditional mean `[b c n]`.
    difference: Box<[f32]>,
    /// `[3 b n]`: variance, products of the axis with the difference and with itself.
    sums: Box<[f32]>,
}

/// Mean, difference and sums, from predictions at `x` `[b c n]`; with guidance those of the doubled batch [conditional, unconditional].
#[cube(launch_unchecked)]
fn guide_kernel(
    predicted: &Predicted,
    x: &[f32],
    mut found: Found,
    #[comptime] active: bool,
    #[comptime] extrapolate: bool,
) {
    let b = predicted.mixtures.shape.b;
    let n = predicted.mixtures.shape.n;
    let k = comptime!(predicted.mixtures.shape.k);
    let c = comptime!(predicted.mixtures.shape.c);
    let t = predicted.t;
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let mut u = Array::<f32>::new(c);
    let mut other = Array::<f32>::new(c);
    mean_velocity(predicted, sample, &mut u);
    let within = (predicted.mixtures.log_std[sample] * 2.0f32).exp();
    let mut var = 0.0f32.runtime();
    for j in 0..k {
        let mut spread = 0.0f32.runtime();
        #[unroll]
        for i in 0..c {
            let offset = predicted.mixtures.means[((sample * k + j) * c + i) * n + pixel] - u[i];
            spread += offset * offset;
        }
        let weight = predicted.mixtures.log_weights[(sample * k + j) * n + pixel].exp();
        var += (spread / f32::cast_from(c as u32) + within) * weight;
    }
    if comptime!(active) {
        mean_velocity(predicted, sample + b, &mut other);
    }
    let mut da = 0.0f32.runtime();
    let mut aa = 0.0f32.runtime();
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        let data = x[at] - u[i] * t;
        found.mean[at] = data;
        if comptime!(active) {
            let apart = (other[i] - u[i]) * t;
            let mut axis = data;
            if comptime!(extrapolate) {
                axis = u[i] * t;
            }
            da += apart * axis;
            aa += axis * axis;
            found.difference[at] = apart;
        }
    }
    found.sums[ABSOLUTE_POS] = var * t * t;
    found.sums[b * n + ABSOLUTE_POS] = da;
    found.sums[2 * b * n + ABSOLUTE_POS] = aa;
}

/// The mean velocity of a sample at the pixel that a thread is for.
#[cube]
fn mean_velocity(predicted: &Predicted, sample: usize, out: &mut Array<f32>) {
    let n = predicted.mixtures.shape.n;
    let k = comptime!(predicted.mixtures.shape.k);
    let c = comptime!(predicted.mixtures.shape.c);
    let pixel = ABSOLUTE_POS % n;
    #[unroll]
    for i in 0..c {
        out[i] = 0.0f32;
    }
    for j in 0..k {
        let weight = predicted.mixtures.log_weights[(sample * k + j) * n + pixel].exp();
        #[unroll]
        for i in 0..c {
            out[i] += predicted.mixtures.means[((sample * k + j) * c + i) * n + pixel] * weight;
        }
    }
}

/// The axis that a part of the shift is removed along.
#[derive(CubeType, CubeLaunch)]
struct Axis {
    /// `[3 b]`: the averages of what [`Found::sums`] holds.
    sums: Box<[f32]>,
    /// `[b c n]`.
    mean: Box<[f32]>,
    /// `[b c n]`.
    x: Box<[f32]>,
    /// The share that is removed.
    orthogonal: f32,
    shape: Shape,
    #[cube(comptime)]
    extrapolate: bool,
}

/// Takes the axis' part out of the difference in place, `[b c n]`; its squares `[b n]`.
#[cube(launch_unchecked)]
fn across_kernel(axis: &Axis, difference: &mut [f32], squares: &mut [f32]) {
    let b = axis.shape.b;
    let n = axis.shape.n;
    let c = comptime!(axis.shape.c);
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let aa = axis.sums[2 * b + sample];
    let mut along = 0.0f32.runtime();
    if aa > 0.0f32 {
        along = axis.orthogonal * axis.sums[b + sample] / aa;
    }
    let mut square = 0.0f32.runtime();
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        let mut direction = axis.mean[at];
        if comptime!(axis.extrapolate) {
            direction = axis.x[at] - axis.mean[at];
        }
        let rest = difference[at] - along * direction;
        difference[at] = rest;
        square += rest * rest;
    }
    squares[ABSOLUTE_POS] = square / f32::cast_from(c as u32);
}

/// How long the shift becomes.
#[derive(CubeType, CubeLaunch)]
struct Length {
    /// `[3 b]`, of which the variances are read.
    sums: Box<[f32]>,
    /// The mean squares of the directions `[b]`.
    squares: Box<[f32]>,
    /// w~, or w where guidance extrapolates.
    scale: f32,
    /// Samples, and values of each.
    b: usize,
    per_sample: usize,
    #[cube(comptime)]
    extrapolate: bool,
}

/// Scales the shift in place, `[b c n]`; the mean square of the result `[b]`.
#[cube(launch_unchecked)]
fn scale_kernel(length: &Length, shift: &mut [f32], power: &mut [f32]) {
    if ABSOLUTE_POS >= length.b * length.per_sample {
        terminate!();
    }
    let sample = ABSOLUTE_POS / length.per_sample;
    let square = length.squares[sample];
    let mut factor = 0.0f32.runtime();
    if comptime!(length.extrapolate) {
        factor = length.scale - 1.0f32;
    } else {
        if square > 0.0f32 {
            factor = length.scale * (length.sums[sample] / square).sqrt();
        }
    }
    shift[ABSOLUTE_POS] *= factor;
    if ABSOLUTE_POS % length.per_sample == 0 {
        power[sample] = square * factor * factor;
    }
}

/// Mean over x0, variance, shift and its mean square, and nothing.
pub(super) fn guide(
    inputs: GuidanceInputs<CubeBackend>,
) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
    let GuidanceInputs { velocity, x, rule, .. } = inputs;
    let (Sizes { k, c, n }, [b, _, h, w]) = (mixture_sizes(&velocity.means), sizes(&x));
    let (active, extrapolate) = (rule != ShiftRule::Off, matches!(rule, ShiftRule::Extrapolate { .. }));
    let mean = empty(&x, [b, c, h, w]);
    let shift = empty(&x, if active { [b, c, h, w] } else { [1; 4] });
    let sums = empty(&x, [3, b, n]);
    let (count, dim) = grid(&x, b * n);
    // SAFETY: threads beyond the pixels end, and all indices are within the shapes above.
    unsafe {
        guide_kernel::launch_unchecked(
            &x.client,
            count.clone(),
            dim,
            predicted(&velocity, b),
            input(&x),
            FoundLaunch::new(output(&mean), output(&shift), output(&sums)),
            active,
            extrapolate,
        );
    }
    let sums = mean_of(sums, 2); // [3 b 1]
    let var = CubeBackend::float_reshape(
        CubeBackend::float_slice(sums.clone(), &[(0..1).into(), (0..b).into(), (0..1).into()]),
        [b, 1, 1, 1].into(),
    );
    let (scale, orthogonal) = match rule {
        ShiftRule::Off => {
            let power = CubeBackend::float_zeros([b, 1, 1, 1].into(), &x.device, x.dtype.into());
            return (mean, var, empty(&x, [0; 4]), power, empty(&x, [0]));
        }
        ShiftRule::Probabilistic { scale, orthogonal } | ShiftRule::Extrapolate { scale, orthogonal } => {
            (scale, orthogonal)
        }
    };
    let squares = empty(&x, [b, n]);
    let shape = ShapeLaunch::new(b, n, k, c);
    let axis = AxisLaunch::new(input(&sums), input(&mean), input(&x), orthogonal, shape, extrapolate);
    // SAFETY: as above.
    unsafe {
        across_kernel::launch_unchecked(&x.client, count, dim, axis, output(&shift), output(&squares));
    }
    let (squares, power) = (mean_of(squares, 1), empty(&x, [b, 1, 1, 1]));
    let (count, dim) = grid(&x, b * c * n);
    let length = LengthLaunch::new(input(&sums), input(&squares), scale, b, c * n, extrapolate);
    // SAFETY: as above.
    unsafe {
        scale_kernel::launch_unchecked(&x.client, count, dim, length, output(&shift), output(&power));
    }
    (mean, var, shift, power, empty(&x, [0]))
}
