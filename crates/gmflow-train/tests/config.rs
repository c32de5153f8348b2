//! Configuration: overrides, names in errors, presets.

use std::path::Path;

use gmflow::network::NetworkConfig;
use gmflow_train::{Config, Error};

mod common;

fn load(overrides: &[&str]) -> Result<Config, Error> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    let config = Config::parse(common::TINY, Path::new("tiny.toml"), &overrides)?;
    config.validate()?;
    Ok(config)
}

fn message(overrides: &[&str]) -> String {
    load(overrides).expect_err("must be refused").to_string()
}

#[test]
fn overrides_reach_tables_and_lists() {
    let config = load(&["train.lr=0.5", "ema.0.name=slow", "network.hidden_dim=32", "train.label_dropout = 0.25"])
        .expect("valid overrides");
    assert_eq!(config.train.lr, 0.5);
    assert_eq!(config.ema[0].name, "slow");
    assert_eq!(config.train.label_dropout, 0.25);
}

#[test]
fn the_resolved_form_reads_back() {
    let config = load(&["train.schedule={kind=\"cosine\"}"]).expect("valid");
    let text = config.to_toml().expect("TOML");
    let again = Config::parse(&text, Path::new("again.toml"), &[]).expect("its own form");
    assert_eq!(config, again);
}

#[test]
fn an_unknown_field_is_named_with_the_nearest_known() {
    let text = message(&["train.batchsize=3"]);
    assert!(text.contains("train") && text.contains("batchsize") && text.contains("`batch_size`?"), "{text}");
}

#[test]
fn a_field_of_another_kind_is_refused() {
    for (set, field) in [
        ("loss={kind=\"l2\", transition_ratio=0.5}", "loss.transition_ratio"),
        ("time={sampling=\"uniform\", std=1.0}", "time"),
        ("train.schedule={kind=\"constant\", hold=0.5}", "train.schedule.hold"),
        ("sample={every=1, num=1, sampler={solver={kind=\"euler\", order=2}, steps=1}}", "solver.order"),
    ] {
        let text = message(&[set]);
        assert!(text.contains(field) && text.contains("unknown field"), "{set}: {text}");
    }
    assert_eq!(load(&["time={sampling=\"uniform\", shift=3.0}"]).expect("valid").time.time(0.5), 0.75);
}

/// A value that is the default is a value, too.
#[test]
fn defaults_may_be_given() {
    let plain = load(&[]).expect("valid");
    assert_eq!(load(&["train.precision=f32", "train.gradient_checkpointing=false"]).expect("valid"), plain);
}

#[test]
fn a_wrong_type_is_named() {
    let text = message(&["train.lr=\"fast\""]);
    assert!(text.starts_with("tiny.toml: train.lr: expected f64"), "{text}");
}

#[test]
fn values_outside_their_domain_are_named() {
    for (set, field) in [
        ("train.batch_size=0", "train.batch_size"),
        ("train.micro_batch=100", "train.micro_batch"),
        ("train.images=100", "train.steps"),
        ("train.lr=-1", "train.lr"),
        ("train.betas=[0.9, 1.0]", "train.betas"),
        ("train.precision=\"int8\"", "train.precision"),
        ("train.label_dropout=1.5", "train.label_dropout"),
        ("train.clip_grad_norm=0", "train.clip_grad_norm"),
        ("train.schedule={kind=\"cosine\", hold=1.0}", "train.schedule.hold"),
        ("ema.0.decay={kind=\"constant\", decay=1.0}", "ema.0.decay.decay"),
        ("ema.0.decay={kind=\"power\", std=0.5}", "ema.0.decay.std"),
        ("ema.0.name=\"../x\"", "ema.0.name"),
        ("time={sampling=\"logit-normal\", std=0}", "time.std"),
        ("time={sampling=\"uniform\", shift=0}", "time.shift"),
        ("spectrum={weight=0}", "spectrum.weight"),
        ("checkpoint.keep=0", "checkpoint.keep"),
        ("network.hidden_dim=0", "network.hidden_dim"),
        ("loss.transition_ratio=0", "loss.transition_ratio"),
        ("data.source.squares=1", "data.source.squares"),
    ] {
        let text = message(&[set]);
        assert!(text.contains(&format!("{field}: expected ")), "{set}: {text}");
    }
}

#[test]
fn malformed_overrides_are_refused() {
    for set in ["train.lr", "=3", "train..lr=1", "train.lr.x=1", "ema.7.name=a"] {
        assert!(load(&[set]).is_err(), "{set}");
    }
}

#[test]
fn every_preset_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("configs") {
        let path = entry.expect("entry").path();
        Config::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        count += 1;
    }
    assert!(count >= 5, "{count} presets");
}

#[test]
fn settings_that_differ_are_named() {
    let names = |a: &[&str], b: &[&str]| {
        common::tiny_with(a).differences(&common::tiny_with(b)).expect("the names").join(" ")
    };
    assert_eq!(names(&["train.lr=0.1"], &["train.lr=0.1"]), "");
    assert_eq!(names(&["train.lr=0.1", "loss.transition_ratio=0.5"], &[]), "loss.transition_ratio train.lr");
    assert_eq!(names(&[], &["train.warmup_steps=3", "train.micro_batch=8"]), "train.warmup_steps train.micro_batch");
}

#[test]
fn a_smaller_batch_takes_the_parts_with_it() {
    let text = "[data.source]\nkind = \"density\"\nname = \"moons\"\n[train]\nsteps = 1\nbatch_size = 128\nmicro_batch = 32\n";
    let load = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let config = Config::parse(text, Path::new("a.toml"), &overrides).unwrap();
        config.validate().map(|()| config.train.micro_batch).map_err(|error| error.to_string())
    };
    assert_eq!(load(&[]), Ok(Some(32)));
    assert_eq!(load(&["train.batch_size=64"]), Ok(Some(32)));
    assert_eq!(load(&["train.batch_size=2"]), Ok(Some(2)));
    assert!(
        load(&["train.batch_size=2", "train.micro_batch=4"]).is_err_and(|error| error.contains("train.micro_batch"))
    );
}

#[test]
fn what_is_not_said_is_small_and_taken_from_the_data() {
    let text = "[data.source]\nkind = \"idx\"\nimages = \"x\"\n[network]\ntype = \"gm-dit\"\nnum_layers = 2\n[train]\nsteps = 1\n";
    let config = Config::parse(text, Path::new("a.toml"), &[]).unwrap();
    let NetworkConfig::GmDit(net) = &config.network else { panic!("a transformer") };
    assert_eq!((net.hidden(), net.num_layers, config.train.batch_size), (192, 2, 32));
    assert!(config.from_data.channels && config.from_data.size && config.from_data.classes && config.from_data.patch);
    let resolved = Config::parse(&config.to_toml().unwrap(), Path::new("a.toml"), &[]).unwrap();
    assert_eq!(resolved.from_data, gmflow_train::config::FromData::default(), "everything is written down");
}
