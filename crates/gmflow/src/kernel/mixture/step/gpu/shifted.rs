//! Predicted mixtures with the shift that they are reweighted by, and the means of the reweighted ones: see the same file of the CPU.

use crate::kernel::gpu::sizes;
use crate::kernel::gpu::{LOWEST, input};
use crate::kernel::mixture::step::ops::GuidedMixtures;
use crate::kernel::mixture::step::types::{MIN_REST, SMALLEST_LENGTH, SMALLEST_VAR};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// What multiplies a shift to give nu, and zeta: see [`crate::kernel::mixture::step::cpu::tilt`].
#[cube]
pub(super) fn natural(var: f32, power: f32) -> (f32, f32) {
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
pub(super) fn own_natural(
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
pub(super) fn natural_of(
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
pub(super) fn tilted_mean(
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

/// Whether there is a shift.
pub(super) fn is_guided(shifted: &GuidedMixtures<CubeBackend>) -> bool {
    sizes::<1>(&shifted.shift)[0] > 0
}

/// The shift's buffer; without one, some other, which is not read.
pub(super) fn shift_of(shifted: &GuidedMixtures<CubeBackend>) -> BufferArg {
    input(if is_guided(shifted) { &shifted.shift } else { &shifted.mean })
}
