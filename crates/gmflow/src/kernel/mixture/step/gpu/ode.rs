//! The sub-steps of GM-ODE.

use super::guided::{Guided, centre, guided, natural_of, tilted_mean};
use crate::kernel::gpu::{empty, grid, input, output, sizes};
use crate::kernel::mixture::step::ops::GuidedMixtures;
use crate::kernel::mixture::step::types::OdeSubstep;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// Where sub-steps begin.
#[derive(CubeType, CubeLaunch)]
struct Begin {
    /// Where the mixtures were predicted `[b c n]`.
    start: Box<[f32]>,
    /// `[b c n]`.
    x: Box<[f32]>,
    /// Four numbers for each sub-step.
    substeps: Box<[f32]>,
    /// Sub-steps.
    count: usize,
}

/// The samples `[b c n]` after all sub-steps.
#[cube(launch_unchecked)]
fn ode_kernel(guided: &Guided, begin: &Begin, out: &mut [f32]) {
    let b = guided.predicted.mixtures.shape.b;
    let n = guided.predicted.mixtures.shape.n;
    let c = comptime!(guided.predicted.mixtures.shape.c);
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let mut nu = Array::<f32>::new(c);
    let mut x = Array::<f32>::new(c);
    let mut x0 = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        x[i] = begin.x[(sample * c + i) * n + pixel];
    }
    let centre = centre(guided);
    let (factor, precision) = natural_of(guided, &centre);
    for step in 0..begin.count {
        let of_x = begin.substeps[4 * step];
        let of_start = begin.substeps[4 * step + 1];
        let known = begin.substeps[4 * step + 2];
        let keep = begin.substeps[4 * step + 3];
        #[unroll]
        for i in 0..c {
            let at = (sample * c + i) * n + pixel;
            nu[i] = of_x * x[i] - of_start * begin.start[at] - known * guided.mean[at];
            if comptime!(guided.guided) {
                nu[i] += factor * guided.shift[at];
            }
        }
        tilted_mean(&guided.predicted, &centre, &nu, precision + known, &mut x0);
        #[unroll]
        for i in 0..c {
            let at = (sample * c + i) * n + pixel;
            x[i] = x[i] * keep + (x0[i] + guided.mean[at]) * (1.0f32 - keep);
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
    let [b, c, h, w] = sizes(&x);
    let count = substeps.len();
    let numbers: Vec<f32> = substeps.iter().flat_map(|s| [s.of_x_tau, s.of_x_t, s.zeta, s.keep]).collect();
    let numbers = CubeBackend::float_from_data(TensorData::new(numbers, [4 * count]), &x.device);
    let out = empty(&x, [b, c, h, w]);
    let (cubes, dim) = grid(&x, b * h * w);
    let begin = BeginLaunch::new(input(&start), input(&x), input(&numbers), count);
    // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
    unsafe {
        ode_kernel::launch_unchecked(&x.client, cubes, dim, guided(&mixture), begin, output(&out));
    }
    out
}
