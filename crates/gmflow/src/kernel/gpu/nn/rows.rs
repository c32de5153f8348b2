//! Loops over rows: activations, modulated layer norm and gates.
//!
//! Where a row is summed up a group of threads works on it together, otherwise one thread on an element. Sums run in f32.

use super::group::{count, empty_like, group_sum, moments, row_grid};
use crate::kernel::gpu::{cubecl, empty, grid, input, output};
use crate::kernel::nn::rows::{GELU_CUBIC, GELU_SLOPE};
use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// Beyond this the logistic is 0 or 1 in f32.
const FARTHEST: f32 = 87.0;

/// The logistic of x.
#[cube]
pub(super) fn sigmoid(x: f32) -> f32 {
    let depth = (0.0f32 - x).max(-FARTHEST).min(FARTHEST);
    1.0f32 / (1.0f32 + depth.exp())
}

/// What the logistic is taken of that x is multiplied by: x itself for SiLU.
#[cube]
fn logit(x: f32, #[comptime] gelu: bool) -> f32 {
    if comptime!(gelu) { GELU_SLOPE * (x + GELU_CUBIC * x * x * x) } else { x * 1.0f32 }
}

/// SiLU, or the tanh approximation of GELU.
#[cube]
pub(super) fn activation(x: f32, #[comptime] gelu: bool) -> f32 {
    x * sigmoid(logit(x, gelu))
}

/// The slope of the same.
#[cube]
pub(super) fn activation_slope(x: f32, #[comptime] gelu: bool) -> f32 {
    let s = sigmoid(logit(x, gelu));
    let mut steep = 1.0f32.runtime();
    if comptime!(gelu) {
        steep = GELU_SLOPE * (1.0f32 + 3.0f32 * GELU_CUBIC * x * x);
    }
    s + x * s * (1.0f32 - s) * steep
}

#[cube(launch_unchecked)]
fn activation_kernel(x: &[f32], out: &mut [f32], count: usize, #[comptime] gelu: bool) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    out[ABSOLUTE_POS] = activation(x[ABSOLUTE_POS], gelu);
}

#[cube(launch_unchecked)]
fn activation_grad_kernel(x: &[f32], grad: &[f32], out: &mut [f32], count: usize, #[comptime] gelu: bool) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    out[ABSOLUTE_POS] = grad[ABSOLUTE_POS] * activation_slope(x[ABSOLUTE_POS], gelu);
}

/// y + bias over rows of `c`, into f32.
#[cube(launch_unchecked)]
fn bias_kernel<E: Float>(
    y: &[E],
    bias: &[f32],
    out: &mut [f32],
    count: usize,
    c: usize,
    #[define(E)] _dtype: ElemType,
) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    out[ABSOLUTE_POS] = f32::cast_from(y[ABSOLUTE_POS]) + bias[ABSOLUTE_POS % c];
}

/// Rows for a group of threads each.
#[derive(CubeType, CubeLaunch)]
struct Rows {
    count: usize,
    /// Rows of a sample.
    n: usize,
    /// Values of a row.
    c: usize,
    /// Added to the variance.
    eps: f32,
    #[cube(comptime)]
    threads: usize,
}

/// Samples of rows, a thread for a channel of a sample.
#[derive(CubeType, CubeLaunch)]
struct Channels {
    /// Channels of all samples.
    count: usize,
    /// Rows of a sample.
    n: usize,
    /// Channels of a sample.
    c: usize,
}

#[cube(launch_unchecked)]
fn modulate_kernel(x: &[f32], shift: &[f32], scale: &[f32], out: &mut [f32], rows: Rows) {
    let c = rows.c;
    let threads = comptime!(rows.threads);
    if CUBE_POS >= rows.count {
        terminate!();
    }
    let mut room = Shared::new_slice(threads);
    let first = CUBE_POS * c;
    let sample = CUBE_POS / rows.n * c;
    let (mean, inv) = moments(x, first, c, rows.eps, &mut room, threads);
    let mut i = UNIT_POS as usize;
    while i < c {
        out[first + i] = (x[first + i] - mean) * inv * (1.0f32 + scale[sample + i]) + shift[sample + i];
        i += threads;
    }
}

/// The gradient of x, and mean and reciprocal standard deviation of the rows, `[rows 2]`.
#[cube(launch_unchecked)]
fn modulate_grad_kernel(x: &[f32], scale: &[f32], grad: &[f32], dx: &mut [f32], stats: &mut [f32], rows: Rows) {
    let c = rows.c;
    let threads = comptime!(rows.threads);
    if CUBE_POS >= rows.count {
        terminate!();
    }
    let mut room = Shared::new_slice(threads);
    let first = CUBE_POS * c;
    let sample = CUBE_POS / rows.n * c;
    let (mean, inv) = moments(x, first, c, rows.eps, &mut room, threads);
    let mut sum = 0.0f32.runtime();
    let mut along = 0.0f32.runtime();
    let mut i = UNIT_POS as usize;
    while i < c {
        let g = grad[first + i] * (1.0f32 + scale[sample + i]);
        sum += g;
        along += g * (x[first + i] - mean) * inv;
        i += threads;
    }
    let share = 1.0f32 / f32::cast_from(c as u32);
    let mean_g = group_sum(sum, &mut room, threads) * share;
    let mean_gx = group_sum(along, &mut room, threads) * share;
    let mut i = UNIT_POS as usize;
    while i < c {
        let normal = (x[first + i] - mean) * inv;
        dx[first + i] = inv * (grad[first + i] * (1.0f32 + scale[sample + i]) - mean_g - normal * mean_gx);
        i += threads;
    }
    if UNIT_POS == 0 {
        stats[2 * CUBE_POS] = mean;
        stats[2 * CUBE_POS + 1] = inv;
    }
}

/// The gradients of shift and scale, a thread for a channel of a sample.
#[cube(launch_unchecked)]
fn modulate_sample_grad_kernel(
    x: &[f32],
    grad: &[f32],
    stats: &[f32],
    dshift: &mut [f32],
    dscale: &mut [f32],
    channels: Channels,
) {
    let n = channels.n;
    let c = channels.c;
    if ABSOLUTE_POS >= channels.count {
        terminate!();
    }
    let first = ABSOLUTE_POS / c * n;
    let channel = ABSOLUTE_POS % c;
    let mut shift = 0.0f32.runtime();
    let mut scale = 0.0f32.runtime();
    for i in 0..n {
        let row = first + i;
        let g = grad[row * c + channel];
        shift += g;
        scale += g * (x[row * c + channel] - stats[2 * row]) * stats[2 * row + 1];
    }
    dshift[ABSOLUTE_POS] = shift;
    dscale[ABSOLUTE_POS] = scale;
}

#[cube(launch_unchecked)]
fn gated_add_kernel(x: &[f32], y: &[f32], gate: &[f32], out: &mut [f32], channels: Channels) {
    if ABSOLUTE_POS >= channels.count * channels.n {
        terminate!();
    }
    let gate = gate[ABSOLUTE_POS / (channels.n * channels.c) * channels.c + ABSOLUTE_POS % channels.c];
    out[ABSOLUTE_POS] = x[ABSOLUTE_POS] + gate * y[ABSOLUTE_POS];
}

/// The gradients of y and gate, a thread for a channel of a sample.
#[cube(launch_unchecked)]
fn gated_add_grad_kernel(
    y: &[f32],
    gate: &[f32],
    grad: &[f32],
    dy: &mut [f32],
    dgate: &mut [f32],
    channels: Channels,
) {
    let n = channels.n;
    let c = channels.c;
    if ABSOLUTE_POS >= channels.count {
        terminate!();
    }
    let first = ABSOLUTE_POS / c * n * c + ABSOLUTE_POS % c;
    let factor = gate[ABSOLUTE_POS];
    let mut sum = 0.0f32.runtime();
    for i in 0..n {
        let at = first + i * c;
        let g = grad[at];
        dy[at] = factor * g;
        sum += y[at] * g;
    }
    dgate[ABSOLUTE_POS] = sum;
}

/// SiLU or GELU of every element.
pub(super) fn activate(x: &CubeTensor, gelu: bool) -> CubeTensor {
    let (out, n) = (empty_like(x), count(x));
    let (cubes, dim) = grid(x, n);
    // SAFETY: here and below, threads beyond the elements end, and all indices are within the shapes.
    unsafe { activation_kernel::launch_unchecked(&x.client, cubes, dim, input(x), output(&out), n, gelu) };
    out
}

/// Its gradient.
pub(super) fn activate_grad(x: &CubeTensor, grad: &CubeTensor, gelu: bool) -> CubeTensor {
    let (out, n) = (empty_like(x), count(x));
    let (cubes, dim) = grid(x, n);
    // SAFETY: as above.
    unsafe {
        activation_grad_kernel::launch_unchecked(&x.client, cubes, dim, input(x), input(grad), output(&out), n, gelu);
    }
    out
}

/// `y` `[rows c]` in any type of floats plus `bias` `[c]`, in f32.
pub(super) fn add_bias(y: &CubeTensor, bias: &CubeTensor) -> CubeTensor {
    let (out, n) = (empty(bias, y.shape().to_vec()), count(y));
    let (cubes, dim) = grid(y, n);
    // SAFETY: as above.
    unsafe {
        bias_kernel::launch_unchecked(
            &y.client,
            cubes,
            dim,
            input(y),
            input(bias),
            output(&out),
            n,
            count(bias),
            dtype_to_storage_type(y.dtype),
        );
    }
    out
}

/// LayerNorm, scale and shift of `x` `[b*n c]`.
pub(super) fn modulate(
    x: &CubeTensor,
    shift: &CubeTensor,
    scale: &CubeTensor,
    [n, c]: [usize; 2],
    eps: f32,
) -> CubeTensor {
    let (out, rows) = (empty_like(x), count(x) / c);
    let (cubes, dim, threads) = row_grid(x, rows, c);
    let inputs = [input(x), input(shift), input(scale)];
    let [x_in, shift, scale] = inputs;
    // SAFETY: as above.
    unsafe {
        modulate_kernel::launch_unchecked(
            &x.client,
            cubes,
            dim,
            x_in,
            shift,
            scale,
            output(&out),
            RowsLaunch::new(rows, n, c, eps, threads),
        );
    }
    out
}

/// The gradients of x, shift and scale.
pub(super) fn modulate_grad(
    x: &CubeTensor,
    scale: &CubeTensor,
    grad: &CubeTensor,
    [n, c]: [usize; 2],
    eps: f32,
) -> [CubeTensor; 3] {
    let rows = count(x) / c;
    let (dx, stats) = (empty_like(x), empty(x, [rows, 2]));
    let (dshift, dscale) = (empty_like(scale), empty_like(scale));
    let (cubes, dim, threads) = row_grid(x, rows, c);
    let (per_sample, per_sample_dim) = grid(x, count(scale));
    // SAFETY: as above.
    unsafe {
        modulate_grad_kernel::launch_unchecked(
            &x.client,
            cubes,
            dim,
            input(x),
            input(scale),
            input(grad),
            output(&dx),
            output(&stats),
            RowsLaunch::new(rows, n, c, eps, threads),
        );
        modulate_sample_grad_kernel::launch_unchecked(
            &x.client,
            per_sample,
            per_sample_dim,
            input(x),
            input(grad),
            input(&stats),
            output(&dshift),
            output(&dscale),
            ChannelsLaunch::new(count(scale), n, c),
        );
    }
    [dx, dshift, dscale]
}

/// x + gate y.
pub(super) fn gated_add(x: &CubeTensor, y: &CubeTensor, gate: &CubeTensor, [n, c]: [usize; 2]) -> CubeTensor {
    let (out, values) = (empty_like(x), count(x));
    let (cubes, dim) = grid(x, values);
    // SAFETY: as above.
    unsafe {
        gated_add_kernel::launch_unchecked(
            &x.client,
            cubes,
            dim,
            input(x),
            input(y),
            input(gate),
            output(&out),
            ChannelsLaunch::new(count(gate), n, c),
        );
    }
    out
}

/// The gradients of y and gate.
pub(super) fn gated_add_grad(
    y: &CubeTensor,
    gate: &CubeTensor,
    grad: &CubeTensor,
    [n, c]: [usize; 2],
) -> [CubeTensor; 2] {
    let (dy, dgate) = (empty_like(y), empty_like(gate));
    let (cubes, dim) = grid(y, count(gate));
    // SAFETY: as above.
    unsafe {
        gated_add_grad_kernel::launch_unchecked(
            &y.client,
            cubes,
            dim,
            input(y),
            input(gate),
            input(grad),
            output(&dy),
            output(&dgate),
            ChannelsLaunch::new(count(gate), n, c),
        );
    }
    [dy, dgate]
}
