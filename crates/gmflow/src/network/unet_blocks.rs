//! The parts of a U-Net: residual blocks, attention, changes of size.

use super::conv::{Conv2d, GroupNorm, Input, joined};
use super::linear::{Init, Initializer, Linear};
use super::unet_config::UnetConfig;
use crate::kernel::{self, MatmulPrecision};
use burn::module::Module;
use burn::tensor::Tensor;
use std::sync::Arc;

/// What all blocks of one pass through the network have in common.
pub(super) struct Pass {
    /// The activated embedding `[b e]` of time and class.
    embedding: Tensor<2>,
    dropout: Option<Dropout>,
}

/// The draws of a pass in training.
struct Dropout {
    /// A key for each sample.
    keys: Arc<[u64]>,
    rate: f64,
    /// Layers that have dropped their values.
    layers: u64,
}

impl Pass {
    /// A pass given the embedding `[b e]`; with a key for each sample it is one in training.
    pub(super) fn new(config: &UnetConfig, embedding: Tensor<2>, keys: Option<Arc<[u64]>>) -> Self {
        let dropout = keys.filter(|_| config.dropout > 0.0);
        let dropout = dropout.map(|keys| Dropout { keys, rate: config.dropout, layers: 0 });
        Self { embedding: kernel::silu(embedding), dropout }
    }

    /// What the next layer with dropout drops.
    fn next_dropout(&mut self) -> Option<(Arc<[u64]>, u64, f64)> {
        let Dropout { keys, rate, layers } = self.dropout.as_mut()?;
        *layers += 1;
        Some((keys.clone(), *layers, *rate))
    }
}

/// Two convolutions around the embedding of time and class, beside a shortcut.
#[derive(Module, Debug)]
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(super) fn new(config: &UnetConfig, [c, o]: [usize; 2], init: &mut Initializer) -> Self {
        let (groups, eps) = (config.norm_num_groups, config.norm_eps);
        Self {
            norm1: init.group_norm(c, groups, eps),
            conv1: init.conv([c, o], 3, Init::Xavier),
            time_emb_proj: init.linear(config.embedding(), o, Init::Xavier),
            norm2: init.group_norm(o, groups, eps),
            // Every block starts as its shortcut.
            conv2: init.conv([o, o], 3, Init::Zero),
            conv_shortcut: (c != o).then(|| init.conv([c, o], 1, Init::Xavier)),
        }
    }

    /// Maps `[b c h w]`, joined by the channels of `skip`, to `[b o h w]`.
    pub(super) fn forward(&self, x: Tensor<4>, skip: Option<Tensor<4>>, pass: &mut Pass) -> Tensor<4> {
        let shift = Some(self.time_emb_proj.forward_by_row(pass.embedding.clone()));
        // Joined for both that read it, where the first does not read two tensors as they are.
        let (x, skip) = if self.conv1.is_mixed(&x) { (x, skip) } else { (joined(x, skip), None) };
        let input = Input { x: x.clone(), skip: skip.clone(), dropout: None, shift, residual: None };
        let y = self.conv1.forward_normalised(&self.norm1, input);
        let residual = match (&self.conv_shortcut, skip) {
            (Some(conv), Some(skip)) => conv.forward_joined(x, skip),
            (Some(conv), None) => conv.forward(x),
            (None, skip) => joined(x, skip),
        };
        let dropout = pass.next_dropout();
        let input = Input { x: y, skip: None, dropout, shift: None, residual: Some(residual) };
        self.conv2.forward_normalised(&self.norm2, input)
    }

    fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        [&mut self.conv1, &mut self.conv2].into_iter().chain(&mut self.conv_shortcut).for_each(|conv| {
            conv.compute_in(arithmetic);
        });
    }
}

/// Attention among the pixels of an image.
#[derive(Module, Debug)]
pub(super) struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Vec<Linear>,
    heads: usize,
}

impl Attention {
    pub(super) fn new(config: &UnetConfig, c: usize, init: &mut Initializer) -> Self {
        Self {
            group_norm: init.group_norm(c, config.norm_num_groups, config.norm_eps),
            to_q: init.linear(c, c, Init::Xavier),
            to_k: init.linear(c, c, Init::Xavier),
            to_v: init.linear(c, c, Init::Xavier),
            to_out: vec![init.linear(c, c, Init::Zero)],
            heads: config.attention_head_dim.map_or(1, |d| c / d.max(1)),
        }
    }

    /// Maps `[b c h w]` to the same shape.
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [b, c, h, w] = x.dims();
        let y = self.group_norm.forward(x.clone());
        let y = y.reshape([b, c, h * w]).swap_dims(1, 2).reshape([b * h * w, c]); // [b*h*w c]
        let (q, k, v) = (self.to_q.forward(y.clone()), self.to_k.forward(y.clone()), self.to_v.forward(y));
        let y = kernel::attention(q, k, v, b, self.heads);
        let y = self.to_out.iter().fold(y, |y, layer| layer.forward(y));
        x + y.reshape([b, h * w, c]).swap_dims(1, 2).reshape([b, c, h, w])
    }

    fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        [&mut self.to_q, &mut self.to_k, &mut self.to_v].into_iter().chain(&mut self.to_out).for_each(|layer| {
            layer.compute_in(arithmetic);
        });
    }
}

/// A convolution that halves the size, or one behind its doubling.
#[derive(Module, Debug)]
pub(super) struct Resampler {
    conv: Conv2d,
}

impl Resampler {
    pub(super) fn halving(config: &UnetConfig, c: usize, init: &mut Initializer) -> Self {
        let padding = if config.downsample_padding == 0 { [0, 1, 0, 1] } else { [1; 4] };
        Self { conv: init.conv([c, c], 3, Init::Xavier).with_window(2, padding) }
    }

    pub(super) fn doubling(c: usize, init: &mut Initializer) -> Self {
        Self { conv: init.conv([c, c], 3, Init::Xavier) }
    }
}

/// One level on the way down.
#[derive(Module, Debug)]
pub(super) struct DownBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Attention>,
    downsamplers: Vec<Resampler>,
}

impl DownBlock {
    pub(super) fn new(config: &UnetConfig, level: usize, [c, o]: [usize; 2], init: &mut Initializer) -> Self {
        let layers = config.layers_per_block;
        let last = level + 1 == config.block_out_channels.len();
        Self {
            resnets: (0..layers).map(|i| ResnetBlock::new(config, [if i == 0 { c } else { o }, o], init)).collect(),
            attentions: attentions(config, level, layers, o, init),
            downsamplers: if last { Vec::new() } else { vec![Resampler::halving(config, o, init)] },
        }
    }

    pub(super) fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        compute_in(&mut self.resnets, &mut self.attentions, &mut self.downsamplers, arithmetic);
    }

    /// Maps `[b c h w]`, and leaves the result of every layer in `skips`.
    pub(super) fn forward(&self, mut x: Tensor<4>, pass: &mut Pass, skips: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, None, pass);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x);
            }
            skips.push(x.clone());
        }
        for resampler in &self.downsamplers {
            x = resampler.conv.forward(x); // [b o h/2 w/2]
            skips.push(x.clone());
        }
        x
    }
}

/// The innermost blocks.
#[derive(Module, Debug)]
pub(super) struct MidBlock {
    attentions: Vec<Attention>,
    resnets: Vec<ResnetBlock>,
}

impl MidBlock {
    pub(super) fn new(config: &UnetConfig, c: usize, init: &mut Initializer) -> Self {
        Self {
            attentions: vec![Attention::new(config, c, init)],
            resnets: (0..2).map(|_| ResnetBlock::new(config, [c, c], init)).collect(),
        }
    }

    pub(super) fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        compute_in(&mut self.resnets, &mut self.attentions, &mut [], arithmetic);
    }

    pub(super) fn forward(&self, mut x: Tensor<4>, pass: &mut Pass) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, None, pass);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x);
            }
        }
        x
    }
}

/// One level on the way up.
#[derive(Module, Debug)]
pub(super) struct UpBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Attention>,
    upsamplers: Vec<Resampler>,
}

impl UpBlock {
    /// For `below` channels from the level below; the last layer joins `above` channels, those that the level began with on the
    /// way down.
    pub(super) fn new(
        config: &UnetConfig,
        level: usize,
        [below, o, above]: [usize; 3],
        init: &mut Initializer,
    ) -> Self {
        let layers = config.layers_per_block + 1;
        let resnet = |i: usize| {
            let (c, skip) = (if i == 0 { below } else { o }, if i + 1 == layers { above } else { o });
            ResnetBlock::new(config, [c + skip, o], init)
        };
        Self {
            resnets: (0..layers).map(resnet).collect(),
            attentions: attentions(config, level, layers, o, init),
            upsamplers: if level == 0 { Vec::new() } else { vec![Resampler::doubling(o, init)] },
        }
    }

    pub(super) fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        compute_in(&mut self.resnets, &mut self.attentions, &mut self.upsamplers, arithmetic);
    }

    /// Maps `[b c h w]`, joining each layer's input with the latest of `skips`.
    pub(super) fn forward(&self, mut x: Tensor<4>, pass: &mut Pass, skips: &mut Vec<Tensor<4>>) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, skips.pop(), pass);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(x);
            }
        }
        for resampler in &self.upsamplers {
            x = resampler.conv.forward(kernel::upsample_nearest2(x)); // [b o 2*h 2*w]
        }
        x
    }
}

/// The arithmetic of all parts of a level.
fn compute_in(
    resnets: &mut [ResnetBlock],
    attentions: &mut [Attention],
    resamplers: &mut [Resampler],
    arithmetic: MatmulPrecision,
) {
    resnets.iter_mut().for_each(|resnet| resnet.compute_in(arithmetic));
    attentions.iter_mut().for_each(|attention| attention.compute_in(arithmetic));
    resamplers.iter_mut().for_each(|resampler| resampler.conv.compute_in(arithmetic));
}

/// Attention behind each of `count` layers, where the level has it.
fn attentions(config: &UnetConfig, level: usize, count: usize, c: usize, init: &mut Initializer) -> Vec<Attention> {
    let count = if config.attention_levels.contains(&level) { count } else { 0 };
    (0..count).map(|_| Attention::new(config, c, init)).collect()
}
