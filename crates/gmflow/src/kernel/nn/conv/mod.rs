//! Convolution of images as matrix products.
//!
//! A tile of output rows at a time: the patches that it sees are unfolded into a buffer `[c*kh*kw pixels]`, in runs along the
//! rows of the image, and multiplied by the weight. Every sample is computed on its own. Most 3x3 convolutions take the shorter
//! way of [`winograd`].

#[cfg(target_arch = "x86_64")]
pub(crate) mod mixed;
pub(crate) mod sizes;
pub(crate) mod unfold;
pub(crate) mod winograd;

use crate::kernel::matmul::matrix::{Destination, Matrix, Target, product};
use crate::kernel::matmul::precision::MatmulPrecision;
use crate::kernel::nn::group_norm::plane_sums;
use crate::kernel::simd::arch::vectorised;
use crate::kernel::simd::memory::UninitVec;
use gemm::Parallelism;
use rayon::prelude::*;
use sizes::Sizes;
use unfold::{Fold, patches};

/// Whether a convolution that is asked for in bf16 is computed in it.
#[cfg(target_arch = "x86_64")]
fn is_mixed(arithmetic: MatmulPrecision) -> bool {
    arithmetic == MatmulPrecision::Bf16 && mixed::has_instructions()
}

/// The convolution of x `[b c h w]` with weight `[o c kh kw]`, plus bias `[o]`, in the arithmetic that is asked for where it is worth it.
pub(crate) fn conv(x: &[f32], weight: &[f32], bias: &[f32], sizes: &Sizes, arithmetic: MatmulPrecision) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let k = c * sizes.taps();
    assert_eq!((x.len(), weight.len(), bias.len()), (b * c * h * w, o * k, o), "conv2d: sizes of x, weight and bias");
    #[cfg(target_arch = "x86_64")]
    if is_mixed(arithmetic) {
        return mixed::conv(x, weight, bias, sizes);
    }
    if winograd::applies(sizes) {
        return winograd::conv(x, weight, bias, sizes, winograd::Kernel::fastest());
    }
    let (plane, tiles) = (sizes.pixels(), sizes.tiles(c));
    let mut values = UninitVec::new(b * o * plane);
    let out = Target::of(values.room());
    let tasks = (0..b * tiles.len()).into_par_iter();
    tasks.for_each_init(Vec::new, |buffer, task| {
        let (sample, rows) = (task / tiles.len(), tiles[task % tiles.len()].clone());
        let x = patches(buffer, &x[sample * c * h * w..][..c * h * w], c, rows.clone(), sizes);
        let pixels = rows.len() * sizes.out[1];
        let at = sample * o * plane + rows.start * sizes.out[1];
        // SAFETY: the sizes were checked; no other task writes these pixels, which are set to the bias first.
        unsafe {
            for (channel, bias) in bias.iter().enumerate() {
                out.fill(at + channel * plane, pixels, *bias);
            }
            let weight = Matrix::rows(weight, k);
            product([o, pixels, k], Destination::add(out.at(at), plane), [weight, x], 1.0, Parallelism::None);
        }
    });
    // SAFETY: the tiles cover the rows of a plane, and every channel's pixels were written.
    unsafe { values.assume_init() }
}

/// The gradient with respect to x.
pub(crate) fn conv_grad_input(grad: &[f32], weight: &[f32], sizes: &Sizes, arithmetic: MatmulPrecision) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let (taps, plane) = (sizes.taps(), sizes.pixels());
    assert_eq!((grad.len(), weight.len()), (b * o * plane, o * c * taps), "conv2d: sizes of gradient and weight");
    #[cfg(target_arch = "x86_64")]
    if is_mixed(arithmetic) {
        return mixed::conv_grad_input(grad, weight, sizes);
    }
    if winograd::applies(sizes) {
        return winograd::conv_grad_input(grad, weight, sizes, winograd::Kernel::fastest());
    }
    /// Rows of the unfolded tile of one task.
    const WIDTH: usize = 256;
    let block = (WIDTH / taps).max(1);
    let blocks = c.div_ceil(block);
    let mut dx = vec![0.0; b * c * h * w];
    let out = Target(dx.as_mut_ptr());
    (0..b * blocks).into_par_iter().for_each_init(Vec::new, |buffer, task| {
        let (sample, first) = (task / blocks, task % blocks * block);
        let channels = block.min(c - first);
        let weight = Matrix::rows(weight, c * taps).skip_columns(first * taps).t(); // [channels*taps o]
        let at = (sample * c + first) * h * w;
        for rows in sizes.tiles(channels) {
            let pixels = rows.len() * sizes.out[1];
            let grad = Matrix::rows(&grad[sample * o * plane + rows.start * sizes.out[1]..], plane);
            let size = [channels * taps, pixels, o];
            // SAFETY: the sizes were checked, and no other task writes these channels of the sample.
            unsafe {
                if sizes.pointwise() {
                    product(size, Destination::replace(out.at(at), plane), [weight, grad], 1.0, Parallelism::None);
                } else {
                    buffer.resize(channels * taps * pixels, 0.0);
                    let (tile, none) = (buffer.as_mut_ptr(), Parallelism::None);
                    product(size, Destination::replace(tile, pixels), [weight, grad], 1.0, none);
                    let dx = std::slice::from_raw_parts_mut(out.at(at), channels * h * w);
                    vectorised(Fold { tile: buffer, dx, channels, rows, sizes });
                }
            }
        }
    });
    dx
}

/// The gradient with respect to the weight. Each task owns a part of it and adds up the batch in order.
pub(crate) fn conv_grad_weight(grad: &[f32], x: &[f32], sizes: &Sizes, arithmetic: MatmulPrecision) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let (taps, plane) = (sizes.taps(), sizes.pixels());
    assert_eq!((grad.len(), x.len()), (b * o * plane, b * c * h * w), "conv2d: sizes of gradient and x");
    #[cfg(target_arch = "x86_64")]
    if is_mixed(arithmetic) {
        return mixed::conv_grad_weight(grad, x, sizes);
    }
    if winograd::applies(sizes) {
        return winograd::conv_grad_weight(grad, x, sizes, winograd::Kernel::fastest());
    }
    /// Columns and rows of the weight in one task.
    const PART: [usize; 2] = [144, 64];
    let block = (PART[0] / taps).max(1);
    let (blocks, outputs) = (c.div_ceil(block), o.div_ceil(PART[1]));
    let mut dw = vec![0.0; o * c * taps];
    let out = Target(dw.as_mut_ptr());
    (0..blocks * outputs).into_par_iter().for_each_init(Vec::new, |buffer, task| {
        let (first, first_out) = (task % blocks * block, task / blocks * PART[1]);
        let (channels, outputs) = (block.min(c - first), PART[1].min(o - first_out));
        let at = first_out * c * taps + first * taps;
        for (sample, rows) in (0..b).flat_map(|i| sizes.tiles(channels).into_iter().map(move |rows| (i, rows))) {
            let pixels = rows.len() * sizes.out[1];
            let x = &x[(sample * c + first) * h * w..][..channels * h * w];
            let x = patches(buffer, x, channels, rows.clone(), sizes);
            let start = (sample * o + first_out) * plane + rows.start * sizes.out[1];
            let size = [outputs, channels * taps, pixels];
            let (grad, none) = (Matrix::rows(&grad[start..], plane), Parallelism::None);
            // SAFETY: the sizes were checked, and no other task writes this part of the weight.
            unsafe { product(size, Destination::add(out.at(at), c * taps), [grad, x.t()], 1.0, none) };
        }
    });
    dw
}

/// The gradient with respect to the bias: the sum over samples and pixels of `[b o plane]`.
pub(crate) fn conv_grad_bias(grad: &[f32], o: usize, plane: usize) -> Vec<f32> {
    let sums = plane_sums(grad, grad.len().checked_div(plane).unwrap_or(0), plane);
    let of_channel = |channel| sums.iter().skip(channel).step_by(o).map(|v| f64::from(*v)).sum::<f64>() as f32;
    (0..o).map(of_channel).collect()
}
