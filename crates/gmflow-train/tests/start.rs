//! Training that starts from a model's weights, and training of some parameters alone.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use gmflow::network::parameter_shapes;
use gmflow_train::{Config, Error, Run, Silent, Trainer, params};

mod common;

/// A finished run of the tiny configuration below `folder`.
fn run(folder: &Path) -> Run {
    let mut run = Run::create(common::tiny_config(), folder, false, &common::device()).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    run
}

fn weights(trainer: &Trainer, average: Option<&str>) -> Vec<Vec<f32>> {
    params::values(&trainer.snapshot(average).expect("weights")).expect("f32")
}

/// The tiny configuration with weights from `path`.
fn from(path: &Path, overrides: &[&str]) -> Config {
    let mut config = common::tiny_with(overrides);
    config.train.from = Some(path.to_path_buf());
    config
}

fn refused(config: Config) -> String {
    Trainer::new(config, &common::device()).expect_err("a refusal").to_string()
}

#[test]
fn a_run_starts_from_the_average_of_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let earlier = run(folder.path());
    let average = weights(earlier.trainer(), Some("ema"));
    assert!(average != weights(earlier.trainer(), None), "the average is not the weights");
    for path in [folder.path().to_path_buf(), folder.path().join("checkpoints/step-00000030")] {
        // Another seed: the weights do not come from it.
        let mut trainer = Trainer::new(from(&path, &["train.seed=9"]), &common::device()).expect("a trainer");
        assert!(weights(&trainer, None) == average && weights(&trainer, Some("ema")) == average, "{path:?}");
        assert_eq!(trainer.steps_taken(), 0);
        trainer.step().expect("a step");
        assert!(weights(&trainer, None) != average, "all parameters are trained");
    }
}

#[test]
fn a_training_without_a_network_takes_that_of_the_model_it_starts_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let earlier = run(folder.path());
    let (before, rest) = common::TINY.split_once("[network]").expect("a network");
    let (_, after) = rest.split_once("[loss]").expect("a loss");
    let parse = |text: &str| Config::parse(text, Path::new("bare.toml"), &[]).expect("a configuration");
    let mut config = parse(&format!("{before}[loss]{after}"));
    assert!(config.network != common::tiny_config().network, "by itself it has the small one for points");
    config.train.from = Some(folder.path().to_path_buf());
    let trainer = Trainer::new(config.clone(), &common::device()).expect("a trainer");
    assert_eq!(trainer.config().network, common::tiny_config().network);
    assert!(weights(&trainer, None) == weights(earlier.trainer(), Some("ema")));
    assert_eq!(parse(&trainer.config().to_toml().expect("TOML")), *trainer.config(), "a resumed run reads the same");
    config.fit_like(trainer.config());
    assert_eq!(config, *trainer.config());
}

#[test]
fn weights_of_another_network_are_refused_by_the_field_that_differs() {
    let folder = tempfile::tempdir().expect("a folder");
    run(folder.path());
    let message = refused(from(folder.path(), &["network.hidden_dim=32"]));
    assert!(
        ["network.hidden_dim", "24, as in the checkpoint", "32"].iter().all(|part| message.contains(part)),
        "{message}"
    );
    let mut other = from(folder.path(), &[]);
    other.network = serde_json::from_str(
        r#"{"type": "gm-dit", "num_gaussians": 4, "num_attention_heads": 1, "attention_head_dim": 16, "num_layers": 1,
            "sample_size": 8, "patch_size": 4, "in_channels": 1}"#,
    )
    .expect("a network");
    let message = refused(other);
    let parts = ["network.type", "mlp2d for points", "gm-dit"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    let message = refused(from(&folder.path().join("nothing"), &[]));
    assert!(message.contains("nothing"), "{message}");
}

#[test]
fn a_mixture_starts_from_a_model_with_one_component_and_predicts_its_velocity() {
    let folder = tempfile::tempdir().expect("a folder");
    let one = ["network.num_gaussians=1", "network.constant_logstd=0"];
    let mut plain = Run::create(common::tiny_with(&one), folder.path(), false, &common::device())
        .expect("a run of one component");
    plain.run(&AtomicBool::new(false), &mut Silent).expect("training");
    let mut mixture = Trainer::new(from(folder.path(), &[]), &common::device()).expect("a mixture");
    let (old, new) = (plain.trainer().snapshot(Some("ema")), mixture.snapshot(None));
    let shapes = |network| parameter_shapes(&network).into_iter().collect::<std::collections::BTreeMap<_, _>>();
    let values = |trainer: &Trainer, average| -> std::collections::BTreeMap<String, Vec<f32>> {
        let names = parameter_shapes(&trainer.snapshot(average).expect("weights"));
        names.into_iter().map(|(name, _)| name).zip(weights(trainer, average)).collect()
    };
    let (old_shapes, new_shapes) = (shapes(old.expect("weights")), shapes(new.expect("weights")));
    let (theirs, ours) = (values(plain.trainer(), Some("ema")), values(&mixture, None));
    let body: Vec<&String> = old_shapes.keys().filter(|name| !name.starts_with("out_")).collect();
    assert!(body.len() >= 6, "{body:?}");
    for name in body {
        assert!(theirs[name] == ours[name], "{name} is copied");
    }
    // Every mean is the one that there was, a little apart; all weights are equal.
    assert!(new_shapes["out_means.bias"] != old_shapes["out_means.bias"]);
    for pair in ours["out_means.bias"].chunks(2) {
        let apart = pair.iter().zip(&theirs["out_means.bias"]).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 0.3, "{pair:?}");
    }
    assert!(ours["out_logweights.weight"].iter().chain(&ours["out_logweights.bias"]).all(|x| *x == 0.0));
    mixture.step().expect("a step");
    // A mixture does not become another one.
    let several = tempfile::tempdir().expect("a folder");
    run(several.path());
    let message = refused(from(several.path(), &["network.num_gaussians=8"]));
    assert!(
        message.contains("network.num_gaussians")
            && message.contains("only a model with one component can be widened"),
        "{message}"
    );
}

#[test]
fn a_new_run_may_take_the_place_of_the_one_it_starts_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let average = weights(run(folder.path()).trainer(), Some("ema"));
    let again = Run::create(from(folder.path(), &[]), folder.path(), true, &common::device()).expect("a run");
    assert!(weights(again.trainer(), None) == average);
    // What cannot be run leaves the old run where it is.
    run(&folder.path().join("other"));
    let bad = from(&folder.path().join("other"), &["network.hidden_dim=32"]);
    assert!(Run::create(bad, &folder.path().join("other"), true, &common::device()).is_err());
    assert!(folder.path().join("other/checkpoints/step-00000030/model.json").is_file());
}

#[test]
fn only_the_parameters_that_are_named_are_trained() {
    let config = || common::tiny_with(&["train.only=[\"out_logstds\", \"net.2\"]"]);
    let mut trainer = Trainer::new(config(), &common::device()).expect("a trainer");
    let names: Vec<String> =
        parameter_shapes(&trainer.snapshot(None).expect("weights")).into_iter().map(|(name, _)| name).collect();
    let before = weights(&trainer, None);
    for _ in 0..5 {
        trainer.step().expect("a step");
    }
    for average in [None, Some("ema")] {
        for ((name, before), after) in names.iter().zip(&before).zip(&weights(&trainer, average)) {
            let named = ["out_logstds", "net.2"].iter().any(|start| name.starts_with(start));
            assert_eq!(before != after, named, "{name}, {average:?}");
        }
    }
}

#[test]
fn parameters_that_are_left_alone_stay_so_when_a_run_is_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    run(folder.path());
    let overrides = ["train.steps=40", "train.only=[\"out_means\"]"].map(str::to_owned);
    let mut resumed = Run::resume(folder.path(), &overrides, &common::device()).expect("a run");
    let before = weights(resumed.trainer(), None);
    resumed.run(&AtomicBool::new(false), &mut Silent).expect("training");
    let names = parameter_shapes(&resumed.trainer().snapshot(None).expect("weights"));
    for (((name, _), before), after) in names.iter().zip(&before).zip(&weights(resumed.trainer(), None)) {
        assert_eq!(before != after, name.starts_with("out_means"), "{name}");
    }
}

#[test]
fn a_name_that_no_parameter_has_is_refused() {
    let error = Trainer::new(common::tiny_with(&["train.only=[\"out_logstds\", \"logstd\"]"]), &common::device());
    match error.expect_err("a refusal") {
        Error::Config { field, expected, got, .. } => {
            assert_eq!((field.as_str(), got.as_str()), ("train.only.1", "logstd"));
            assert!(expected.contains("net, out_means, out_logweights, out_logstds"), "{expected}");
        }
        other => panic!("{other}"),
    }
}
