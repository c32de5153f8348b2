//! The negative log-likelihood of a mixture at every pixel, and its gradient: what `nll.rs` is on the CPU.

use crate::kernel::gpu::args::{Shape, ShapeLaunch};
use crate::kernel::gpu::{LOWEST, cubecl, empty, grid, input, output, sizes};
use crate::kernel::mixture::nll_ops::{MixtureGrads, MixtureOps};
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// Mixtures and the target whose likelihood is asked for.
#[derive(CubeType, CubeLaunch)]
struct Inputs {
    /// `[b k c n]`.
    means: Box<[f32]>,
    /// `[b k n]`.
    log_weights: Box<[f32]>,
    /// `[b]`.
    log_std: Box<[f32]>,
    /// `[b c n]`.
    target: Box<[f32]>,
    shape: Shape,
}

/// The squared distance of component `j` from the target, at the pixel that a thread is for.
#[cube]
fn square(inputs: &Inputs, j: usize) -> f32 {
    let n = inputs.shape.n;
    let k = comptime!(inputs.shape.k);
    let c = comptime!(inputs.shape.c);
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let mut sum = 0.0f32.runtime();
    #[unroll]
    for i in 0..c {
        let mean = inputs.means[((sample * k + j) * c + i) * n + pixel];
        let offset = mean - inputs.target[(sample * c + i) * n + pixel];
        sum += offset * offset;
    }
    sum
}

#[cube(launch_unchecked)]
fn nll_kernel(inputs: &Inputs, out: &mut [f32]) {
    let n = inputs.shape.n;
    let k = comptime!(inputs.shape.k);
    let c = comptime!(inputs.shape.c);
    if ABSOLUTE_POS >= inputs.shape.b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let precision = (inputs.log_std[sample] * (-2.0f32)).exp();
    let constant = inputs.log_std[sample] * f32::cast_from(c as u32);
    let mut top = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    for j in 0..k {
        let weight = inputs.log_weights[(sample * k + j) * n + pixel];
        let distance = square(inputs, j);
        let value = weight - 0.5f32 * precision * distance - constant;
        let higher = value.max(top);
        total = total * (top - higher).exp() + (value - higher).exp();
        top = higher;
    }
    out[ABSOLUTE_POS] = 0.0f32 - (top + total.ln());
}

/// Gradients in the shapes of the inputs, but that of the log standard deviation at every pixel `[b n]`.
#[derive(CubeType, CubeLaunch)]
struct Gradients {
    means: Box<[f32]>,
    log_weights: Box<[f32]>,
    log_std: Box<[f32]>,
    target: Box<[f32]>,
}

/// The gradients, from the result `nll` and its gradient.
#[cube(launch_unchecked)]
fn nll_grad_kernel(inputs: &Inputs, nll: &[f32], grad: &[f32], mut out: Gradients) {
    let n = inputs.shape.n;
    let k = comptime!(inputs.shape.k);
    let c = comptime!(inputs.shape.c);
    if ABSOLUTE_POS >= inputs.shape.b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let precision = (inputs.log_std[sample] * (-2.0f32)).exp();
    let channels = f32::cast_from(c as u32);
    let constant = inputs.log_std[sample] * channels;
    let scale = grad[ABSOLUTE_POS];
    let mut std_grad = channels * scale;
    let mut target_grad = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        target_grad[i] = 0.0f32;
    }
    for j in 0..k {
        let at_weight = (sample * k + j) * n + pixel;
        let distance = square(inputs, j);
        let joint = inputs.log_weights[at_weight] - 0.5f32 * precision * distance - constant;
        let share = (joint + nll[ABSOLUTE_POS]).exp() * scale;
        out.log_weights[at_weight] = 0.0f32 - share;
        let pull = share * precision;
        std_grad -= pull * distance;
        #[unroll]
        for i in 0..c {
            let at = ((sample * k + j) * c + i) * n + pixel;
            let value = pull * (inputs.means[at] - inputs.target[(sample * c + i) * n + pixel]);
            out.means[at] = value;
            target_grad[i] -= value;
        }
    }
    out.log_std[ABSOLUTE_POS] = std_grad;
    #[unroll]
    for i in 0..c {
        out.target[(sample * c + i) * n + pixel] = target_grad[i];
    }
}

/// The inputs as an argument.
fn arguments([means, log_weights, log_std, target]: [&CubeTensor; 4]) -> InputsLaunch {
    let ([_, k, _], [b, c, n]) = (sizes(log_weights), sizes(target));
    let shape = ShapeLaunch::new(b, n, k, c);
    InputsLaunch::new(input(means), input(log_weights), input(log_std), input(target), shape)
}

impl MixtureOps for CubeBackend {
    fn mixture_nll(
        means: CubeTensor,
        log_weights: CubeTensor,
        log_std: CubeTensor,
        target: CubeTensor,
    ) -> CubeTensor {
        let [b, _, n] = sizes(&target);
        let out = empty(&target, [b, n]);
        let inputs = arguments([&means, &log_weights, &log_std, &target]);
        let (count, dim) = grid(&target, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            nll_kernel::launch_unchecked(&target.client, count, dim, inputs, output(&out));
        }
        out
    }
}

impl MixtureGrads for CubeBackend {
    fn mixture_nll_grad(inputs: [CubeTensor; 4], result: CubeTensor, grad: CubeTensor) -> [CubeTensor; 4] {
        let [_, log_weights, _, target] = &inputs;
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
                arguments(inputs.each_ref()),
                input(&result),
                input(&grad),
                GradientsLaunch::new(output(&of_means), output(&of_weights), output(&of_std), output(&of_target)),
            );
        }
        [of_means, of_weights, CubeBackend::float_sum_dim(of_std, 1), of_target]
    }
}
