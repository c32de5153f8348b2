//! Groups of threads that work on a row together, and what kernels over rows need of tensors.

use crate::kernel::gpu::{cubecl, empty};
use burn::backend::TensorMetadata;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

/// Threads that work on a row together, at the most.
const MOST_THREADS: usize = 256;

/// The sum of a value over the threads of a group, or the largest one; all must come here.
#[cube]
pub(super) fn over_group(
    value: f32,
    room: &mut Shared<[f32]>,
    #[comptime] threads: usize,
    #[comptime] largest: bool,
) -> f32 {
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
