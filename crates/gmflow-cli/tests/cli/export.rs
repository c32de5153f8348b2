//! `gmflow export`.

use crate::models::image_model;
use crate::run;
use crate::sample::read_samples;
use std::path::Path;

fn export(checkpoint: &Path, out: &Path, extra: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["export", "--checkpoint", checkpoint.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(["--layout", "gmflow"]);
    arguments.extend(extra);
    run(&arguments)
}

fn drawn(model: &Path, ema: &[&str], out: &Path) -> Vec<f32> {
    let mut arguments = vec!["sample", "--checkpoint", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(["--num", "1", "--steps", "2", "--format", "safetensors", "--precision", "f32"]);
    arguments.extend(ema);
    let (code, _, stderr) = run(&arguments);
    assert_eq!(code, 0, "{stderr}");
    read_samples(out).1
}

#[test]
fn an_average_becomes_a_model_that_samples_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    image_model(&at("model"));
    let (code, stdout, stderr) = export(&at("model"), &at("out"), &["--ema", "slow"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("1234"), "{stdout}");
    let average = drawn(&at("model"), &[], &at("a.safetensors"));
    assert!(average == drawn(&at("out"), &[], &at("b.safetensors")));
    assert!(average != drawn(&at("model"), &["--ema", "none"], &at("c.safetensors")));
    let (_, half, _) = export(&at("model"), &at("half"), &["--precision", "f16", "--json"]);
    let half: serde_json::Value = serde_json::from_str(&half).unwrap();
    let whole = std::fs::metadata(at("out").join("model.safetensors")).unwrap().len();
    assert!(half["bytes"].as_u64().unwrap() < whole * 3 / 4, "{half}");
}

#[test]
fn nothing_is_overwritten_and_unknown_averages_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    image_model(&at("model"));
    let (code, _, stderr) = export(&at("model"), &at("out"), &["--ema", "fast"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("slow") && !at("out").exists(), "{stderr}");
    std::fs::create_dir(at("out")).unwrap();
    std::fs::write(at("out").join("mine"), "mine").unwrap();
    let (code, _, stderr) = export(&at("model"), &at("out"), &[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("--force"), "{stderr}");
    assert!(!at("out").join("model.json").exists());
    assert_eq!(export(&at("model"), &at("out"), &["--force"]).0, 0);
    assert!(at("out").join("mine").exists());
}
