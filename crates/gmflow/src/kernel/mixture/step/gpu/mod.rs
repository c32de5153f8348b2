//! The passes of a solver's step: what `guide.rs` and `tilt.rs` are on the CPU, and the covariances of `transport.rs`.

use crate::kernel::gpu::{LOWEST, empty, grid, input, output, sizes};
use crate::kernel::mixture::nll::Sizes;
use crate::kernel::mixture::step::cpu::guide::ShiftRule;
use crate::kernel::mixture::step::cpu::tilt::{ChangeRule, MIN_REST, OdeSubstep, SMALLEST_LENGTH, SMALLEST_VAR};
use crate::kernel::mixture::step::ops::{Asked, Before, Shifted, StepOps, Velocity};
use crate::kernel::mixture::transport::cpu::Direction;
use crate::mixture::transport::Axes;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// What multiplies a shift to give nu, and zeta: see [`crate::kernel::mixture::step::cpu::tilt`].
#[cube]
fn natural(var: f32, power: f32) -> (f32, f32) {
    let var = var.max(1.2e-38f32);
    let share = power / var;
    let bounded = share.min(1.0f32 - MIN_REST);
    let rest = (1.0f32 - share).max(MIN_REST) * var;
    let mut shorten = 1.0f32;
    if bounded > 0.0f32 {
        shorten = (bounded / share).sqrt().min(1.0f32);
    }
    (shorten / rest, bounded / rest)
}

/// The same from the variance of a pixel's mixture along its shift.
#[cube]
fn own_natural(
    means: &[f32],
    log_weights: &[f32],
    shift: &[f32],
    means_at: usize,
    weights_at: usize,
    shift_at: usize,
    n: usize,
    minus_time: f32,
    from_mean: &Array<f32>,
    var: f32,
    #[comptime] k: usize,
    #[comptime] c: usize,
) -> (f32, f32) {
    let mut length = SMALLEST_LENGTH.runtime();
    #[unroll]
    for i in 0..c {
        length += shift[shift_at + i * n] * shift[shift_at + i * n];
    }
    let mut spread = 0.0f32.runtime();
    for j in 0..k {
        let mut product = 0.0f32.runtime();
        #[unroll]
        for i in 0..c {
            let offset = means[means_at + (j * c + i) * n] * minus_time + from_mean[i];
            product += offset * shift[shift_at + i * n];
        }
        spread += log_weights[weights_at + j * n].exp() * product * product;
    }
    let var = (spread / length + var).max(SMALLEST_VAR);
    let share = length / var;
    let bounded = share.min(1.0f32 - MIN_REST);
    let rest = (1.0f32 - share).max(MIN_REST) * var;
    ((bounded / share).sqrt() / rest, bounded / rest)
}

/// [`natural`] by sample or by pixel; without a shift nothing is multiplied and nothing is known.
#[cube]
fn natural_of(
    means: &[f32],
    log_weights: &[f32],
    shift: &[f32],
    var: &[f32],
    power: &[f32],
    sample: usize,
    pixel: usize,
    n: usize,
    minus_time: f32,
    from_mean: &Array<f32>,
    variance: f32,
    #[comptime] k: usize,
    #[comptime] c: usize,
    #[comptime] guided: bool,
    #[comptime] pixelwise: bool,
) -> (f32, f32) {
    let mut factor = 0.0f32.runtime();
    let mut zeta = 0.0f32.runtime();
    if comptime!(guided && pixelwise) {
        let (of_shift, precision) = own_natural(
            means,
            log_weights,
            shift,
            sample * (k * c) * n + pixel,
            sample * k * n + pixel,
            sample * c * n + pixel,
            n,
            minus_time,
            from_mean,
            variance,
            k,
            c,
        );
        factor = of_shift;
        zeta = precision;
    } else if comptime!(guided) {
        let (of_shift, precision) = natural(var[sample], power[sample]);
        factor = of_shift;
        zeta = precision;
    }
    (factor, zeta)
}

/// The mean, from the mixture's, of the mixture times exp(nu . y - zeta |y|^2 / 2), with y measured from the mixture's mean.
#[cube]
fn tilted_mean(
    means: &[f32],
    log_weights: &[f32],
    means_at: usize,
    weights_at: usize,
    n: usize,
    minus_time: f32,
    from_mean: &Array<f32>,
    var: f32,
    nu: &Array<f32>,
    zeta: f32,
    out: &mut Array<f32>,
    #[comptime] k: usize,
    #[comptime] c: usize,
) {
    let scale = 1.0f32 / (var * zeta + 1.0f32);
    let mut top = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    let mut component = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        out[i] = 0.0f32;
    }
    for j in 0..k {
        let mut gain = 0.0f32.runtime();
        let mut square = 0.0f32.runtime();
        #[unroll]
        for i in 0..c {
            let offset = means[means_at + (j * c + i) * n] * minus_time + from_mean[i];
            component[i] = offset;
            gain += offset * nu[i];
            square += offset * offset;
        }
        let value = (gain - 0.5f32 * zeta * square) * scale + log_weights[weights_at + j * n];
        let higher = value.max(top);
        let keep = (top - higher).exp();
        let share = (value - higher).exp();
        total = total * keep + share;
        #[unroll]
        for i in 0..c {
            out[i] = out[i] * keep + component[i] * share;
        }
        top = higher;
    }
    #[unroll]
    for i in 0..c {
        out[i] = (out[i] / total + var * nu[i]) * scale;
    }
}

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

/// The second-order change from `before`, alone or with the shift, `[b c n]`, and its square at every pixel `[b n]`.
#[cube(launch_unchecked)]
fn second_order_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    origin: &[f32],
    mean: &[f32],
    var: &[f32],
    shift: &[f32],
    power: &[f32],
    before: &[f32],
    out: &mut [f32],
    squares: &mut [f32],
    b: usize,
    n: usize,
    t: f32,
    gain: f32,
    noise_of_var: f32,
    noise_of_power: f32,
    #[comptime] k: usize,
    #[comptime] c: usize,
    #[comptime] guided: bool,
    #[comptime] pixelwise: bool,
    #[comptime] alone: bool,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let mut first = Array::<f32>::new(c);
    // The mean of the guided mixture now.
    if comptime!(guided) {
        let means_at = sample * (k * c) * n + pixel;
        let weights_at = sample * k * n + pixel;
        let mut from_mean = Array::<f32>::new(c);
        let mut nu = Array::<f32>::new(c);
        let variance = (log_std[sample] * 2.0f32).exp() * t * t;
        #[unroll]
        for i in 0..c {
            let at = (sample * c + i) * n + pixel;
            from_mean[i] = origin[at] - mean[at];
        }
        let (factor, zeta) = natural_of(
            means,
            log_weights,
            shift,
            var,
            power,
            sample,
            pixel,
            n,
            0.0f32 - t,
            &from_mean,
            variance,
            k,
            c,
            true,
            pixelwise,
        );
        #[unroll]
        for i in 0..c {
            nu[i] = factor * shift[(sample * c + i) * n + pixel];
        }
        tilted_mean(
            means,
            log_weights,
            means_at,
            weights_at,
            n,
            0.0f32 - t,
            &from_mean,
            variance,
            &nu,
            zeta,
            &mut first,
            k,
            c,
        );
    } else {
        #[unroll]
        for i in 0..c {
            first[i] = 0.0f32;
        }
    }
    let noise = noise_of_var * var[sample] + noise_of_power * power[sample];
    let keep = gain * (1.0f32 - noise).max(0.0f32).sqrt();
    let mut square = 0.0f32.runtime();
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        let mut value = (first[i] + mean[at] - before[at]) * keep;
        if comptime!(guided && !alone) {
            value += shift[at];
        }
        square += value * value;
        out[at] = value;
    }
    squares[ABSOLUTE_POS] = square / f32::cast_from(c as u32);
}

/// The samples `[b c n]` after all sub-steps, of which each has four numbers, from `from`, with mixtures that were predicted at `start`.
#[cube(launch_unchecked)]
fn ode_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    origin: &[f32],
    mean: &[f32],
    var: &[f32],
    shift: &[f32],
    power: &[f32],
    start: &[f32],
    from: &[f32],
    substeps: &[f32],
    out: &mut [f32],
    b: usize,
    n: usize,
    count: usize,
    t: f32,
    #[comptime] k: usize,
    #[comptime] c: usize,
    #[comptime] guided: bool,
    #[comptime] pixelwise: bool,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let means_at = sample * (k * c) * n + pixel;
    let weights_at = sample * k * n + pixel;
    let mut from_mean = Array::<f32>::new(c);
    let mut nu = Array::<f32>::new(c);
    let mut x = Array::<f32>::new(c);
    let mut x0 = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        from_mean[i] = origin[at] - mean[at];
        x[i] = from[at];
    }
    let variance = (log_std[sample] * 2.0f32).exp() * t * t;
    let (factor, precision) = natural_of(
        means,
        log_weights,
        shift,
        var,
        power,
        sample,
        pixel,
        n,
        0.0f32 - t,
        &from_mean,
        variance,
        k,
        c,
        guided,
        pixelwise,
    );
    for step in 0..count {
        let here = substeps[4 * step];
        let there = substeps[4 * step + 1];
        let known = substeps[4 * step + 2];
        let keep = substeps[4 * step + 3];
        #[unroll]
        for i in 0..c {
            let at = (sample * c + i) * n + pixel;
            nu[i] = here * x[i] - there * start[at] - known * mean[at];
            if comptime!(guided) {
                nu[i] += factor * shift[at];
            }
        }
        let zeta = precision + known;
        tilted_mean(
            means,
            log_weights,
            means_at,
            weights_at,
            n,
            0.0f32 - t,
            &from_mean,
            variance,
            &nu,
            zeta,
            &mut x0,
            k,
            c,
        );
        #[unroll]
        for i in 0..c {
            let at = (sample * c + i) * n + pixel;
            x[i] = x[i] * keep + (x0[i] + mean[at]) * (1.0f32 - keep);
        }
    }
    #[unroll]
    for i in 0..c {
        out[(sample * c + i) * n + pixel] = x[i];
    }
}

/// The reweighted mixtures over x0: `[b k c n]`, `[b k n]`, `[b]` or, by pixels, `[b n]`.
#[cube(launch_unchecked)]
fn reweight_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    origin: &[f32],
    mean: &[f32],
    var: &[f32],
    shift: &[f32],
    power: &[f32],
    out_means: &mut [f32],
    out_weights: &mut [f32],
    out_std: &mut [f32],
    b: usize,
    n: usize,
    t: f32,
    #[comptime] k: usize,
    #[comptime] c: usize,
    #[comptime] guided: bool,
    #[comptime] pixelwise: bool,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let means_at = sample * (k * c) * n + pixel;
    let weights_at = sample * k * n + pixel;
    let variance = (log_std[sample] * 2.0f32).exp() * t * t;
    let mut from_mean = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        from_mean[i] = origin[at] - mean[at];
    }
    let (factor, zeta) = natural_of(
        means,
        log_weights,
        shift,
        var,
        power,
        sample,
        pixel,
        n,
        0.0f32 - t,
        &from_mean,
        variance,
        k,
        c,
        guided,
        pixelwise,
    );
    let scale = 1.0f32 / (variance * zeta + 1.0f32);
    let mut top = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    for j in 0..k {
        let mut gain = 0.0f32.runtime();
        #[unroll]
        for i in 0..c {
            let at = (sample * c + i) * n + pixel;
            let at_mean = means_at + (j * c + i) * n;
            let offset = from_mean[i] - means[at_mean] * t;
            let mut nu = 0.0f32.runtime();
            if comptime!(guided) {
                nu = factor * shift[at];
            }
            gain += offset * (nu - 0.5f32 * zeta * offset);
            out_means[at_mean] = (offset + variance * nu) * scale + mean[at];
        }
        let value = gain * scale + log_weights[weights_at + j * n];
        out_weights[weights_at + j * n] = value;
        let higher = value.max(top);
        total = total * (top - higher).exp() + (value - higher).exp();
        top = higher;
    }
    let norm = top + total.ln();
    for j in 0..k {
        out_weights[weights_at + j * n] -= norm;
    }
    if comptime!(pixelwise) {
        out_std[ABSOLUTE_POS] = log_std[sample] + t.ln() - 0.5f32 * (variance * zeta + 1.0f32).ln();
    } else if pixel == 0 {
        out_std[sample] = log_std[sample] + t.ln() - 0.5f32 * (variance * zeta + 1.0f32).ln();
    }
}

/// The covariance at every pixel, `[b c c n]`.
#[cube(launch_unchecked)]
fn covariance_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    out: &mut [f32],
    b: usize,
    n: usize,
    #[comptime] k: usize,
    #[comptime] c: usize,
    #[comptime] per_pixel: bool,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let means_at = sample * (k * c) * n + pixel;
    let weights_at = sample * k * n + pixel;
    let mut mean = Array::<f32>::new(c);
    let mut sums = Array::<f32>::new(c * c);
    let mut std_at = sample;
    if comptime!(per_pixel) {
        std_at = ABSOLUTE_POS;
    }
    let within = (log_std[std_at] * 2.0f32).exp();
    #[unroll]
    for i in 0..c {
        mean[i] = 0.0f32;
        #[unroll]
        for j in 0..c {
            sums[i * c + j] = 0.0f32;
        }
        sums[i * c + i] = within;
    }
    for j in 0..k {
        let weight = log_weights[weights_at + j * n].exp();
        #[unroll]
        for i in 0..c {
            mean[i] += means[means_at + (j * c + i) * n] * weight;
        }
    }
    for component in 0..k {
        let weight = log_weights[weights_at + component * n].exp();
        #[unroll]
        for i in 0..c {
            let left = (means[means_at + (component * c + i) * n] - mean[i]) * weight;
            #[unroll]
            for j in 0..c {
                sums[i * c + j] += left * (means[means_at + (component * c + j) * n] - mean[j]);
            }
        }
    }
    #[unroll]
    for i in 0..c * c {
        out[(sample * (c * c) + i) * n + pixel] = sums[i];
    }
}

/// Components, channels and pixels of `[b k c h w]`.
fn mixture_sizes(means: &CubeTensor) -> Sizes {
    let [_, k, c, h, w] = sizes(means);
    Sizes { k, c, n: h * w }
}

/// Whether there is a standard deviation for each pixel, `[b 1 1 h w]`, and not one for each sample.
pub(crate) fn has_std_per_pixel(log_std: &CubeTensor) -> bool {
    let [_, _, _, h, w] = sizes(log_std);
    h * w > 1
}

/// The mean over the last axis.
fn mean_of(x: CubeTensor, axis: usize) -> CubeTensor {
    CubeBackend::float_mean_dim(x, axis)
}

/// Whether there is a shift.
fn is_guided(shifted: &Shifted<CubeBackend>) -> bool {
    sizes::<1>(&shifted.shift)[0] > 0
}

/// The shift's buffer; without one, some other, which is not read.
fn shift_of(shifted: &Shifted<CubeBackend>) -> BufferArg {
    input(if is_guided(shifted) { &shifted.shift } else { &shifted.mean })
}

impl StepOps for CubeBackend {
    fn step_guide(asked: Asked<Self>) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        let Asked { velocity: Velocity { means, log_weights, log_std, t }, x, rule } = asked;
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

    fn step_second_order(now: Shifted<Self>, before: CubeTensor, rule: ChangeRule) -> (CubeTensor, CubeTensor) {
        let (Sizes { k, c, n }, [b, _, h, w]) = (mixture_sizes(&now.velocity.means), sizes(&before));
        let (shift, squares) = (empty(&before, [b, c, h, w]), empty(&before, [b, n]));
        let (count, dim) = grid(&before, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            second_order_kernel::launch_unchecked(
                &before.client,
                count,
                dim,
                input(&now.velocity.means),
                input(&now.velocity.log_weights),
                input(&now.velocity.log_std),
                input(&now.origin),
                input(&now.mean),
                input(&now.var),
                shift_of(&now),
                input(&now.power),
                input(&before),
                output(&shift),
                output(&squares),
                b,
                n,
                now.velocity.t,
                rule.gain,
                rule.noise[0],
                rule.noise[1],
                k,
                c,
                is_guided(&now),
                now.pixelwise,
                rule.alone,
            );
        }
        let power = CubeBackend::float_reshape(mean_of(squares, 1), [b, 1, 1, 1].into());
        (shift, power)
    }

    fn step_ode(mixture: Shifted<Self>, start: CubeTensor, x: CubeTensor, substeps: Vec<OdeSubstep>) -> CubeTensor {
        let (Sizes { k, c, n }, [b, _, h, w]) = (mixture_sizes(&mixture.velocity.means), sizes(&x));
        let count = substeps.len();
        let numbers: Vec<f32> = substeps.iter().flat_map(|s| [s.here, s.there, s.zeta, s.keep]).collect();
        let numbers = CubeBackend::float_from_data(TensorData::new(numbers, [4 * count]), &x.device);
        let out = empty(&x, [b, c, h, w]);
        let (cubes, dim) = grid(&x, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            ode_kernel::launch_unchecked(
                &x.client,
                cubes,
                dim,
                input(&mixture.velocity.means),
                input(&mixture.velocity.log_weights),
                input(&mixture.velocity.log_std),
                input(&mixture.origin),
                input(&mixture.mean),
                input(&mixture.var),
                shift_of(&mixture),
                input(&mixture.power),
                input(&start),
                input(&x),
                input(&numbers),
                output(&out),
                b,
                n,
                count,
                mixture.velocity.t,
                k,
                c,
                is_guided(&mixture),
                mixture.pixelwise,
            );
        }
        out
    }

    fn step_at_once(
        asked: Asked<Self>,
        pixelwise: bool,
        before: Before<Self>,
        substeps: Vec<OdeSubstep>,
        ahead: Option<OdeSubstep>,
    ) -> (CubeTensor, CubeTensor) {
        let Asked { velocity, x, .. } = asked.clone();
        let (mean, var, shift, power, centred) = Self::step_guide(asked);
        let guided = Shifted { velocity, centred, origin: x.clone(), mean, var, shift, power, pixelwise };
        let mut now = guided.clone();
        if let Before::Step(mean, rule) = before {
            (now.shift, now.power) = Self::step_second_order(guided.clone(), mean, rule);
        }
        let end = Self::step_ode(now, x.clone(), x.clone(), substeps);
        let foreseen = match ahead {
            Some(substep) => Self::step_ode(guided, x, end.clone(), vec![substep]),
            None => empty(&x, [0; 4]),
        };
        (end, foreseen)
    }

    fn step_reweighted(mixture: Shifted<Self>) -> (CubeTensor, CubeTensor, CubeTensor) {
        let (Sizes { k, c, n }, [b, _, h, w]) = (mixture_sizes(&mixture.velocity.means), sizes(&mixture.mean));
        let like = &mixture.mean;
        let (means, log_weights) = (empty(like, [b, k, c, h, w]), empty(like, [b, k, 1, h, w]));
        let pixelwise = mixture.pixelwise && is_guided(&mixture);
        let log_std = empty(like, if pixelwise { [b, 1, 1, h, w] } else { [b, 1, 1, 1, 1] });
        let (count, dim) = grid(like, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            reweight_kernel::launch_unchecked(
                &like.client,
                count,
                dim,
                input(&mixture.velocity.means),
                input(&mixture.velocity.log_weights),
                input(&mixture.velocity.log_std),
                input(&mixture.origin),
                input(&mixture.mean),
                input(&mixture.var),
                shift_of(&mixture),
                input(&mixture.power),
                output(&means),
                output(&log_weights),
                output(&log_std),
                b,
                n,
                mixture.velocity.t,
                k,
                c,
                is_guided(&mixture),
                pixelwise,
            );
        }
        (means, log_weights, log_std)
    }

    fn step_covariances(means: CubeTensor, log_weights: CubeTensor, log_std: CubeTensor) -> CubeTensor {
        let (Sizes { k, c, n }, [b, ..]) = (mixture_sizes(&means), sizes::<5>(&means));
        let out = empty(&means, [b, c * c, n]);
        let (count, dim) = grid(&means, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            covariance_kernel::launch_unchecked(
                &means.client,
                count,
                dim,
                input(&means),
                input(&log_weights),
                input(&log_std),
                output(&out),
                b,
                n,
                k,
                c,
                has_std_per_pixel(&log_std),
            );
        }
        CubeBackend::float_reshape(mean_of(out, 2), [b, c, c].into())
    }

    fn step_transport(
        means: CubeTensor,
        log_weights: CubeTensor,
        log_std: CubeTensor,
        values: CubeTensor,
        bases: CubeTensor,
        axes: Axes,
        direction: Direction,
    ) -> CubeTensor {
        crate::kernel::mixture::transport::gpu::transport(
            [means, log_weights, log_std],
            values,
            bases,
            axes,
            direction,
        )
    }
}
