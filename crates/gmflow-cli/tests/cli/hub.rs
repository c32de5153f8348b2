//! Checkpoints by their name on the hub.

use crate::models::image_model;
use crate::run_in;
use crate::server::{COMMIT, Hub};
use std::collections::BTreeMap;
use std::path::Path;

fn run(hub: &Hub, home: &Path, arguments: &[&str]) -> (i32, String, String) {
    run_with(hub, home, &[], arguments)
}

/// With these variables of the environment.
fn run_with(hub: &Hub, home: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    run_in(home, &[&[("HF_ENDPOINT", hub.address.as_str())], variables].concat(), arguments)
}

fn hub() -> Hub {
    let folder = tempfile::tempdir().unwrap();
    image_model(folder.path());
    let files = ["model.json", "model.safetensors"];
    let files = files.map(|name| (name.to_owned(), std::fs::read(folder.path().join(name)).unwrap()));
    Hub::start(BTreeMap::from(files))
}

#[test]
fn a_repository_is_shown_sampled_and_kept() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    let (code, stdout, stderr) = run(&hub, home.path(), &["info", "owner/name"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("gm-dit") && stdout.contains(COMMIT), "{stdout}");
    assert!(home.path().join("hub/models--owner--name").is_dir());
    let out = home.path().join("pictures");
    let sample = ["sample", "--checkpoint", "owner/name@main", "--num", "1", "--steps", "1", "--out"];
    let (code, _, stderr) = run(&hub, home.path(), &[&sample[..], &[out.to_str().unwrap()]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(out.join("000000.png").is_file());
}

#[test]
fn a_token_with_a_line_break_at_its_end_is_that_token() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    for (index, variables) in
        [&[("HF_TOKEN", "secret\n")][..], &[("HF_TOKEN", " \n"), ("HUGGING_FACE_HUB_TOKEN", "\tsecret \r\n")]]
            .into_iter()
            .enumerate()
    {
        let home = home.path().join(index.to_string());
        let (code, _, stderr) = run_with(&hub, &home, variables, &["info", "owner/name"]);
        assert_eq!(code, 0, "{stderr}");
        let shown = hub.requests().into_iter().filter_map(|request| request.authorization);
        assert!(shown.clone().count() > 0 && shown.into_iter().all(|shown| shown == "Bearer secret"));
    }
}

#[test]
fn what_is_neither_a_folder_nor_on_the_hub_is_named() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    let (code, _, stderr) = run(&hub, home.path(), &["info", "owner/other"]);
    assert!(code == 1 && stderr.contains("owner/other") && stderr.contains("--revision"), "{stderr}");
    let (code, _, stderr) = run(&hub, home.path(), &["info", "owner/name", "--revision", "v9"]);
    assert!(code == 1 && stderr.contains("owner/name@v9"), "{stderr}");
    let (code, _, stderr) = run(&hub, home.path(), &["info", "no-such-folder"]);
    assert!(code == 1 && stderr.contains("no-such-folder") && stderr.contains("owner/name"), "{stderr}");
    let folder = home.path().to_str().unwrap();
    let (code, _, stderr) = run(&hub, home.path(), &["info", folder, "--revision", "main"]);
    assert!(code == 2 && stderr.contains("--revision"), "{stderr}");
}
