//! The `gmflow` command as a user meets it, by topic.

mod arrays;
mod data;
mod eval;
mod export;
mod help;
mod hub;
mod import;
mod info;
mod init;
mod latents;
mod limits;
mod messages;
mod models;
mod named_data;
mod photos;
mod published;
mod sample;
#[cfg(feature = "serve")]
mod serve;
/// The server that the library's own tests download from.
#[path = "../../../gmflow/tests/hub/server.rs"]
#[allow(dead_code)]
mod server;
mod shards;
#[cfg(unix)]
mod signals;
mod students;
mod sweep;
mod train;
mod usage;

use assert_cmd::Command;
use std::path::Path;
use std::process::{Child, Stdio};

/// Runs with `arguments` and returns (exit code, stdout, stderr).
fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("gmflow").expect("the binary is built with its tests");
    let output = command.args(arguments).output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code().expect("no signal ended it"), text(output.stdout), text(output.stderr))
}

/// Runs with an environment of its own: the hub's cache in `home`, and `variables`.
fn run_in(home: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("gmflow").unwrap();
    for name in ["HF_ENDPOINT", "HF_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "GMFLOW_DATA"]
    {
        command.env_remove(name);
    }
    let output = command.args(arguments).env("HF_HOME", home).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Starts with `arguments`; what it prints is kept.
fn start(arguments: &[&str]) -> Child {
    std::process::Command::new(assert_cmd::cargo::cargo_bin("gmflow"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}
