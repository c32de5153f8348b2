//! The shape of a GM-DiT, with the field names of a diffusers `config.json`.

use crate::{Error, Result, limits};
use serde::{Deserialize, Serialize};

/// The output layer of a [`GmDit`](super::GmDit).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GmDitHead {
    /// One linear layer for means and weights, as GM-DiT was published.
    #[default]
    OnePart,
    /// A layer for the means and one for the weights, as in published students of distillation.
    TwoParts,
    /// Means alone: velocities of equal weights and no standard deviation. With one of them it is a plain DiT, with several the points of a
    /// [`GridPolicy`](crate::policy::GridPolicy).
    Means,
}

impl GmDitHead {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a time t is multiplied by where nothing else is said.
const TIME_SCALE: f64 = 1000.0;

fn is_usual_time_scale(scale: &f64) -> bool {
    *scale == TIME_SCALE
}

/// The shape of a [`GmDit`](super::GmDit).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GmDitConfig {
    /// Mixture components K.
    pub num_gaussians: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels of one head; heads times this is the hidden width.
    pub attention_head_dim: usize,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Height and width of the images that the position table is laid out for.
    pub sample_size: usize,
    /// Height and width of a patch.
    pub patch_size: usize,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the predicted velocity; those of the input by default.
    pub out_channels: Option<usize>,
    /// Classes; the label table has one more row, the null class.
    pub num_embeds_ada_norm: usize,
    /// Width of the log-std head's hidden layers.
    pub logstd_inner_dim: usize,
    /// Layers of the log-std head.
    pub gm_num_logstd_layers: usize,
    /// Fixes the log standard deviation instead of predicting it.
    pub constant_logstd: Option<f64>,
    /// Share of samples that saw the null class in a block when a published network was trained. It is kept with the network; training
    /// here drops the class of a sample everywhere, as often as `train.label_dropout` says.
    pub class_dropout_prob: f64,
    /// The output layer.
    #[serde(skip_serializing_if = "GmDitHead::is_default")]
    pub head: GmDitHead,
    /// What a time in [0, 1] is multiplied by before the network sees it: 1000, or 1 in some published networks.
    #[serde(skip_serializing_if = "is_usual_time_scale")]
    pub time_scale: f64,
}

impl Default for GmDitConfig {
    /// GM-DiT-XL/2 for 256x256 ImageNet latents.
    fn default() -> Self {
        Self {
            num_gaussians: 8,
            num_attention_heads: 16,
            attention_head_dim: 72,
            num_layers: 28,
            sample_size: 32,
            patch_size: 2,
            in_channels: 4,
            out_channels: None,
            num_embeds_ada_norm: 1000,
            logstd_inner_dim: 1024,
            gm_num_logstd_layers: 2,
            constant_logstd: None,
            class_dropout_prob: 0.0,
            head: GmDitHead::OnePart,
            time_scale: 1000.0,
        }
    }
}

impl GmDitConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("num_gaussians", self.num_gaussians),
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("patch_size", self.patch_size),
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels()),
            ("logstd_inner_dim", self.logstd_inner_dim),
        ] {
            limits::count(field, value, limits::MOST_WIDTH)?;
        }
        limits::count("num_layers", self.num_layers, limits::MOST_LAYERS)?;
        limits::count("gm_num_logstd_layers", self.gm_num_logstd_layers, limits::MOST_LAYERS)?;
        limits::count("sample_size", self.sample_size, limits::MOST_PIXELS)?;
        if self.num_embeds_ada_norm > limits::MOST_CLASSES {
            let expected = format!("0 to {}", limits::MOST_CLASSES);
            return Err(Error::config("num_embeds_ada_norm", expected, self.num_embeds_ada_norm));
        }
        if self.sample_size < self.patch_size {
            return Err(Error::config("sample_size", "at least patch_size", self.sample_size));
        }
        if !self.hidden().is_multiple_of(4) {
            return Err(Error::config("num_attention_heads * attention_head_dim", "a multiple of 4", self.hidden()));
        }
        if !(0.0..1.0).contains(&self.class_dropout_prob) {
            return Err(Error::config("class_dropout_prob", "a share in [0, 1)", self.class_dropout_prob));
        }
        if !(self.time_scale.is_finite() && self.time_scale > 0.0) {
            return Err(Error::config("time_scale", "a positive number", self.time_scale));
        }
        super::finite_log_std(self.constant_logstd)
    }

    /// Width of the tokens.
    pub fn hidden(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.attention_head_dim)
    }

    /// Channels of the predicted velocity.
    pub fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Outputs per pixel: K means of `out_channels` and, unless the head has none, K log weights.
    pub(crate) fn head_channels(&self) -> usize {
        let weights = usize::from(self.head != GmDitHead::Means);
        self.num_gaussians.saturating_mul(self.out_channels().saturating_add(weights))
    }

    /// Means per pixel: K of `out_channels`.
    pub(super) fn mean_channels(&self) -> usize {
        self.num_gaussians.saturating_mul(self.out_channels())
    }

    /// Inputs and outputs of each layer of the log-std head; none where the log standard deviation is constant, or there is none.
    pub(super) fn log_std_widths(&self) -> Vec<[usize; 2]> {
        if self.head == GmDitHead::Means {
            return Vec::new();
        }
        super::log_std_widths(self.constant_logstd, self.hidden(), self.logstd_inner_dim, self.gm_num_logstd_layers)
    }
}
