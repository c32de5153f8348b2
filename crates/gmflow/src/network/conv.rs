//! Convolution and group norm with the parameter names that PyTorch gives them.

use super::linear::{Init, Initializer};
use crate::kernel::{self, MatmulPrecision, NormConv};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use std::sync::Arc;

/// A convolution with a bias.
#[derive(Module, Debug)]
pub(super) struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
    padding: [usize; 4],
    #[module(skip)]
    arithmetic: MatmulPrecision,
}

impl Conv2d {
    /// Maps `[b c h w]` to `[b o h' w']`.
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let window = (self.stride, self.padding);
        kernel::conv2d_in(x, self.weight.val(), self.bias.val(), window, self.arithmetic)
    }

    /// The same of the channels of x and behind them those of `skip`, which are not joined in memory.
    pub(super) fn forward_joined(&self, x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
        let (window, [_, first, ..], [_, more, ..]) = ((self.stride, self.padding), x.dims(), skip.dims());
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let (of_x, of_skip) = (weight.clone().narrow(1, 0, first), weight.narrow(1, first, more));
        let none = bias.zeros_like();
        kernel::conv2d_in(x, of_x, bias, window, self.arithmetic)
            + kernel::conv2d_in(skip, of_skip, none, window, self.arithmetic)
    }

    /// Computes in this arithmetic from now on, gradients too: f32 or bf16.
    pub(super) fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        self.arithmetic = arithmetic;
    }

    pub(super) fn is_on_cpu(&self) -> bool {
        kernel::on_cpu(&self.weight.lazy_device())
    }

    /// Whether it computes in bf16 on x's device.
    pub(super) fn is_mixed(&self, x: &Tensor<4>) -> bool {
        self.arithmetic == MatmulPrecision::Bf16 && kernel::on_cpu(&x.device()) && self.arithmetic.is_available()
    }

    /// Maps silu(norm(x)) for the `[b c h w]` of `input`, whose channels are joined, and adds `shift` `[b o]` or `residual` `[b o h w]`.
    /// The convolution must be one of 3x3 that keeps the size of the image.
    pub(super) fn forward_normalised(&self, norm: &GroupNorm, input: Input) -> Tensor<4> {
        let Input { x, skip, dropout, shift, residual } = input;
        if self.is_mixed(&x) {
            let ([b, ..], [o, ..]) = (x.dims(), self.weight.dims());
            let bias = self.bias.val().unsqueeze::<2>(); // [1 o]
            let shift = match shift {
                Some(shift) => shift + bias,
                None => bias.expand([b, o]),
            };
            let (groups, eps) = (norm.groups, norm.eps);
            let (weight, norm) = (self.weight.val(), [norm.weight.val(), norm.bias.val()]);
            return kernel::norm_conv(NormConv { x, skip, norm, groups, eps, dropout, weight, shift, residual });
        }
        let y = norm.forward_silu(joined(x, skip));
        let y = self.forward(match dropout {
            Some((keys, layer, rate)) => kernel::dropout(y, keys, layer, rate),
            None => y,
        });
        let y = match shift {
            Some(shift) => kernel::add_channels(y, shift),
            None => y,
        };
        match residual {
            Some(residual) => residual + y,
            None => y,
        }
    }

    /// The same convolution moved by another stride, with other zeros above, below, left and right.
    pub(super) fn with_window(self, stride: usize, padding: [usize; 4]) -> Self {
        Self { stride, padding, ..self }
    }
}

/// What a convolution behind a norm reads, and what is added to its result.
pub(super) struct Input {
    /// `[b c h w]`.
    pub(super) x: Tensor<4>,
    /// More channels, behind those of x.
    pub(super) skip: Option<Tensor<4>>,
    /// A key for each sample, the layer's number and the rate of the dropout behind the norm.
    pub(super) dropout: Option<(Arc<[u64]>, u64, f64)>,
    /// `[b o]`.
    pub(super) shift: Option<Tensor<2>>,
    /// `[b o h w]`.
    pub(super) residual: Option<Tensor<4>>,
}

/// The channels of x and behind them those of `skip`.
pub(super) fn joined(x: Tensor<4>, skip: Option<Tensor<4>>) -> Tensor<4> {
    match skip {
        Some(skip) => Tensor::cat(vec![x, skip], 1),
        None => x,
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
            arithmetic: MatmulPrecision::F32,
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
