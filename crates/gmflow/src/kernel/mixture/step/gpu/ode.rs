//! The sub-steps of GM-ODE.

use super::shifted::{is_guided, natural_of, shift_of, tilted_mean};
use crate::kernel::gpu::{empty, grid, input, mixture_sizes, output, sizes};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::ops::GuidedMixtures;
use crate::kernel::mixture::step::types::OdeSubstep;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

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

/// The samples after all sub-steps.
pub(super) fn ode_substeps(
    mixture: GuidedMixtures<CubeBackend>,
    start: CubeTensor,
    x: CubeTensor,
    substeps: Vec<OdeSubstep>,
) -> CubeTensor {
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
