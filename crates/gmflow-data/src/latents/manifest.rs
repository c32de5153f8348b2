//! What a cache of latents holds.

use super::MANIFEST;
use crate::storage::{Files, in_folder};
use crate::{Error, Fingerprint, Result};
use half::f16;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

const FORMAT: &str = "gmflow-latents";
const VERSION: u32 = 1;
/// The most values of one latent that are taken for sense.
const MOST_VALUES: usize = 1 << 28;
/// The most latents of one shard that are taken for sense.
const MOST_PER_SHARD: usize = 1 << 24;

/// The number format of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatentPrecision {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE half precision: latents are of the order of ten, far from its limits, and its rounding by at most 2^-11 of a value is
    /// less than the noise of the smallest training times. There is no bfloat16: it takes the same room and rounds eight times as much.
    #[default]
    F16,
}

impl LatentPrecision {
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
        }
    }

    /// The largest magnitude that can be stored.
    pub(super) fn largest(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => f16::MAX.to_f32(),
        }
    }
}

/// What a cache of latents holds: the content of `latents.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentManifest {
    /// `[c h w]` of a latent.
    pub shape: [usize; 3],
    /// Latents of a shard; the last may have fewer.
    pub shard: usize,
    /// The number format.
    #[serde(default)]
    pub precision: LatentPrecision,
    /// Whether the mirrored images are encoded too.
    #[serde(default)]
    pub mirrored: bool,
    /// Latents are multiplied by this after the shift.
    pub scaling_factor: f64,
    /// What is subtracted from latents.
    #[serde(default)]
    pub shift_factor: f64,
    /// Pixels per latent, in height and in width.
    pub downsampling: usize,
    /// The names of the classes; empty without classes.
    #[serde(default)]
    pub classes: Vec<String>,
    /// The autoencoder as it was named.
    #[serde(default)]
    pub vae: Option<String>,
    /// The images, for the reader.
    #[serde(default)]
    pub images: Option<serde_json::Value>,
    /// What the images were known by when they were encoded; caches of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Fingerprint>,
    /// Latents in the cache; 0 until it is complete.
    #[serde(default)]
    pub count: usize,
    /// Damaged images that were left out.
    #[serde(default)]
    pub left_out: usize,
    /// Whether every image has been encoded.
    #[serde(default)]
    pub complete: bool,
}

/// The manifest as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: String,
    version: u32,
    manifest: LatentManifest,
}

impl LatentManifest {
    /// Reads the manifest of a cache.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] where there is none, [`crate::FilesError::File`] naming the field that is wrong.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
        Self::parse(&path, &bytes)
    }

    /// The same of a cache that may be behind a URL.
    pub(super) fn read_with(files: &Files, folder: &Path) -> Result<Self> {
        let entry = files.stat(&in_folder(folder, MANIFEST))?;
        Self::parse(&entry.path, &files.read_all(&entry)?)
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let stored: Stored = serde_json::from_slice(bytes)
            .map_err(|error| Error::file(path, "content", "the manifest of a cache of latents", error))?;
        if stored.format != FORMAT {
            return Err(Error::file(path, "format", FORMAT, stored.format));
        }
        if stored.version != VERSION {
            return Err(Error::file(path, "version", VERSION.to_string(), stored.version));
        }
        stored.manifest.validate(path)?;
        Ok(stored.manifest)
    }

    /// Whether the manifest in `folder` is one of a cache, of any version.
    pub(super) fn is_ours(folder: &Path) -> bool {
        let text = std::fs::read(folder.join(MANIFEST)).unwrap_or_default();
        let value: Option<Value> = serde_json::from_slice(&text).ok();
        value.and_then(|value| Some(value.get("format")? == FORMAT)).unwrap_or(false)
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST);
        self.validate(&path)?;
        let stored = Stored { format: FORMAT.into(), version: VERSION, manifest: self.clone() };
        let bytes = serde_json::to_vec_pretty(&stored)
            .map_err(|error| Error::file(&path, "content", "values that JSON can hold", error))?;
        super::writer::write_atomic(&path, &bytes)
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let wrong = |field: &str, expected: &str, got: String| Err(Error::file(path, field, expected, got));
        let values = self.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        if values.is_none_or(|n| !(1..=MOST_VALUES).contains(&n)) {
            return wrong("shape", "channels, height and width", format!("{:?}", self.shape));
        }
        if !(1..=MOST_PER_SHARD).contains(&self.shard) {
            return wrong("shard", &format!("1 to {MOST_PER_SHARD}"), self.shard.to_string());
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor > 0.0) {
            return wrong("scaling_factor", "a positive number", self.scaling_factor.to_string());
        }
        if !self.shift_factor.is_finite() {
            return wrong("shift_factor", "a finite number", self.shift_factor.to_string());
        }
        if self.downsampling == 0 {
            return wrong("downsampling", "at least 1", self.downsampling.to_string());
        }
        Ok(())
    }

    /// Why a cache that was begun as this one cannot be continued as `now`: the settings that differ, or how the images changed; `None`
    /// where nothing keeps it from that.
    pub(super) fn differs(&self, now: &Self) -> Option<String> {
        // The images say more of their classes than the names alone.
        if let (Some(before), Some(now)) = (&self.data, &now.data)
            && let Some(changes) = before.changes(now)
        {
            return Some(format!("other images: {changes}"));
        }
        let both_known = self.data.is_some() && now.data.is_some();
        let settings = |manifest: &Self| {
            let mut begun = Self { count: 0, left_out: 0, complete: false, ..manifest.clone() };
            if both_known {
                // They have been compared; where they lie and how damage is treated may change.
                begun.images = None;
            }
            begun.data = None;
            match serde_json::to_value(begun) {
                Ok(Value::Object(settings)) => settings,
                _ => Map::new(),
            }
        };
        let (before, now) = (settings(self), settings(now));
        let differ = |name: &&String| before.get(*name) != now.get(*name);
        let say = |name: &String| {
            let [before, now] = [&before, &now].map(|settings| settings.get(name).unwrap_or(&Value::Null));
            format!("{name} {now}, {before} before")
        };
        let lines: Vec<String> = before.keys().filter(differ).map(say).collect();
        (!lines.is_empty()).then(|| format!("other settings: {}", lines.join("; ")))
    }

    /// Values of one latent.
    pub(super) fn values(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensors of means and standard deviations that a shard has.
    pub(super) fn tensors(&self) -> &'static [&'static str] {
        if self.mirrored { &["mean", "std", "mirror_mean", "mirror_std"] } else { &["mean", "std"] }
    }
}
