//! `gmflow import`.

use crate::run;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gmflow/tests/data/pytorch").join(name)
}

fn import(file: &str, out: &Path, extra: &[&str]) -> (i32, String, String) {
    let file = data(file);
    let arguments = ["import", file.to_str().unwrap(), "--out", out.to_str().unwrap()];
    run(&[&arguments[..], extra].concat())
}

#[test]
fn a_transformer_becomes_a_folder_that_info_shows() {
    let folder = tempfile::tempdir().unwrap();
    let (out, config) = (folder.path().join("transformer"), data("transformer.json"));
    let component = ["--config", config.to_str().unwrap(), "--prefix", "diffusion_ema.denoising.", "--json"];
    let (code, stdout, stderr) = import("transformer.pt", &out, &component);
    assert_eq!(code, 0, "{stderr}");
    let done: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&done["tensors"], &done["left_out"]), (&29.into(), &1.into()));
    let (code, stdout, stderr) = run(&["info", out.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("1 x 4 x 4"), "{stdout}");
    // Without the prefix the names are not those of the network, and the message tells what is missing.
    let (code, _, stderr) = import("transformer.pt", &folder.path().join("other"), &component[..2]);
    assert!(code == 1 && stderr.contains("diffusion_ema.denoising.") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn a_file_is_written_once_and_in_the_precision_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/flat.safetensors");
    let (code, stdout, stderr) = import("flat.pt", &out, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("2 tensors"), "{stdout}");
    let (code, _, stderr) = import("flat.pt", &out, &["--precision", "bf16"]);
    assert!(code == 1 && stderr.contains("--force"), "{stderr}");
    assert_eq!(import("flat.pt", &out, &["--precision", "bf16", "--force"]).0, 0);
    let bytes = std::fs::read(&out).unwrap();
    let header = String::from_utf8_lossy(&bytes[8..]);
    assert!(header.contains("BF16") && !header.contains("F32"), "{header}");
}

#[test]
fn integers_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = import("nested.pt", &folder.path().join("out.safetensors"), &[]);
    assert!(code == 0 && stdout.contains("left out"), "{stdout} {stderr}");
    assert!(stderr.contains("tensor diffusion.steps: integers are no weights"), "{stderr}");
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    for (file, extra, word) in [
        ("nested.pt", &["--prefix", "model."][..], "diffusion_ema.denoising."),
        ("nested.pt", &["--key", "weights"], "state_dict."),
        ("not_finite.pt", &[], "broken"),
        ("compressed.pt", &[], "compress"),
        ("command.pt", &[], "command.pt"),
        ("none.pt", &[], "none.pt"),
    ] {
        let (code, _, stderr) = import(file, &out, extra);
        assert!(code == 1 && stderr.contains(word) && stderr.lines().count() == 1, "{file}: {stderr}");
        assert!(!out.exists(), "{file}");
    }
}
