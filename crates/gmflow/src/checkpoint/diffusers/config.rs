//! The `config.json` of a component: which network it is, and its shape.

use super::CONFIG_FILE;
use crate::checkpoint::file;
use crate::checkpoint::weights::in_file;
use crate::network::{AutoencoderConfig, GmDitConfig, NetworkConfig, SpectrumMlpConfig, UnetConfig};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::Path;

/// A component by what its config says.
#[derive(Debug)]
pub enum ComponentConfig {
    /// A denoising network.
    Denoiser(NetworkConfig),
    Spectrum(SpectrumMlpConfig),
    Autoencoder(AutoencoderConfig),
    /// Steps of the time grid and its shift.
    Scheduler {
        shift: f32,
    },
}

impl ComponentConfig {
    /// Reads the config in a component's folder.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] naming the field that is unknown, out of range or of another architecture.
    pub fn read(dir: &Path) -> Result<Self> {
        let scheduler = dir.join("scheduler_config.json");
        let path = if scheduler.is_file() { scheduler } else { dir.join(CONFIG_FILE) };
        Self::parse(&path, &file::read(&path)?)
    }

    /// Reads a config from the bytes of the file at `path`.
    ///
    /// # Errors
    /// [`Error::File`], as [`ComponentConfig::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let fields: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| Error::file(path, "content", "a JSON object", error))?;
        let class = fields.get("_class_name").and_then(Value::as_str).unwrap_or_default().to_owned();
        // Fields with an underscore are the library's own notes.
        let fields: Map<String, Value> = fields.into_iter().filter(|(name, _)| !name.starts_with('_')).collect();
        match kind(&class, &fields) {
            Some(Kind::Transformer) => {
                transformer(path, fields).map(|config| Self::Denoiser(NetworkConfig::GmDit(config)))
            }
            Some(Kind::Unet) => {
                let config: UnetConfig = read_as(path, fields)?;
                config.validate().map_err(|error| in_file(path, error))?;
                Ok(Self::Denoiser(NetworkConfig::Unet(config)))
            }
            Some(Kind::Spectrum) => {
                let config: SpectrumMlpConfig = read_as(path, fields)?;
                config.validate().map_err(|error| in_file(path, error))?;
                Ok(Self::Spectrum(config))
            }
            Some(Kind::Autoencoder) => autoencoder(path, fields).map(Self::Autoencoder),
            Some(Kind::Scheduler) => scheduler(path, &fields),
            None => {
                let expected =
                    "GMDiTTransformer2DModel, GMUNet2DModel, SpectrumMLP, AutoencoderKL or a flow scheduler";
                Err(Error::file(path, "_class_name", expected, format!("{class:?}")))
            }
        }
    }

    /// The error for a component of another kind than wanted.
    pub fn instead_of(&self, wanted: &str, dir: &Path) -> Error {
        let got = match self {
            Self::Denoiser(NetworkConfig::GmDit(_)) => "a GM-DiT",
            Self::Denoiser(_) => "a U-Net",
            Self::Spectrum(_) => "a spectrum network",
            Self::Autoencoder(_) => "an autoencoder",
            Self::Scheduler { .. } => "a scheduler",
        };
        Error::file(dir.join(CONFIG_FILE), "_class_name", wanted, got)
    }
}

enum Kind {
    Transformer,
    Unet,
    Spectrum,
    Autoencoder,
    Scheduler,
}

/// What a config describes: by the name of its class, or else by a field that only one kind has.
fn kind(class: &str, fields: &Map<String, Value>) -> Option<Kind> {
    let has = |field: &str| fields.contains_key(field);
    match class.trim_start_matches('_') {
        "GMDiTTransformer2DModel" => Some(Kind::Transformer),
        "GMUNet2DModel" => Some(Kind::Unet),
        "SpectrumMLP" => Some(Kind::Spectrum),
        "AutoencoderKL" => Some(Kind::Autoencoder),
        name if name.ends_with("Scheduler") => Some(Kind::Scheduler),
        "" if has("num_gaussians") && has("num_attention_heads") => Some(Kind::Transformer),
        "" if has("num_gaussians") && has("block_out_channels") => Some(Kind::Unet),
        "" if has("base_size") => Some(Kind::Spectrum),
        "" if has("latent_channels") => Some(Kind::Autoencoder),
        "" if has("num_train_timesteps") => Some(Kind::Scheduler),
        _ => None,
    }
}

fn transformer(path: &Path, mut fields: Map<String, Value>) -> Result<GmDitConfig> {
    // What these say is built into the architecture.
    require(
        path,
        &mut fields,
        &[
            ("activation_fn", json!("gelu-approximate")),
            ("attention_bias", json!(true)),
            ("norm_elementwise_affine", json!(false)),
            ("norm_type", json!("ada_norm_zero")),
            ("norm_eps", json!(1e-5)),
            ("dropout", json!(0.0)),
        ],
    )?;
    // These have no effect on it.
    for field in ["norm_num_groups", "upcast_attention"] {
        fields.remove(field);
    }
    let config: GmDitConfig = read_as(path, fields)?;
    config.validate().map_err(|error| in_file(path, error))?;
    Ok(config)
}

fn autoencoder(path: &Path, mut fields: Map<String, Value>) -> Result<AutoencoderConfig> {
    require(
        path,
        &mut fields,
        &[("act_fn", json!("silu")), ("latents_mean", Value::Null), ("latents_std", Value::Null)],
    )?;
    fields.remove("force_upcast");
    // What the diffusers library takes where a field is missing; ours describe the usual network.
    for (field, default) in
        [("block_out_channels", json!([64])), ("layers_per_block", json!(1)), ("sample_size", json!(32))]
    {
        fields.entry(field).or_insert(default);
    }
    let levels = fields.get("block_out_channels").and_then(Value::as_array).map_or(0, Vec::len);
    for (field, expected) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
        let Some(types) = fields.remove(field) else { continue };
        let all = types.as_array().is_some_and(|types| types.len() == levels && types.iter().all(|t| t == expected));
        if !all {
            return Err(Error::file(path, field, format!("{levels} times {expected}"), types));
        }
    }
    // The size that the network was trained on may be given as height and width.
    if let Some(size) = fields.get("sample_size").and_then(Value::as_array).and_then(|sizes| sizes.first()).cloned() {
        fields.insert("sample_size".into(), size);
    }
    let config: AutoencoderConfig = read_as(path, fields)?;
    config.validate().map_err(|error| in_file(path, error))?;
    Ok(config)
}

fn scheduler(path: &Path, fields: &Map<String, Value>) -> Result<ComponentConfig> {
    let shift = fields.get("shift").map_or(Some(1.0), Value::as_f64);
    match shift {
        Some(shift) if shift.is_finite() && shift > 0.0 => Ok(ComponentConfig::Scheduler { shift: shift as f32 }),
        _ => Err(Error::file(path, "shift", "a positive number", fields.get("shift").cloned().unwrap_or_default())),
    }
}

/// Takes out fields that must have these values where they are given.
fn require(path: &Path, fields: &mut Map<String, Value>, expected: &[(&str, Value)]) -> Result<()> {
    for (field, expected) in expected {
        match fields.remove(*field) {
            Some(value) if value != *expected => return Err(Error::file(path, *field, expected.to_string(), value)),
            _ => {}
        }
    }
    Ok(())
}

fn read_as<T: DeserializeOwned>(path: &Path, fields: Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Error::file(path, "content", "the fields of this network", error))
}
