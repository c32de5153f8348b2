//! What the program says about itself.

use crate::{run, start};

#[test]
fn every_command_explains_itself_with_an_example() {
    for command in
        ["demo", "init", "train", "sample", "info", "export", "encode", "pack", "data", "import", "completions"]
    {
        let (code, out, _) = run(&[command, "--help"]);
        assert_eq!(code, 0, "{command}");
        assert!(
            out.contains("Example") && out.matches(&format!("gmflow {command}")).count() >= 2,
            "{command}: {out}"
        );
    }
}

#[test]
fn the_version_names_what_is_built_in() {
    let (code, out, _) = run(&["--version"]);
    assert_eq!(code, 0);
    for word in [env!("CARGO_PKG_VERSION"), "cpu", "gm-dit", "gm-sde", "safetensors"] {
        assert!(out.contains(word), "{word} in {out}");
    }
}

#[test]
fn completions_exist_for_the_common_shells() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, out, _) = run(&["completions", shell]);
        assert_eq!(code, 0, "{shell}");
        assert!(out.contains("checkpoint"), "{shell}");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let mut child = start(&["completions", "zsh"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}
