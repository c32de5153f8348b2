//! The second-order change.

use super::shifted::{is_guided, natural_of, shift_of, tilted_mean};
use crate::kernel::gpu::{empty, grid, input, mean_of, mixture_sizes, output, sizes};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::ops::GuidedMixtures;
use crate::kernel::mixture::step::types::SecondOrderRule;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// The second-order change from `previous_mean`, alone or with the shift, `[b c n]`, and its square at every pixel `[b n]`.
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
    previous_mean: &[f32],
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
    #[comptime] translate: bool,
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
        let mut value = (first[i] + mean[at] - previous_mean[at]) * keep;
        if comptime!(guided && !translate) {
            value += shift[at];
        }
        square += value * value;
        out[at] = value;
    }
    squares[ABSOLUTE_POS] = square / f32::cast_from(c as u32);
}

/// The change and its mean square.
pub(super) fn second_order(
    now: GuidedMixtures<CubeBackend>,
    previous_mean: CubeTensor,
    rule: SecondOrderRule,
) -> (CubeTensor, CubeTensor) {
    let (Sizes { k, c, n }, [b, _, h, w]) = (mixture_sizes(&now.velocity.means), sizes(&previous_mean));
    let (shift, squares) = (empty(&previous_mean, [b, c, h, w]), empty(&previous_mean, [b, n]));
    let (count, dim) = grid(&previous_mean, b * n);
    // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
    unsafe {
        second_order_kernel::launch_unchecked(
            &previous_mean.client,
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
            input(&previous_mean),
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
            rule.translate,
        );
    }
    let power = CubeBackend::float_reshape(mean_of(squares, 1), [b, 1, 1, 1].into());
    (shift, power)
}
