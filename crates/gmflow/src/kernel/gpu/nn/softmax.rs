//! Softmax and its gradient. Sums run in f32.

use super::group::{count, empty_like, group_sum, over_group, owned, row_grid};
use crate::kernel::gpu::{LOWEST, cubecl, grid, input, output};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

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

/// Softmax of `scale` times `x` over its last axis of `c`; `x` is written over where nothing else holds it.
pub(super) fn softmax(x: CubeTensor, c: usize, scale: f32) -> CubeTensor {
    let x = owned(x);
    let rows = count(&x) / c;
    let (cubes, dim, threads) = row_grid(&x, rows, c);
    // SAFETY: threads beyond the elements end, all indices are within the shapes; nothing else holds the buffer.
    unsafe { softmax_kernel::launch_unchecked(&x.client, cubes, dim, output(&x), rows, c, scale, threads) };
    x
}

/// The gradient of [`softmax`]'s input from its result `y`; `grad` is written over where nothing else holds it.
pub(super) fn softmax_grad(y: &CubeTensor, grad: CubeTensor, c: usize, scale: f32) -> CubeTensor {
    let grad = owned(grad);
    let rows = count(&grad) / c;
    let (cubes, dim, threads) = row_grid(&grad, rows, c);
    // SAFETY: threads beyond the elements end, all indices are within the shapes; nothing else holds the buffer.
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
    // SAFETY: threads beyond the elements end, and all indices are within the shapes.
    unsafe { log_softmax_kernel::launch_unchecked(&x.client, cubes, dim, input(x), output(&out), n, k, inner) };
    out
}

/// Its gradient from its result.
pub(super) fn log_softmax_grad(y: &CubeTensor, grad: &CubeTensor, [k, inner]: [usize; 2]) -> CubeTensor {
    let (out, n) = (empty_like(y), count(y) / k);
    let (cubes, dim) = grid(y, n);
    // SAFETY: threads beyond the elements end, and all indices are within the shapes.
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
