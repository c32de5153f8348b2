//! What networks of images are made of: group norm and doubling of the size as kernels, and the tensor library's convolution.

use super::group::{count, empty_like, group_sum, moments, row_grid};
use super::rows::{activation, activation_slope};
use crate::kernel::gpu::{cubecl, empty, grid, input, output, sizes};
use crate::kernel::matmul::precision::MatmulPrecision;
use crate::kernel::nn::conv::sizes::{Sizes, Window};
use crate::kernel::nn::dropout::{DropoutOps, Mask, sample_width};
use crate::kernel::nn::image_ops::{GroupNormKind, ImageGrads, ImageOps};
use crate::kernel::nn::norm_conv_ops::{
    NormConvGradients, NormConvGrads, NormConvInputs, NormConvKind, NormConvOps, NormConvTensors, parts,
};
use burn::backend::TensorMetadata;
use burn::backend::ops::{FloatTensorOps, ModuleOps};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Slice, TensorData};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// What a group norm is made of.
#[derive(CubeType, CubeLaunch)]
struct Norm {
    /// Groups of all samples.
    rows: usize,
    /// Groups of a sample.
    groups: usize,
    /// Values of a group.
    width: usize,
    /// Values of a channel.
    pixels: usize,
    eps: f32,
    #[cube(comptime)]
    silu: bool,
    /// That work on a group.
    #[cube(comptime)]
    threads: usize,
}

/// The gradient of x, and those of weight and bias by sample, `[b c]`.
#[derive(CubeType, CubeLaunch)]
struct NormGradients {
    x: Box<[f32]>,
    weight: Box<[f32]>,
    bias: Box<[f32]>,
}

/// A group of a sample for a group of threads.
#[cube(launch_unchecked)]
fn group_norm_kernel(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32], norm: Norm) {
    let width = norm.width;
    let pixels = norm.pixels;
    let eps = norm.eps;
    let threads = comptime!(norm.threads);
    if CUBE_POS >= norm.rows {
        terminate!();
    }
    let mut room = Shared::new_slice(threads);
    let first = CUBE_POS * width;
    let first_channel = CUBE_POS % norm.groups * (width / pixels);
    let (mean, inv) = moments(x, first, width, eps, &mut room, threads);
    let mut i = UNIT_POS as usize;
    while i < width {
        let channel = first_channel + i / pixels;
        let y = (x[first + i] - mean) * inv * weight[channel] + bias[channel];
        if comptime!(norm.silu) {
            out[first + i] = activation(y, false);
        } else {
            out[first + i] = y;
        }
        i += threads;
    }
}

/// The gradient of x, and those of weight and bias by sample, `[b c]`.
#[cube(launch_unchecked)]
fn group_norm_grad_kernel(x: &[f32], weight: &[f32], bias: &[f32], grad: &[f32], mut out: NormGradients, norm: Norm) {
    let width = norm.width;
    let pixels = norm.pixels;
    let eps = norm.eps;
    let threads = comptime!(norm.threads);
    if CUBE_POS >= norm.rows {
        terminate!();
    }
    let mut room = Shared::new_slice(threads);
    let first = CUBE_POS * width;
    let channels = width / pixels;
    let first_channel = CUBE_POS % norm.groups * channels;
    let (mean, inv) = moments(x, first, width, eps, &mut room, threads);
    let share = 1.0f32 / f32::cast_from(width as u32);
    let mut mean_g = 0.0f32.runtime();
    let mut mean_gx = 0.0f32.runtime();
    for channel in 0..channels {
        let scale = weight[first_channel + channel];
        let shift = bias[first_channel + channel];
        let mut of_bias = 0.0f32.runtime();
        let mut of_weight = 0.0f32.runtime();
        let mut i = UNIT_POS as usize;
        while i < pixels {
            let at = first + channel * pixels + i;
            let normal = (x[at] - mean) * inv;
            let mut g = grad[at];
            if comptime!(norm.silu) {
                g *= activation_slope(normal * scale + shift, false);
            }
            // The gradient before the activation stays there for the second pass, by the same thread.
            out.x[at] = g;
            of_bias += g;
            of_weight += g * normal;
            i += threads;
        }
        let of_bias = group_sum(of_bias, &mut room, threads);
        let of_weight = group_sum(of_weight, &mut room, threads);
        mean_g += scale * of_bias * share;
        mean_gx += scale * of_weight * share;
        if UNIT_POS == 0 {
            out.bias[CUBE_POS * channels + channel] = of_bias;
            out.weight[CUBE_POS * channels + channel] = of_weight;
        }
    }
    for channel in 0..channels {
        let scale = weight[first_channel + channel];
        let mut i = UNIT_POS as usize;
        while i < pixels {
            let at = first + channel * pixels + i;
            let normal = (x[at] - mean) * inv;
            out.x[at] = inv * (out.x[at] * scale - mean_g - normal * mean_gx);
            i += threads;
        }
    }
}

/// Every pixel of rows of `w` as a block of 2x2, a thread for a pixel of the result.
#[cube(launch_unchecked)]
fn upsample_kernel(x: &[f32], out: &mut [f32], count: usize, w: usize) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let row = ABSOLUTE_POS / (2 * w) / 2;
    out[ABSOLUTE_POS] = x[row * w + ABSOLUTE_POS % (2 * w) / 2];
}

/// Its gradient, a thread for a pixel of the input.
#[cube(launch_unchecked)]
fn upsample_grad_kernel(grad: &[f32], out: &mut [f32], count: usize, w: usize) {
    if ABSOLUTE_POS >= count {
        terminate!();
    }
    let first = ABSOLUTE_POS / w * 4 * w + ABSOLUTE_POS % w * 2;
    let below = first + 2 * w;
    out[ABSOLUTE_POS] = (grad[first] + grad[first + 1]) + (grad[below] + grad[below + 1]);
}

/// The grid of a group norm, and what it is made of.
fn norm_launch(x: &CubeTensor, kind: &GroupNormKind) -> (CubeCount, CubeDim, NormLaunch) {
    let ([b, c, h, w], groups) = (sizes(x), kind.groups);
    assert!(groups > 0 && c % groups == 0, "group norm: {c} channels in {groups} groups");
    let width = c / groups * h * w;
    let (count, dim, threads) = row_grid(x, b * groups, width);
    (count, dim, NormLaunch::new(b * groups, groups, width, h * w, kind.eps as f32, kind.silu, threads))
}

/// What the tensor library needs to know of a convolution whose padding is the same on opposite sides, which it is once the input is
/// [`padded`].
fn options(window: Window) -> ConvOptions<2> {
    let Window { stride, padding: [top, _, left, _] } = window;
    let padding = if is_even(window) { [top, left] } else { [0, 0] };
    ConvOptions::new([stride; 2], padding, [1; 2], 1)
}

/// Whether the padding is the same on opposite sides.
fn is_even(window: Window) -> bool {
    let [top, bottom, left, right] = window.padding;
    top == bottom && left == right
}

/// Where an image of `h` by `w` lies in a padded one.
fn inside([b, c, h, w]: [usize; 4], window: Window) -> [Slice; 4] {
    let [top, _, left, _] = window.padding;
    [(0..b).into(), (0..c).into(), (top..top + h).into(), (left..left + w).into()]
}

/// The shape that the tensor library sees.
fn padded_shape([b, c, h, w]: [usize; 4], window: Window) -> [usize; 4] {
    let [top, bottom, left, right] = window.padding;
    if is_even(window) { [b, c, h, w] } else { [b, c, h + top + bottom, w + left + right] }
}

/// With zeros around it where those of opposite sides differ.
fn padded(x: CubeTensor, window: Window) -> CubeTensor {
    if is_even(window) {
        return x;
    }
    let shape = sizes(&x);
    let zeros = CubeBackend::float_zeros(padded_shape(shape, window).into(), &x.device, DType::F32.into());
    CubeBackend::float_slice_assign(zeros, &inside(shape, window), x)
}

/// The sum of each plane, `[b c]`.
fn plane_sums(x: CubeTensor) -> CubeTensor {
    let [b, c, h, w] = sizes(&x);
    let sums = CubeBackend::float_sum_dim(CubeBackend::float_reshape(x, [b, c, h * w].into()), 2);
    CubeBackend::float_reshape(sums, [b, c].into())
}

impl ImageOps for CubeBackend {
    fn image_conv(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        window: Window,
        _: MatmulPrecision,
    ) -> CubeTensor {
        // Checks that they fit.
        Sizes::new(sizes(&x), sizes(&weight), window);
        CubeBackend::conv2d(padded(x, window), weight, Some(bias), options(window))
    }

    fn image_group_norm(x: CubeTensor, weight: CubeTensor, bias: CubeTensor, kind: GroupNormKind) -> CubeTensor {
        let (cubes, dim, norm) = norm_launch(&x, &kind);
        let out = empty_like(&x);
        // SAFETY: groups of threads beyond the rows end, and all indices are within the shapes.
        unsafe {
            group_norm_kernel::launch_unchecked(
                &x.client,
                cubes,
                dim,
                input(&x),
                input(&weight),
                input(&bias),
                output(&out),
                norm,
            );
        }
        out
    }

    fn image_add_channels(x: CubeTensor, shift: CubeTensor) -> CubeTensor {
        let [b, c] = sizes(&shift);
        CubeBackend::float_add(x, CubeBackend::float_reshape(shift, [b, c, 1, 1].into()))
    }

    fn image_upsample2(x: CubeTensor) -> CubeTensor {
        let [b, c, h, w] = sizes(&x);
        let out = empty(&x, [b, c, 2 * h, 2 * w]);
        let (cubes, dim) = grid(&x, count(&out));
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes.
        unsafe { upsample_kernel::launch_unchecked(&x.client, cubes, dim, input(&x), output(&out), count(&out), w) };
        out
    }
}

impl ImageGrads for CubeBackend {
    fn image_conv_grad_input(
        grad: CubeTensor,
        weight: CubeTensor,
        x: [usize; 4],
        window: Window,
        _: MatmulPrecision,
    ) -> CubeTensor {
        // Of the input the tensor library reads no more than the shape.
        let like = empty(&grad, padded_shape(x, window));
        let dx = CubeBackend::conv2d_x_backward(like, weight, grad, options(window));
        if is_even(window) { dx } else { CubeBackend::float_slice(dx, &inside(x, window)) }
    }

    fn image_conv_grad_weight(
        grad: CubeTensor,
        x: CubeTensor,
        weight: [usize; 4],
        window: Window,
        _: MatmulPrecision,
    ) -> CubeTensor {
        let like = empty(&grad, weight);
        CubeBackend::conv2d_weight_backward(padded(x, window), like, grad, options(window))
    }

    fn image_conv_grad_bias(grad: CubeTensor) -> CubeTensor {
        let [_, o, ..] = sizes::<4>(&grad);
        CubeBackend::float_reshape(CubeBackend::float_sum_dim(plane_sums(grad), 0), [o].into())
    }

    fn image_group_norm_grad(inputs: [CubeTensor; 3], grad: CubeTensor, kind: GroupNormKind) -> [CubeTensor; 3] {
        let [x, weight, bias] = &inputs;
        let (cubes, dim, norm) = norm_launch(x, &kind);
        let [b, c, ..] = sizes::<4>(x);
        let (dx, dweight, dbias) = (empty_like(x), empty(x, [b, c]), empty(x, [b, c]));
        // SAFETY: groups of threads beyond the rows end, and all indices are within the shapes.
        unsafe {
            group_norm_grad_kernel::launch_unchecked(
                &x.client,
                cubes,
                dim,
                input(x),
                input(weight),
                input(bias),
                input(&grad),
                NormGradientsLaunch::new(output(&dx), output(&dweight), output(&dbias)),
                norm,
            );
        }
        let total = |x| CubeBackend::float_reshape(CubeBackend::float_sum_dim(x, 0), [c].into());
        [dx, total(dweight), total(dbias)]
    }

    fn image_add_channels_grad(grad: CubeTensor) -> CubeTensor {
        plane_sums(grad)
    }

    fn image_upsample2_grad(grad: CubeTensor) -> CubeTensor {
        let [b, c, h, w] = sizes(&grad);
        let out = empty(&grad, [b, c, h / 2, w / 2]);
        let (cubes, dim) = grid(&grad, count(&out));
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes.
        unsafe {
            upsample_grad_kernel::launch_unchecked(
                &grad.client,
                cubes,
                dim,
                input(&grad),
                output(&out),
                count(&out),
                w / 2,
            );
        }
        out
    }
}

impl DropoutOps for CubeBackend {
    /// With a mask that is drawn on the host.
    fn dropout(x: CubeTensor, mask: Mask) -> CubeTensor {
        let shape = x.shape();
        let factors = mask.apply(&vec![1.0; shape.iter().product()], sample_width(&x));
        let factors = CubeBackend::float_from_data(TensorData::new(factors, shape), &x.device);
        CubeBackend::float_mul(x, factors)
    }
}

impl NormConvOps for CubeBackend {
    fn image_norm_conv(tensors: NormConvTensors<Self>, kind: NormConvKind) -> CubeTensor {
        let NormConvTensors { x, skip, norm_weight, norm_bias, weight, shift, residual } = tensors;
        let x = std::iter::once(x).chain(kind.has_skip.then_some(skip)).collect();
        parts::forward::<Self>(NormConvInputs { x, norm: [norm_weight, norm_bias], weight }, shift, residual, kind)
    }
}

impl NormConvGrads for CubeBackend {
    fn image_norm_conv_grad(
        inputs: NormConvInputs<CubeTensor>,
        grad: CubeTensor,
        kind: NormConvKind,
    ) -> NormConvGradients<CubeTensor> {
        parts::backward::<Self>(inputs, grad, kind)
    }
}
