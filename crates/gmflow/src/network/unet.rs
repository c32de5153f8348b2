//! The U-Net of denoising diffusion (Ho et al., 2020) whose output layer predicts a mixture at every pixel.
//!
//! Layers, their order and their parameters' names are those of diffusers' `UNet2DModel`. Dropout is for training only, where the
//! caller gives each sample the key of its draws.

use super::conv::{Conv2d, GroupNorm};
use super::embedding::time_features;
use super::linear::{Init, Initializer, Linear};
use super::unet_blocks::{DownBlock, MidBlock, Pass, UpBlock};
use super::unet_config::UnetConfig;
use super::{Denoiser, TorchNames, log_std_head, predict_log_std};
use crate::Result;
use crate::kernel::{self, MatmulPrecision};
use crate::mixture::{GaussianMixture, VelocityMixture};
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use std::sync::Arc;

/// A U-Net on images with a mixture head, with or without classes.
#[derive(Module, Debug)]
pub struct Unet {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    class_embedding: Option<ClassEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    log_std: Vec<Linear>,
    #[module(skip)]
    config: UnetConfig,
}

#[derive(Module, Debug)]
struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

#[derive(Module, Debug)]
struct ClassEmbedding {
    weight: Param<Tensor<2>>,
}

impl UnetConfig {
    /// Draws the weights.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Unet> {
        self.build(Initializer::new(seed, device))
    }

    pub(crate) fn build(&self, init: Initializer) -> Result<Unet> {
        Unet::new(self, init)
    }
}

impl Unet {
    /// Draws the weights.
    pub(super) fn new(config: &UnetConfig, mut init: Initializer) -> Result<Self> {
        config.validate()?;
        let (channels, e) = (&config.block_out_channels, config.embedding());
        let levels = channels.len();
        let first = config.time_channels();
        let inner = channels.last().copied().unwrap_or(first);
        // Channels before, in and behind a level on the way down.
        let before = |level: usize| if level == 0 { first } else { channels[level - 1] };
        let behind = |level: usize| channels.get(level + 1).copied().unwrap_or(inner);
        let conv_in = init.conv([config.in_channels, first], 3, Init::Xavier);
        let time_embedding = TimeEmbedding {
            linear_1: init.linear(first, e, Init::Xavier),
            linear_2: init.linear(e, e, Init::Xavier),
        };
        let classes = config.num_classes;
        let class_embedding = (classes > 0)
            .then(|| ClassEmbedding { weight: init.param([classes + 1, e], Init::Normal(0.02), [e, e]) });
        let down = |level: usize| DownBlock::new(config, level, [before(level), channels[level]], &mut init);
        let down_blocks = (0..levels).map(down).collect();
        let mid_block = MidBlock::new(config, inner, &mut init);
        let up =
            |level: usize| UpBlock::new(config, level, [behind(level), channels[level], before(level)], &mut init);
        let up_blocks = (0..levels).rev().map(up).collect();
        Ok(Self {
            conv_in,
            time_embedding,
            class_embedding,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: init.group_norm(first, config.norm_num_groups, config.norm_eps),
            // Not zero: equal components would have equal gradients and stay equal for ever.
            conv_out: init.conv([first, config.head_channels()], 3, Init::Xavier),
            log_std: log_std_head(&config.log_std_widths(), &mut init),
            config: config.clone(),
        })
    }

    /// Computes the convolutions, but for the first and the last, and the linear layers of attention in this arithmetic: bf16 on
    /// CPUs, otherwise f32.
    pub(super) fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        let arithmetic = if self.conv_in.is_on_cpu() { arithmetic.with_gradients() } else { MatmulPrecision::F32 };
        self.down_blocks.iter_mut().for_each(|block| block.compute_in(arithmetic));
        self.mid_block.compute_in(arithmetic);
        self.up_blocks.iter_mut().for_each(|block| block.compute_in(arithmetic));
    }

    /// The network's shape.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// The embedding `[b e]` of time `t` `[b]` in [0, 1] and, where the network has classes, of the class.
    pub fn embedding(&self, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> Tensor<2> {
        let channels = self.config.time_channels();
        let features = time_features(t * 1000.0, channels, self.config.freq_shift); // [b channels], cosines first
        let features = if self.config.flip_sin_to_cos {
            features
        } else {
            let half = channels / 2;
            Tensor::cat(vec![features.clone().narrow(1, half, half), features.narrow(1, 0, half)], 1)
        };
        let TimeEmbedding { linear_1, linear_2 } = &self.time_embedding;
        let time = linear_2.forward_by_row(kernel::silu(linear_1.forward_by_row(features))); // [b e]
        match (&self.class_embedding, class) {
            (None, _) => time,
            (Some(labels), Some(class)) => time + labels.weight.val().select(0, class),
            (Some(labels), None) => time + labels.weight.val().narrow(0, self.config.num_classes, 1),
        }
    }

    /// The last layer's output `[b k*c+k h w]`.
    fn features(&self, x_t: Tensor<4>, mut pass: Pass) -> Tensor<4> {
        let mut x = self.conv_in.forward(x_t);
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &mut pass, &mut skips);
        }
        x = self.mid_block.forward(x, &mut pass);
        for block in &self.up_blocks {
            x = block.forward(x, &mut pass, &mut skips);
        }
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }

    /// Predicts as [`Denoiser::forward`] does; with a key for each sample, after dropout.
    pub(super) fn predict(
        &self,
        x_t: Tensor<4>,
        t: Tensor<1>,
        class: Option<Tensor<1, Int>>,
        keys: Option<Arc<[u64]>>,
    ) -> VelocityMixture {
        let embedding = self.embedding(t, class); // [b e]
        let x = self.features(x_t, Pass::new(&self.config, embedding.clone(), keys));
        let [b, head, h, w] = x.dims();
        let (k, c) = (self.config.num_gaussians, self.config.out_channels());
        let means = x.clone().slice([0..b, 0..k * c]).reshape([b, k, c, h, w]);
        let logits = x.slice([0..b, k * c..head]).reshape([b, k, h * w]);
        let log_weights = kernel::log_softmax(logits).reshape([b, k, 1, h, w]);
        let log_std = predict_log_std(&self.log_std, self.config.constant_logstd, embedding);
        VelocityMixture(GaussianMixture { means, log_weights, log_std })
    }
}

impl Denoiser for Unet {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        self.predict(x_t, t, class, None)
    }

    fn null_class(&self) -> Option<usize> {
        Some(self.config.num_classes).filter(|&classes| classes > 0)
    }
}

impl TorchNames for Unet {
    fn torch_name(path: &str) -> String {
        super::log_std_name(path)
    }
}
