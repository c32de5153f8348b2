//! The negative log-likelihood of a mixture at every pixel, and its gradient: what `nll.rs` is on the CPU.

use crate::kernel::gpu::{LOWEST, cubecl, empty, grid, input, output, sizes};
use crate::kernel::mixture::nll_ops::{MixtureGrads, MixtureOps};
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// The squared distance of component `j` from the target.
#[cube]
fn square(
    means: &[f32],
    target: &[f32],
    sample: usize,
    pixel: usize,
    n: usize,
    j: usize,
    #[comptime] k: usize,
    #[comptime] c: usize,
) -> f32 {
    let mut sum = 0.0f32.runtime();
    #[unroll]
    for i in 0..c {
        let mean = means[((sample * k + j) * c + i) * n + pixel];
        let offset = mean - target[(sample * c + i) * n + pixel];
        sum += offset * offset;
    }
    sum
}

#[cube(launch_unchecked)]
fn nll_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    target: &[f32],
    out: &mut [f32],
    b: usize,
    n: usize,
    #[comptime] k: usize,
    #[comptime] c: usize,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let precision = (log_std[sample] * (-2.0f32)).exp();
    let constant = log_std[sample] * f32::cast_from(c as u32);
    let mut top = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    for j in 0..k {
        let weight = log_weights[(sample * k + j) * n + pixel];
        let distance = square(means, target, sample, pixel, n, j, k, c);
        let value = weight - 0.5f32 * precision * distance - constant;
        let higher = value.max(top);
        total = total * (top - higher).exp() + (value - higher).exp();
        top = higher;
    }
    out[ABSOLUTE_POS] = 0.0f32 - (top + total.ln());
}

/// The gradients of the inputs in their shapes, that of the log standard deviation at every pixel `[b n]`.
#[cube(launch_unchecked)]
fn nll_grad_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    target: &[f32],
    nll: &[f32],
    grad: &[f32],
    of_means: &mut [f32],
    of_weights: &mut [f32],
    of_std: &mut [f32],
    of_target: &mut [f32],
    b: usize,
    n: usize,
    #[comptime] k: usize,
    #[comptime] c: usize,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let precision = (log_std[sample] * (-2.0f32)).exp();
    let channels = f32::cast_from(c as u32);
    let constant = log_std[sample] * channels;
    let scale = grad[ABSOLUTE_POS];
    let mut std_grad = channels * scale;
    let mut target_grad = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        target_grad[i] = 0.0f32;
    }
    for j in 0..k {
        let at_weight = (sample * k + j) * n + pixel;
        let distance = square(means, target, sample, pixel, n, j, k, c);
        let joint = log_weights[at_weight] - 0.5f32 * precision * distance - constant;
        let share = (joint + nll[ABSOLUTE_POS]).exp() * scale;
        of_weights[at_weight] = 0.0f32 - share;
        let pull = share * precision;
        std_grad -= pull * distance;
        #[unroll]
        for i in 0..c {
            let at = ((sample * k + j) * c + i) * n + pixel;
            let value = pull * (means[at] - target[(sample * c + i) * n + pixel]);
            of_means[at] = value;
            target_grad[i] -= value;
        }
    }
    of_std[ABSOLUTE_POS] = std_grad;
    #[unroll]
    for i in 0..c {
        of_target[(sample * c + i) * n + pixel] = target_grad[i];
    }
}

impl MixtureOps for CubeBackend {
    fn mixture_nll(
        means: CubeTensor,
        log_weights: CubeTensor,
        log_std: CubeTensor,
        target: CubeTensor,
    ) -> CubeTensor {
        let ([_, k, _], [b, c, n]) = (sizes(&log_weights), sizes(&target));
        let out = empty(&target, [b, n]);
        let (count, dim) = grid(&target, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            nll_kernel::launch_unchecked(
                &target.client,
                count,
                dim,
                input(&means),
                input(&log_weights),
                input(&log_std),
                input(&target),
                output(&out),
                b,
                n,
                k,
                c,
            );
        }
        out
    }
}

impl MixtureGrads for CubeBackend {
    fn mixture_nll_grad(inputs: [CubeTensor; 4], result: CubeTensor, grad: CubeTensor) -> [CubeTensor; 4] {
        let [means, log_weights, log_std, target] = &inputs;
        let ([_, k, _], [b, c, n]) = (sizes(log_weights), sizes(target));
        let of_means = empty(target, [b, k * c, n]);
        let of_weights = empty(target, [b, k, n]);
        let (of_std, of_target) = (empty(target, [b, n]), empty(target, [b, c, n]));
        let (count, dim) = grid(target, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            nll_grad_kernel::launch_unchecked(
                &target.client,
                count,
                dim,
                input(means),
                input(log_weights),
                input(log_std),
                input(target),
                input(&result),
                input(&grad),
                output(&of_means),
                output(&of_weights),
                output(&of_std),
                output(&of_target),
                b,
                n,
                k,
                c,
            );
        }
        [of_means, of_weights, CubeBackend::float_sum_dim(of_std, 1), of_target]
    }
}
