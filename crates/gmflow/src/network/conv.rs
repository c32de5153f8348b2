//! Convolution and group norm with the parameter names that PyTorch gives them.

use super::linear::{Init, Initializer};
use crate::kernel;
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A convolution with a bias.
#[derive(Module, Debug)]
pub(super) struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
    padding: [usize; 4],
}

impl Conv2d {
    /// Maps `[b c h w]` to `[b o h' w']`.
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernel::conv2d(x, self.weight.val(), self.bias.val(), self.stride, self.padding)
    }

    /// The same convolution moved by another stride, with other zeros above, below, left and right.
    pub(super) fn with_window(self, stride: usize, padding: [usize; 4]) -> Self {
        Self { stride, padding, ..self }
    }
}

/// Group norm with a scale and a shift of each channel.
#[derive(Module, Debug)]
pub(super) struct GroupNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Normalises `[b c h w]`.
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        kernel::group_norm(x, self.weight.val(), self.bias.val(), self.groups, self.eps, false)
    }

    /// Normalises `[b c h w]`, then x sigmoid(x).
    pub(super) fn forward_silu(&self, x: Tensor<4>) -> Tensor<4> {
        kernel::group_norm(x, self.weight.val(), self.bias.val(), self.groups, self.eps, true)
    }
}

impl Initializer<'_> {
    /// A convolution of stride 1 from c to o channels with an odd kernel, which keeps the size of the image; its weight `[o c kernel
    /// kernel]` is drawn by `init` and its bias is zero (except for [`Init::FanIn`], PyTorch's default).
    pub(super) fn conv(&mut self, [c, o]: [usize; 2], kernel: usize, init: Init) -> Conv2d {
        let fans = [c * kernel * kernel, o * kernel * kernel];
        let bias = if matches!(init, Init::FanIn) { init } else { Init::Zero };
        Conv2d {
            weight: self.param([o, c, kernel, kernel], init, fans),
            bias: self.param([o], bias, fans),
            stride: 1,
            padding: [kernel / 2; 4],
        }
    }

    /// A group norm of c channels that starts without scale and shift.
    pub(super) fn group_norm(&mut self, c: usize, groups: usize, eps: f64) -> GroupNorm {
        GroupNorm {
            weight: self.param([c], Init::One, [c, c]),
            bias: self.param([c], Init::Zero, [c, c]),
            groups,
            eps,
        }
    }
}
