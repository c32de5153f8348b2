//! The layout of published checkpoints: round trips, shards, variants, older names, and folders that are not what they should be.
#![allow(missing_docs)]

use burn::tensor::Device;
use gmflow::checkpoint::{
    DataInfo, DataKind, ExportOptions, LatentInfo, LoadOptions, Model, ModelInfo, Precision, Progress,
    export_diffusers, load_diffusers_vae, read_tensors, weight_file, write_tensors,
};
use gmflow::guidance::Guidance;
use gmflow::network::{AutoencoderConfig, GmDitConfig, HostTensor, NetworkConfig, SpectrumMlpConfig, named_tensors};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn vae_config() -> AutoencoderConfig {
    AutoencoderConfig {
        block_out_channels: vec![4, 8],
        layers_per_block: 1,
        norm_num_groups: 2,
        sample_size: 8,
        shift_factor: Some(0.25),
        scaling_factor: 0.5,
        ..AutoencoderConfig::default()
    }
}

/// A small model of latents with everything that a checkpoint can hold.
fn model() -> Model {
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 2,
        attention_head_dim: 4,
        num_layers: 2,
        sample_size: 4,
        num_embeds_ada_norm: 3,
        logstd_inner_dim: 8,
        ..GmDitConfig::default()
    });
    let spectrum = SpectrumMlpConfig { base_size: [4, 4, 4], layers: vec![4] };
    let latent = LatentInfo { scaling_factor: 0.5, shift_factor: 0.25, downsampling: 2, vae: None };
    Model {
        network: network.init(1, &device).expect("valid"),
        spectrum: Some(spectrum.init(2, &device).expect("valid")),
        vae: Some(vae_config().init(3, &device).expect("valid")),
        info: ModelInfo {
            spectrum: Some(spectrum),
            latent: Some(latent),
            classes: Some(vec!["tench, Tinca tinca".into(), "magpie".into()]),
            guidance: Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 },
            shift: 2.0,
            progress: Progress { step: 7, images: 70 },
            earlier: vec![Progress { step: 5, images: 50 }],
            ..ModelInfo::new(network, DataInfo { channels: 4, height: 4, width: 4, kind: DataKind::Latents })
        },
    }
}

fn exported(options: &ExportOptions) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    export_diffusers(&model(), dir.path(), options).expect("written");
    dir
}

fn load(dir: &Path) -> gmflow::Result<Model> {
    Model::load(dir, None, &Device::flex())
}

fn message<T>(result: gmflow::Result<T>) -> String {
    result.err().expect("an error").to_string()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

fn assert_same(a: &Model, b: &Model) {
    assert_eq!(a.info, b.info);
    assert_eq!(named_tensors(&a.network), named_tensors(&b.network));
    let spectrum = |model: &Model| model.spectrum.as_ref().map(named_tensors);
    let vae = |model: &Model| model.vae.as_ref().map(named_tensors);
    assert_eq!(spectrum(a), spectrum(b));
    assert_eq!(vae(a), vae(b));
}

#[test]
fn what_is_written_comes_back() {
    let dir = exported(&ExportOptions::default());
    assert_same(&load(dir.path()).expect("loaded"), &model());
    let without = LoadOptions { without_vae: true, ..LoadOptions::default() };
    let without = Model::load_with(dir.path(), without, &Device::flex()).expect("loaded");
    assert!(without.vae.is_none() && without.info == model().info);
}

#[test]
fn shards_and_variants_come_back() {
    let sharded = exported(&ExportOptions { shard_bytes: 2000, ..ExportOptions::default() });
    let transformer = sharded.path().join("transformer");
    assert!(fs::read_dir(&transformer).expect("a folder").count() > 4);
    assert!(!transformer.join("diffusion_pytorch_model.safetensors").exists());
    assert_same(&load(sharded.path()).expect("loaded"), &model());

    let options = ExportOptions { variant: Some("bf16".into()), precision: Precision::Bf16, shard_bytes: 1500 };
    let half = exported(&options);
    let loaded = load(half.path()).expect("the only variant");
    let variant = LoadOptions { variant: Some("bf16"), ..LoadOptions::default() };
    assert_same(&loaded, &Model::load_with(half.path(), variant, &Device::flex()).expect("loaded"));
    for ((name, got), (_, want)) in named_tensors(&loaded.network).iter().zip(named_tensors(&model().network)) {
        let close = got.values.iter().zip(&want.values).all(|(a, b)| (a - b).abs() <= b.abs() / 256.0 + 1e-38);
        assert!(close, "{name}");
    }
    let variant = LoadOptions { variant: Some("fp16"), ..LoadOptions::default() };
    let error = message(Model::load_with(half.path(), variant, &Device::flex()));
    assert!(error.contains("fp16") && error.contains("bf16"), "{error}");
}

#[test]
fn the_python_modules_that_an_index_names_do_not_matter() {
    let dir = exported(&ExportOptions::default());
    edit(&dir.path().join("model_index.json"), |index| {
        index["transformer"] = json!(["somebody.elses.module", "AnotherClass"]);
        index["transformer_2"] = json!([null, null]);
        index["feature_extractor"] = Value::Null;
        index["requires_safety_checker"] = json!(false);
    });
    fs::rename(dir.path().join("spectrum_net"), dir.path().join("spectrum")).expect("renamed");
    edit(&dir.path().join("model_index.json"), |index| {
        index["spectrum"] = index["spectrum_net"].take();
    });
    edit(&dir.path().join("spectrum/config.json"), |config| config["_class_name"] = Value::Null);
    assert_same(&load(dir.path()).expect("loaded"), &model());
}

#[test]
fn a_transformer_alone_is_a_model() {
    let dir = exported(&ExportOptions::default());
    let alone = load(&dir.path().join("transformer")).expect("loaded");
    assert_eq!(named_tensors(&alone.network), named_tensors(&model().network));
    assert_eq!((alone.info.data.kind, alone.info.classes), (DataKind::Image, None));
}

#[test]
fn older_names_of_the_autoencoder_are_understood() {
    let dir = exported(&ExportOptions::default());
    let path = dir.path().join("vae/diffusion_pytorch_model.safetensors");
    let renamed = read_tensors(&path).expect("tensors").into_iter().map(|(name, mut tensor)| {
        let mut old = name.clone();
        for (new, was) in [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")] {
            old = old.replace(&format!("attentions.0.{new}."), &format!("attentions.0.{was}."));
        }
        if old != name && tensor.shape.len() == 2 {
            tensor.shape.extend([1, 1]);
        }
        (old, tensor)
    });
    let renamed: Vec<(String, HostTensor)> = renamed.collect();
    assert!(renamed.iter().any(|(name, _)| name == "encoder.mid_block.attentions.0.proj_attn.weight"));
    write_tensors(&path, &renamed, Precision::F32).expect("written");
    assert_same(&load(dir.path()).expect("loaded"), &model());
}

#[test]
fn hostile_indices_are_refused() {
    let dir = exported(&ExportOptions { shard_bytes: 2000, ..ExportOptions::default() });
    let index = dir.path().join("transformer/diffusion_pytorch_model.safetensors.index.json");
    let good = fs::read(&index).expect("a file");
    let first = |value: &Value| value["weight_map"].as_object().expect("a map").keys().next().expect("one").clone();
    let shard_of_first = |value: &Value| value["weight_map"][first(value)].clone();
    let refused = |change: &dyn Fn(&mut Value), expected: &str| {
        fs::write(&index, &good).expect("written");
        edit(&index, |value| change(value));
        let error = message(load(dir.path()));
        assert!(error.contains(expected) && error.contains("index.json"), "{error}");
    };
    for name in ["../../etc/passwd", "/etc/passwd", "a/b", "..", ""] {
        let replace = |value: &mut Value| {
            let tensor = first(value);
            value["weight_map"][tensor] = json!(name);
        };
        refused(&replace, "weight_map");
    }
    refused(&|value| value["weight_map"] = json!({}), "weight_map");
    refused(&|value| value["weight_map"] = json!([1]), "weight_map");
    refused(&|value| value["weight_map"]["stowaway"] = json!(shard_of_first(value)), "stowaway");
    refused(
        &|value| {
            let name = first(value);
            value["weight_map"].as_object_mut().expect("a map").remove(&name);
        },
        "weight_map",
    );
    refused(
        &|value| {
            let name = first(value);
            let file = value["weight_map"][&name].clone();
            let map = value["weight_map"].as_object().expect("a map");
            let other = map.values().find(|other| **other != file).expect("another shard").clone();
            value["weight_map"][&name] = other;
        },
        "it in",
    );
    fs::write(&index, b"{\"weight_map\"").expect("written");
    assert!(message(load(dir.path())).contains("index.json"));
    fs::write(&index, &good).expect("written");
    let shard =
        fs::read_dir(dir.path().join("transformer")).expect("a folder").map(|entry| entry.expect("one").path());
    let shard = { shard }.find(|path| path.to_string_lossy().contains("-00002-of-")).expect("a second shard");
    let bytes = fs::read(&shard).expect("bytes");
    fs::write(&shard, &bytes[..bytes.len() - 1]).expect("written");
    assert!(message(load(dir.path())).contains("-00002-of-"));
    fs::remove_file(&shard).expect("removed");
    assert!(message(load(dir.path())).contains("-00002-of-"));
}

#[test]
fn hostile_configs_are_refused() {
    let dir = exported(&ExportOptions::default());
    for (file, field, value) in [
        ("transformer/config.json", "num_layers", json!(1_000_000_000)),
        ("transformer/config.json", "num_attention_heads", json!(u64::MAX)),
        ("transformer/config.json", "sample_size", json!(1u64 << 60)),
        ("transformer/config.json", "num_embeds_ada_norm", json!(1u64 << 40)),
        ("transformer/config.json", "norm_type", json!("layer_norm")),
        ("transformer/config.json", "_class_name", json!("SomethingElse")),
        ("transformer/config.json", "unheard_of", json!(1)),
        ("spectrum_net/config.json", "base_size", json!([1u64 << 30, 1u64 << 30, 1u64 << 30])),
        ("spectrum_net/config.json", "layers", json!([0])),
        ("vae/config.json", "block_out_channels", json!([4, 5])),
        ("vae/config.json", "block_out_channels", json!([])),
        ("vae/config.json", "norm_num_groups", json!(0)),
        ("vae/config.json", "scaling_factor", json!(0.0)),
        ("vae/config.json", "act_fn", json!("relu")),
        ("vae/config.json", "latents_mean", json!([0.0])),
        ("vae/config.json", "down_block_types", json!(["AttnDownEncoderBlock2D", "DownEncoderBlock2D"])),
        ("vae/config.json", "latent_channels", json!(8)),
        ("scheduler/scheduler_config.json", "shift", json!(-1.0)),
        ("model_index.json", "id2label", json!({"3": "beyond the last"})),
        ("model_index.json", "id2label", json!({"x": "no number"})),
        ("model_index.json", "_gmflow", json!({"guidance": 1})),
    ] {
        let path = dir.path().join(file);
        let good = fs::read(&path).expect("a file");
        edit(&path, |config| config[field] = value.clone());
        let error = message(ModelInfo::load(dir.path()));
        assert!(error.contains(file), "{field} = {value}: {error}");
        fs::write(&path, good).expect("written");
    }
    assert_same(&load(dir.path()).expect("loaded"), &model());
}

#[test]
fn hostile_weights_of_a_component_are_named() {
    let dir = exported(&ExportOptions::default());
    let path = dir.path().join("vae/diffusion_pytorch_model.safetensors");
    let good: Vec<(String, HostTensor)> = read_tensors(&path).expect("tensors").into_iter().collect();
    let refused = |tensors: &[(String, HostTensor)], name: &str| {
        write_tensors(&path, tensors, Precision::F32).expect("written");
        let error = message(load(dir.path()));
        assert!(error.contains(name) && error.contains("vae"), "{error}");
    };
    refused(&good[1..], &good[0].0);
    let mut bad = good.clone();
    // An infinite weight is not written: it comes into the file by damage.
    bad[5].1.values[0] = 123.456;
    write_tensors(&path, &bad, Precision::F32).expect("written");
    let (mark, infinite) = (123.456f32.to_le_bytes(), f32::INFINITY.to_le_bytes());
    let mut bytes = fs::read(&path).expect("bytes");
    let at = bytes.windows(4).position(|four| four == mark).expect("the marked weight");
    bytes[at..at + 4].copy_from_slice(&infinite);
    fs::write(&path, bytes).expect("written");
    let error = message(load(dir.path()));
    assert!(error.contains(&good[5].0) && error.contains("finite"), "{error}");
    let mut bad = good.clone();
    bad.push(("decoder.extra".into(), HostTensor { shape: vec![1], values: vec![1.0] }));
    refused(&bad, "decoder.extra");
    let header = br#"{"encoder.conv_in.bias":{"dtype":"I32","shape":[4],"data_offsets":[0,16]}}      "#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend([0; 16]);
    fs::write(&path, &file).expect("written");
    let error = message(load(dir.path()));
    assert!(error.contains("vae") && error.contains("tensor"), "{error}");
    for header in [
        // Overlapping, out of order, beyond the end, a size that overflows, a header that is no header.
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,800]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}"#,
        r#"{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#,
        "[]",
    ] {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend([0; 12]);
        fs::write(&path, &file).expect("written");
        assert!(message(load(dir.path())).contains("diffusion_pytorch_model.safetensors"));
    }
    fs::write(&path, u64::MAX.to_le_bytes()).expect("written");
    assert!(message(load(dir.path())).contains("header"));
}

#[test]
fn models_without_a_place_in_the_layout_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let network = NetworkConfig::Mlp2d(gmflow::network::Mlp2dConfig::default());
    let mut points = model();
    points.network = network.init(0, &Device::flex()).expect("valid");
    let error = message(export_diffusers(&points, dir.path(), &ExportOptions::default()));
    assert!(error.contains("layout"), "{error}");
    let variant = ExportOptions { variant: Some("../x".into()), ..ExportOptions::default() };
    assert!(message(export_diffusers(&model(), dir.path(), &variant)).contains("variant"));
    assert!(weight_file(dir.path(), None).is_err());
    assert!(message(load_diffusers_vae(dir.path(), None, &Device::flex())).contains("config.json"));
}

#[test]
fn a_unet_comes_back_too() {
    let network = NetworkConfig::Unet(gmflow::network::UnetConfig {
        sample_size: 8,
        block_out_channels: vec![4, 8],
        norm_num_groups: 2,
        layers_per_block: 1,
        logstd_inner_dim: 4,
        num_classes: 2,
        dropout: 0.25,
        ..Default::default()
    });
    let mut unet = Model { spectrum: None, vae: None, ..model() };
    unet.network = network.init(4, &Device::flex()).expect("valid");
    unet.info = ModelInfo {
        network,
        spectrum: None,
        latent: None,
        data: DataInfo { channels: 3, height: 8, width: 16, kind: DataKind::Image },
        ..unet.info
    };
    let dir = tempfile::tempdir().expect("a folder");
    export_diffusers(&unet, dir.path(), &ExportOptions::default()).expect("written");
    let config = std::fs::read_to_string(dir.path().join("unet/config.json")).expect("its configuration");
    assert!(config.contains("\"dropout\": 0.25"), "as UNet2DModel calls it: {config}");
    assert_same(&load(dir.path()).expect("loaded"), &unet);
}

/// With `GMFLOW_PYTHON` naming a Python that has torch and diffusers, their `AutoencoderKL.from_pretrained` reads what was written here
/// and decodes alike.
#[test]
fn the_diffusers_package_takes_the_autoencoder() {
    let Ok(python) = std::env::var("GMFLOW_PYTHON") else {
        println!("SKIPPED: GMFLOW_PYTHON names no Python with torch and diffusers");
        return;
    };
    let dir = exported(&ExportOptions { shard_bytes: 4000, ..ExportOptions::default() });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/diffusers_vae.py");
    let status = std::process::Command::new(python).arg(script).arg(dir.path().join("vae")).status();
    assert!(status.expect("Python runs").success());
    let vae = model().vae.expect("an autoencoder");
    let theirs = read_tensors(&dir.path().join("vae/decoded.safetensors")).expect("what Python wrote");
    let latents = burn::tensor::TensorData::new(theirs["latents"].values.clone(), [1, 4, 4, 4]);
    let ours = vae.decode(burn::tensor::Tensor::from_data(latents, &Device::flex()));
    let ours: Vec<f32> = ours.into_data().try_into_vec().expect("f32");
    let worst = ours.iter().zip(&theirs["image"].values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}
