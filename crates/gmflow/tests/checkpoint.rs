//! Model folders: round trips, number formats, and files that are not what they should be.
#![allow(missing_docs)]

use burn::tensor::{Device, Tensor};
use gmflow::checkpoint::{
    DataInfo, DataKind, FileDigest, LoadOptions, Model, ModelInfo, Precision, Progress, load_diffusers_spectrum,
    load_diffusers_transformer, read_tensors, write_atomic, write_tensors,
};
use gmflow::guidance::Guidance;
use gmflow::kernel::MatmulPrecision;
use gmflow::network::{
    Denoiser, GmDitConfig, HostTensor, Network, NetworkConfig, SpectrumMlpConfig, load_named, named_tensors,
};
use half::bf16;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn model() -> Model {
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 2,
        attention_head_dim: 4,
        num_layers: 2,
        sample_size: 4,
        in_channels: 1,
        num_embeds_ada_norm: 3,
        logstd_inner_dim: 8,
        ..GmDitConfig::default()
    });
    let spectrum = SpectrumMlpConfig { base_size: [1, 4, 4], layers: vec![4] };
    Model {
        network: network.init(1, &device).expect("valid"),
        spectrum: Some(spectrum.init(2, &device).expect("valid")),
        vae: None,
        info: ModelInfo {
            spectrum: Some(spectrum),
            classes: Some(vec!["a".into(), "b".into(), "c".into()]),
            guidance: Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 },
            training: Some(serde_json::json!({"steps": 3})),
            progress: Progress { step: 3, images: 96 },
            ..ModelInfo::new(network, DataInfo { channels: 1, height: 4, width: 4, kind: DataKind::Image })
        },
    }
}

fn message<T>(result: gmflow::Result<T>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn a_model_comes_back_as_it_was() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, device) = (model(), Device::flex());
    let ema = model.info.network.init(7, &device).expect("valid");
    model.save(dir.path(), &[("0.9999", &ema)], Precision::F32).expect("saved");
    let raw = Model::load(dir.path(), None, &device).expect("loaded");
    assert_eq!(raw.info, model.info);
    assert_eq!(named_tensors(&raw.network), named_tensors(&model.network));
    assert_eq!(
        named_tensors(raw.spectrum.as_ref().expect("a spectrum")),
        named_tensors(model.spectrum.as_ref().expect("one"))
    );
    let average = Model::load(dir.path(), Some("0.9999"), &device).expect("loaded");
    assert_eq!(named_tensors(&average.network), named_tensors(&ema));
    assert_eq!(Model::ema_names(dir.path()).expect("names"), ["0.9999"]);
    let leftovers = fs::read_dir(dir.path())
        .expect("a folder")
        .filter(|f| f.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|e| e == "tmp")));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn a_network_packed_while_it_is_loaded_is_the_one_packed_later() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut model, device) = (model(), Device::flex());
    // A fresh transformer passes tokens through: no layer may be zero.
    let moved = named_tensors(&model.network).into_iter().map(|(name, mut tensor)| {
        tensor.values.iter_mut().enumerate().for_each(|(i, value)| *value += 0.05 * ((i * 7 % 11) as f32 - 5.0));
        (name, tensor)
    });
    model.network = load_named(model.network, moved.collect::<BTreeMap<_, _>>()).expect("its own tensors");
    model.save(dir.path(), &[], Precision::F32).expect("saved");
    let x = Tensor::<4>::ones([2, model.info.data.channels, model.info.data.height, model.info.data.width], &device);
    let predict = |network: &Network| {
        let t = Tensor::<1>::from_floats([0.3, 0.8], &device);
        network.forward(x.clone() * 0.5, t, None).0.means.into_data()
    };
    // From files in bf16 panels in bf16 and int8 are packed without a detour.
    for precision in [Precision::F32, Precision::Bf16] {
        model.save(dir.path(), &[], precision).expect("saved");
        for arithmetic in [MatmulPrecision::F32, MatmulPrecision::Bf16, MatmulPrecision::Int8] {
            let options = LoadOptions { pack: Some(arithmetic), ..LoadOptions::default() };
            let packed = Model::load_with(dir.path(), options, &device).expect("loaded");
            let mut later = Model::load(dir.path(), None, &device).expect("loaded").network;
            later.pack(arithmetic);
            assert_eq!(predict(&packed.network), predict(&later), "{arithmetic:?} from {precision:?}");
        }
    }
    let path = dir.path().join("model.safetensors");
    let mut tensors = read_tensors(&path).expect("tensors");
    let name = "transformer_blocks.1.ff.net.2.weight";
    *tensors.get_mut(name).and_then(|tensor| tensor.values.last_mut()).expect("a weight") = 1e25;
    write_tensors(&path, &tensors.into_iter().collect::<Vec<_>>(), Precision::Bf16).expect("written");
    let bytes = |value| bf16::from_f32(value).to_le_bytes();
    replace_in(&path, &bytes(1e25), &bytes(f32::INFINITY));
    for arithmetic in [MatmulPrecision::Bf16, MatmulPrecision::Int8] {
        let options = LoadOptions { pack: Some(arithmetic), unverified: true, ..LoadOptions::default() };
        let error = Model::load_with(dir.path(), options, &device).expect_err("an infinite weight").to_string();
        assert!(error.contains(name) && error.contains("finite"), "{error}");
    }
    model.save(dir.path(), &[], Precision::F32).expect("saved");
    let mut tensors = read_tensors(&path).expect("tensors");
    let block = tensors.keys().find(|name| name.starts_with("transformer_blocks.1.")).expect("a block").clone();
    tensors.remove(&block);
    let tensors: Vec<_> = tensors.into_iter().collect();
    write_tensors(&path, &tensors, Precision::F32).expect("written");
    let options = LoadOptions { pack: Some(MatmulPrecision::F32), unverified: true, ..LoadOptions::default() };
    let error = Model::load_with(dir.path(), options, &device).expect_err("a tensor is missing").to_string();
    assert!(error.contains(&block) && error.contains("model.safetensors"), "{error}");
}

#[test]
fn half_precision_costs_half_the_file_and_rounds() {
    let (a, b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let model = model();
    model.save(a.path(), &[], Precision::F32).expect("saved");
    let size = |dir: &Path| fs::metadata(dir.join("model.safetensors")).expect("a file").len();
    for (precision, bits) in [(Precision::Bf16, 8), (Precision::F16, 11)] {
        model.save(b.path(), &[], precision).expect("saved");
        assert!(size(b.path()) < size(a.path()) * 6 / 10);
        let loaded = Model::load(b.path(), None, &Device::flex()).expect("loaded");
        for ((name, got), (_, want)) in named_tensors(&loaded.network).iter().zip(named_tensors(&model.network)) {
            for (got, want) in got.values.iter().zip(want.values) {
                let bound = want.abs().max(1e-4) * 0.5f32.powi(bits);
                assert!((got - want).abs() <= bound, "{name}: {got} instead of {want}");
            }
        }
    }
}

#[test]
fn hostile_weights_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = model();
    model.save(dir.path(), &[], Precision::F32).expect("saved");
    let path = dir.path().join("model.safetensors");
    let whole = named_tensors(&model.network);
    let unverified = LoadOptions { unverified: true, ..LoadOptions::default() };
    let read = || message(Model::load_with(dir.path(), unverified, &Device::flex()));
    let load = |tensors: &[(String, HostTensor)]| {
        write_tensors(&path, tensors, Precision::F32).expect("written");
        read()
    };
    assert!(load(&whole[1..]).contains(&whole[0].0));

    let mut extra = whole.clone();
    extra.push(("transformer_blocks.9.stowaway".into(), HostTensor { shape: vec![1], values: vec![0.0] }));
    assert!(load(&extra).contains("stowaway"));

    let mut wrong = whole.clone();
    wrong[2].1.shape.insert(0, 1);
    let error = load(&wrong);
    assert!(error.contains(&whole[2].0) && error.contains("model.safetensors"), "{error}");

    let mut poisoned = whole.clone();
    poisoned[3].1.values[0] = f32::NAN;
    let error = message(write_tensors(&path, &poisoned, Precision::F32));
    assert!(error.contains(&whole[3].0) && error.contains("finite"), "{error}");
    poisoned[3].1.values[0] = 123.456;
    write_tensors(&path, &poisoned, Precision::F32).expect("written");
    replace_in(&path, &123.456f32.to_le_bytes(), &f32::NAN.to_le_bytes());
    let error = read();
    assert!(error.contains(&whole[3].0) && error.contains("finite"), "{error}");

    write_tensors(&path, &whole, Precision::F32).expect("written");
    let bytes = fs::read(&path).expect("bytes");
    for end in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..end]).expect("written");
        let error = message(Model::load(dir.path(), None, &Device::flex()));
        assert!(error.contains("model.safetensors") && error.contains("safetensors file"), "{error}");
    }
    fs::write(&path, [0xff; 64]).expect("written");
    assert!(message(read_tensors(&path)).contains("model.safetensors"));
    fs::remove_file(&path).expect("removed");
    assert!(message(Model::load(dir.path(), None, &Device::flex())).contains("model.safetensors"));
}

/// Replaces the one place in a file that holds `old`.
fn replace_in(path: &Path, old: &[u8], new: &[u8]) {
    let mut bytes = fs::read(path).expect("bytes");
    let places: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, part)| *part == old).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 1, "{old:?}");
    bytes[places[0]..places[0] + new.len()].copy_from_slice(new);
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_value_too_large_for_the_format_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("weights.safetensors");
    let tensors = [("large".to_owned(), HostTensor { shape: vec![2], values: vec![1.0, 70_000.0] })];
    write_tensors(&path, &tensors, Precision::Bf16).expect("written");
    let error = message(write_tensors(&path, &tensors, Precision::F16));
    assert!(error.contains("large") && error.contains("the range of f16") && error.contains("70000"), "{error}");
    assert_eq!(read_tensors(&path).expect("the older file").len(), 1);
}

/// Flips bits in a weight file, in each number format: the digest in `model.json` finds every one, as the format cannot.
#[test]
fn damage_in_weights_is_found_by_the_digest() {
    let dir = tempfile::tempdir().expect("a folder");
    let device = Device::flex();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let model = model();
        let digests = model.save(dir.path(), &[("slow", &model.network)], precision).expect("saved");
        for (file, ema) in [("model.safetensors", None), ("ema.slow.safetensors", Some("slow"))] {
            let path = dir.path().join(file);
            let whole = fs::read(&path).expect("bytes");
            assert_eq!(digests[file], FileDigest::of_file(&path).expect("a digest"));
            assert_eq!(digests[file], FileDigest::of_bytes(&whole));
            for place in 1..40 {
                let mut damaged = whole.clone();
                // From the end: the header takes the beginning.
                let at = whole.len() - 1 - place * 13;
                damaged[at] ^= 1 << (place % 8);
                fs::write(&path, damaged).expect("written");
                let error = message(Model::load(dir.path(), ema, &device));
                assert!(error.contains(file) && error.contains("damaged"), "{error}");
            }
            fs::write(&path, whole).expect("written");
            Model::load(dir.path(), ema, &device).expect("whole again");
        }
        let digest = FileDigest::of_file(&dir.path().join("model.json")).expect("a digest");
        assert_eq!(digests["model.json"], digest);
    }
}

#[test]
fn a_folder_without_digests_is_read_as_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = model();
    model.save(dir.path(), &[], Precision::F32).expect("saved");
    let path = dir.path().join("model.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("bytes")).expect("JSON");
    json.as_object_mut().expect("a table").remove("files").expect("digests");
    fs::write(&path, json.to_string()).expect("written");
    let loaded = Model::load(dir.path(), None, &Device::flex()).expect("loaded");
    assert!(named_tensors(&loaded.network) == named_tensors(&model.network));
}

#[test]
fn hostile_descriptions_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    model().save(dir.path(), &[], Precision::F32).expect("saved");
    let path = dir.path().join("model.json");
    let text = fs::read_to_string(&path).expect("text");
    for (from, to, what) in [
        ("gmflow-model", "other", "format"),
        ("\"version\": 1", "\"version\": 2", "version"),
        ("\"num_layers\": 2", "\"num_layers\": 0", "num_layers"),
        ("\"num_layers\": 2", "\"num_lairs\": 1", "model.json"),
        ("\"height\": 4", "\"height\": 5", "data"),
        ("\"num_layers\": 2", "", "model.json"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).expect("written");
        let error = message(ModelInfo::load(dir.path()));
        assert!(error.contains(what) && error.contains("model.json"), "{error}");
    }
    assert!(message(Model::load(dir.path(), Some("../model"), &Device::flex())).len() > 3);
    fs::write(&path, text).expect("written");
    assert!(message(Model::load(dir.path(), Some("../model"), &Device::flex())).starts_with("ema"));
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a");
    write_atomic(&path, b"old").expect("written");
    assert!(write_atomic(&dir.path().join("missing").join("a"), b"new").is_err());
    assert_eq!(fs::read(&path).expect("bytes"), b"old");
    write_atomic(&path, b"new").expect("written");
    assert_eq!(fs::read(&path).expect("bytes"), b"new");
}

#[test]
fn published_folders_are_checked() {
    let dir = tempfile::tempdir().expect("a folder");
    let NetworkConfig::GmDit(config) = model().info.network else { panic!("a transformer") };
    let mut json = serde_json::to_value(&config).expect("json");
    json["_class_name"] = "_GMDiTTransformer2DModel".into();
    json["norm_type"] = "ada_norm_zero".into();
    let write =
        |json: &serde_json::Value| fs::write(dir.path().join("config.json"), json.to_string()).expect("written");
    write(&json);
    let weights = dir.path().join("diffusion_pytorch_model.safetensors");
    write_tensors(&weights, &named_tensors(&model().network), Precision::Bf16).expect("written");
    let loaded = load_diffusers_transformer(dir.path(), None, &Device::flex()).expect("loaded");
    assert_eq!(loaded.config(), &config);
    json["norm_type"] = "layer_norm".into();
    write(&json);
    assert!(message(load_diffusers_transformer(dir.path(), None, &Device::flex())).contains("norm_type"));
    assert!(message(load_diffusers_spectrum(dir.path(), None, &Device::flex())).contains("config.json"));
}
