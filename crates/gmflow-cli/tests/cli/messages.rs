//! What errors say: one line, every cause once, in plain words.

use crate::run;

/// What the system says of a file that is not there.
const MISSING: &str = "No such file or directory";

fn one_line(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert!(code == 1 || code == 2, "{arguments:?}: {code} {stdout}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{arguments:?}: {stderr}");
    stderr
}

#[test]
#[cfg(unix)]
fn a_file_that_is_not_there_is_said_to_be_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone.toml");
    let (gone, out) = (gone.to_str().unwrap(), folder.path().join("out"));
    let file = folder.path().join("out.safetensors");
    let (out, file) = (out.to_str().unwrap(), file.to_str().unwrap());
    for arguments in [
        &["train", gone, "--out", out][..],
        &["sample", "--checkpoint", gone, "--out", out],
        &["info", gone],
        &["export", "--checkpoint", gone, "--out", out],
        &["encode", "--vae", gone, "--data", gone, "--out", out],
        &["eval", "--real", gone, "--fake", gone, "--features", "pixels"],
        &["stats", gone, "--features", "pixels", "--out", file],
        &["sweep", gone, "--out", out],
        &["features", "train", gone, "--out", file],
        &["import", gone, "--out", file],
    ] {
        let stderr = one_line(arguments);
        assert!(stderr.contains("gone.toml"), "{arguments:?}: {stderr}");
        assert!(stderr.matches(MISSING).count() <= 1, "{arguments:?}: {stderr}");
        assert!(!stderr.contains("expected a plan"), "{stderr}");
    }
}

#[test]
#[cfg(unix)]
fn a_folder_that_cannot_be_made_is_said_to_be_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let out = file.join("below");
    let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist");
    let (out, model) = (out.to_str().unwrap(), model.to_str().unwrap());
    for arguments in [
        &["sample", "--checkpoint", model, "--num", "1", "--steps", "1", "--out", out][..],
        &["export", "--checkpoint", model, "--out", out],
        &["demo", "--out", out],
    ] {
        let stderr = one_line(arguments);
        assert!(
            stderr.matches("Not a directory").count() <= 1 && stderr.contains("below"),
            "{arguments:?}: {stderr}"
        );
    }
}

#[test]
fn data_in_other_settings_files_is_named_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.toml");
    for (text, words) in [
        (
            "[data.source]\nkind = 'folder'\npath = 3\nimage = { size = 8 }\n",
            "data.source.path: expected a path, got 3",
        ),
        ("[data.source]\nkind = 'fodler'\n", "did you mean folder?"),
        ("[data.source]\nkind = 'folder'\npath = 'x'\nimage = { sise = 8 }\n", "data.source.image.sise: expected"),
        ("[data]\n", "data.source: expected a table that names the data, got none"),
        ("[data.source]\nkind = 'folder'\nkind = 'idx'\n", "line 3"),
    ] {
        std::fs::write(&path, text).unwrap();
        let arguments = ["stats", path.to_str().unwrap(), "--features", "pixels", "--out", "never.safetensors"];
        let stderr = one_line(&arguments);
        assert!(stderr.contains("data.toml: ") && stderr.contains(words), "{words}: {stderr}");
    }
    for (text, words) in [
        ("titel = 't'\n", "did you mean title?"),
        ("title = 't'\nnum = 'x'\n", "num: expected a whole number of at least 0, got the text \"x\""),
        ("title = 't'\nnum = 3\nreference = 7\n", "reference: expected a table, got 7"),
        ("\u{201c}", "typographic quotes"),
    ] {
        std::fs::write(&path, text).unwrap();
        let stderr = one_line(&["sweep", path.to_str().unwrap(), "--out", folder.path().join("s").to_str().unwrap()]);
        assert!(stderr.contains("data.toml: ") && stderr.contains(words), "{words}: {stderr}");
    }
}
