//! The shape of an autoencoder, with the field names of a diffusers `config.json`.

use super::Autoencoder;
use crate::network::linear::Initializer;
use crate::{Error, Result, limits};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// The most levels of resolution that are taken for sense.
const MOST_LEVELS: usize = 10;

/// The shape of an [`Autoencoder`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoencoderConfig {
    /// Channels of the images that are encoded.
    pub in_channels: usize,
    /// Channels of the images that are decoded.
    pub out_channels: usize,
    /// Channels of each level, from the images' resolution down; each level but the last halves height and width.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level in the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Height and width of the images that it was trained on.
    pub sample_size: usize,
    /// What latents are multiplied by to be of about unit variance.
    pub scaling_factor: f64,
    /// What is subtracted from them before.
    pub shift_factor: Option<f64>,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks attend.
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderConfig {
    /// Stable Diffusion's autoencoder: latents of 4 channels at an eighth of the height and width.
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 256,
            scaling_factor: 0.18215,
            shift_factor: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl AutoencoderConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("latent_channels", self.latent_channels),
            ("norm_num_groups", self.norm_num_groups),
        ] {
            limits::count(field, value, limits::MOST_WIDTH)?;
        }
        limits::count("layers_per_block", self.layers_per_block, limits::MOST_LAYERS)?;
        limits::count("sample_size", self.sample_size, limits::MOST_PIXELS)?;
        let levels = self.block_out_channels.len();
        if !(1..=MOST_LEVELS).contains(&levels) {
            return Err(Error::config("block_out_channels", format!("1 to {MOST_LEVELS} levels"), levels));
        }
        let fits = |c: &usize| (1..=limits::MOST_WIDTH).contains(c) && c.is_multiple_of(self.norm_num_groups);
        if let Some(channels) = self.block_out_channels.iter().find(|c| !fits(c)) {
            let expected =
                format!("multiples of norm_num_groups ({}) up to {}", self.norm_num_groups, limits::MOST_WIDTH);
            return Err(Error::config("block_out_channels", expected, channels));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return Err(Error::config("scaling_factor", "a positive number", self.scaling_factor));
        }
        match self.shift_factor {
            Some(shift) if !shift.is_finite() => Err(Error::config("shift_factor", "a finite number", shift)),
            _ => Ok(()),
        }
    }

    /// Draws the weights.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Autoencoder> {
        self.build(Initializer::new(seed, device))
    }

    pub(crate) fn build(&self, init: Initializer) -> Result<Autoencoder> {
        Autoencoder::new(self, init)
    }

    /// Pixels per latent, in height and in width.
    pub fn downsampling(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1).min(MOST_LEVELS)
    }
}
