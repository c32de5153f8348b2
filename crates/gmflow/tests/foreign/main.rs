//! Checkpoints as other programs write them, and what people put in their place: read as they are meant, or refused in plain words.
#![allow(missing_docs)]

mod configs;
mod pickles;
mod vae;
mod weights;

use burn::tensor::Device;
use gmflow::checkpoint::{DataInfo, DataKind, ExportOptions, Model, ModelInfo, export_diffusers};
use gmflow::network::{GmDitConfig, HostTensor, NetworkConfig, named_tensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

/// A small model of images with two classes.
fn model() -> Model {
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 1,
        attention_head_dim: 8,
        num_layers: 1,
        sample_size: 8,
        patch_size: 4,
        in_channels: 3,
        num_embeds_ada_norm: 2,
        logstd_inner_dim: 8,
        ..GmDitConfig::default()
    });
    Model {
        network: network.init(1, &device).expect("valid"),
        spectrum: None,
        vae: None,
        info: ModelInfo {
            classes: Some(vec!["a".into(), "b".into()]),
            ..ModelInfo::new(network, DataInfo { channels: 3, height: 8, width: 8, kind: DataKind::Image })
        },
    }
}

/// The model in the layout of published checkpoints.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    export_diffusers(&model(), dir.path(), &ExportOptions::default()).expect("written");
    dir
}

fn load(dir: &Path) -> gmflow::Result<Model> {
    Model::load(dir, None, &Device::flex())
}

/// The message of an error, which must be one line in plain words that names the file.
fn message<T>(file: &Path, result: gmflow::Result<T>) -> String {
    let message = result.err().expect("an error").to_string();
    assert!(message.starts_with(&file.display().to_string()), "{message}");
    for word in ["usize", "Some(", "None", "enum", "variant", "struct", "invalid type", "Error(", "map,", "\n"] {
        assert!(!message.contains(word), "{word} in {message}");
    }
    assert!(message.contains(": expected ") && message.contains(", got "), "{message}");
    message
}

fn weights(model: &Model) -> BTreeMap<String, HostTensor> {
    named_tensors(&model.network).into_iter().collect()
}

/// Changes a JSON file of a folder.
fn edit(path: PathBuf, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}
