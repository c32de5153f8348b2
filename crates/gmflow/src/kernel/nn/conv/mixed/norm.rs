//! Group norm before a convolution: its moments, and the way back through it and SiLU.

use super::planes::Images;
use super::vectors::{Drop, Dropout, LANES, first, silu_slope, with_instructions};
use rayon::prelude::*;
use std::arch::x86_64::*;

/// The group norm of a batch.
pub(super) struct Norm {
    /// Scale and shift of every channel of every sample.
    pub(super) lines: Vec<[f32; 2]>,
    /// Mean and reciprocal standard deviation of every group of every sample.
    moments: Vec<[f32; 2]>,
    groups: usize,
}

with_instructions! {
    /// The sum of (x - mean)^power over a plane, for the powers 1 and 2.
    ///
    /// # Safety
    /// The processor must have the instructions; so for all functions of this file.
    unsafe fn sums(x: &[f32], mean: f32, squares: bool) -> f64 {
        let (mut total, plane) = (0.0, x.len());
        // Few enough numbers that sums in f32 lose nothing to speak of.
        for x in x.chunks(64 * LANES) {
            // SAFETY: masked loads stay within x.
            unsafe {
                let mut lanes = [_mm512_setzero_ps(); 4];
                for x in x.chunks(4 * LANES) {
                    for (k, lane) in lanes.iter_mut().enumerate() {
                        let mask = first(x.len().saturating_sub(k * LANES));
                        let place = x.as_ptr().wrapping_add(k * LANES);
                        let value = _mm512_maskz_loadu_ps(mask, place);
                        if squares {
                            let value = _mm512_maskz_sub_ps(mask, value, _mm512_set1_ps(mean));
                            *lane = _mm512_fmadd_ps(value, value, *lane);
                        } else {
                            // The next plane: processors do not look beyond a page of memory by themselves.
                            _mm_prefetch::<_MM_HINT_T0>(place.wrapping_add(plane).cast());
                            *lane = _mm512_add_ps(value, *lane);
                        }
                    }
                }
                let both = [_mm512_add_ps(lanes[0], lanes[1]), _mm512_add_ps(lanes[2], lanes[3])];
                total += f64::from(_mm512_reduce_add_ps(_mm512_add_ps(both[0], both[1])));
            }
        }
        total
    }
}

/// The sum of a plane.
pub(super) fn plane_sum(x: &[f32]) -> f32 {
    // SAFETY: the instructions were looked for.
    unsafe { sums(x, 0.0, false) as f32 }
}

impl Norm {
    /// Of images with `groups` groups of channels, which `weight` scales and `bias` shifts.
    pub(super) fn new(x: &Images, b: usize, [weight, bias]: [&[f32]; 2], groups: usize, eps: f64) -> Self {
        let channels = x.channels();
        let each = channels / groups;
        let n = (each * x.pixels()).max(1) as f64;
        let moments: Vec<[f32; 2]> = (0..b * groups)
            .into_par_iter()
            .with_min_len(4)
            .map(|i| {
                let (sample, first) = (i / groups, i % groups * each);
                let total = |mean: f32, squares: bool| -> f64 {
                    // SAFETY: the instructions were looked for.
                    (first..first + each).map(|c| unsafe { sums(x.plane(sample, c), mean, squares) }).sum()
                };
                let mean = (total(0.0, false) / n) as f32;
                [mean, (1.0 / (total(mean, true) / n + eps).sqrt()) as f32]
            })
            .collect();
        let lines = (0..b * channels).map(|i| {
            let (sample, channel) = (i / channels, i % channels);
            let [mean, inverse] = moments[sample * groups + channel / each];
            let scale = inverse * weight[channel];
            [scale, bias[channel] - mean * scale]
        });
        Self { lines: lines.collect(), moments, groups }
    }

    /// The way back for one sample: from `grad` `[c pixels]`, the gradient behind SiLU, which is overwritten, to that of x, which is added
    /// to what `out` gives for each channel, or written there. Returns the gradients of weight and bias of each channel.
    ///
    /// # Safety
    /// `out` must give planes that nobody else uses.
    pub(super) unsafe fn back(
        &self,
        x: &Images,
        sample: usize,
        (weight, dropout): (&[f32], Option<&Dropout>),
        grad: &mut [f32],
        out: impl Fn(usize) -> *mut f32,
    ) -> Vec<[f32; 2]> {
        let (channels, pixels) = (x.channels(), x.pixels());
        let each = channels / self.groups;
        let n = (each * pixels).max(1) as f64;
        let mut parameters = Vec::with_capacity(channels);
        for group in 0..self.groups {
            let of_group = group * each..(group + 1) * each;
            let [mean, inverse] = self.moments[sample * self.groups + group];
            let (mut mean_g, mut mean_gx) = (0.0, 0.0);
            for channel in of_group.clone() {
                let grad = &mut grad[channel * pixels..][..pixels];
                let line = self.lines[sample * channels + channel];
                let (x, normal) = (x.plane(sample, channel), [inverse, -mean * inverse]);
                // SAFETY: the instructions were looked for.
                let [of_bias, of_weight] = unsafe {
                    match dropout {
                        Some(dropout) => {
                            before::<true>(x, line, normal, grad, dropout.of_plane(sample, channel * pixels))
                        }
                        None => before::<false>(x, line, normal, grad, Drop::NONE),
                    }
                };
                parameters.push([of_weight as f32, of_bias as f32]);
                mean_g += f64::from(weight[channel]) * of_bias / n;
                mean_gx += f64::from(weight[channel]) * of_weight / n;
            }
            let inverse = f64::from(inverse);
            let of_x = -inverse * inverse * mean_gx;
            let constant = -inverse * mean_g - f64::from(mean) * of_x;
            for channel in of_group {
                let factors = [(inverse * f64::from(weight[channel])) as f32, of_x as f32, constant as f32];
                let grad = &grad[channel * pixels..][..pixels];
                // SAFETY: as above, and the caller vouches for the plane.
                unsafe { after(x.plane(sample, channel), grad, factors, out(channel)) };
            }
        }
        parameters
    }
}

with_instructions! {
    /// Takes the gradient of a plane before SiLU; returns its sum and that of its product with the normalised x, which is x times the first
    /// of `normal` plus the second.
    ///
    /// # Safety
    /// As [`sums`].
    unsafe fn before<const DROP: bool>(
        x: &[f32], [scale, shift]: [f32; 2], normal: [f32; 2], grad: &mut [f32], drop: Drop,
    ) -> [f64; 2] {
        const LENGTH: usize = 64 * LANES;
        let (mut totals, plane) = ([0.0; 2], x.len());
        for (piece, (x, grad)) in x.chunks(LENGTH).zip(grad.chunks_mut(LENGTH)).enumerate() {
            // SAFETY: masked loads and stores stay within both.
            unsafe {
                let (scale, shift) = (_mm512_set1_ps(scale), _mm512_set1_ps(shift));
                let normal = (_mm512_set1_ps(normal[0]), _mm512_set1_ps(normal[1]));
                let (mut of_g, mut of_x) = (_mm512_setzero_ps(), _mm512_setzero_ps());
                for j in (0..x.len()).step_by(LANES) {
                    let mask = first(x.len() - j);
                    let value = _mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(j));
                    _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(j + plane).cast());
                    let g = _mm512_maskz_loadu_ps(mask, grad.as_ptr().wrapping_add(j));
                    let g = if DROP { drop.apply(g, piece * LENGTH + j) } else { g };
                    let g = _mm512_mul_ps(g, silu_slope(_mm512_fmadd_ps(value, scale, shift)));
                    of_g = _mm512_add_ps(of_g, g);
                    of_x = _mm512_fmadd_ps(g, _mm512_fmadd_ps(value, normal.0, normal.1), of_x);
                    _mm512_mask_storeu_ps(grad.as_mut_ptr().wrapping_add(j), mask, g);
                }
                totals[0] += f64::from(_mm512_reduce_add_ps(of_g));
                totals[1] += f64::from(_mm512_reduce_add_ps(of_x));
            }
        }
        totals
    }
}

with_instructions! {
    /// The gradient of x of a plane.
    ///
    /// # Safety
    /// As [`sums`], and `out` must have room for a plane.
    unsafe fn after(x: &[f32], grad: &[f32], [of_g, of_x, constant]: [f32; 3], out: *mut f32) {
        // SAFETY: masked loads and stores stay within the plane.
        unsafe {
            for j in (0..x.len()).step_by(LANES) {
                let mask = first(x.len() - j);
                let value = _mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(j));
                let g = _mm512_maskz_loadu_ps(mask, grad.as_ptr().wrapping_add(j));
                let rest = _mm512_fmadd_ps(value, _mm512_set1_ps(of_x), _mm512_set1_ps(constant));
                let dx = _mm512_fmadd_ps(g, _mm512_set1_ps(of_g), rest);
                _mm_prefetch::<_MM_HINT_ET0>(out.wrapping_add(j + x.len()).cast());
                _mm512_mask_storeu_ps(out.wrapping_add(j), mask, dx);
            }
        }
    }
}
