//! `gmflow data`, and sets that a configuration gives by their names.

use crate::run_in;
use crate::server::{Fault, Hub};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A Parquet file of `count` grey pictures of 4x4 pixels, of the classes 0 to 9 in turn.
fn pictures(count: usize) -> Vec<u8> {
    let png = |value: u8| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 4, 4);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&[value; 16]).unwrap();
        bytes
    };
    let files: Vec<Vec<u8>> = (0..count).map(|index| png((3 * index) as u8)).collect();
    let fields: Fields =
        vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into();
    let bytes = BinaryArray::from(files.iter().map(|file| Some(file.as_slice())).collect::<Vec<_>>());
    let paths = StringArray::from(vec![None::<&str>; count]);
    let images = StructArray::new(fields.clone(), vec![Arc::new(bytes) as ArrayRef, Arc::new(paths)], None);
    let labels = Int64Array::from((0..count as i64).map(|index| index % 10).collect::<Vec<_>>());
    let schema = Arc::new(Schema::new(vec![
        Field::new("image", DataType::Struct(fields), true),
        Field::new("label", DataType::Int64, true),
    ]));
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(images), Arc::new(labels)]).unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    file
}

fn hub() -> Hub {
    let part = |part: &str, count| (format!("mnist/{part}-00000-of-00001.parquet"), pictures(count));
    Hub::start_as("datasets", "ylecun/mnist", BTreeMap::from([part("train", 70), part("test", 3)]))
}

const CONFIG: &str = r#"
[data.source]
kind = "named"
name = "mnist"

[network]
type = "gm-dit"
num_gaussians = 2
num_attention_heads = 1
attention_head_dim = 8
num_layers = 1
sample_size = 4
patch_size = 2
in_channels = 1
num_embeds_ada_norm = 10
logstd_inner_dim = 8

[loss]
kind = "transition"
transition_ratio = 0.5

[train]
batch_size = 2
steps = 1
"#;

/// A configuration in `folder`.
fn config(folder: &Path) -> PathBuf {
    let path = folder.join("digits.toml");
    std::fs::write(&path, CONFIG).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_set_is_fetched_found_and_trained_on() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    let run = |more: &[(&str, &str)], arguments: &[&str]| run_in(home.path(), more, arguments);
    let (code, stdout, stderr) = run(&[], &["data", "list"]);
    assert!(code == 0 && stdout.contains("gmflow data get mnist"), "{stdout}{stderr}");
    let online = [("HF_ENDPOINT", hub.address.as_str())];
    let (code, stdout, stderr) = run(&online, &["data", "get", "mnist"]);
    assert!(code == 0 && stdout.contains("mnist: 70 train and 3 test pictures in "), "{stdout}{stderr}");
    let offline = [("HF_HUB_OFFLINE", "1")];
    let (code, path, stderr) = run(&offline, &["data", "path", "mnist"]);
    assert!(code == 0 && path.contains("datasets--ylecun--mnist"), "{path}{stderr}");
    assert!(Path::new(path.trim()).join("train-00000-of-00001.parquet").is_file());
    let (_, stdout, _) = run(&offline, &["data", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&list[0]["train"], &list[1]["train"]), (&path.trim().into(), &serde_json::Value::Null));
    let (code, _, stderr) = run(&offline, &["data", "get", "mnist"]);
    assert_eq!(code, 0, "{stderr}");

    let (config, out) = (config(home.path()), home.path().join("run"));
    let train = ["train", text(&config), "--out", text(&out)];
    let (code, _, stderr) = run(&offline, &train);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = run(&offline, &["info", text(&out)]);
    assert!(code == 0 && stdout.contains("gm-dit"), "{stdout}{stderr}");
    let features = ["features", "train", text(&config), "--epochs", "1", "--batch-size", "32", "--out"];
    let (code, _, stderr) = run(&offline, &[&features[..], &[text(&home.path().join("f.safetensors"))]].concat());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn what_cannot_be_fetched_says_what_to_do() {
    let (hub, home) = (hub(), tempfile::tempdir().unwrap());
    let (code, _, stderr) = run_in(home.path(), &[("HF_HUB_OFFLINE", "1")], &["data", "get", "mnist"]);
    let parts = ["mnist", "HF_HUB_OFFLINE", "mnist/*.parquet", "huggingface.co/datasets/ylecun/mnist", "--data DIR"];
    assert!(code == 1 && parts.iter().all(|part| stderr.contains(part)), "{stderr}");
    hub.set_fault(Fault::Status(404));
    let (code, _, stderr) = run_in(home.path(), &[("HF_ENDPOINT", &hub.address)], &["data", "get", "mnist"]);
    assert!(code == 1 && stderr.contains("ylecun/mnist"), "{stderr}");
    let (code, _, stderr) = run_in(home.path(), &[], &["data", "get", "minst"]);
    assert!(code == 2 && stderr.contains("mnist, fashion-mnist, cifar10") && stderr.contains("minst"), "{stderr}");
    // Not there: one line that names the command.
    let (code, _, stderr) = run_in(home.path(), &[], &["train", text(&config(home.path())), "--out", "nothing"]);
    assert!(code == 1 && stderr.contains("`gmflow data get mnist`") && stderr.lines().count() == 1, "{stderr}");
    let (code, _, stderr) = run_in(home.path(), &[], &["data", "path", "cifar10"]);
    assert!(code == 1 && stderr.contains("`gmflow data get cifar10`"), "{stderr}");
}

#[test]
fn a_folder_is_given_on_the_command_line_or_by_the_environment_and_may_move() {
    let home = tempfile::tempdir().unwrap();
    let run = |more: &[(&str, &str)], arguments: &[&str]| run_in(home.path(), more, arguments);
    let (data, config) = (home.path().join("data"), config(home.path()));
    std::fs::create_dir_all(data.join("mnist")).unwrap();
    std::fs::write(data.join("mnist/train.parquet"), pictures(4)).unwrap();
    let out = |name: &str| home.path().join(name).to_str().unwrap().to_owned();

    let (code, _, stderr) = run(&[("GMFLOW_DATA", text(&data))], &["train", text(&config), "--out", &out("a")]);
    assert_eq!(code, 0, "{stderr}");
    for (name, folder) in [("b", data.clone()), ("c", data.join("mnist"))] {
        let arguments = ["train", text(&config), "--out", &out(name), "--data", text(&folder)];
        let (code, _, stderr) = run(&[], &arguments);
        assert_eq!(code, 0, "{stderr}");
    }
    // A folder without the files is not passed over.
    let wrong = ["train", text(&config), "--out", &out("d"), "--data", text(home.path())];
    let (code, _, stderr) = run(&[("GMFLOW_DATA", text(&data))], &wrong);
    assert!(code == 2 && stderr.contains("--data") && stderr.contains("train files of mnist"), "{stderr}");

    let moved = home.path().join("moved");
    std::fs::rename(&data, &moved).unwrap();
    let resume = ["train", text(&config), "--out", &out("a"), "--resume", "--set", "train.steps=2"];
    let (code, _, stderr) = run(&[], &resume);
    assert!(code == 1 && stderr.contains("`gmflow data get mnist`"), "{stderr}");
    let (code, _, stderr) = run(&[("GMFLOW_DATA", text(&moved))], &resume);
    assert!(code == 0 && stderr.contains("no longer in"), "{stderr}");
    let resume = ["train", text(&config), "--out", &out("b"), "--resume", "--set", "train.steps=2"];
    let (code, _, stderr) = run(&[], &[&resume[..], &["--data", text(&moved)]].concat());
    assert!(code == 0 && !stderr.contains("differs"), "{stderr}");
}

#[test]
fn shapes_are_written_as_a_folder_that_trains() {
    let home = tempfile::tempdir().unwrap();
    let photos = home.path().join("new/shapes-photos");
    let make = ["data", "make", "shapes", "--num", "12", "--size", "16", "--out", text(&photos)];
    let (code, stdout, stderr) = run_in(home.path(), &[], &make);
    assert!(code == 0 && stdout.contains("12 pictures of 16x16 pixels"), "{stdout}{stderr}");
    let mut classes: Vec<String> = std::fs::read_dir(&photos)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    classes.sort();
    assert_eq!(classes, ["circle", "cross", "ring", "square", "star", "triangle"]);
    assert_eq!(std::fs::read_dir(photos.join("star")).unwrap().count(), 2);
    let (code, _, stderr) = run_in(home.path(), &[], &make);
    assert!(code == 1 && stderr.contains("shapes-photos") && stderr.contains("exists"), "{stderr}");
    let (code, _, stderr) = run_in(home.path(), &[], &["data", "make", "shapes", "--size", "2", "--out", "x"]);
    assert!(code == 2 && stderr.contains("size: expected 8 to 1024"), "{stderr}");
}

#[test]
fn the_preset_of_shapes_trains_without_any_data() {
    let home = tempfile::tempdir().unwrap();
    let preset = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/shapes.toml");
    let out = home.path().join("run");
    let short = ["--set", "train.steps=2", "--set", "train.batch_size=4", "--set", "data.source.count=12"];
    let arguments = [&["train", text(&preset), "--out", text(&out)], &short[..]].concat();
    let (code, _, stderr) = run_in(home.path(), &[], &arguments);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = run_in(home.path(), &[], &["info", text(&out)]);
    assert!(code == 0 && stdout.contains("triangle"), "{stdout}{stderr}");
}
