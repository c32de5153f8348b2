//! The shape of a U-Net, with the field names of a diffusers `UNet2DModel` where it has them.

use crate::{Error, Result, limits};
use serde::{Deserialize, Serialize};

/// The shape of a [`Unet`](super::Unet).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnetConfig {
    /// Mixture components K.
    pub num_gaussians: usize,
    /// Height and width of the images that it is trained on. Any multiple of 2^(levels - 1) is taken.
    pub sample_size: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the predicted velocity; those of the input by default.
    pub out_channels: Option<usize>,
    /// Channels at each level; every level halves the size of the one before.
    pub block_out_channels: Vec<usize>,
    /// Levels with attention behind every residual block, counted from 0. The innermost blocks always have it.
    pub attention_levels: Vec<usize>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Channels of one attention head; absent: one head.
    pub attention_head_dim: Option<usize>,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Added to the variance in every group norm.
    pub norm_eps: f64,
    /// Zeros around the image where it is halved: 1 on all sides, or 0 for one on the right and below.
    pub downsample_padding: usize,
    /// Cosines before sines in the time features.
    pub flip_sin_to_cos: bool,
    /// Subtracted from the number of frequencies in the exponent's denominator of the time features.
    pub freq_shift: f64,
    /// In training, the probability that a value is dropped before the second convolution of a residual block.
    pub dropout: f64,
    /// Classes; the label table has one more row, the null class. 0: no label table.
    pub num_classes: usize,
    /// Width of the log-std head's hidden layers.
    pub logstd_inner_dim: usize,
    /// Layers of the log-std head.
    pub gm_num_logstd_layers: usize,
    /// Fixes the log standard deviation instead of predicting it.
    pub constant_logstd: Option<f64>,
}

impl Default for UnetConfig {
    /// The network of Ho et al. (2020) for CIFAR-10, with two components.
    fn default() -> Self {
        Self {
            num_gaussians: 2,
            sample_size: 32,
            in_channels: 3,
            out_channels: None,
            block_out_channels: vec![128, 256, 256, 256],
            attention_levels: vec![1],
            layers_per_block: 2,
            attention_head_dim: None,
            norm_num_groups: 32,
            norm_eps: 1e-6,
            downsample_padding: 0,
            flip_sin_to_cos: false,
            freq_shift: 1.0,
            dropout: 0.0,
            num_classes: 0,
            logstd_inner_dim: 512,
            gm_num_logstd_layers: 2,
            constant_logstd: None,
        }
    }
}

impl UnetConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("num_gaussians", self.num_gaussians),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels()),
            ("norm_num_groups", self.norm_num_groups),
            ("logstd_inner_dim", self.logstd_inner_dim),
        ] {
            limits::count(field, value, limits::MOST_WIDTH)?;
        }
        limits::count("layers_per_block", self.layers_per_block, limits::MOST_LAYERS)?;
        limits::count("gm_num_logstd_layers", self.gm_num_logstd_layers, limits::MOST_LAYERS)?;
        limits::count("sample_size", self.sample_size, limits::MOST_PIXELS)?;
        if self.num_classes > limits::MOST_CLASSES {
            return Err(Error::config("num_classes", format!("0 to {}", limits::MOST_CLASSES), self.num_classes));
        }
        self.validate_levels()?;
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return Err(Error::config("norm_eps", "a positive number", self.norm_eps));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config("dropout", "a probability below 1", self.dropout));
        }
        if self.downsample_padding > 1 {
            return Err(Error::config("downsample_padding", "0 or 1", self.downsample_padding));
        }
        if !(self.freq_shift.is_finite() && self.freq_shift < (self.time_channels() / 2) as f64) {
            let expected = format!("below {}, half of block_out_channels.0", self.time_channels() / 2);
            return Err(Error::config("freq_shift", expected, self.freq_shift));
        }
        super::finite_log_std(self.constant_logstd)
    }

    fn validate_levels(&self) -> Result<()> {
        /// Levels at the most: sizes are multiples of 2^(levels - 1).
        const LEVELS: usize = 16;
        let levels = self.block_out_channels.len();
        if !(1..=LEVELS).contains(&levels) {
            return Err(Error::config("block_out_channels", format!("1 to {LEVELS} levels"), levels));
        }
        let groups = self.norm_num_groups;
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            let field = format!("block_out_channels.{level}");
            if !(1..=limits::MOST_WIDTH).contains(&channels) || !channels.is_multiple_of(groups) {
                let expected = format!("a multiple of norm_num_groups ({groups}) up to {}", limits::MOST_WIDTH);
                return Err(Error::config(field, expected, channels));
            }
            let head = self.attention_head_dim.unwrap_or(channels);
            let attends = self.attention_levels.contains(&level) || level + 1 == levels;
            if attends && (head == 0 || !channels.is_multiple_of(head)) {
                return Err(Error::config("attention_head_dim", format!("a divisor of {field} ({channels})"), head));
            }
        }
        if !self.time_channels().is_multiple_of(2) {
            return Err(Error::config("block_out_channels.0", "an even number", self.time_channels()));
        }
        if let Some(level) = self.attention_levels.iter().find(|level| **level >= levels) {
            return Err(Error::config("attention_levels", format!("levels below {levels}"), level));
        }
        if !self.sample_size.is_multiple_of(self.scale()) {
            let expected = format!("a multiple of {}, for {levels} levels", self.scale());
            return Err(Error::config("sample_size", expected, self.sample_size));
        }
        Ok(())
    }

    /// Channels of the predicted velocity.
    pub fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Images' height and width must be multiples of this: 2^(levels - 1).
    pub fn scale(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Outputs per pixel: K means of `out_channels` and K log weights.
    pub(crate) fn head_channels(&self) -> usize {
        self.num_gaussians.saturating_mul(self.out_channels().saturating_add(1))
    }

    /// Channels of the sinusoidal time features.
    pub(super) fn time_channels(&self) -> usize {
        self.block_out_channels.first().copied().unwrap_or(0)
    }

    /// Width of the embedding of time and class.
    pub(super) fn embedding(&self) -> usize {
        4 * self.time_channels()
    }

    /// Inputs and outputs of each layer of the log-std head; none where the log standard deviation is constant.
    pub(super) fn log_std_widths(&self) -> Vec<[usize; 2]> {
        super::log_std_widths(
            self.constant_logstd,
            self.embedding(),
            self.logstd_inner_dim,
            self.gm_num_logstd_layers,
        )
    }
}
