//! Wrong arguments end with exit code 2, before any work, and say what was expected.

use crate::run;

/// A `sample` command line that is right but for `extra`; its checkpoint does not exist.
fn sample_with(extra: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut arguments = vec!["sample", "--checkpoint", "no-such-folder", "--out", out.to_str().unwrap()];
    arguments.extend(extra);
    let (code, stdout, stderr) = run(&arguments);
    assert_eq!(stdout, "", "{extra:?}");
    assert!(!out.exists(), "{extra:?} left something behind");
    (code, stderr)
}

#[test]
fn values_outside_their_domain() {
    for (extra, words) in [
        (&["--guidance", "1"][..], "guidance"),
        (&["--guidance=-0.1"], "guidance"),
        (&["--guidance", "nan"], "guidance"),
        (&["--cfg", "0.5"], "cfg"),
        (&["--cfg", "inf"], "cfg"),
        (&["--order", "3"], "order"),
        (&["--steps", "0"], "steps"),
        (&["--substeps", "0"], "substeps"),
        (&["--num", "0"], "num"),
        (&["--orthogonal", "2", "--guidance", "0.1"], "orthogonal"),
        (&["--solver", "rk4"], "gm-ode"),
        (&["--spectral", "maybe"], "spectral"),
        (&["--device", "tpu"], "device"),
        (&["--class", ""], "class"),
    ] {
        let (code, stderr) = sample_with(extra);
        assert_eq!(code, 2, "{extra:?}: {stderr}");
        assert!(stderr.contains(words), "{extra:?}: {stderr}");
    }
}

#[test]
fn combinations_that_mean_nothing() {
    for (extra, words) in [
        (&["--guidance", "0.5", "--cfg", "2"][..], "--cfg"),
        (&["--grid", "--format", "npz"], "--format"),
        (&["--noise", "noise.safetensors", "--num", "3"], "--num"),
        (&["--solver", "euler", "--order", "1"], "order"),
        (&["--solver", "gm-sde", "--substeps", "4"], "substeps"),
        (&["--solver", "gm-ode", "--spectral", "on"], "spectral"),
        (&["--orthogonal", "0.5"], "orthogonal"),
    ] {
        let (code, stderr) = sample_with(extra);
        assert_eq!(code, 2, "{extra:?}: {stderr}");
        assert!(stderr.contains(words), "{extra:?}: {stderr}");
    }
}

#[test]
fn cuda_is_refused_in_words() {
    let (code, stderr) = sample_with(&["--device", "cuda"]);
    assert_eq!(code, 2);
    assert!(stderr.contains("built without") && stderr.contains("cpu"), "{stderr}");
}

#[test]
fn a_checkpoint_that_is_not_there_is_a_failure_and_not_usage() {
    let (code, stderr) = sample_with(&[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("no-such-folder"), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
}

#[test]
fn a_name_for_a_file_has_the_ending_of_its_format() {
    for (arguments, ending) in [
        (&["eval", "--real", "none", "--fake", "none", "--out", "figures.md"][..], ".json"),
        (&["eval", "--real", "none", "--fake", "none", "--out", "figures"], ".json"),
        (&["stats", "none", "--out", "reference.npz"], ".safetensors"),
        (&["features", "train", "none", "--out", "features.pth"], ".safetensors"),
        (&["import", "none.pth", "--out", "weights.bin"], ".safetensors"),
    ] {
        let (code, _, stderr) = run(arguments);
        assert!(code == 2 && stderr.contains("--out") && stderr.contains(ending), "{arguments:?}: {stderr}");
    }
    // In upper case too: what is missing is the data.
    let (_, _, stderr) =
        run(&["eval", "--real", "no-data", "--fake", "none", "--features", "pixels", "--out", "a.JSON"]);
    assert!(stderr.contains("no-data") && !stderr.contains("ending"), "{stderr}");
}

#[test]
fn commands_and_their_required_arguments() {
    for arguments in [&["paint"][..], &["train"], &["sample"], &["info"], &["completions"], &["completions", "cobol"]]
    {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(!stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(run(&[]).0, 2);
    assert_eq!(run(&["train", "a.toml", "--resume", "--force"]).0, 2);
    assert_eq!(run(&["demo", "--seconds", "0"]).0, 2);
}

#[test]
fn a_mistyped_path_lists_what_is_near_and_asks_no_hub() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("models/mnist")).unwrap();
    let attempt = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::cargo_bin("gmflow").unwrap();
        // Whoever asked this address would say so.
        command.current_dir(folder.path()).env("HF_ENDPOINT", "http://127.0.0.1:1");
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let stderr = attempt(&["sample", "--checkpoint", "models/mnits", "--out", "out"]);
    assert!(stderr.contains("did you mean models/mnist?") && stderr.contains("searched: models"), "{stderr}");
    assert!(!stderr.contains("127.0.0.1"), "{stderr}");
    let stderr = attempt(&["info", "mnst"]);
    assert!(stderr.contains("did you mean models/mnist?"), "{stderr}");
    std::fs::write(folder.path().join("mine.toml"), "").unwrap();
    let stderr = attempt(&["train", "mien.toml"]);
    assert!(stderr.contains("did you mean mine.toml?"), "{stderr}");
    let stderr = attempt(&["sample", "--checkpoint", "owner/name", "--vae", "no-vae", "--out", "out"]);
    assert!(stderr.contains("no-vae") && !stderr.contains("127.0.0.1"), "{stderr}");
    assert!(!folder.path().join("runs").exists() && !folder.path().join("out").exists());
}
