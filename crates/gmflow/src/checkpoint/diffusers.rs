//! The folders of published checkpoints, in the layout of the diffusers library.

use super::file;
use super::weights::{in_file, load_weights};
use crate::network::{GmDit, GmDitConfig, Initializer, SpectrumMlp, SpectrumMlpConfig};
use crate::{Error, Result};
use burn::tensor::Device;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::Path;

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "diffusion_pytorch_model.safetensors";

/// Reads the `transformer` folder of a published checkpoint.
///
/// # Errors
/// [`Error::Io`] or [`Error::File`] naming the file and the tensor or field that is wrong, or a setting that describes
/// another architecture.
pub fn load_diffusers_transformer(dir: &Path, device: &Device) -> Result<GmDit> {
    let path = dir.join(CONFIG_FILE);
    let mut fields = read_fields(&path)?;
    // What these say is built into the architecture.
    for (field, expected) in [
        ("activation_fn", json!("gelu-approximate")),
        ("attention_bias", json!(true)),
        ("norm_elementwise_affine", json!(false)),
        ("norm_type", json!("ada_norm_zero")),
        ("norm_eps", json!(1e-5)),
        ("dropout", json!(0.0)),
    ] {
        match fields.remove(field) {
            Some(value) if value != expected => {
                return Err(Error::file(&path, field, expected.to_string(), value));
            }
            _ => {}
        }
    }
    // These have no effect on it.
    for field in ["norm_num_groups", "upcast_attention"] {
        fields.remove(field);
    }
    let config: GmDitConfig = parse(&path, fields)?;
    let network = config.build(Initializer::blank(device)).map_err(|error| in_file(&path, error))?;
    load_weights(network, &dir.join(WEIGHTS_FILE))
}

/// Reads the `spectrum_net` folder of a published checkpoint; errors as in [`load_diffusers_transformer`].
pub fn load_diffusers_spectrum(dir: &Path, device: &Device) -> Result<SpectrumMlp> {
    let path = dir.join(CONFIG_FILE);
    let config: SpectrumMlpConfig = parse(&path, read_fields(&path)?)?;
    let network = config.build(Initializer::blank(device)).map_err(|error| in_file(&path, error))?;
    load_weights(network, &dir.join(WEIGHTS_FILE))
}

/// The fields of a `config.json` that are not the library's own.
fn read_fields(path: &Path) -> Result<Map<String, Value>> {
    let fields: Map<String, Value> = serde_json::from_slice(&file::read(path)?)
        .map_err(|error| Error::file(path, "content", "a JSON object", error))?;
    Ok(fields.into_iter().filter(|(name, _)| !name.starts_with('_')).collect())
}

fn parse<T: DeserializeOwned>(path: &Path, fields: Map<String, Value>) -> Result<T> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Error::file(path, "content", "the fields of this network", error))
}
