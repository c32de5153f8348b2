//! The autoencoder between images and latents (AutoencoderKL, Rombach et al. 2022).

mod blocks;
mod config;
mod latent;
mod tiling;

pub use config::AutoencoderConfig;
pub use latent::LatentInfo;
pub use tiling::Tiling;

use super::TorchNames;
use super::conv::{Conv2d, GroupNorm};
use super::linear::{Init, Initializer};
use crate::{Error, Result};
use blocks::{DownBlock, EPS, MidBlock, UpBlock};
use burn::module::Module;
use burn::tensor::Tensor;

/// Bounds of the log variance of a latent, as published.
const LOG_VAR_RANGE: (f64, f64) = (-30.0, 20.0);

/// The Gaussian that an image is encoded as; not shifted or scaled.
#[derive(Clone, Debug)]
pub struct LatentDistribution {
    /// Mean `[b c h w]`.
    pub mean: Tensor<4>,
    /// Standard deviation `[b c h w]`.
    pub std: Tensor<4>,
}

impl LatentDistribution {
    fn of_moments([mean, log_var]: [Tensor<4>; 2]) -> Self {
        Self { mean, std: (log_var * 0.5).exp() }
    }
}

/// A convolutional variational autoencoder.
#[derive(Module, Debug)]
pub struct Autoencoder {
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    #[module(skip)]
    config: AutoencoderConfig,
}

#[derive(Module, Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

#[derive(Module, Debug)]
struct Decoder {
    conv_in: Conv2d,
    up_blocks: Vec<UpBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Autoencoder {
    /// Draws the weights.
    fn new(config: &AutoencoderConfig, mut init: Initializer) -> Result<Self> {
        config.validate()?;
        let z = config.latent_channels;
        Ok(Self {
            encoder: Encoder::new(config, &mut init),
            decoder: Decoder::new(config, &mut init),
            quant_conv: config.use_quant_conv.then(|| init.conv([2 * z, 2 * z], 1, Init::FanIn)),
            post_quant_conv: config.use_post_quant_conv.then(|| init.conv([z, z], 1, Init::FanIn)),
            config: config.clone(),
        })
    }

    /// The network's shape.
    pub fn config(&self) -> &AutoencoderConfig {
        &self.config
    }

    /// Encodes images `[b c h w]` in [-1, 1] whose height and width are multiples of
    /// [`AutoencoderConfig::downsampling`].
    pub fn encode(&self, images: Tensor<4>) -> LatentDistribution {
        LatentDistribution::of_moments(self.moments(images))
    }

    /// Mean and log variance `[b c h w]` of the latents of images.
    pub fn moments(&self, images: Tensor<4>) -> [Tensor<4>; 2] {
        let x = self.encoder.forward(images); // [b 2*z h/f w/f]
        let x = match &self.quant_conv {
            Some(conv) => conv.forward(x),
            None => x,
        };
        let [mean, log_var] =
            [0, 1].map(|half| x.clone().narrow(1, half * self.config.latent_channels, self.config.latent_channels));
        [mean, log_var.clamp(LOG_VAR_RANGE.0, LOG_VAR_RANGE.1)]
    }

    /// Decodes latents `[b c h w]`, not shifted or scaled, to images of about [-1, 1].
    pub fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let x = match &self.post_quant_conv {
            Some(conv) => conv.forward(latents),
            None => latents,
        };
        self.decoder.forward(x)
    }

    /// Checks that images of this size can be encoded.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] with field "image" where channels, height or width do not fit.
    pub fn check_image(&self, [c, h, w]: [usize; 3]) -> Result<()> {
        let (channels, f) = (self.config.in_channels, self.config.downsampling());
        if c == channels && h > 0 && w > 0 && h.is_multiple_of(f) && w.is_multiple_of(f) {
            return Ok(());
        }
        let expected = format!("{channels} channels, height and width multiples of {f}");
        Err(Error::config("image", expected, format!("{c} channels, {h}x{w}")))
    }
}

impl Encoder {
    fn new(config: &AutoencoderConfig, init: &mut Initializer) -> Self {
        let (groups, levels) = (config.norm_num_groups, config.block_out_channels.as_slice());
        let (first, last) = ends(levels);
        let before = std::iter::once(&first).chain(levels);
        let down_blocks = before.zip(levels).enumerate().map(|(i, (&from, &to))| {
            DownBlock::new([from, to], config.layers_per_block, i + 1 == levels.len(), groups, init)
        });
        let down_blocks = down_blocks.collect();
        Self {
            conv_in: init.conv([config.in_channels, first], 3, Init::FanIn),
            down_blocks,
            mid_block: MidBlock::new(last, groups, config.mid_block_add_attention, init),
            conv_norm_out: init.group_norm(last, groups, EPS),
            conv_out: init.conv([last, 2 * config.latent_channels], 3, Init::FanIn),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv_in.forward(x);
        let x = self.down_blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.conv_norm_out.forward_silu(self.mid_block.forward(x));
        self.conv_out.forward(x)
    }
}

impl Decoder {
    fn new(config: &AutoencoderConfig, init: &mut Initializer) -> Self {
        let groups = config.norm_num_groups;
        let levels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = ends(&levels);
        let before = std::iter::once(&first).chain(&levels);
        let up_blocks = before.zip(&levels).enumerate().map(|(i, (&from, &to))| {
            UpBlock::new([from, to], config.layers_per_block + 1, i + 1 == levels.len(), groups, init)
        });
        let up_blocks = up_blocks.collect();
        Self {
            conv_in: init.conv([config.latent_channels, first], 3, Init::FanIn),
            up_blocks,
            mid_block: MidBlock::new(first, groups, config.mid_block_add_attention, init),
            conv_norm_out: init.group_norm(last, groups, EPS),
            conv_out: init.conv([last, config.out_channels], 3, Init::FanIn),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.mid_block.forward(self.conv_in.forward(x));
        let x = self.up_blocks.iter().fold(x, |x, block| block.forward(x));
        self.conv_out.forward(self.conv_norm_out.forward_silu(x))
    }
}

/// The first and the last of the levels, of which there is one at least.
fn ends(levels: &[usize]) -> (usize, usize) {
    (levels.first().copied().unwrap_or(1), levels.last().copied().unwrap_or(1))
}

impl TorchNames for Autoencoder {
    fn torch_name(path: &str) -> String {
        path.replace("to_out.", "to_out.0.")
    }
}
