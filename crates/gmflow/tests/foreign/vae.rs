//! Autoencoders of every version of the diffusers library.

use super::message;
use burn::tensor::Device;
use gmflow::checkpoint::{Precision, load_diffusers_vae, read_tensors, write_module, write_tensors};
use gmflow::network::{Autoencoder, AutoencoderConfig, HostTensor, named_tensors};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn config() -> AutoencoderConfig {
    AutoencoderConfig {
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        sample_size: 16,
        ..AutoencoderConfig::default()
    }
}

/// What version 0.42 of the library writes for it.
fn written_config() -> Value {
    json!({
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.42.0", "act_fn": "silu", "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"], "force_upcast": true, "in_channels": 3,
        "latent_channels": 4, "latents_mean": null, "latents_std": null, "layers_per_block": 1, "mid_block_add_attention": true,
        "norm_num_groups": 4, "out_channels": 3, "sample_size": 16, "scaling_factor": 0.18215, "shift_factor": null,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "use_post_quant_conv": true, "use_quant_conv": true
    })
}

fn folder(config_json: &Value, vae: &Autoencoder) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("config.json"), config_json.to_string()).expect("written");
    write_module(&dir.path().join(WEIGHTS), vae, Precision::F32).expect("written");
    dir
}

fn load(dir: &Path) -> gmflow::Result<Autoencoder> {
    load_diffusers_vae(dir, None, &Device::flex())
}

fn rename(dir: &Path, change: impl Fn(&str, HostTensor) -> (String, HostTensor)) {
    let path = dir.join(WEIGHTS);
    let tensors = read_tensors(&path).expect("readable");
    let changed: Vec<_> = tensors.into_iter().map(|(name, tensor)| change(&name, tensor)).collect();
    write_tensors(&path, &changed, Precision::F32).expect("written");
}

#[test]
fn every_version_of_the_attention_is_the_same_network() {
    let vae = config().init(3, &Device::flex()).expect("valid");
    for convolutions in [false, true] {
        let dir = folder(&written_config(), &vae);
        rename(dir.path(), |name, mut tensor| {
            let mut old = name.to_owned();
            for (new, before) in
                [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")]
            {
                old = old.replace(new, before);
            }
            if convolutions && name.contains("attentions") && tensor.shape.len() == 2 {
                tensor.shape.extend([1, 1]);
            }
            (old, tensor)
        });
        assert!(
            read_tensors(&dir.path().join(WEIGHTS)).expect("readable").keys().any(|name| name.contains("proj_attn"))
        );
        assert_eq!(named_tensors(&load(dir.path()).expect("loaded")), named_tensors(&vae), "{convolutions}");
    }
}

#[test]
fn fields_of_newer_versions_may_be_missing() {
    let vae = config().init(3, &Device::flex()).expect("valid");
    let mut old = written_config();
    let newer = [
        "scaling_factor",
        "shift_factor",
        "latents_mean",
        "latents_std",
        "force_upcast",
        "use_quant_conv",
        "use_post_quant_conv",
        "mid_block_add_attention",
    ];
    for field in newer {
        old.as_object_mut().expect("an object").remove(field);
    }
    let got = load(folder(&old, &vae).path()).expect("loaded");
    assert_eq!(got.config(), &config());
    assert_eq!(named_tensors(&got), named_tensors(&vae));
}

#[test]
fn other_autoencoders_are_refused_by_field() {
    let vae = config().init(3, &Device::flex()).expect("valid");
    for (field, value, words) in [
        ("act_fn", json!("gelu"), "act_fn: expected \"silu\""),
        ("latents_mean", json!([0.1, 0.2]), "latents_mean: expected null"),
        ("block_out_channels", json!(16), "block_out_channels: expected a list, got 16"),
        ("block_out_channels", json!([8, "x"]), "block_out_channels.1: expected a whole number of at least 0"),
        ("down_block_types", json!(["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]), "down_block_types: expected"),
        ("use_quant_conv", json!("yes"), "use_quant_conv: expected true or false"),
        ("_class_name", json!("AutoencoderTiny"), "_class_name: expected"),
    ] {
        let mut changed = written_config();
        changed[field] = value;
        if field == "block_out_channels" {
            // These are compared with the channels, which are wrong themselves.
            changed.as_object_mut().expect("an object").retain(|name, _| !name.ends_with("_block_types"));
        }
        let dir = folder(&changed, &vae);
        let message = message(&dir.path().join("config.json"), load(dir.path()));
        assert!(message.contains(words), "{words}: {message}");
    }
}
