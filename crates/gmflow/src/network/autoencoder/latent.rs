//! From an autoencoder's latents to those that a network works on.

use super::config::AutoencoderConfig;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How the latents that a network works on come from an autoencoder's: `(latent - shift_factor) * scaling_factor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentInfo {
    /// The factor that brings latents to about unit variance.
    pub scaling_factor: f64,
    /// What is subtracted before.
    #[serde(default)]
    pub shift_factor: f64,
    /// Pixels of the decoded image per latent, in height and in width.
    pub downsampling: usize,
    /// The autoencoder as it was named when the data was encoded: a folder or a hub id.
    #[serde(default)]
    pub vae: Option<String>,
}

impl From<&AutoencoderConfig> for LatentInfo {
    fn from(vae: &AutoencoderConfig) -> Self {
        Self {
            scaling_factor: vae.scaling_factor,
            shift_factor: vae.shift_factor.unwrap_or(0.0),
            downsampling: vae.downsampling(),
            vae: None,
        }
    }
}

impl LatentInfo {
    /// Checks every field, naming the first that is out of range.
    pub(crate) fn validate(&self) -> Result<()> {
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return Err(Error::config("latent.scaling_factor", "a positive number", self.scaling_factor));
        }
        if !self.shift_factor.is_finite() {
            return Err(Error::config("latent.shift_factor", "a finite number", self.shift_factor));
        }
        if self.downsampling == 0 {
            return Err(Error::config("latent.downsampling", "at least 1", self.downsampling));
        }
        Ok(())
    }
}
