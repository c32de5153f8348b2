//! Guidance: the means of the mixtures over x0 and the shift that is asked for.

use crate::kernel::gpu::{empty, grid, input, mean_of, mixture_sizes, output, sizes};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::ops::{GuidanceInputs, Velocity};
use crate::kernel::mixture::step::types::ShiftRule;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// Mean, difference of the conditional from the unconditional mean `[b c n]`, and `[3 b n]`: variance, products of the axis with the
/// difference and with itself.
#[cube(launch_unchecked)]
fn guide_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    x: &[f32],
    mean: &mut [f32],
    difference: &mut [f32],
    sums: &mut [f32],
    b: usize,
    n: usize,
    t: f32,
    #[comptime] k: usize,
    #[comptime] c: usize,
    #[comptime] active: bool,
    #[comptime] extrapolate: bool,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let mut u = Array::<f32>::new(c);
    let mut other = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        u[i] = 0.0f32;
        other[i] = 0.0f32;
    }
    let means_at = sample * (k * c) * n + pixel;
    let weights_at = sample * k * n + pixel;
    for j in 0..k {
        let weight = log_weights[weights_at + j * n].exp();
        #[unroll]
        for i in 0..c {
            u[i] += means[means_at + (j * c + i) * n] * weight;
        }
    }
    let within = (log_std[sample] * 2.0f32).exp();
    let mut var = 0.0f32.runtime();
    for j in 0..k {
        let mut spread = 0.0f32.runtime();
        #[unroll]
        for i in 0..c {
            let offset = means[means_at + (j * c + i) * n] - u[i];
            spread += offset * offset;
        }
        var += (spread / f32::cast_from(c as u32) + within) * log_weights[weights_at + j * n].exp();
    }
    if comptime!(active) {
        let means_at = (sample + b) * (k * c) * n + pixel;
        let weights_at = (sample + b) * k * n + pixel;
        for j in 0..k {
            let weight = log_weights[weights_at + j * n].exp();
            #[unroll]
            for i in 0..c {
                other[i] += means[means_at + (j * c + i) * n] * weight;
            }
        }
    }
    let mut da = 0.0f32.runtime();
    let mut aa = 0.0f32.runtime();
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        let data = x[at] - u[i] * t;
        mean[at] = data;
        if comptime!(active) {
            let apart = (other[i] - u[i]) * t;
            let mut axis = data;
            if comptime!(extrapolate) {
                axis = u[i] * t;
            }
            da += apart * axis;
            aa += axis * axis;
            difference[at] = apart;
        }
    }
    sums[ABSOLUTE_POS] = var * t * t;
    sums[b * n + ABSOLUTE_POS] = da;
    sums[2 * b * n + ABSOLUTE_POS] = aa;
}

/// Takes the axis' part out of the difference in place, `[b c n]`; its squares `[b n]`. `sums` `[3 b]` are averages.
#[cube(launch_unchecked)]
fn across_kernel(
    sums: &[f32],
    mean: &[f32],
    x: &[f32],
    difference: &mut [f32],
    squares: &mut [f32],
    b: usize,
    n: usize,
    orthogonal: f32,
    #[comptime] c: usize,
    #[comptime] extrapolate: bool,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let aa = sums[2 * b + sample];
    let mut along = 0.0f32.runtime();
    if aa > 0.0f32 {
        along = orthogonal * sums[b + sample] / aa;
    }
    let mut square = 0.0f32.runtime();
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        let mut axis = mean[at];
        if comptime!(extrapolate) {
            axis = x[at] - mean[at];
        }
        let rest = difference[at] - along * axis;
        difference[at] = rest;
        square += rest * rest;
    }
    squares[ABSOLUTE_POS] = square / f32::cast_from(c as u32);
}

/// Scales the shift in place, `[b c n]`; the mean square of the result `[b]`.
#[cube(launch_unchecked)]
fn scale_kernel(
    sums: &[f32],
    squares: &[f32],
    shift: &mut [f32],
    power: &mut [f32],
    b: usize,
    per_sample: usize,
    scale: f32,
    #[comptime] extrapolate: bool,
) {
    if ABSOLUTE_POS >= b * per_sample {
        terminate!();
    }
    let sample = ABSOLUTE_POS / per_sample;
    let square = squares[sample];
    let mut factor = 0.0f32.runtime();
    if comptime!(extrapolate) {
        factor = scale - 1.0f32;
    } else {
        if square > 0.0f32 {
            factor = scale * (sums[sample] / square).sqrt();
        }
    }
    shift[ABSOLUTE_POS] *= factor;
    if ABSOLUTE_POS % per_sample == 0 {
        power[sample] = square * factor * factor;
    }
}

/// Mean over x0, variance, shift and its mean square, and nothing.
pub(super) fn guide(
    inputs: GuidanceInputs<CubeBackend>,
) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
    let GuidanceInputs { velocity: Velocity { means, log_weights, log_std, t }, x, rule, .. } = inputs;
    let (Sizes { k, c, n }, [b, _, h, w]) = (mixture_sizes(&means), sizes(&x));
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
            input(&means),
            input(&log_weights),
            input(&log_std),
            input(&x),
            output(&mean),
            output(&shift),
            output(&sums),
            b,
            n,
            t,
            k,
            c,
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
    // SAFETY: as above.
    unsafe {
        across_kernel::launch_unchecked(
            &x.client,
            count,
            dim,
            input(&sums),
            input(&mean),
            input(&x),
            output(&shift),
            output(&squares),
            b,
            n,
            orthogonal,
            c,
            extrapolate,
        );
    }
    let (squares, power) = (mean_of(squares, 1), empty(&x, [b, 1, 1, 1]));
    let (count, dim) = grid(&x, b * c * n);
    // SAFETY: as above.
    unsafe {
        scale_kernel::launch_unchecked(
            &x.client,
            count,
            dim,
            input(&sums),
            input(&squares),
            output(&shift),
            output(&power),
            b,
            c * n,
            scale,
            extrapolate,
        );
    }
    (mean, var, shift, power, empty(&x, [0]))
}
