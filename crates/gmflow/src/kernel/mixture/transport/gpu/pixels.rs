//! Mixtures of pixels, a thread for a pixel.

use super::line::{normal, normalise, quantile};
use crate::kernel::mixture::transport::types::FARTHEST;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// The mapped values `[b c n]`, and 1 at pixels that are beyond f32, `[b n]`.
#[cube(launch_unchecked)]
pub(super) fn transport_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    values: &[f32],
    bases: &[f32],
    out: &mut [f32],
    far: &mut [f32],
    b: usize,
    n: usize,
    #[comptime] k: usize,
    #[comptime] c: usize,
    #[comptime] from_normals: bool,
    #[comptime] along_basis: bool,
    #[comptime] per_pixel: bool,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let means_at = sample * (k * c) * n + pixel;
    let values_at = sample * c * n + pixel;
    let basis_at = sample * (c * c);
    let mut std_at = sample;
    if comptime!(per_pixel) {
        std_at = ABSOLUTE_POS;
    }
    let std = log_std[std_at].exp();
    let inverse = 1.0f32 / std;
    let mut of = Array::<f32>::new(k);
    let mut weights = Array::<f32>::new(k);
    let mut on_axis = Array::<f32>::new(k);
    let mut mean = Array::<f32>::new(c);
    let mut along = Array::<f32>::new(c);
    for j in 0..k {
        of[j] = log_weights[sample * k * n + pixel + j * n];
    }
    normalise(&of, &mut weights, k);
    #[unroll]
    for i in 0..c {
        mean[i] = 0.0f32;
    }
    for j in 0..k {
        #[unroll]
        for i in 0..c {
            mean[i] += means[means_at + (j * c + i) * n] * weights[j];
        }
    }
    #[unroll]
    for axis in 0..c {
        let mut sum = 0.0f32.runtime();
        if comptime!(from_normals && along_basis) {
            sum = values[values_at + axis * n];
        } else {
            #[unroll]
            for i in 0..c {
                let mut value = values[values_at + i * n];
                if comptime!(!from_normals) {
                    value = (value - mean[i]) * inverse;
                }
                sum += value * bases[basis_at + i * c + axis];
            }
        }
        along[axis] = sum;
    }
    let mut beyond = 0.0f32.runtime();
    #[unroll]
    for axis in 0..c {
        for j in 0..k {
            let mut sum = 0.0f32.runtime();
            #[unroll]
            for i in 0..c {
                sum += (means[means_at + (j * c + i) * n] - mean[i]) * bases[basis_at + i * c + axis];
            }
            on_axis[j] = sum * inverse;
        }
        let value = along[axis];
        let mut x = value;
        if comptime!(from_normals) {
            if value.abs() > FARTHEST {
                beyond = 1.0f32;
            }
            x = quantile(&on_axis, &weights, value, k);
            along[axis] = x;
        } else {
            let (result, lost) = normal(&on_axis, &weights, value, k);
            beyond = beyond.max(lost);
            along[axis] = result;
        }
        if comptime!(axis + 1 < c) {
            for j in 0..k {
                let u = x - on_axis[j];
                of[j] -= 0.5f32 * u * u;
            }
            normalise(&of, &mut weights, k);
        }
    }
    #[unroll]
    for i in 0..c {
        let mut sum = 0.0f32.runtime();
        #[unroll]
        for axis in 0..c {
            sum += along[axis] * bases[basis_at + i * c + axis];
        }
        if comptime!(from_normals) {
            sum = sum * std + mean[i];
        } else {
            if comptime!(along_basis) {
                sum = along[i];
            }
        }
        out[values_at + i * n] = sum;
    }
    far[ABSOLUTE_POS] = beyond;
}

/// The covariance at every pixel, `[b c c n]`.
#[cube(launch_unchecked)]
pub(super) fn covariance_kernel(
    means: &[f32],
    log_weights: &[f32],
    log_std: &[f32],
    out: &mut [f32],
    b: usize,
    n: usize,
    #[comptime] k: usize,
    #[comptime] c: usize,
    #[comptime] per_pixel: bool,
) {
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let means_at = sample * (k * c) * n + pixel;
    let weights_at = sample * k * n + pixel;
    let mut mean = Array::<f32>::new(c);
    let mut sums = Array::<f32>::new(c * c);
    let mut std_at = sample;
    if comptime!(per_pixel) {
        std_at = ABSOLUTE_POS;
    }
    let within = (log_std[std_at] * 2.0f32).exp();
    #[unroll]
    for i in 0..c {
        mean[i] = 0.0f32;
        #[unroll]
        for j in 0..c {
            sums[i * c + j] = 0.0f32;
        }
        sums[i * c + i] = within;
    }
    for j in 0..k {
        let weight = log_weights[weights_at + j * n].exp();
        #[unroll]
        for i in 0..c {
            mean[i] += means[means_at + (j * c + i) * n] * weight;
        }
    }
    for component in 0..k {
        let weight = log_weights[weights_at + component * n].exp();
        #[unroll]
        for i in 0..c {
            let left = (means[means_at + (component * c + i) * n] - mean[i]) * weight;
            #[unroll]
            for j in 0..c {
                sums[i * c + j] += left * (means[means_at + (component * c + j) * n] - mean[j]);
            }
        }
    }
    #[unroll]
    for i in 0..c * c {
        out[(sample * (c * c) + i) * n + pixel] = sums[i];
    }
}
