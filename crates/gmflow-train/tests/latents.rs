//! Training on a cache of latents: resuming, what the checkpoint says of them, pictures, and autoencoders that do not fit.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use gmflow::checkpoint::{DataInfo, DataKind, ExportOptions, LatentInfo, Model, ModelInfo, export_diffusers};
use gmflow::network::{AutoencoderConfig, GmDitConfig, NetworkConfig};
use gmflow_data::{EncodedBatch, LatentManifest, LatentPrecision, LatentWriter};
use gmflow_train::{Config, Run, Silent, Trainer};

const VALUES: usize = 4 * 8 * 8;
const SCALE: f64 = 0.5;

/// Twelve latents of 4 x 8 x 8 in three classes, and their mirrors.
fn write_cache(folder: &Path) {
    let manifest = LatentManifest {
        shape: [4, 8, 8],
        shard: 5,
        precision: LatentPrecision::F16,
        mirrored: true,
        scaling_factor: SCALE,
        shift_factor: 0.125,
        downsampling: 2,
        classes: ["a", "b", "c"].map(String::from).into(),
        vae: Some("an autoencoder".into()),
        images: None,
        data: None,
        count: 0,
        left_out: 0,
        complete: false,
    };
    let wave = |phase: f32| (0..12 * VALUES).map(|i| 2.0 * (i as f32 * 0.37 + phase).sin()).collect();
    let mut writer = LatentWriter::open(folder, manifest).expect("a cache");
    let batch = EncodedBatch {
        mean: wave(0.0),
        std: vec![0.3; 12 * VALUES],
        mirror_mean: wave(1.0),
        mirror_std: vec![0.2; 12 * VALUES],
        labels: (0..12).map(|i| i % 3).collect(),
        indices: (0..12).collect(),
    };
    writer.push(&batch).expect("latents");
    writer.finish(0).expect("a whole cache");
}

fn load(folder: &Path, overrides: &[&str]) -> Config {
    if !folder.join("latents").exists() {
        write_cache(&folder.join("latents"));
    }
    let text = r#"
        data.source = { kind = "latents", path = "latents", horizontal_flip = true }
        loss = { kind = "transition", transition_ratio = 0.5 }
        train = { batch_size = 5, steps = 6, micro_batch = 3, label_dropout = 0.5, lr = 0.01, seed = 2 }
        spectrum = { layers = [6] }
        [network]
        type = "gm-dit"
        num_gaussians = 2
        num_attention_heads = 1
        attention_head_dim = 16
        num_layers = 1
        sample_size = 8
        patch_size = 4
        in_channels = 4
        num_embeds_ada_norm = 3
        logstd_inner_dim = 8
        [[ema]]
        name = "ema"
        decay = { kind = "constant", decay = 0.9 }
        [sample]
        every = 6
        num = 4
        sampler = { solver = { kind = "gm-ode", substeps = 2 }, steps = 2 }
    "#;
    let path = folder.join("config.toml");
    std::fs::write(&path, text).expect("a configuration");
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::load(&path, &overrides).expect("a valid configuration")
}

fn train(run: &mut Run) {
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
}

/// The files of a run after six steps, stopped and resumed after `stop` where that is given.
fn files(folder: &Path, stop: Option<u64>) -> Vec<Vec<u8>> {
    let out = folder.join(format!("run-{}", stop.unwrap_or(0)));
    let steps = format!("train.steps={}", stop.unwrap_or(6));
    train(&mut Run::create(load(folder, &[&steps]), &out, false, &Device::flex()).expect("a run"));
    if stop.is_some() {
        train(&mut Run::resume(&out, &["train.steps=6".into()], &Device::flex()).expect("a run"));
    }
    let last = out.join("checkpoints/step-00000006");
    let names = ["model.safetensors", "ema.ema.safetensors", "optimizer.safetensors", "spectrum.safetensors"];
    let mut files: Vec<Vec<u8>> =
        names.map(|file| std::fs::read(last.join(file)).expect("a checkpoint's file")).into();
    files.push(std::fs::read(out.join("samples/step-00000006.png")).expect("a picture"));
    files
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = files(folder.path(), None);
    for stop in [1, 4] {
        assert!(whole == files(folder.path(), Some(stop)), "stopped after {stop} steps");
    }
}

#[test]
fn a_checkpoint_says_what_its_latents_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    train(&mut Run::create(load(folder.path(), &[]), &out, false, &Device::flex()).expect("a run"));
    let model = ModelInfo::load(&out.join("checkpoints/step-00000006")).expect("a model folder");
    assert_eq!(model.data, DataInfo { channels: 4, height: 8, width: 8, kind: DataKind::Latents });
    let vae = Some("an autoencoder".into());
    let latent = LatentInfo { scaling_factor: SCALE, shift_factor: 0.125, downsampling: 2, vae };
    assert_eq!(model.latent, Some(latent));
    assert_eq!(model.classes, Some(["a", "b", "c"].map(String::from).into()));
    // Without an autoencoder the picture shows the latents: three rows of two, 8 pixels each.
    assert_eq!(picture_size(&out), (19, 28));
}

fn picture_size(run: &Path) -> (u32, u32) {
    let picture = std::fs::read(run.join("samples/step-00000006.png")).expect("a picture");
    let reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().expect("a PNG");
    (reader.info().width, reader.info().height)
}

/// A checkpoint with an autoencoder that divides the size by 2 to the power `levels - 1`.
fn write_vae(folder: &Path, levels: usize) {
    let (device, network) = (Device::flex(), GmDitConfig { num_layers: 1, ..GmDitConfig::default() });
    let network = GmDitConfig { num_attention_heads: 1, attention_head_dim: 8, sample_size: 8, ..network };
    let network = NetworkConfig::GmDit(GmDitConfig { num_embeds_ada_norm: 2, logstd_inner_dim: 8, ..network });
    let vae = AutoencoderConfig {
        block_out_channels: vec![4; levels],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..AutoencoderConfig::default()
    };
    let info =
        ModelInfo::new(network.clone(), DataInfo { channels: 4, height: 8, width: 8, kind: DataKind::Latents });
    let network = network.init(1, &device).expect("a network");
    let vae = Some(vae.init(2, &device).expect("an autoencoder"));
    export_diffusers(&Model { info, network, spectrum: None, vae }, folder, &ExportOptions::default())
        .expect("a checkpoint");
}

#[test]
fn an_autoencoder_decodes_the_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    write_vae(&folder.path().join("half"), 2);
    let out = folder.path().join("run");
    let config = load(folder.path(), &[&format!("sample.vae={}", folder.path().join("half").display())]);
    train(&mut Run::create(config, &out, false, &Device::flex()).expect("a run"));
    assert_eq!(picture_size(&out), (35, 52), "16 pixels each");
}

#[test]
fn an_autoencoder_that_does_not_fit_is_found_before_the_first_step() {
    let folder = tempfile::tempdir().expect("a folder");
    write_vae(&folder.path().join("quarter"), 3);
    let out = folder.path().join("run");
    for (vae, words) in [
        ("quarter", "sample.vae: expected latents of 4 channels, 1/2 of the size, got 4 channels, 1/4 of the size"),
        ("missing", "missing"),
    ] {
        let config = load(folder.path(), &[&format!("sample.vae={}", folder.path().join(vae).display())]);
        let error = Run::create(config, &out, false, &Device::flex()).expect_err(vae).to_string();
        assert!(error.contains(words), "{error}");
        assert!(!out.exists(), "{vae} left something behind");
    }
    let points = ["data.source={kind=\"density\", name=\"moons\"}", "network={type=\"mlp2d\"}", "sample.vae=quarter"];
    let text = r#"
        train = { batch_size = 5, steps = 6 }
        loss = { kind = "l2" }
        sample = { every = 1, num = 1, sampler = { solver = { kind = "euler" }, steps = 1 } }
    "#;
    let path = folder.path().join("points.toml");
    std::fs::write(&path, text).expect("a configuration");
    let config = Config::load(&path, &points.map(String::from)).expect("a valid configuration");
    let error = Run::create(config, &out, false, &Device::flex()).expect_err("no latents").to_string();
    assert!(error.contains("sample.vae: expected nothing"), "{error}");
}

#[test]
fn a_network_that_does_not_fit_the_latents_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for (set, field) in [
        ("network.in_channels=3", "network.in_channels"),
        ("network.patch_size=3", "network.patch_size"),
        ("network.num_embeds_ada_norm=2", "network.num_embeds_ada_norm"),
        ("network={type=\"mlp2d\"}", "network.type"),
        ("spectrum={base_size=[3,8,8]}", "spectrum.base_size"),
        ("data.source.path=elsewhere", "elsewhere"),
    ] {
        let error = Trainer::new(load(folder.path(), &[set]), &Device::flex()).expect_err(set);
        assert!(error.to_string().contains(field), "{set}: {error}");
    }
}
