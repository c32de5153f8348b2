//! Damage in a checkpoint is found, whatever file it is in, and what cannot be loaded is not saved.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use gmflow_train::checkpoint::{self, State};
use gmflow_train::{Config, Error, ResumeOptions, Run, Silent, Trainer};
use serde_json::{Value, json};

mod common;

const FILES: [&str; 5] =
    ["model.safetensors", "ema.ema.safetensors", "optimizer.safetensors", "model.json", "state.json"];

fn config() -> Config {
    common::tiny_with(&["train.steps=4", "checkpoint.every=2"])
}

/// The last checkpoint of a finished run below `folder`.
fn checkpoint_in(folder: &Path) -> PathBuf {
    let mut run = Run::create(config(), folder, false, &common::device()).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    folder.join("checkpoints/step-00000004")
}

fn load(folder: &Path, verify: bool) -> Result<Trainer, Error> {
    let options = ResumeOptions { unverified: !verify, ..ResumeOptions::default() };
    checkpoint::load(folder, config(), &common::device(), options)
}

fn refusal(folder: &Path) -> String {
    load(folder, true).err().map_or("loaded".into(), |error| error.to_string())
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).expect("bytes")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("written");
}

/// The checkpoint as a version without digests wrote it.
fn without_digests(folder: &Path) {
    for (file, names) in [("state.json", &["files", "checksum"][..]), ("model.json", &["files"])] {
        edit(&folder.join(file), |value| {
            for name in names {
                value.as_object_mut().expect("a table").remove(*name).expect("a field");
            }
        });
    }
}

#[test]
fn flipped_bits_are_found_in_every_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = checkpoint_in(folder.path());
    load(&checkpoint, true).expect("a whole checkpoint");
    checkpoint::verify(&checkpoint).expect("a whole checkpoint");
    for name in FILES {
        let path = checkpoint.join(name);
        let whole = fs::read(&path).expect("bytes");
        // A seeded walk through the file; spaces in a text stand for nothing.
        let mut at = 7;
        for bit in 0..40 {
            at = (at * 1_103_515_245 + 12_345) % whole.len();
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (bit % 8);
            if name == "state.json" && whole[at].is_ascii_whitespace() {
                continue;
            }
            fs::write(&path, &damaged).expect("written");
            let message = refusal(&checkpoint);
            assert!(message.contains(name), "{name}, byte {at}, bit {}: {message}", bit % 8);
            assert!(checkpoint::verify(&checkpoint).is_err(), "{name}, byte {at}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).expect("written");
        assert!(refusal(&checkpoint).contains(name));
        fs::remove_file(&path).expect("removed");
        assert!(refusal(&checkpoint).contains(name));
        fs::write(&path, &whole).expect("written");
    }
    load(&checkpoint, true).expect("whole again");
}

#[test]
fn damage_that_the_format_cannot_see_is_read_on_demand() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = checkpoint_in(folder.path());
    let path = checkpoint.join("optimizer.safetensors");
    let mut bytes = fs::read(&path).expect("bytes");
    // The lowest bit of the last value.
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    fs::write(&path, bytes).expect("written");
    let message = refusal(&checkpoint);
    assert!(message.contains("optimizer.safetensors: checksum") && message.contains("--no-verify"), "{message}");
    load(&checkpoint, false).expect("a trainer");
}

#[test]
fn a_checkpoint_without_digests_loads_as_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = checkpoint_in(folder.path());
    without_digests(&checkpoint);
    assert!(State::read(&checkpoint, true).expect("a state").files.is_empty());
    assert_eq!(load(&checkpoint, true).expect("a trainer").steps_taken(), 4);
    checkpoint::verify(&checkpoint).expect("a whole checkpoint");
    fs::remove_file(checkpoint.join("optimizer.safetensors")).expect("removed");
    assert!(checkpoint::verify(&checkpoint).is_err());
}

/// Puts `value` in the place of the last one of a weight file.
fn put_last(path: &Path, value: f32) {
    let mut bytes = fs::read(path).expect("bytes");
    let place = bytes.len() - 4;
    bytes[place..].copy_from_slice(&value.to_le_bytes());
    fs::write(path, bytes).expect("written");
}

#[test]
fn values_that_no_training_gives_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = checkpoint_in(folder.path());
    without_digests(&checkpoint);
    for (file, value, words) in [
        ("model.safetensors", f32::NAN, ["tensor ", "finite"]),
        ("ema.ema.safetensors", f32::INFINITY, ["ema.ema.safetensors: ", "finite values, got inf"]),
        ("optimizer.safetensors", f32::NAN, ["exp_avg_sq.", "got NaN"]),
        ("optimizer.safetensors", -1.0, ["exp_avg_sq.", "at least 0, got -1"]),
    ] {
        let path = checkpoint.join(file);
        let whole = fs::read(&path).expect("bytes");
        put_last(&path, value);
        let message = refusal(&checkpoint);
        assert!(message.contains(file) && words.iter().all(|word| message.contains(word)), "{message}");
        assert!(checkpoint::verify(&checkpoint).is_err(), "{file}");
        fs::write(&path, whole).expect("written");
    }
}

#[test]
fn a_state_that_contradicts_itself_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = checkpoint_in(folder.path());
    without_digests(&checkpoint);
    let path = checkpoint.join("state.json");
    let whole = fs::read(&path).expect("bytes");
    for (field, value, words) in [
        ("step", json!(3), "step: expected 4, as the folder's name says, got 3"),
        ("images", json!(100), "images: expected 4 steps of 64 samples, got 100"),
        ("format", json!("other"), "format"),
    ] {
        edit(&path, |state| state[field] = value.clone());
        let message = refusal(&checkpoint);
        assert!(message.contains("state.json") && message.contains(words), "{message}");
        fs::write(&path, &whole).expect("written");
    }
    // A copy under a name of the user's own may be loaded.
    let copy = folder.path().join("best");
    fs::rename(&checkpoint, &copy).expect("renamed");
    assert_eq!(load(&copy, true).expect("a trainer").steps_taken(), 4);
}

#[test]
fn an_average_that_is_missing_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = checkpoint_in(folder.path());
    let other = common::tiny_with(&["ema.0.name=other"]);
    let message = checkpoint::load(&checkpoint, other, &common::device(), ResumeOptions::default())
        .expect_err("a refusal")
        .to_string();
    assert!(message.contains("ema.0.name") && message.contains("(ema)") && message.contains("other"), "{message}");
    without_digests(&checkpoint);
    fs::remove_file(checkpoint.join("ema.ema.safetensors")).expect("removed");
    assert!(refusal(&checkpoint).contains("ema.0.name"));
}

#[test]
fn weights_that_are_not_finite_are_not_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    checkpoint_in(folder.path());
    let overrides = ["train.steps=5", "train.lr=1e39"].map(String::from);
    let mut run = Run::resume(folder.path(), &overrides, &common::device()).expect("a run");
    let error = run.run(&AtomicBool::new(false), &mut Silent).expect_err("weights beyond f32");
    let message = error.to_string();
    assert!(message.contains("step 5: the weight ") && message.contains("train.lr"), "{message}");
    drop(run);
    let mut kept: Vec<String> = fs::read_dir(folder.path().join("checkpoints"))
        .expect("checkpoints")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    kept.sort();
    assert_eq!(kept, ["step-00000002", "step-00000004"], "what was saved before stays, and nothing is added");
    let run = Run::resume(folder.path(), &["train.lr=1e-3".into()], &common::device()).expect("a run");
    assert_eq!(run.trainer().steps_taken(), 4);
}
