//! Group normalisation of images, with SiLU in the same pass, sums over planes, and doubling of the size.
//!
//! Sums run in f64: a group of a large image has hundreds of thousands of values.

use crate::kernel::nn::rows::Unary;
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::math::sum_f64;
use crate::kernel::simd::memory::{UninitVec, par_items, par_rows};
use std::mem::MaybeUninit;

/// Sizes of a group norm: samples, channels, pixels of a plane, groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) b: usize,
    pub(crate) c: usize,
    pub(crate) pixels: usize,
    pub(crate) groups: usize,
}

impl Sizes {
    /// Channels of a group.
    fn channels(self) -> usize {
        self.c / self.groups
    }

    /// Values of a group.
    fn width(self) -> usize {
        self.channels() * self.pixels
    }

    fn check(self, x: &[f32], weight: &[f32], bias: &[f32]) {
        let Self { b, c, pixels, groups } = self;
        assert!(groups > 0 && c % groups == 0, "group norm: {c} channels in {groups} groups");
        assert_eq!((x.len(), weight.len(), bias.len()), (b * c * pixels, c, c), "group norm: sizes");
    }
}

/// Mean and reciprocal standard deviation.
#[inline(always)]
fn moments(x: &[f32], eps: f64) -> (f32, f32) {
    let n = x.len().max(1) as f64;
    let mean = sum_f64(
        x.len(),
        #[inline(always)]
        |i| f64::from(x[i]),
    ) / n;
    let var = sum_f64(
        x.len(),
        #[inline(always)]
        |i| (f64::from(x[i]) - mean) * (f64::from(x[i]) - mean),
    ) / n;
    (mean as f32, (1.0 / (var + eps).sqrt()) as f32)
}

/// One group of one sample.
struct Group<'a> {
    out: &'a mut [MaybeUninit<f32>],
    x: &'a [f32],
    /// Weight and bias of the group's channels.
    weight: &'a [f32],
    bias: &'a [f32],
    pixels: usize,
    eps: f64,
    silu: bool,
}

impl Loop for Group<'_> {
    #[inline(always)]
    fn run(self) {
        let (mean, inv) = moments(self.x, self.eps);
        let planes = self.out.chunks_exact_mut(self.pixels).zip(self.x.chunks_exact(self.pixels));
        for (((out, x), weight), bias) in planes.zip(self.weight).zip(self.bias) {
            let scale = inv * weight;
            if self.silu {
                for (out, &x) in out.iter_mut().zip(x) {
                    out.write(Unary::Silu.value((x - mean) * scale + bias));
                }
            } else {
                for (out, &x) in out.iter_mut().zip(x) {
                    out.write((x - mean) * scale + bias);
                }
            }
        }
    }
}

/// Group norm of x `[b c pixels]`, then `silu`.
pub(crate) fn group_norm(x: &[f32], weight: &[f32], bias: &[f32], sizes: Sizes, eps: f64, silu: bool) -> Vec<f32> {
    sizes.check(x, weight, bias);
    let (width, channels, pixels) = (sizes.width(), sizes.channels(), sizes.pixels);
    if x.is_empty() {
        return Vec::new();
    }
    let mut out = UninitVec::new(x.len());
    let groups: Vec<_> = out.room().chunks_exact_mut(width).zip(x.chunks_exact(width)).enumerate().collect();
    par_items(groups, x.len(), |(i, (out, x))| {
        let first = i % sizes.groups * channels;
        let (weight, bias) = (&weight[first..first + channels], &bias[first..first + channels]);
        vectorised(Group { out, x, weight, bias, pixels, eps, silu });
    });
    // SAFETY: groups of `width` values make up x, planes of `pixels` a group, and every plane was written.
    unsafe { out.assume_init() }
}

/// The gradient of one group of one sample.
struct GroupGrad<'a> {
    dx: &'a mut [MaybeUninit<f32>],
    /// Gradients of weight and bias of the group's channels, by this sample.
    dweight: &'a mut [f64],
    dbias: &'a mut [f64],
    x: &'a [f32],
    grad: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    pixels: usize,
    eps: f64,
    silu: bool,
}

impl Loop for GroupGrad<'_> {
    #[inline(always)]
    fn run(self) {
        let (mean, inv) = moments(self.x, self.eps);
        let (n, pixels) = (self.x.len() as f64, self.pixels);
        let (mut mean_g, mut mean_gx) = (0.0, 0.0);
        for (channel, dx) in self.dx.chunks_exact_mut(pixels).enumerate() {
            let at = channel * pixels..(channel + 1) * pixels;
            let (x, grad) = (&self.x[at.clone()], &self.grad[at]);
            let (weight, bias) = (self.weight[channel], self.bias[channel]);
            // The gradient before the activation stays in dx for the second pass.
            if self.silu {
                for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(grad) {
                    dx.write(g * Unary::Silu.slope((x - mean) * (inv * weight) + bias));
                }
            } else {
                dx.write_copy_of_slice(grad);
            }
            // SAFETY: the plane was just written: x and grad have as many pixels.
            let dx = unsafe { dx.assume_init_ref() };
            let dbias = sum_f64(
                pixels,
                #[inline(always)]
                |i| f64::from(dx[i]),
            );
            let dweight = sum_f64(
                pixels,
                #[inline(always)]
                |i| f64::from(dx[i] * ((x[i] - mean) * inv)),
            );
            (self.dbias[channel], self.dweight[channel]) = (dbias, dweight);
            mean_g += f64::from(weight) * dbias / n;
            mean_gx += f64::from(weight) * dweight / n;
        }
        let (mean_g, mean_gx) = (mean_g as f32, mean_gx as f32);
        // SAFETY: whole planes make up a group, and the loop above has written each.
        let dx = unsafe { self.dx.assume_init_mut() };
        let planes = dx.chunks_exact_mut(pixels).zip(self.x.chunks_exact(pixels));
        for ((dx, x), &weight) in planes.zip(self.weight) {
            for (dx, &x) in dx.iter_mut().zip(x) {
                *dx = inv * (*dx * weight - mean_g - (x - mean) * inv * mean_gx);
            }
        }
    }
}

/// Gradients with respect to x, weight and bias; the statistics are computed again.
pub(crate) fn group_norm_grad(
    [x, weight, bias, grad]: [&[f32]; 4],
    sizes: Sizes,
    eps: f64,
    silu: bool,
) -> [Vec<f32>; 3] {
    sizes.check(x, weight, bias);
    assert_eq!(grad.len(), x.len(), "group norm: size of the gradient");
    let (width, channels, pixels) = (sizes.width(), sizes.channels(), sizes.pixels);
    // By sample, and added up in their order.
    let (mut dweight, mut dbias) = (vec![0.0; sizes.b * sizes.c], vec![0.0; sizes.b * sizes.c]);
    let mut dx = UninitVec::new(x.len());
    if !x.is_empty() {
        let parameters = dweight.chunks_exact_mut(channels).zip(dbias.chunks_exact_mut(channels));
        let groups: Vec<_> = dx.room().chunks_exact_mut(width).zip(parameters).enumerate().collect();
        par_items(groups, x.len(), |(i, (dx, (dweight, dbias)))| {
            let (at, first) = (i * width..(i + 1) * width, i % sizes.groups * channels);
            let (x, grad) = (&x[at.clone()], &grad[at]);
            let (weight, bias) = (&weight[first..first + channels], &bias[first..first + channels]);
            vectorised(GroupGrad { dx, dweight, dbias, x, grad, weight, bias, pixels, eps, silu });
        });
    }
    // SAFETY: groups of `width` values make up x, one for each of the parameters' pieces, and every group was written.
    let dx = unsafe { dx.assume_init() };
    let total = |parts: Vec<f64>| -> Vec<f32> {
        (0..sizes.c).map(|i| parts.iter().skip(i).step_by(sizes.c).sum::<f64>() as f32).collect()
    };
    [dx, total(dweight), total(dbias)]
}

struct AddChannels<'a> {
    out: &'a mut [MaybeUninit<f32>],
    x: &'a [f32],
    shift: f32,
}

impl Loop for AddChannels<'_> {
    #[inline(always)]
    fn run(self) {
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            out.write(x + self.shift);
        }
    }
}

/// x plus one value for each of its planes of `pixels`.
pub(crate) fn add_channels(x: &[f32], shift: &[f32], pixels: usize) -> Vec<f32> {
    assert_eq!(x.len(), shift.len() * pixels, "add channels: sizes of x and shift");
    let mut out = UninitVec::new(x.len());
    par_rows(out.room(), pixels, |first, piece| {
        let planes = piece.chunks_mut(pixels).zip(x[first * pixels..].chunks(pixels)).zip(&shift[first..]);
        for ((out, x), &shift) in planes {
            vectorised(AddChannels { out, x, shift });
        }
    });
    // SAFETY: there is a shift for every plane, and every plane was written.
    unsafe { out.assume_init() }
}

struct PlaneSum<'a> {
    x: &'a [f32],
    out: &'a mut f32,
}

impl Loop for PlaneSum<'_> {
    #[inline(always)]
    fn run(self) {
        let x = self.x;
        let total = sum_f64(
            x.len(),
            #[inline(always)]
            |i| f64::from(x[i]),
        );
        *self.out = total as f32;
    }
}

/// The sum of each of `count` planes of `pixels`.
pub(crate) fn plane_sums(x: &[f32], count: usize, pixels: usize) -> Vec<f32> {
    let mut out = vec![0.0; count];
    let planes: Vec<_> = out.iter_mut().zip(x.chunks_exact(pixels.max(1))).collect();
    par_items(planes, x.len(), |(out, x)| vectorised(PlaneSum { x, out }));
    out
}

/// Every pixel of rows of `w` four times: rows of `2*w`, twice as many.
pub(crate) fn upsample2(x: &[f32], w: usize) -> Vec<f32> {
    assert!(x.len().is_multiple_of(w), "upsample: rows of {w} of {} values", x.len());
    let mut out = UninitVec::new(4 * x.len());
    par_rows(out.room(), 4 * w, |first, piece| {
        for (pair, row) in piece.chunks_exact_mut(4 * w).zip(x[first * w..].chunks_exact(w)) {
            let (above, below) = pair.split_at_mut(2 * w);
            for (out, &x) in above.as_chunks_mut::<2>().0.iter_mut().zip(row) {
                *out = [MaybeUninit::new(x); 2];
            }
            below.copy_from_slice(above);
        }
    });
    // SAFETY: every pair of rows was written.
    unsafe { out.assume_init() }
}

/// The gradient of [`upsample2`] for rows of `w` pixels of its input.
pub(crate) fn upsample2_grad(grad: &[f32], w: usize) -> Vec<f32> {
    assert!(grad.len().is_multiple_of(4 * w), "upsample: rows of {w} of a gradient of {} values", grad.len());
    let mut dx = UninitVec::new(grad.len() / 4);
    par_rows(dx.room(), w, |first, piece| {
        for (dx, pair) in piece.chunks_exact_mut(w.max(1)).zip(grad[first * 4 * w..].chunks_exact(4 * w)) {
            let (above, below) = pair.split_at(2 * w);
            let pairs = above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0);
            for (dx, (above, below)) in dx.iter_mut().zip(pairs) {
                dx.write((above[0] + above[1]) + (below[0] + below[1]));
            }
        }
    });
    // SAFETY: every row was written.
    unsafe { dx.assume_init() }
}
