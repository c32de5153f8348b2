//! Convolutions of networks in training with operands in bf16 and sums in f32, for processors with AVX512-BF16.
//!
//! Those of 3x3 with stride 1 are Winograd's F(4x4, 3x3). Group norm, SiLU, what is added behind a convolution and the ways back through them
//! happen while planes are read and written, so that a block passes over memory a few times only.

mod conv;
mod direct;
mod maps;
mod norm;
mod planes;
mod tiles;
mod tiling;
mod vectors;
mod weight;

use crate::kernel::nn::conv::sizes::Sizes;
use norm::Norm;
pub(crate) use planes::Images;
use planes::PlaneReader;
use std::ops::Range;
pub(crate) use vectors::Dropout;

/// Whether convolutions of these sizes are F(4x4, 3x3): 3x3 with stride 1 and rows that are not too long.
pub(crate) fn applies(sizes: &Sizes) -> bool {
    has_instructions()
        && crate::kernel::nn::conv::winograd::applies(sizes)
        && tiling::Tiling::fits(sizes.out)
        && tiling::Tiling::fits([sizes.h, sizes.w])
}

/// Whether the processor has the instructions.
pub(crate) fn has_instructions() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("fma")
}

/// The convolution of x `[b c h w]` with weight `[o c kh kw]`, plus bias `[o]`.
pub(crate) fn conv(x: &[f32], weight: &[f32], bias: &[f32], sizes: &Sizes) -> Vec<f32> {
    if !applies(sizes) {
        return direct::conv(x, weight, bias, sizes);
    }
    let parts = [(x, sizes.c)];
    let source = PlaneReader::plain(&parts, [sizes.h, sizes.w]);
    let shift: Vec<f32> = (0..sizes.b).flat_map(|_| bias).copied().collect();
    conv::conv(&source, weight, Some(&shift), None, sizes)
}

/// The gradient with respect to x.
pub(crate) fn conv_grad_input(grad: &[f32], weight: &[f32], sizes: &Sizes) -> Vec<f32> {
    if applies(sizes) { conv::grad_input(grad, weight, sizes) } else { direct::grad_input(grad, weight, sizes) }
}

/// The gradient with respect to the weight.
pub(crate) fn conv_grad_weight(grad: &[f32], x: &[f32], sizes: &Sizes) -> Vec<f32> {
    if !applies(sizes) {
        return direct::grad_weight(grad, x, sizes);
    }
    let parts = [(x, sizes.c)];
    let source = PlaneReader::plain(&parts, [sizes.h, sizes.w]);
    weight::grad_weight(grad, &source, sizes)
}

/// A convolution behind group norm and SiLU.
#[derive(Clone, Copy)]
pub(crate) struct NormConv<'a> {
    /// x `[b c h w]`, in one tensor or two.
    pub(crate) x: Images<'a>,
    /// Weight and bias of the norm.
    pub(crate) norm: [&'a [f32]; 2],
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    /// What is dropped behind SiLU.
    pub(crate) dropout: Option<&'a Dropout>,
    /// `[o c 3 3]`.
    pub(crate) weight: &'a [f32],
    pub(crate) sizes: Sizes,
}

/// Gradients of [`NormConv`].
pub(crate) struct Grads {
    /// Of each tensor of x.
    pub(crate) x: Vec<Vec<f32>>,
    /// Of weight and bias of the norm.
    pub(crate) norm: [Vec<f32>; 2],
    pub(crate) weight: Vec<f32>,
    /// Of what was added to each channel of each sample, `[b o]`.
    pub(crate) shift: Vec<f32>,
}

impl NormConv<'_> {
    fn normalised(&self) -> Norm {
        Norm::new(&self.x, self.sizes.b, self.norm, self.groups, self.eps)
    }

    /// The result, plus `shift` `[b o]` and `residual` `[b o h w]`.
    pub(crate) fn forward(&self, shift: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let norm = self.normalised();
        let source = PlaneReader { images: self.x, norm: Some(&norm.lines), dropout: self.dropout };
        conv::conv(&source, self.weight, Some(shift), residual, &self.sizes)
    }

    /// The gradients for that of the result.
    pub(crate) fn backward(&self, grad: &[f32]) -> Grads {
        let norm = self.normalised();
        let source = PlaneReader { images: self.x, norm: Some(&norm.lines), dropout: self.dropout };
        let weight = weight::grad_weight(grad, &source, &self.sizes);
        let mut shift = vec![0.0; self.sizes.b * self.sizes.o];
        let (x, norm) = self.grad_x(grad, &norm, &mut shift);
        Grads { x, norm, weight, shift }
    }

    /// The gradients of x, the norm and the shift.
    fn grad_x(&self, grad: &[f32], norm: &Norm, shift: &mut [f32]) -> (Vec<Vec<f32>>, [Vec<f32>; 2]) {
        let (b, c, pixels) = (self.sizes.b, self.x.channels(), self.x.pixels());
        let mut parts: Vec<Vec<f32>> =
            self.x.parts.iter().map(|(_, channels)| Vec::with_capacity(b * channels * pixels)).collect();
        let mut of_samples = vec![[0.0; 2]; b * c];
        let targets: Vec<(Target<f32>, usize)> = parts
            .iter_mut()
            .zip(self.x.parts)
            .map(|(dx, (_, channels))| (Target(dx.as_mut_ptr()), *channels))
            .collect();
        let parameters = Target(of_samples.as_mut_ptr());
        let shift = Target(shift.as_mut_ptr());
        let (o, out_pixels) = (self.sizes.o, self.sizes.pixels());
        let then = |samples: Range<usize>, grads: &mut [f32]| {
            for plane in samples.start * o..samples.end * o {
                let sum = norm::plane_sum(&grad[plane * out_pixels..][..out_pixels]);
                // SAFETY: every sample is one task's.
                unsafe { shift.at(plane).write(sum) };
            }
            for (sample, grad) in samples.zip(grads.chunks_exact_mut(c * pixels)) {
                let out = |mut channel: usize| {
                    for (target, channels) in &targets {
                        if channel < *channels {
                            return target.at((sample * channels + channel) * pixels);
                        }
                        channel -= channels;
                    }
                    std::ptr::null_mut()
                };
                // SAFETY: every sample is one task's, and its planes lie within the tensors.
                let values = unsafe { norm.back(&self.x, sample, (self.norm[0], self.dropout), grad, out) };
                for (channel, values) in values.into_iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { parameters.at(sample * c + channel).write(values) };
                }
            }
        };
        conv::each_grad_input(grad, self.weight, &self.sizes, then);
        drop(targets);
        for (part, (_, channels)) in parts.iter_mut().zip(self.x.parts) {
            // SAFETY: there is room for as many, and the tasks have written every plane of every sample.
            unsafe { part.set_len(b * channels * pixels) };
        }
        let total = |i: usize| -> Vec<f32> {
            let of_channel = |channel: usize| of_samples.iter().skip(channel).step_by(c).map(|v| f64::from(v[i]));
            (0..c).map(|channel| of_channel(channel).sum::<f64>() as f32).collect()
        };
        let norm = [total(0), total(1)];
        (parts, norm)
    }
}

/// A place that tasks write to, each its own part.
struct Target<T>(*mut T);

// SAFETY: the parts are disjoint.
unsafe impl<T> Sync for Target<T> {}

impl<T> Target<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}
