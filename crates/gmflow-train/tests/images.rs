//! Training on labelled images: with and without classes, grids, and networks that do not fit the data.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use gmflow::network::NetworkConfig;
use gmflow_train::{Config, Error, Run, Silent, Trainer, params};

mod common;

/// Twelve images of 8 x 8 pixels in three classes.
fn write_idx(folder: &Path) {
    let header = |dims: &[u32]| -> Vec<u8> {
        let magic = [0, 0, 8, dims.len() as u8];
        magic.into_iter().chain(dims.iter().flat_map(|dim| dim.to_be_bytes())).collect()
    };
    let mut images = header(&[12, 8, 8]);
    images.extend((0..12 * 64).map(|i| if (i / 64 + i % 8) % 3 == 0 { 255u8 } else { 10 }));
    let mut labels = header(&[12]);
    labels.extend((0..12).map(|i| i % 3));
    std::fs::write(folder.join("images"), images).expect("images");
    std::fs::write(folder.join("labels"), labels).expect("labels");
}

/// The configuration beside the data, so that its paths are taken from there.
fn load(folder: &Path, overrides: &[&str]) -> Config {
    write_idx(folder);
    let text = r#"
        data.source = { kind = "idx", images = "images", labels = "labels" }
        loss = { kind = "transition", transition_ratio = 0.5 }
        train = { batch_size = 5, steps = 4, micro_batch = 3, label_dropout = 0.5, seed = 2 }
        [network]
        type = "gm-dit"
        num_gaussians = 2
        num_attention_heads = 1
        attention_head_dim = 16
        num_layers = 1
        sample_size = 8
        patch_size = 4
        in_channels = 1
        num_embeds_ada_norm = 3
        logstd_inner_dim = 8
        [sample]
        every = 4
        num = 7
        sampler = { solver = { kind = "gm-ode", substeps = 2 }, steps = 2 }
    "#;
    let path = folder.join("config.toml");
    std::fs::write(&path, text).expect("a configuration");
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::load(&path, &overrides).expect("a valid configuration")
}

fn picture_size(folder: &Path) -> (u32, u32) {
    let picture = std::fs::read(folder.join("samples/step-00000004.png")).expect("a picture");
    let reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().expect("a PNG");
    (reader.info().width, reader.info().height)
}

#[test]
fn classes_become_columns_of_the_grid() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let mut run = Run::create(load(folder.path(), &[]), &out, false, &Device::flex()).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    // Three columns and three rows of 8 pixels with lines of 1 pixel between them and around.
    assert_eq!(picture_size(&out), (28, 28));
    let model = gmflow::checkpoint::ModelInfo::load(&out.join("checkpoints/step-00000004")).expect("a model folder");
    assert_eq!(model.classes, Some(vec!["0".into(), "1".into(), "2".into()]));
    assert_eq!((model.progress.step, model.progress.images), (4, 20));
}

#[test]
fn labels_are_ignored_by_a_network_without_classes() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let config = load(folder.path(), &["network.num_embeds_ada_norm=0"]);
    let mut run = Run::create(config, &out, false, &Device::flex()).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    let model = gmflow::checkpoint::ModelInfo::load(&out.join("checkpoints/step-00000004")).expect("a model folder");
    assert_eq!(model.classes, None);
}

#[test]
fn a_network_that_does_not_fit_the_data_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for (set, field) in [
        ("network.in_channels=3", "network.in_channels"),
        ("network.patch_size=3", "network.patch_size"),
        ("network.num_embeds_ada_norm=2", "network.num_embeds_ada_norm"),
        ("network={type=\"mlp2d\"}", "network.type"),
        ("spectrum={base_size=[3,8,8]}", "spectrum.base_size"),
        ("data.source.labels=\"missing\"", "missing"),
    ] {
        let error = Trainer::new(load(folder.path(), &[set]), &Device::flex()).expect_err(set);
        assert!(error.to_string().contains(field), "{set}: {error}");
        assert!(!matches!(error, Error::Gmflow(_)), "{set}: the table's name is missing: {error}");
    }
}

/// The files of a run with a spectrum network after six steps, stopped and resumed after `stop` where that is given.
fn with_spectrum(stop: Option<u64>) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let steps = format!("train.steps={}", stop.unwrap_or(6));
    let config = load(folder.path(), &["spectrum={layers=[6]}", "train.lr=0.01", &steps]);
    Run::create(config, &out, false, &Device::flex())
        .expect("a run")
        .run(&AtomicBool::new(false), &mut Silent)
        .expect("training");
    if stop.is_some() {
        let mut run = Run::resume(&out, &["train.steps=6".into()], &Device::flex()).expect("a run");
        run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    }
    let last = out.join("checkpoints/step-00000006");
    let model = gmflow::checkpoint::Model::load(&last, None, &Device::flex()).expect("a model");
    assert!(model.spectrum.is_some(), "the spectrum network belongs to the model");
    let log = std::fs::read_to_string(out.join("log.jsonl")).expect("a log");
    assert!(log.lines().all(|line| line.contains("spectral_loss")), "{log}");
    let files = ["model.safetensors", "spectrum.safetensors", "spectrum_optimizer.safetensors"];
    files.map(|file| std::fs::read(last.join(file)).expect("a checkpoint's file")).into()
}

#[test]
fn a_spectrum_network_is_trained_beside_the_main_one_and_resumed_bit_for_bit() {
    let whole = with_spectrum(None);
    assert!(whole == with_spectrum(Some(4)), "the resumed run differs");
}

#[test]
fn a_spectrum_network_leaves_the_main_one_alone() {
    let weights = |overrides: &[&str]| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut trainer = Trainer::new(load(folder.path(), overrides), &Device::flex()).expect("a trainer");
        let reports: Vec<_> = (0..3).map(|_| trainer.step().expect("a step")).collect();
        assert_eq!(reports[0].spectral_loss.is_some(), !overrides.is_empty());
        reports.into_iter().map(|report| (report.loss, report.grad_norm)).collect::<Vec<_>>()
    };
    assert_eq!(weights(&[]), weights(&["spectrum={}"]));
}

#[test]
fn a_spectrum_network_is_trained_with_some_parameters_only_where_it_is_named() {
    let moved = |only: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let overrides = ["spectrum={layers=[6]}", "train.lr=0.01", only];
        let mut trainer = Trainer::new(load(folder.path(), &overrides), &Device::flex()).expect("a trainer");
        let weights = |trainer: &Trainer| {
            let spectrum = trainer.spectrum().expect("a spectrum network").snapshot(None).expect("its weights");
            [params::values(&trainer.snapshot(None).expect("weights")), params::values(&spectrum)]
                .map(|values| values.expect("f32").concat())
        };
        let before = weights(&trainer);
        let report = trainer.step().expect("a step");
        assert!(report.spectral_loss.is_some(), "it is measured all the same");
        let after = weights(&trainer);
        [0, 1].map(|i| before[i] != after[i])
    };
    assert_eq!(moved("train.only=[]"), [true, true]);
    assert_eq!(moved("train.only=[\"gm_out\"]"), [true, false]);
    assert_eq!(moved("train.only=[\"spectrum\"]"), [false, true]);
    assert_eq!(moved("train.only=[\"gm_out.logstd\", \"spectrum.mlp.0\"]"), [true, true]);
}

/// A U-Net of two levels, with attention on the inner one.
const UNET: &str = "network={type=\"unet\", num_gaussians=2, sample_size=8, in_channels=1, block_out_channels=[16, 16], \
    layers_per_block=1, norm_num_groups=4, num_classes=3, logstd_inner_dim=8}";

#[test]
fn a_unet_learns_and_gradient_checkpointing_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let losses = |more: &[&str], steps: u64| -> Vec<f64> {
        let overrides = [&[UNET, "train.batch_size=12", "train.micro_batch=12", "train.lr=0.003"], more].concat();
        let mut trainer = Trainer::new(load(folder.path(), &overrides), &common::device()).expect("a trainer");
        (0..steps).map(|_| trainer.step().expect("a step").loss).collect()
    };
    let whole = losses(&[], 60);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&whole[..10]), mean(&whole[50..]));
    assert!(last < first - 0.15, "{first} to {last}");
    for (a, b) in losses(&["train.gradient_checkpointing=true"], 3).iter().zip(&whole) {
        assert!((a - b).abs() < 1e-5, "{a} with checkpointing, {b} without");
    }
}

#[test]
fn a_unet_is_resumed_bit_for_bit_and_sampled() {
    let folder = tempfile::tempdir().expect("a folder");
    let weights = |name: &str, stop: Option<u64>, dropout: &str| {
        let out = folder.path().join(name);
        let steps = format!("train.steps={}", stop.unwrap_or(4));
        let config = load(folder.path(), &[UNET, &steps, dropout]);
        let mut run = Run::create(config, &out, false, &Device::flex()).expect("a run");
        run.run(&AtomicBool::new(false), &mut Silent).expect("training");
        drop(run);
        if stop.is_some() {
            let mut run = Run::resume(&out, &["train.steps=4".into()], &Device::flex()).expect("a run");
            run.run(&AtomicBool::new(false), &mut Silent).expect("training");
        }
        assert_eq!(picture_size(&out), (28, 28));
        std::fs::read(out.join("checkpoints/step-00000004/model.safetensors")).expect("a checkpoint's file")
    };
    let plain = weights("whole", None, "network.dropout=0.0");
    assert!(plain == weights("broken", Some(2), "network.dropout=0.0"), "the resumed run differs");
    let dropped = weights("whole-dropout", None, "network.dropout=0.3");
    assert!(dropped != plain, "dropout changes training");
    assert!(dropped == weights("broken-dropout", Some(2), "network.dropout=0.3"), "the resumed run differs");
}

#[test]
fn a_unet_that_does_not_fit_the_data_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    for (set, field) in [
        (vec!["network.in_channels=3"], "network.in_channels"),
        (vec!["network.sample_size=16", "network.block_out_channels=[16,16,16,16,16]"], "network.block_out_channels"),
        (vec!["network.num_classes=2"], "network.num_classes"),
    ] {
        let overrides = [&[UNET], &set[..]].concat();
        let error = Trainer::new(load(folder.path(), &overrides), &Device::flex()).expect_err(field);
        assert!(error.to_string().contains(field), "{set:?}: {error}");
    }
}

#[test]
fn dropout_does_not_depend_on_the_split_of_a_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let losses = |more: &[&str]| -> Vec<f64> {
        let overrides = [&[UNET, "train.batch_size=6", "train.lr=0.01"], more].concat();
        let mut trainer = Trainer::new(load(folder.path(), &overrides), &Device::flex()).expect("a trainer");
        (0..6).map(|_| trainer.step().expect("a step").loss).collect()
    };
    let whole = losses(&["network.dropout=0.4", "train.micro_batch=6"]);
    for micro in ["train.micro_batch=1", "train.micro_batch=2"] {
        for (a, b) in losses(&["network.dropout=0.4", micro]).iter().zip(&whole) {
            assert!((a - b).abs() < 1e-4, "{micro}: {a} instead of {b}");
        }
    }
    // Every block starts as its shortcut, so that the first step does not show what is dropped in them.
    let without = losses(&["train.micro_batch=6"]);
    assert!((without[5] - whole[5]).abs() > 1e-3, "{without:?}, {whole:?}");
    let seed = losses(&["network.dropout=0.4", "train.micro_batch=6", "train.seed=3"]);
    assert_ne!(seed, whole);
}

#[test]
fn channels_size_and_classes_are_those_of_the_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let inferred = |network: &str| {
        let mut config = load(folder.path(), &[&format!("network={{{network}}}")]);
        config.train.steps = Some(1);
        let trainer = Trainer::new(config, &Device::flex()).expect("a trainer");
        trainer.config().network.clone()
    };
    let NetworkConfig::GmDit(net) = inferred("type=\"gm-dit\", num_layers=1") else { panic!("a transformer") };
    assert_eq!([net.in_channels, net.sample_size, net.num_embeds_ada_norm, net.patch_size], [1, 8, 3, 1]);
    let NetworkConfig::Unet(net) = inferred("type=\"unet\", block_out_channels=[8, 8]") else { panic!("a U-Net") };
    assert_eq!([net.in_channels, net.sample_size, net.num_classes, net.norm_num_groups], [1, 8, 3, 2]);
}

#[test]
fn what_differs_from_the_data_is_an_error_that_names_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let error =
        |set: &[&str]| Trainer::new(load(folder.path(), set), &Device::flex()).expect_err("another size").to_string();
    let size = error(&["network.sample_size=64"]);
    assert!(size.contains("network.sample_size: expected 8") && size.contains("64"), "{size}");
    let classes = error(&["network.num_embeds_ada_norm=10"]);
    assert!(classes.contains("network.num_embeds_ada_norm: expected 3") && classes.contains("10"), "{classes}");
    let out = error(&["network.out_channels=2"]);
    assert!(out.contains("network.out_channels: expected 1") && out.ends_with("2"), "{out}");
    let all = error(&["network.sample_size=64", "network.num_embeds_ada_norm=10", "network.in_channels=3"]);
    assert_eq!(all.lines().count(), 3, "{all}");
}
