//! Loops over rows: activations, modulated layer norm, gates, softmax. What `rows.rs` and `softmax.rs` are on the CPU.
//!
//! Where a row is summed up a group of threads works on it together, otherwise one thread on an element. Sums run in f32.

use crate::kernel::gpu::{LOWEST, cubecl, empty, grid, input, output};
use crate::kernel::nn::rows::{GELU_CUBIC, GELU_SLOPE};
use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Beyond this the logistic is 0 or 1 in f32.
const FARTHEST: f32 = 87.0;
/// Threads that work on a row together, at the most.
const MOST_THREADS: usize = 256;

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

/// The sum of a value over the threads of a group, or the largest one; all must come here.
#[cube]
fn over_group(value: f32, room: &mut Shared<[f32]>, #[comptime] threads: usize, #[comptime] largest: bool) -> f32 {
    let unit = UNIT_POS as usize;
    room[unit] = value;
    sync_cube();
    let mut half = (threads / 2).runtime();
    while half > 0 {
        if unit < half {
            let other = room[unit + half];
            if comptime!(largest) {
                room[unit] = room[unit].max(other);
            } else {
                room[unit] += other;
            }
        }
        sync_cube();
        half /= 2;
    }
    let result = room[0];
    // The room may be used again once all have read.
    sync_cube();
    result
}

/// The sum of a value over the threads of a group, which all must come here.
#[cube]
pub(super) fn group_sum(value: f32, room: &mut Shared<[f32]>, #[comptime] threads: usize) -> f32 {
    over_group(value, room, threads, false)
}

/// Mean and reciprocal standard deviation of `count` values from `first` on.
#[cube]
pub(super) fn moments(
    x: &[f32],
    first: usize,
    count: usize,
    eps: f32,
    room: &mut Shared<[f32]>,
    #[comptime] threads: usize,
) -> (f32, f32) {
    let share = 1.0f32 / f32::cast_from(count as u32);
    let mut sum = 0.0f32.runtime();
    let mut i = UNIT_POS as usize;
    while i < count {
        sum += x[first + i];
        i += threads;
    }
    let mean = group_sum(sum, room, threads) * share;
    let mut squares = 0.0f32.runtime();
    let mut i = UNIT_POS as usize;
    while i < count {
        let offset = x[first + i] - mean;
        squares += offset * offset;
        i += threads;
    }
    let var = group_sum(squares, room, threads) * share;
    (mean, 1.0f32 / (var + eps).sqrt())
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

#[cube(launch_unchecked)]
fn modulate_kernel(
    x: &[f32],
    shift: &[f32],
    scale: &[f32],
    out: &mut [f32],
    rows: usize,
    n: usize,
    c: usize,
    eps: f32,
    #[comptime] threads: usize,
) {
    if CUBE_POS >= rows {
        terminate!();
    }
    let mut room = Shared::new_slice(threads);
    let first = CUBE_POS * c;
    let sample = CUBE_POS / n * c;
    let (mean, inv) = moments(x, first, c, eps, &mut room, threads);
    let mut i = UNIT_POS as usize;
    while i < c {
        out[first + i] = (x[first + i] - mean) * inv * (1.0f32 + scale[sample + i]) + shift[sample + i];
        i += threads;
    }
}

/// The gradient of x, and mean and reciprocal standard deviation of the rows, `[rows 2]`.
#[cube(launch_unchecked)]
fn modulate_grad_kernel(
    x: &[f32],
    scale: &[f32],
    grad: &[f32],
    dx: &mut [f32],
    stats: &mut [f32],
    rows: usize,
    n: usize,
    c: usize,
    eps: f32,
    #[comptime] threads: usize,
) {
    if CUBE_POS >= rows {
        terminate!();
    }
    let mut room = Shared::new_slice(threads);
    let first = CUBE_POS * c;
    let sample = CUBE_POS / n * c;
    let (mean, inv) = moments(x, first, c, eps, &mut room, threads);
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
    count: usize,
    n: usize,
    c: usize,
) {
    if ABSOLUTE_POS >= count {
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
fn gated_add_kernel(x: &[f32], y: &[f32], gate: &[f32], out: &mut [f32], count: usize, per_sample: usize, c: usize) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let gate = gate[ABSOLUTE_POS / per_sample * c + ABSOLUTE_POS % c];
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
    count: usize,
    n: usize,
    c: usize,
) {
    if ABSOLUTE_POS >= count {
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

/// Softmax of `scale` times each row of `c`, in place.
#[cube(launch_unchecked)]
fn softmax_kernel(x: &mut [f32], rows: usize, c: usize, scale: f32, #[comptime] threads: usize) {
    if CUBE_POS >= rows {
        terminate!();
    }
    let mut room = Shared::new_slice(threads);
    let first = CUBE_POS * c;
    let mut top = LOWEST.runtime();
    let mut i = UNIT_POS as usize;
    while i < c {
        top = top.max(x[first + i] * scale);
        i += threads;
    }
    let top = over_group(top, &mut room, threads, true);
    let mut sum = 0.0f32.runtime();
    let mut i = UNIT_POS as usize;
    while i < c {
        let share = (x[first + i] * scale - top).exp();
        x[first + i] = share;
        sum += share;
        i += threads;
    }
    let inverse = 1.0f32 / group_sum(sum, &mut room, threads);
    let mut i = UNIT_POS as usize;
    while i < c {
        x[first + i] *= inverse;
        i += threads;
    }
}

/// The gradient of what the softmax was taken of, from its result and, in place, from its gradient.
#[cube(launch_unchecked)]
fn softmax_grad_kernel(y: &[f32], grad: &mut [f32], rows: usize, c: usize, scale: f32, #[comptime] threads: usize) {
    if CUBE_POS >= rows {
        terminate!();
    }
    let mut room = Shared::new_slice(threads);
    let first = CUBE_POS * c;
    let mut sum = 0.0f32.runtime();
    let mut i = UNIT_POS as usize;
    while i < c {
        sum += y[first + i] * grad[first + i];
        i += threads;
    }
    let along = group_sum(sum, &mut room, threads);
    let mut i = UNIT_POS as usize;
    while i < c {
        let g = grad[first + i];
        grad[first + i] = y[first + i] * (g - along) * scale;
        i += threads;
    }
}

/// Log-softmax over the middle axis of `[outer k inner]`, a thread for each of the others' elements.
#[cube(launch_unchecked)]
fn log_softmax_kernel(x: &[f32], out: &mut [f32], count: usize, k: usize, inner: usize) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let first = ABSOLUTE_POS / inner * k * inner + ABSOLUTE_POS % inner;
    let mut top = LOWEST.runtime();
    for j in 0..k {
        top = top.max(x[first + j * inner]);
    }
    let mut sum = 0.0f32.runtime();
    for j in 0..k {
        sum += (x[first + j * inner] - top).exp();
    }
    let norm = top + sum.ln();
    for j in 0..k {
        out[first + j * inner] = x[first + j * inner] - norm;
    }
}

/// Its gradient from its result.
#[cube(launch_unchecked)]
fn log_softmax_grad_kernel(y: &[f32], grad: &[f32], out: &mut [f32], count: usize, k: usize, inner: usize) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let first = ABSOLUTE_POS / inner * k * inner + ABSOLUTE_POS % inner;
    let mut sum = 0.0f32.runtime();
    for j in 0..k {
        sum += grad[first + j * inner];
    }
    for j in 0..k {
        let at = first + j * inner;
        out[at] = grad[at] - y[at].exp() * sum;
    }
}

/// The number of values.
pub(super) fn count(x: &CubeTensor) -> usize {
    x.shape().num_elements()
}

/// A tensor for results of the same shape.
pub(super) fn empty_like(x: &CubeTensor) -> CubeTensor {
    empty(x, x.shape().to_vec())
}

/// A tensor of one layout that nothing else holds: the same where it is one.
pub(super) fn owned(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    if x.can_mut() { x } else { x.copy() }
}

/// The grid for a group of threads to each of `rows` rows of `width`, and the size of a group.
pub(super) fn row_grid(x: &CubeTensor, rows: usize, width: usize) -> (CubeCount, CubeDim, usize) {
    let threads = width.next_power_of_two().clamp(32, MOST_THREADS);
    let dim = CubeDim::new_1d(threads as u32);
    (calculate_cube_count_elemwise(&x.client, rows * threads, dim), dim, threads)
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
            rows,
            n,
            c,
            eps,
            threads,
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
            rows,
            n,
            c,
            eps,
            threads,
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
            count(scale),
            n,
            c,
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
            values,
            n * c,
            c,
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
            count(gate),
            n,
            c,
        );
    }
    [dy, dgate]
}

/// Softmax of `scale` times `x` over its last axis of `c`; `x` is written over where nothing else holds it.
pub(super) fn softmax(x: CubeTensor, c: usize, scale: f32) -> CubeTensor {
    let x = owned(x);
    let rows = count(&x) / c;
    let (cubes, dim, threads) = row_grid(&x, rows, c);
    // SAFETY: as above; nothing else holds the buffer.
    unsafe { softmax_kernel::launch_unchecked(&x.client, cubes, dim, output(&x), rows, c, scale, threads) };
    x
}

/// The gradient of [`softmax`]'s input from its result `y`; `grad` is written over where nothing else holds it.
pub(super) fn softmax_grad(y: &CubeTensor, grad: CubeTensor, c: usize, scale: f32) -> CubeTensor {
    let grad = owned(grad);
    let rows = count(&grad) / c;
    let (cubes, dim, threads) = row_grid(&grad, rows, c);
    // SAFETY: as above; nothing else holds the buffer.
    unsafe {
        softmax_grad_kernel::launch_unchecked(
            &grad.client,
            cubes,
            dim,
            input(y),
            output(&grad),
            rows,
            c,
            scale,
            threads,
        );
    }
    grad
}

/// Log-softmax over the middle axis of `[outer k inner]`.
pub(super) fn log_softmax(x: &CubeTensor, [k, inner]: [usize; 2]) -> CubeTensor {
    let (out, n) = (empty_like(x), count(x) / k);
    let (cubes, dim) = grid(x, n);
    // SAFETY: as above.
    unsafe { log_softmax_kernel::launch_unchecked(&x.client, cubes, dim, input(x), output(&out), n, k, inner) };
    out
}

/// Its gradient from its result.
pub(super) fn log_softmax_grad(y: &CubeTensor, grad: &CubeTensor, [k, inner]: [usize; 2]) -> CubeTensor {
    let (out, n) = (empty_like(y), count(y) / k);
    let (cubes, dim) = grid(y, n);
    // SAFETY: as above.
    unsafe {
        log_softmax_grad_kernel::launch_unchecked(
            &y.client,
            cubes,
            dim,
            input(y),
            input(grad),
            output(&out),
            n,
            k,
            inner,
        );
    }
    out
}
