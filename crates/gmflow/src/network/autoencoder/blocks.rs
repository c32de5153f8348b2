//! The blocks that the encoder and the decoder are made of. Tensors are `[b c h w]`.

use crate::kernel;
use crate::network::conv::{Conv2d, GroupNorm};
use crate::network::linear::{Init, Initializer, Linear};
use burn::module::Module;
use burn::tensor::Tensor;

/// Epsilon of every group norm.
pub(super) const EPS: f64 = 1e-6;
/// The published network's padding where it halves the size: above, below, left, right.
const BELOW_AND_RIGHT: [usize; 4] = [0, 1, 0, 1];

/// Two convolutions around which the input is added.
#[derive(Module, Debug)]
pub(super) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl Resnet {
    fn new([i, o]: [usize; 2], groups: usize, init: &mut Initializer) -> Self {
        Self {
            norm1: init.group_norm(i, groups, EPS),
            conv1: init.conv([i, o], 3, Init::FanIn),
            norm2: init.group_norm(o, groups, EPS),
            conv2: init.conv([o, o], 3, Init::FanIn),
            conv_shortcut: (i != o).then(|| init.conv([i, o], 1, Init::FanIn)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv1.forward(self.norm1.forward_silu(x.clone()));
        let y = self.conv2.forward(self.norm2.forward_silu(y));
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x) + y,
            None => x + y,
        }
    }
}

/// One head of attention between all pixels.
#[derive(Module, Debug)]
pub(super) struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(c: usize, groups: usize, init: &mut Initializer) -> Self {
        Self {
            group_norm: init.group_norm(c, groups, EPS),
            to_q: init.linear(c, c, Init::Xavier),
            to_k: init.linear(c, c, Init::Xavier),
            to_v: init.linear(c, c, Init::Xavier),
            to_out: init.linear(c, c, Init::Xavier),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let y = self.group_norm.forward(x.clone());
        let y = y.reshape([b, c, h * w]).swap_dims(1, 2).reshape([b * h * w, c]); // [b*n c]
        let (q, k, v) = (self.to_q.forward(y.clone()), self.to_k.forward(y.clone()), self.to_v.forward(y));
        let y = self.to_out.forward(kernel::attention(q, k, v, b, 1));
        x + y.reshape([b, h * w, c]).swap_dims(1, 2).reshape([b, c, h, w])
    }
}

/// The blocks at the lowest resolution.
#[derive(Module, Debug)]
pub(super) struct MidBlock {
    attentions: Vec<Attention>,
    resnets: Vec<Resnet>,
}

impl MidBlock {
    pub(super) fn new(c: usize, groups: usize, attend: bool, init: &mut Initializer) -> Self {
        Self {
            attentions: (0..usize::from(attend)).map(|_| Attention::new(c, groups, init)).collect(),
            resnets: (0..2).map(|_| Resnet::new([c, c], groups, init)).collect(),
        }
    }

    pub(super) fn forward(&self, mut x: Tensor<4>) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            if let Some(attention) = i.checked_sub(1).and_then(|i| self.attentions.get(i)) {
                x = attention.forward(x);
            }
            x = resnet.forward(x);
        }
        x
    }
}

/// The convolution that ends a level.
#[derive(Module, Debug)]
pub(super) struct Resampler {
    conv: Conv2d,
}

/// One level of the encoder.
#[derive(Module, Debug)]
pub(super) struct DownBlock {
    resnets: Vec<Resnet>,
    downsamplers: Vec<Resampler>,
}

impl DownBlock {
    /// `layers` residual blocks from `i` to `o` channels, then half the height and width unless it is the `last` level.
    pub(super) fn new([i, o]: [usize; 2], layers: usize, last: bool, groups: usize, init: &mut Initializer) -> Self {
        Self {
            resnets: resnets([i, o], layers, groups, init),
            downsamplers: (0..usize::from(!last))
                .map(|_| Resampler { conv: init.conv([o, o], 3, Init::FanIn).with_window(2, BELOW_AND_RIGHT) })
                .collect(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.resnets.iter().fold(x, |x, resnet| resnet.forward(x));
        self.downsamplers.iter().fold(x, |x, sampler| sampler.conv.forward(x))
    }
}

/// One level of the decoder.
#[derive(Module, Debug)]
pub(super) struct UpBlock {
    resnets: Vec<Resnet>,
    upsamplers: Vec<Resampler>,
}

impl UpBlock {
    /// `layers` residual blocks from `i` to `o` channels, then twice the height and width unless it is the `last` level.
    pub(super) fn new([i, o]: [usize; 2], layers: usize, last: bool, groups: usize, init: &mut Initializer) -> Self {
        Self {
            resnets: resnets([i, o], layers, groups, init),
            upsamplers: (0..usize::from(!last))
                .map(|_| Resampler { conv: init.conv([o, o], 3, Init::FanIn) })
                .collect(),
        }
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.resnets.iter().fold(x, |x, resnet| resnet.forward(x));
        self.upsamplers.iter().fold(x, |x, sampler| sampler.conv.forward(kernel::upsample_nearest2(x)))
    }
}

fn resnets([i, o]: [usize; 2], layers: usize, groups: usize, init: &mut Initializer) -> Vec<Resnet> {
    (0..layers).map(|layer| Resnet::new([if layer == 0 { i } else { o }, o], groups, init)).collect()
}
