//! `gmflow train`: runs, resuming, Ctrl-C, and configurations that are wrong.

use crate::run;
use std::path::{Path, PathBuf};

const CONFIG: &str = r#"
[data.source]
kind = "density"
name = "checkerboard"

[network]
type = "mlp2d"
num_gaussians = 3
embed_dim = 16
hidden_dim = 16
num_layers = 2

[loss]
kind = "transition"
transition_ratio = 0.9

[train]
batch_size = 32
steps = 6

[[ema]]
name = "ema"
decay = { kind = "constant", decay = 0.9 }
"#;

fn write_config(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("small.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn train(config: &Path, out: &Path, extra: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["train", config.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(extra);
    run(&arguments)
}

#[test]
fn a_run_starts_from_the_weights_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let (config, first) = (write_config(folder.path(), CONFIG), folder.path().join("first"));
    assert_eq!(train(&config, &first, &[]).0, 0);
    let (second, from) = (folder.path().join("second"), first.to_str().unwrap());
    let only = ["--set", "train.only=[\"out_logstds\"]", "--set", "train.steps=2"];
    let (code, _, stderr) = train(&config, &second, &[&["--from", from], &only[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, _) = run(&["info", second.to_str().unwrap()]);
    assert_eq!(code, 0);
    let source = first.join("checkpoints/step-00000006");
    assert!(stdout.contains(&format!("from          {}", source.display())), "{stdout}");
    assert!(stdout.contains("trained       6 + 2 steps, 192 + 64 samples"), "{stdout}");

    let (code, _, stderr) = train(&config, &second, &[&["--resume"], &only[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.contains("differs"), "{stderr}");
    let (code, _, stderr) = train(&config, &second, &["--resume", "--from", from]);
    assert_eq!(code, 2, "{stderr}");
    let nowhere = folder.path().join("nowhere");
    let (code, _, stderr) = train(&config, &folder.path().join("third"), &["--from", nowhere.to_str().unwrap()]);
    assert_ne!(code, 0);
    assert!(stderr.contains("nowhere"), "{stderr}");
    assert!(!folder.path().join("third").exists(), "nothing is written");
}

#[test]
fn a_run_can_be_sampled_and_longer_runs_resume() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (write_config(folder.path(), CONFIG), folder.path().join("run"));
    let (code, stdout, stderr) = train(&config, &out, &["--json"]);
    assert_eq!(code, 0, "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["finished"], &report["step"], &report["images"]), (&true.into(), &6.into(), &192.into()));

    let (code, stdout, stderr) = train(&config, &out, &["--resume", "--set", "train.steps=9"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("step 9"), "{stdout}");
    assert!(!stderr.contains("differs"), "{stderr}");

    let changed = write_config(folder.path(), &CONFIG.replace("steps = 6", "steps = 12\nlr = 0.5"));
    let (code, stdout, stderr) = train(&changed, &out, &["--resume"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("step 9"), "the run's own settings count: {stdout}");
    assert!(stderr.contains("small.toml differs in train.lr, train.steps;"), "{stderr}");

    let points = folder.path().join("points.npz");
    let (checkpoint, points_path) = (out.to_str().unwrap(), points.to_str().unwrap());
    let arguments = ["sample", "--checkpoint", checkpoint, "--out", points_path, "--num", "10", "--ema", "ema"];
    let (code, _, stderr) = run(&arguments);
    assert_eq!(code, 0, "{stderr}");
    assert!(points.is_file());
}

#[test]
fn an_earlier_run_is_not_overwritten_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (write_config(folder.path(), CONFIG), folder.path().join("run"));
    assert_eq!(train(&config, &out, &[]).0, 0);
    let (code, _, stderr) = train(&config, &out, &[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("already holds a run"), "{stderr}");
    assert_eq!(train(&config, &out, &["--force"]).0, 0);
    let (code, _, stderr) = train(&config, &folder.path().join("nothing"), &["--resume"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("nothing"), "{stderr}");
}

#[test]
fn wrong_settings_are_usage_and_name_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = write_config(folder.path(), CONFIG);
    for (setting, words) in [
        ("train.stepz=3", "stepz"),
        ("train.steps=-3", "train.steps"),
        ("train.lr=fast", "train.lr"),
        ("network.num_gaussians=0", "num_gaussians"),
        ("train.batch_size", "train.batch_size"),
    ] {
        let (code, _, stderr) = train(&config, &out, &["--set", setting]);
        assert_eq!(code, 2, "{setting}: {stderr}");
        assert!(stderr.contains(words) && stderr.trim_end().lines().count() == 1, "{setting}: {stderr}");
    }
    let broken = write_config(folder.path(), "[train\nsteps = 3");
    let (code, _, stderr) = train(&broken, &out, &[]);
    assert_eq!((code, stderr.trim_end().lines().count()), (2, 1), "{stderr}");
    assert_eq!(train(Path::new("no-such.toml"), &out, &[]).0, 1);
    assert_eq!(train(&config, &out, &["--device", "cuda"]).0, 2);
    assert!(!out.exists());
}

#[test]
fn a_configuration_in_the_run_folder_is_refused_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("proj");
    let text = format!("# my notes: do not lose\n{CONFIG}");
    std::fs::create_dir_all(project.join("samples")).unwrap();
    std::fs::write(project.join("samples/mine.png"), "x").unwrap();
    let config = project.join("config.toml");
    std::fs::write(&config, &text).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&project, &link).unwrap();
    for (out, extra) in [(&project, &[][..]), (&project, &["--force"]), (&link, &["--force"])] {
        let (code, _, stderr) = train(&config, out, extra);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains("--out: expected a folder other than that of the configuration"), "{stderr}");
    }
    // By another name for the configuration the folder is refused for what it holds.
    let other = write_config(folder.path(), CONFIG);
    for extra in [&[][..], &["--force"], &["--resume"]] {
        let (code, _, stderr) = train(&other, &project, extra);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("config.toml, samples that no run of gmflow wrote"), "{stderr}");
    }
    assert_eq!(std::fs::read_to_string(&config).unwrap(), text);
    assert_eq!(std::fs::read_to_string(project.join("samples/mine.png")).unwrap(), "x");
    assert_eq!(std::fs::read_dir(&project).unwrap().count(), 2, "nothing is added");
    // A run's own configuration serves to continue it, and not to begin another in its place.
    let out = folder.path().join("run");
    assert_eq!(train(&other, &out, &[]).0, 0);
    assert_eq!(train(&out.join("config.toml"), &out, &["--resume", "--set", "train.steps=7"]).0, 0);
    assert_eq!(train(&out.join("config.toml"), &out, &["--force"]).0, 2);
}

#[test]
fn a_damaged_checkpoint_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (write_config(folder.path(), CONFIG), folder.path().join("run"));
    assert_eq!(train(&config, &out, &["--set", "checkpoint.every=3"]).0, 0);
    let path = out.join("checkpoints/step-00000006/optimizer.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (code, _, stderr) = train(&config, &out, &["--resume"]);
    assert_eq!((code, stderr.trim_end().lines().count()), (1, 1), "{stderr}");
    assert!(stderr.contains("optimizer.safetensors: checksum") && stderr.contains("--resume-from 3"), "{stderr}");
    let (code, stdout, stderr) = train(&config, &out, &["--resume-from", "3", "--set", "train.steps=8"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("step 8") && stderr.contains("step-00000006.old"), "{stdout}{stderr}");
    let (code, _, stderr) = train(&config, &out, &["--resume-from", "3"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(
        stderr.contains("--resume-from: expected the step of a checkpoint") && stderr.contains("(6, 8)"),
        "{stderr}"
    );
    let (code, _, stderr) = train(&config, &out, &["--no-verify", "--force"]);
    assert_eq!(code, 2, "{stderr}");
}

#[test]
fn a_model_with_damage_is_not_sampled_from_unless_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (write_config(folder.path(), CONFIG), folder.path().join("run"));
    assert_eq!(train(&config, &out, &[]).0, 0);
    let model = folder.path().join("model");
    let (run_folder, model_folder) = (out.to_str().unwrap(), model.to_str().unwrap());
    let export =
        ["export", "--checkpoint", run_folder, "--layout", "gmflow", "--precision", "f16", "--out", model_folder];
    assert_eq!(run(&export).0, 0);
    let path = model.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let points = folder.path().join("points.npz");
    let sample = ["sample", "--checkpoint", model_folder, "--num", "5", "--out", points.to_str().unwrap()];
    let (code, _, stderr) = run(&sample);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("model.safetensors: checksum") && stderr.contains("--no-verify"), "{stderr}");
    assert!(!points.exists());
    let copy = folder.path().join("copy");
    let export = ["export", "--checkpoint", model_folder, "--out", copy.to_str().unwrap(), "--layout", "gmflow"];
    let tuned = folder.path().join("tuned");
    for (code, _, stderr) in [run(&export), train(&config, &tuned, &["--from", model_folder])] {
        assert!(code == 1 && stderr.contains("model.safetensors: checksum"), "{stderr}");
    }
    assert!(!copy.exists() && !tuned.exists());
    let (code, _, stderr) = run(&[&sample[..], &["--no-verify"]].concat());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_learning_rate_beyond_all_bounds_is_an_error_and_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (write_config(folder.path(), CONFIG), folder.path().join("run"));
    let (code, _, stderr) = train(&config, &out, &["--set", "train.lr=1e39", "--set", "train.steps=1"]);
    assert_ne!(code, 0, "{stderr}");
    assert!(stderr.contains("train.lr"), "{stderr}");
    let checkpoints = out.join("checkpoints");
    assert!(!checkpoints.exists() || std::fs::read_dir(checkpoints).unwrap().count() == 0);
}
