//! Mixtures of pixels, a thread for a pixel.

use super::line::{normal, normalise, quantile};
use crate::kernel::gpu::args::Mixtures;
use crate::kernel::mixture::transport::types::FARTHEST;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// What is mapped.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Way {
    /// `[b c n]`.
    values: Box<[f32]>,
    /// `[b c c]`, one vector per column.
    bases: Box<[f32]>,
    /// Whether normals become draws, and not points normals.
    #[cube(comptime)]
    from_normals: bool,
    /// Whether normals are measured along the basis, and not along the channels.
    #[cube(comptime)]
    along_basis: bool,
}

/// The mapped values `[b c n]`, and 1 at pixels that are beyond f32, `[b n]`.
#[cube(launch_unchecked)]
pub(super) fn transport_kernel(mixtures: &Mixtures, way: &Way, out: &mut [f32], far: &mut [f32]) {
    let b = mixtures.shape.b;
    let n = mixtures.shape.n;
    let k = comptime!(mixtures.shape.k);
    let c = comptime!(mixtures.shape.c);
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let means_at = sample * (k * c) * n + pixel;
    let values_at = sample * c * n + pixel;
    let basis_at = sample * (c * c);
    let mut std_at = sample;
    if comptime!(mixtures.std_per_pixel) {
        std_at = ABSOLUTE_POS;
    }
    let std = mixtures.log_std[std_at].exp();
    let inverse = 1.0f32 / std;
    let mut of = Array::<f32>::new(k);
    let mut weights = Array::<f32>::new(k);
    let mut on_axis = Array::<f32>::new(k);
    let mut mean = Array::<f32>::new(c);
    let mut along = Array::<f32>::new(c);
    for j in 0..k {
        of[j] = mixtures.log_weights[sample * k * n + pixel + j * n];
    }
    normalise(&of, &mut weights, k);
    #[unroll]
    for i in 0..c {
        mean[i] = 0.0f32;
    }
    for j in 0..k {
        #[unroll]
        for i in 0..c {
            mean[i] += mixtures.means[means_at + (j * c + i) * n] * weights[j];
        }
    }
    #[unroll]
    for axis in 0..c {
        let mut sum = 0.0f32.runtime();
        if comptime!(way.from_normals && way.along_basis) {
            sum = way.values[values_at + axis * n];
        } else {
            #[unroll]
            for i in 0..c {
                let mut value = way.values[values_at + i * n];
                if comptime!(!way.from_normals) {
                    value = (value - mean[i]) * inverse;
                }
                sum += value * way.bases[basis_at + i * c + axis];
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
                sum += (mixtures.means[means_at + (j * c + i) * n] - mean[i]) * way.bases[basis_at + i * c + axis];
            }
            on_axis[j] = sum * inverse;
        }
        let value = along[axis];
        let mut x = value;
        if comptime!(way.from_normals) {
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
            sum += along[axis] * way.bases[basis_at + i * c + axis];
        }
        if comptime!(way.from_normals) {
            sum = sum * std + mean[i];
        } else {
            if comptime!(way.along_basis) {
                sum = along[i];
            }
        }
        out[values_at + i * n] = sum;
    }
    far[ABSOLUTE_POS] = beyond;
}

/// The covariance at every pixel, `[b c c n]`.
#[cube(launch_unchecked)]
pub(super) fn covariance_kernel(mixtures: &Mixtures, out: &mut [f32]) {
    let b = mixtures.shape.b;
    let n = mixtures.shape.n;
    let k = comptime!(mixtures.shape.k);
    let c = comptime!(mixtures.shape.c);
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
    if comptime!(mixtures.std_per_pixel) {
        std_at = ABSOLUTE_POS;
    }
    let within = (mixtures.log_std[std_at] * 2.0f32).exp();
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
        let weight = mixtures.log_weights[weights_at + j * n].exp();
        #[unroll]
        for i in 0..c {
            mean[i] += mixtures.means[means_at + (j * c + i) * n] * weight;
        }
    }
    for component in 0..k {
        let weight = mixtures.log_weights[weights_at + component * n].exp();
        #[unroll]
        for i in 0..c {
            let left = (mixtures.means[means_at + (component * c + i) * n] - mean[i]) * weight;
            #[unroll]
            for j in 0..c {
                sums[i * c + j] += left * (mixtures.means[means_at + (component * c + j) * n] - mean[j]);
            }
        }
    }
    #[unroll]
    for i in 0..c * c {
        out[(sample * (c * c) + i) * n + pixel] = sums[i];
    }
}
