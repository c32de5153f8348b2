//! Tar shards: packed, looked at, trained on and measured with.

use crate::data::{class, config, text_of};
use crate::run_in;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Runs with a cache of its own.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let cache = text_of(&folder.join("cache"));
    run_in(folder, &[("GMFLOW_CACHE", &cache)], arguments)
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(folder, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

/// Two classes of pictures.
fn photos(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    class(&data, "dog", 5);
    class(&data, "red fox", 4);
    data
}

/// The weights below a folder, by their paths.
fn weights(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(weights(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else if name.ends_with(".safetensors") {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_folder_is_packed_once_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (text_of(&photos(folder.path())), text_of(&folder.path().join("shards")));
    let pack = ["pack", &data, "--shards", "2", "--out", &out];
    let outcome: serde_json::Value =
        serde_json::from_str(&done(folder.path(), &[&pack[..], &["--json"]].concat())).unwrap();
    assert_eq!((&outcome["images"], &outcome["shards"], &outcome["kept"]), (&9.into(), &2.into(), &0.into()));
    let (code, _, stderr) = run(folder.path(), &pack);
    assert_eq!(code, 1);
    assert!(stderr.contains("a complete one; --force removes"), "{stderr}");
    let text = done(folder.path(), &[&pack[..], &["--force"]].concat());
    assert!(text.contains("9 images in 2 shards") && text.contains("next      gmflow train"), "{text}");
    assert_eq!(fs::read_to_string(folder.path().join("shards/classes.txt")).unwrap(), "dog\nred fox\n");
    // What is wrong with the options is told before anything is written.
    let none = text_of(&folder.path().join("none"));
    for (arguments, message) in [
        (vec!["pack", &data, "--shards", "10", "--out", &none], "shards: expected 1 to 9, got 10"),
        (vec!["pack", &data, "--shards", "1", "--out", &none, "--data-dir", "x"], "--data-dir: expected"),
        (vec!["pack", &none, "--shards", "1", "--out", &out], "no such file or folder"),
    ] {
        let (code, _, stderr) = run(folder.path(), &arguments);
        assert!(code != 0 && stderr.contains(message), "{stderr}");
    }
    assert!(!Path::new(&none).exists());
}

#[test]
fn training_on_shards_in_order_gives_the_weights_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (data, shards) = (text_of(&photos(folder.path())), text_of(&folder.path().join("shards")));
    done(folder.path(), &["pack", &data, "--shards", "2", "--in-order", "--out", &shards]);
    let image = "image = { size = 8, horizontal_flip = true }";
    let sources = [
        format!("kind = \"folder\"\npath = {data:?}\n{image}"),
        format!("kind = \"tar\"\npath = {shards:?}\n{image}"),
        format!("kind = \"tar\"\npath = \"{shards}/shard-{{000000..000001}}.tar\"\n{image}"),
    ];
    let trained = sources.map(|source| {
        let out = folder.path().join(format!("run-{}", source.len()));
        done(folder.path(), &["train", &config(folder.path(), &source), "--out", &text_of(&out)]);
        weights(&out)
    });
    let [from_folder, from_shards, from_range] = trained;
    assert!(!from_folder.is_empty());
    assert!(from_folder == from_shards && from_folder == from_range);
    // With a shuffle buffer the order is another one.
    let source = format!("kind = \"tar\"\npath = {shards:?}\nshuffle = 2\nlanes = 1\n{image}");
    let out = folder.path().join("nearby");
    done(folder.path(), &["train", &config(folder.path(), &source), "--out", &text_of(&out)]);
    assert!(weights(&out) != from_folder);
}

#[test]
fn shards_are_measured_with_as_their_folder_is() {
    let folder = tempfile::tempdir().unwrap();
    let (data, shards) = (text_of(&photos(folder.path())), text_of(&folder.path().join("shards")));
    done(folder.path(), &["pack", &data, "--shards", "3", "--out", &shards]);
    for real in [&shards, &format!("{shards}/shard-*.tar")] {
        let arguments = ["eval", "--real", real, "--fake", &data, "--features", "pixels", "--json"];
        let rows: serde_json::Value = serde_json::from_str(&done(folder.path(), &arguments)).unwrap();
        let metrics = &rows[0]["metrics"];
        assert_eq!((&metrics["precision"], &metrics["recall"]), (&1.0.into(), &1.0.into()), "{rows}");
        assert!(metrics["frechet_distance"].as_f64().unwrap().abs() < 1e-3, "{rows}");
    }
}

#[test]
fn a_url_names_the_feature_that_it_needs() {
    if cfg!(feature = "object-store") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        vec!["train", "s3://bucket/photos", "--out", "never"],
        vec!["init", "s3://bucket/photos", "--out", "never.toml"],
        vec!["pack", "s3://bucket/photos", "--shards", "1", "--out", "never"],
        vec!["eval", "--real", "s3://bucket/photos", "--fake", "models/mnist", "--features", "pixels"],
    ] {
        let (code, _, stderr) = run(folder.path(), &arguments);
        assert!(
            code == 2 && stderr.contains("--features object-store") && stderr.contains("s3://bucket"),
            "{stderr}"
        );
    }
}
