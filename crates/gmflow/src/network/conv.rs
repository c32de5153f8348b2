//! Convolutional layers with the parameters of PyTorch's.

use super::linear::{Init, Initializer};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::silu;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;

/// A convolution with a square kernel.
#[derive(Module, Debug)]
pub(super) struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

impl Conv2d {
    pub(super) fn new(channels: [usize; 2], kernel: usize, init: &mut Initializer) -> Self {
        let [i, o] = channels;
        let fans = [i * kernel * kernel, o];
        Self {
            weight: init.param([o, i, kernel, kernel], Init::FanIn, fans),
            bias: init.param([o], Init::FanIn, fans),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>, stride: usize, padding: [usize; 4]) -> Tensor<4> {
        let [t, b, l, r] = padding;
        let options = ConvOptions::new_with_padding([stride, stride], [(t, b), (l, r)], [1, 1], 1);
        conv2d(x, self.weight.val(), Some(self.bias.val()), options)
    }
}

#[derive(Module, Debug)]
pub(super) struct GroupNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    groups: usize,
}
impl GroupNorm {
    pub(super) fn new(groups: usize, channels: usize, init: &mut Initializer) -> Self {
        Self {
            weight: init.param([channels], Init::Zero, [1, 1]),
            bias: init.param([channels], Init::Zero, [1, 1]),
            groups,
        }
    }
    pub(super) fn forward(&self, x: Tensor<4>, eps: f64, act: bool) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let x = x.reshape([b, self.groups, (c / self.groups) * h * w]);
        let mean = x.clone().mean_dim(2);
        let x = x - mean;
        let var = x.clone().powi_scalar(2).mean_dim(2);
        let x = (x / (var + eps).sqrt()).reshape([b, c, h, w]);
        let y = x * self.weight.val().reshape([1, c, 1, 1]) + self.bias.val().reshape([1, c, 1, 1]);
        if act { silu(y) } else { y }
    }
}
