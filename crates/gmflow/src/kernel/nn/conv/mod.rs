//! Convolution of images as matrix products.
//!
//! A tile of output rows at a time: the patches that it sees are unfolded into a buffer `[c*kh*kw pixels]`, in runs along the
//! rows of the image, and multiplied by the weight. Every sample is computed on its own. Most 3x3 convolutions take the shorter
//! way of [`winograd`].

#[cfg(target_arch = "x86_64")]
pub(crate) mod mixed;
pub(crate) mod winograd;

use crate::kernel::matmul::dense::{Matrix, Target, Write, product};
use crate::kernel::matmul::panels::Arithmetic;
use crate::kernel::nn::group_norm::plane_sums;
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::memory::build;
use gemm::Parallelism;
use rayon::prelude::*;
use std::ops::Range;

/// Values of the unfolded tile at the most, unless one row of pixels has more.
const TILE: usize = 256 * 1024;

/// How a convolution moves over the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels between neighbouring outputs.
    pub stride: usize,
    /// Zeros around the image: top, bottom, left, right.
    pub padding: [usize; 4],
}

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) b: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) o: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) padding: [usize; 4],
    /// Height and width of the output.
    pub(crate) out: [usize; 2],
}

impl Sizes {
    /// Sizes for an input `[b c h w]` and a weight `[o c kh kw]`.
    pub(crate) fn new([b, c, h, w]: [usize; 4], weight: [usize; 4], window: Window) -> Self {
        let [o, channels, kh, kw] = weight;
        let Window { stride, padding } = window;
        let [top, bottom, left, right] = padding;
        let fits =
            channels == c && stride > 0 && kh > 0 && kw > 0 && h + top + bottom >= kh && w + left + right >= kw;
        assert!(fits, "a convolution of {c} channels, {h}x{w}, with weight {weight:?} and {window:?}");
        let out = [(h + top + bottom - kh) / stride + 1, (w + left + right - kw) / stride + 1];
        Self { b, c, h, w, o, kernel: [kh, kw], stride, padding, out }
    }

    /// Weights of one input channel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Pixels of an output plane.
    pub(crate) fn pixels(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// Whether the unfolded image is the image itself.
    pub(crate) fn pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == [0; 4]
    }

    /// The output rows in tiles, for an unfolded width of `channels` input channels.
    pub(crate) fn tiles(&self, channels: usize) -> Vec<Range<usize>> {
        let [oh, ow] = self.out;
        let rows = if self.pointwise() { oh } else { (TILE / (channels * self.taps() * ow).max(1)).clamp(1, oh) };
        (0..oh).step_by(rows).map(|first| first..(first + rows).min(oh)).collect()
    }

    /// Calls `f(place in the unfolded tile, outputs of the row whose source is inside the image, place of the first of these in
    /// the image)` for every row of every tap, over `channels` channels and the output rows of a tile.
    #[inline(always)]
    fn spans(&self, channels: usize, rows: Range<usize>, mut f: impl FnMut(usize, Range<usize>, usize)) {
        let ([kh, kw], [_, ow], stride) = (self.kernel, self.out, self.stride);
        let [top, _, left, _] = self.padding;
        let mut at = 0;
        for channel in 0..channels {
            for ky in 0..kh {
                for kx in 0..kw {
                    let last = (self.w + left).saturating_sub(kx).div_ceil(stride).min(ow);
                    let first = left.saturating_sub(kx).div_ceil(stride).min(last);
                    for row in rows.clone() {
                        let y = row * stride + ky;
                        if y >= top && y - top < self.h && first < last {
                            let source = (channel * self.h + y - top) * self.w + first * stride + kx - left;
                            f(at, first..last, source);
                        } else {
                            f(at, 0..0, 0);
                        }
                        at += ow;
                    }
                }
            }
        }
    }
}

/// Copies the patches of some channels into a tile.
struct Unfold<'a> {
    tile: &'a mut [f32],
    /// The planes of the channels.
    x: &'a [f32],
    channels: usize,
    rows: Range<usize>,
    sizes: &'a Sizes,
}

impl Loop for Unfold<'_> {
    #[inline(always)]
    fn run(self) {
        let (tile, x, stride, ow) = (self.tile, self.x, self.sizes.stride, self.sizes.out[1]);
        self.sizes.spans(
            self.channels,
            self.rows,
            #[inline(always)]
            |at, inside, source| {
                let row = &mut tile[at..at + ow];
                row[..inside.start].fill(0.0);
                row[inside.end..].fill(0.0);
                let row = &mut row[inside];
                if stride == 1 {
                    row.copy_from_slice(&x[source..source + row.len()]);
                } else if let (2, [most @ .., last]) = (stride, &mut *row) {
                    // In pairs, which compilers vectorise; behind the last there may be none.
                    for (out, [x, _]) in most.iter_mut().zip(x[source..].as_chunks::<2>().0) {
                        *out = *x;
                    }
                    *last = x[source + 2 * most.len()];
                } else if !row.is_empty() {
                    for (out, x) in row.iter_mut().zip(x[source..].iter().step_by(stride)) {
                        *out = *x;
                    }
                }
            },
        );
    }
}

/// Adds a tile to the pixels that it was unfolded from.
pub(crate) struct Fold<'a> {
    pub(crate) tile: &'a [f32],
    pub(crate) dx: &'a mut [f32],
    pub(crate) channels: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) sizes: &'a Sizes,
}

impl Loop for Fold<'_> {
    #[inline(always)]
    fn run(self) {
        let (tile, dx, stride, ow) = (self.tile, self.dx, self.sizes.stride, self.sizes.out[1]);
        self.sizes.spans(
            self.channels,
            self.rows,
            #[inline(always)]
            |at, inside, source| {
                let row = &tile[at..at + ow][inside];
                if let (2, [most @ .., last]) = (stride, row) {
                    for (pair, x) in dx[source..].as_chunks_mut::<2>().0.iter_mut().zip(most) {
                        *pair = [pair[0] + *x, pair[1]];
                    }
                    dx[source + 2 * most.len()] += *last;
                } else if !row.is_empty() {
                    for (out, x) in dx[source..].iter_mut().step_by(stride).zip(row) {
                        *out += *x;
                    }
                }
            },
        );
    }
}

/// The patches of some channels of a sample as a matrix: the image itself where it can be, else unfolded into `buffer`.
pub(crate) fn patches(
    buffer: &mut Vec<f32>,
    x: &[f32],
    channels: usize,
    rows: Range<usize>,
    sizes: &Sizes,
) -> Matrix {
    let pixels = rows.len() * sizes.out[1];
    if sizes.pointwise() {
        return Matrix::rows(x, pixels);
    }
    buffer.resize(channels * sizes.taps() * pixels, 0.0);
    vectorised(Unfold { tile: buffer, x, channels, rows, sizes });
    Matrix::rows(buffer, pixels)
}

/// Whether a convolution that is asked for in bf16 is computed in it.
#[cfg(target_arch = "x86_64")]
fn is_mixed(arithmetic: Arithmetic) -> bool {
    arithmetic == Arithmetic::Bf16 && mixed::has_instructions()
}

/// The convolution of x `[b c h w]` with weight `[o c kh kw]`, plus bias `[o]`, in the arithmetic that is asked for where it is worth it.
pub(crate) fn conv(x: &[f32], weight: &[f32], bias: &[f32], sizes: &Sizes, arithmetic: Arithmetic) -> Vec<f32> {
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
    build(b * o * plane, |out| {
        let out = Target(out.as_mut_ptr());
        let tasks = (0..b * tiles.len()).into_par_iter();
        tasks.for_each_init(Vec::new, |buffer, task| {
            let (sample, rows) = (task / tiles.len(), tiles[task % tiles.len()].clone());
            let x = patches(buffer, &x[sample * c * h * w..][..c * h * w], c, rows.clone(), sizes);
            let pixels = rows.len() * sizes.out[1];
            let at = sample * o * plane + rows.start * sizes.out[1];
            // SAFETY: the sizes were checked; no other task writes these pixels, which are set to the bias first.
            unsafe {
                for (channel, bias) in bias.iter().enumerate() {
                    std::slice::from_raw_parts_mut(out.at(at + channel * plane), pixels).fill(*bias);
                }
                let weight = Matrix::rows(weight, k);
                product([o, pixels, k], out.at(at), plane, Write::Add, weight, x, 1.0, Parallelism::None);
            }
        });
    })
}

/// The gradient with respect to x.
pub(crate) fn conv_grad_input(grad: &[f32], weight: &[f32], sizes: &Sizes, arithmetic: Arithmetic) -> Vec<f32> {
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
                    product(size, out.at(at), plane, Write::Replace, weight, grad, 1.0, Parallelism::None);
                } else {
                    buffer.resize(channels * taps * pixels, 0.0);
                    let (tile, none) = (buffer.as_mut_ptr(), Parallelism::None);
                    product(size, tile, pixels, Write::Replace, weight, grad, 1.0, none);
                    let dx = std::slice::from_raw_parts_mut(out.at(at), channels * h * w);
                    vectorised(Fold { tile: buffer, dx, channels, rows, sizes });
                }
            }
        }
    });
    dx
}

/// The gradient with respect to the weight. Each task owns a part of it and adds up the batch in order.
pub(crate) fn conv_grad_weight(grad: &[f32], x: &[f32], sizes: &Sizes, arithmetic: Arithmetic) -> Vec<f32> {
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
            unsafe { product(size, out.at(at), c * taps, Write::Add, grad, x.t(), 1.0, none) };
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
