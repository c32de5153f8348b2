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

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_checkpoint_to_resume_from() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (write_config(folder.path(), CONFIG), folder.path().join("run"));
    let child = Command::new(assert_cmd::cargo::cargo_bin("gmflow"))
        .args(["train", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--set", "train.steps=100000000"])
        .args(["--set", "log.every=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let has_begun = || std::fs::metadata(out.join("log.jsonl")).is_ok_and(|file| file.len() > 0);
    while !has_begun() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("stopped") && stdout.contains("--resume"), "{stdout}");
    let step: u64 = stdout.split("step ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    let goal = format!("train.steps={}", step + 2);
    let (code, stdout, stderr) = train(&config, &out, &["--resume", "--set", &goal]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains(&format!("step {}", step + 2)), "{stdout}");
}
