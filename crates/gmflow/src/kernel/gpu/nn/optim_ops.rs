//! The optimiser's update and that of averages, a thread for a value: what `optim.rs` and `optim_ops.rs` are on the CPU.

use super::group::{count, owned};
use crate::kernel::gpu::{cubecl, grid, input, output};
use crate::kernel::nn::adamw::Update;
use crate::kernel::nn::optim_ops::OptimOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// [`Update`] as an argument.
#[derive(CubeType, CubeLaunch)]
struct UpdateArgs {
    keep: f32,
    rate: f32,
    root: f32,
    eps: f32,
    /// The decays of the moments, and 1 less each.
    beta1: f32,
    beta2: f32,
    gain1: f32,
    gain2: f32,
    grad_scale: f32,
}

#[cube(launch_unchecked)]
fn adamw_kernel(
    param: &mut [f32],
    exp_avg: &mut [f32],
    exp_avg_sq: &mut [f32],
    grad: &[f32],
    count: usize,
    update: UpdateArgs,
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let g = grad[ABSOLUTE_POS] * update.grad_scale;
    let m = update.beta1 * exp_avg[ABSOLUTE_POS] + update.gain1 * g;
    let v = update.beta2 * exp_avg_sq[ABSOLUTE_POS] + update.gain2 * g * g;
    exp_avg[ABSOLUTE_POS] = m;
    exp_avg_sq[ABSOLUTE_POS] = v;
    param[ABSOLUTE_POS] = param[ABSOLUTE_POS] * update.keep - update.rate * m / (v.sqrt() * update.root + update.eps);
}

#[cube(launch_unchecked)]
fn lerp_kernel(average: &mut [f32], values: &[f32], count: usize, share: f32) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let value = average[ABSOLUTE_POS];
    average[ABSOLUTE_POS] = value + share * (values[ABSOLUTE_POS] - value);
}

impl OptimOps for CubeBackend {
    fn adamw_update(
        param: CubeTensor,
        exp_avg: CubeTensor,
        exp_avg_sq: CubeTensor,
        grad: CubeTensor,
        update: Update,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [param, exp_avg, exp_avg_sq] = [param, exp_avg, exp_avg_sq].map(owned);
        let Update { keep, rate, root, eps, beta1, beta2, gain1, gain2, grad_scale } = update;
        let n = count(&param);
        let (cubes, dim) = grid(&param, n);
        // SAFETY: threads beyond the values end; nothing else holds the buffers that are changed.
        unsafe {
            adamw_kernel::launch_unchecked(
                &param.client,
                cubes,
                dim,
                output(&param),
                output(&exp_avg),
                output(&exp_avg_sq),
                input(&grad),
                n,
                UpdateArgsLaunch::new(keep, rate, root, eps, beta1, beta2, gain1, gain2, grad_scale),
            );
        }
        (param, exp_avg, exp_avg_sq)
    }

    fn lerp(average: CubeTensor, values: CubeTensor, share: f32) -> CubeTensor {
        let average = owned(average);
        let n = count(&average);
        let (cubes, dim) = grid(&average, n);
        // SAFETY: threads beyond the values end; nothing else holds the buffer that is changed.
        unsafe {
            lerp_kernel::launch_unchecked(&average.client, cubes, dim, output(&average), input(&values), n, share);
        }
        average
    }
}
