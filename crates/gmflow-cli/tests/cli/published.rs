//! Checkpoints in the published layout: exported, shown, sampled by class name, decoded.

use crate::models::image_model;
use crate::run;
use crate::sample::{read_png, read_samples};
use burn::tensor::Device;
use gmflow::checkpoint::{
    DataInfo, DataKind, ExportOptions, LatentInfo, Model, ModelInfo, Precision, export_diffusers,
};
use gmflow::network::{AutoencoderConfig, GmDitConfig, NetworkConfig};
use std::path::Path;

/// A checkpoint of 8x8 latents at half the images' resolution, with names for its classes.
pub fn latent_model() -> Model {
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 2,
        attention_head_dim: 4,
        num_layers: 1,
        sample_size: 8,
        num_embeds_ada_norm: 30,
        logstd_inner_dim: 8,
        ..GmDitConfig::default()
    });
    let vae = AutoencoderConfig {
        block_out_channels: vec![4, 4],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..AutoencoderConfig::default()
    };
    let names = (0..30).map(|i| if i == 18 { "magpie, Pica pica".into() } else { format!("bird {i}, Avis {i}") });
    let info = ModelInfo {
        latent: Some(LatentInfo::from(&vae)),
        classes: Some(names.collect()),
        ..ModelInfo::new(network.clone(), DataInfo { channels: 4, height: 8, width: 8, kind: DataKind::Latents })
    };
    let network = network.init(1, &device).unwrap();
    Model { info, network, spectrum: None, vae: Some(vae.init(2, &device).unwrap()) }
}

fn published(folder: &Path) {
    export_diffusers(&latent_model(), folder, &ExportOptions::default()).unwrap();
}

fn sample(checkpoint: &Path, out: &Path, extra: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["sample", "--checkpoint", checkpoint.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(["--num", "2", "--steps", "2"]);
    arguments.extend(extra);
    run(&arguments)
}

#[test]
fn a_published_checkpoint_is_sampled_by_class_name_and_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    published(&at("bird"));
    let (code, _, stderr) = sample(&at("bird"), &at("pictures"), &["--class", "Pica pica,7", "--guidance", "0.3"]);
    assert_eq!(code, 0, "{stderr}");
    let (_, made_by, width, height) = read_png(&at("pictures/000000.png"));
    assert_eq!((width, height), (16, 16));
    assert_eq!((&made_by["class"], &made_by["class_name"]), (&18.into(), &"magpie, Pica pica".into()));
    let (code, _, stderr) = sample(&at("bird"), &at("p"), &["--class", "magpi"]);
    assert!(code == 2 && stderr.contains("magpie, Pica pica"), "{stderr}");
}

#[test]
fn latents_can_be_written_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    published(&at("bird"));
    assert_eq!(sample(&at("bird"), &at("l.safetensors"), &["--latents"]).0, 0);
    assert_eq!(read_samples(&at("l.safetensors")).0, [2, 4, 8, 8]);
    assert_eq!(sample(&at("bird"), &at("i.safetensors"), &["--batch", "1"]).0, 0);
    let (shape, images) = read_samples(&at("i.safetensors"));
    assert_eq!(shape, [2, 3, 16, 16]);
    assert_eq!(sample(&at("bird"), &at("j.safetensors"), &["--vae-tile", "64"]).0, 0);
    assert!(images == read_samples(&at("j.safetensors")).1);
    assert_eq!(sample(&at("bird"), &at("k.safetensors"), &["--vae-tile", "4"]).0, 0);
    assert!(images != read_samples(&at("k.safetensors")).1);
    let (code, _, stderr) = sample(&at("bird"), &at("png"), &["--latents"]);
    assert!(code == 2 && stderr.contains("--latents"), "{stderr}");
}

#[test]
fn a_model_of_latents_needs_an_autoencoder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    published(&at("bird"));
    latent_model().save(&at("ours"), &[], Precision::F32).unwrap();
    let (code, _, stderr) = sample(&at("ours"), &at("p"), &[]);
    assert!(code == 2 && stderr.contains("--vae"), "{stderr}");
    let vae = at("bird");
    let (code, _, stderr) = sample(&at("ours"), &at("a.safetensors"), &["--vae", vae.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(sample(&at("bird"), &at("b.safetensors"), &[]).0, 0);
    assert!(read_samples(&at("a.safetensors")).1 == read_samples(&at("b.safetensors")).1);
    // What is exported carries the autoencoder along.
    let (ours, out) = (at("ours"), at("again"));
    let arguments = ["export", "--checkpoint", ours.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let (code, _, stderr) = run(&[&arguments[..], &["--vae", vae.to_str().unwrap()]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(sample(&at("again"), &at("c.safetensors"), &[]).0, 0);
    assert!(read_samples(&at("a.safetensors")).1 == read_samples(&at("c.safetensors")).1);
}

#[test]
fn our_models_are_exported_and_sampled_alike() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    image_model(&at("model"));
    let (model, out) = (at("model"), at("out"));
    let arguments = ["export", "--checkpoint", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let (code, _, stderr) = run(&arguments);
    assert_eq!(code, 0, "{stderr}");
    assert!(at("out/model_index.json").is_file() && !at("out/model.json").exists());
    assert_eq!(sample(&model, &at("a.safetensors"), &[]).0, 0);
    assert_eq!(sample(&out, &at("b.safetensors"), &[]).0, 0);
    assert!(read_samples(&at("a.safetensors")).1 == read_samples(&at("b.safetensors")).1);
    let (code, _, stderr) = run(&[&arguments[..], &["--force", "--vae", "x"]].concat());
    assert!(code == 2 && stderr.contains("--vae"), "{stderr}");
    // One layout takes the place of the other.
    let (code, _, stderr) = run(&[&arguments[..], &["--force", "--layout", "gmflow"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(at("out/model.json").is_file() && !at("out/model_index.json").exists());
    let (code, _, stderr) = run(&[&arguments[..], &["--force", "--layout", "gmflow", "--shard", "3"]].concat());
    assert!(code == 2 && stderr.contains("--shard"), "{stderr}");
}

#[test]
fn a_published_checkpoint_is_described() {
    let folder = tempfile::tempdir().unwrap();
    published(folder.path());
    let (code, stdout, stderr) = run(&["info", folder.path().to_str().unwrap(), "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let info: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&info["components"], &info["latent"]["downsampling"]), (&2.into(), &2.into()));
    assert!(info["vae_parameters"].as_u64().unwrap() > 1000 && info["spectrum_parameters"].is_null());
    let (_, stdout, _) = run(&["info", folder.path().to_str().unwrap()]);
    assert!(stdout.contains("latents, 4 x 8 x 8") && stdout.contains("vae/diffusion_pytorch_model"), "{stdout}");
    let (code, _, stderr) = run(&["info", folder.path().to_str().unwrap(), "--variant", "bf16"]);
    assert!(code == 1 && stderr.contains("bf16"), "{stderr}");
}
