//! The reweighted mixtures themselves, for steps that draw from them.

use super::shifted::{is_guided, natural_of, shift_of};
use crate::kernel::gpu::{LOWEST, empty, grid, input, mixture_sizes, output, sizes};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::ops::GuidedMixtures;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

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

/// Means, log weights and log standard deviations.
pub(super) fn reweighted(mixture: GuidedMixtures<CubeBackend>) -> (CubeTensor, CubeTensor, CubeTensor) {
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
