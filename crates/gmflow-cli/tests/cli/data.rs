//! What a user's folders and tables hold, what of it is taken, and what is said of it.

use crate::published::latent_model;
use crate::run;
use crate::sample::read_png;
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use gmflow::checkpoint::{ExportOptions, export_diffusers};
use gmflow_data::lock::FolderLock;
use parquet::arrow::ArrowWriter;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A picture of 8 x 8 pixels in one colour.
fn picture(shade: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[shade; 8 * 8 * 3]).unwrap();
    bytes
}

/// Adds `count` pictures to a class.
pub fn class(data: &Path, name: &str, count: u8) {
    fs::create_dir_all(data.join(name)).unwrap();
    for index in 0..count {
        fs::write(data.join(name).join(format!("{index}.png")), picture(40 * index + 10)).unwrap();
    }
}

/// A configuration of a network that trains in a moment.
pub fn config(folder: &Path, source: &str) -> String {
    let path = folder.join("small.toml");
    let text = format!(
        "[data.source]\n{source}\n[network]\ntype = \"gm-dit\"\nnum_gaussians = 2\nnum_attention_heads = 1\nattention_head_dim = 8\n\
         num_layers = 1\nsample_size = 8\npatch_size = 4\nin_channels = 3\nlogstd_inner_dim = 8\n\
         [loss]\nkind = \"transition\"\ntransition_ratio = 0.5\n[train]\nbatch_size = 4\nsteps = 2\n"
    );
    fs::write(&path, text).unwrap();
    text_of(&path)
}

pub fn text_of(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A folder of pictures as the source of a configuration.
fn pictures(folder: &Path) -> (PathBuf, String) {
    let data = folder.join("data");
    let config = config(folder, &format!("kind = \"folder\"\npath = {:?}\nimage = {{ size = 8 }}", text_of(&data)));
    (data, config)
}

/// The classes of a trained model.
fn classes(model: &str) -> serde_json::Value {
    let (code, stdout, stderr) = run(&["info", model, "--json"]);
    assert_eq!(code, 0, "{stderr}");
    serde_json::from_str::<serde_json::Value>(&stdout).unwrap()["classes"].clone()
}

#[test]
fn what_is_passed_over_is_reported_at_every_start() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), text_of(&folder.path().join("s.safetensors")));
    class(&data, "dog", 2);
    fs::rename(data.join("dog/1.png"), data.join("dog/1.jfif")).unwrap();
    fs::write(data.join("dog/notes.txt"), "a note").unwrap();
    fs::write(data.join("dog/2.heic"), b"\0\0\0\x20ftypheic\0\0\0\0").unwrap();
    fs::write(data.join("dog/Thumbs.db"), b"\xd0\xcf").unwrap();
    let (code, _, stderr) = run(&["stats", &text_of(&data), "--features", "pixels", "--out", &out]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("2 images in 1 class; 2 files passed over: 1 .heic (an HEIC image), 1 .txt"), "{stderr}");
}

#[test]
fn the_label_of_a_table_is_the_column_called_label() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let bytes: Vec<Vec<u8>> = (0..6).map(|row| picture(row * 20)).collect();
    let columns: [(&str, ArrayRef); 4] = [
        ("image_id", Arc::new(Int64Array::from_iter_values(0..6))),
        ("image", Arc::new(BinaryArray::from_iter_values(&bytes))),
        ("width", Arc::new(Int64Array::from(vec![8; 6]))),
        ("label", Arc::new(StringArray::from_iter_values(["cat", "dog", "cow", "cat", "dog", "cow"]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let config = config(folder.path(), &format!("kind = \"parquet\"\npath = {:?}", text_of(&path)));
    let out = text_of(&folder.path().join("run"));
    let (code, _, stderr) = run(&["train", &config, "--out", &out]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("labels from column label (text; by its name); 3 classes: cat, cow, dog"), "{stderr}");
    assert_eq!(classes(&out), serde_json::json!(["cat", "cow", "dog"]));
    let set = |name: &str| format!("data.source.label_column={name}");
    let (code, _, stderr) = run(&["train", &config, "--out", &out, "--force", "--set", &set("caption")]);
    assert!(code != 0 && stderr.contains("image_id: int64, image: binary, width: int64, label: text"), "{stderr}");
}

#[test]
fn classes_without_images_are_not_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = pictures(folder.path());
    class(&data, "ant", 0);
    class(&data, "bee", 4);
    class(&data, "cow", 2);
    let (out, drawn) = (text_of(&folder.path().join("run")), folder.path().join("drawn"));
    let (code, _, stderr) = run(&["train", &config, "--out", &out]);
    assert!(code == 0 && stderr.contains("ant: class folder without images"), "{stderr}");
    let (_, stdout, _) = run(&["info", &out]);
    assert!(stdout.contains("class images  2 to 4 of each in training; none of ant"), "{stdout}");
    let sample = ["sample", "--checkpoint", &out, "--steps", "1", "--num", "4", "--out", drawn.to_str().unwrap()];
    let (code, _, stderr) = run(&sample);
    assert!(code == 0 && !stderr.contains("no image in training"), "{stderr}");
    let name = |index: usize| read_png(&drawn.join(format!("{index:06}.png"))).1["class_name"].clone();
    assert_eq!((0..4).map(name).collect::<Vec<_>>(), ["bee", "cow", "bee", "cow"]);
    let other = text_of(&folder.path().join("other"));
    let sample = ["sample", "--checkpoint", &out, "--steps", "1", "--num", "1", "--class", "ant", "--out", &other];
    let (code, _, stderr) = run(&sample);
    assert!(code == 0 && stderr.contains("ant had no image in training"), "{stderr}");
    // Both layouts of an export keep it.
    for layout in ["diffusers", "gmflow"] {
        let exported = text_of(&folder.path().join(layout));
        let (code, _, stderr) = run(&["export", "--checkpoint", &out, "--layout", layout, "--out", &exported]);
        assert_eq!(code, 0, "{stderr}");
        assert!(run(&["info", &exported]).1.contains("none of ant"), "{layout}");
    }
}

#[test]
fn a_model_of_other_classes_is_a_start_only_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = pictures(folder.path());
    class(&data, "dog", 4);
    class(&data, "fox", 4);
    let (first, second) = (text_of(&folder.path().join("first")), text_of(&folder.path().join("second")));
    assert_eq!(run(&["train", &config, "--out", &first]).0, 0);
    let from = ["train", &config, "--out", &second, "--from", &first, "--force"];
    assert_eq!(run(&from).0, 0);
    fs::rename(data.join("dog"), data.join("cat")).unwrap();
    let (code, _, stderr) = run(&from);
    assert!(code != 0 && ["cat", "dog", "--new-classes"].iter().all(|part| stderr.contains(part)), "{stderr}");
    let (code, _, stderr) = run(&[&from[..], &["--new-classes"]].concat());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_cache_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("latents"));
    class(&data, "dog", 2);
    let vae = folder.path().join("published");
    export_diffusers(&latent_model(), &vae, &ExportOptions::default()).unwrap();
    fs::create_dir(&out).unwrap();
    let lock = FolderLock::acquire(&out, "gmflow encode").unwrap();
    let (vae, data, cache) = (text_of(&vae), text_of(&data), text_of(&out));
    let encode = ["encode", "--vae", &vae, "--images", &data, "--size", "16", "--out", &cache];
    for extra in [&[][..], &["--force"]] {
        let (code, _, stderr) = run(&[&encode[..], extra].concat());
        let holder = format!("gmflow encode (process {} on host", std::process::id());
        assert!(code == 1 && stderr.contains(&holder) && stderr.contains("latents"), "{stderr}");
    }
    drop(lock);
    assert_eq!(run(&encode).0, 0);
}

#[test]
fn a_run_does_not_go_on_with_changed_data_unless_it_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = pictures(folder.path());
    class(&data, "dog", 4);
    class(&data, "fox", 4);
    let out = text_of(&folder.path().join("run"));
    assert_eq!(run(&["train", &config, "--out", &out]).0, 0);
    let resume = |steps: u64, extra: &[&str]| {
        let steps = format!("train.steps={steps}");
        run(&[&["train", &config, "--out", &out, "--resume", "--set", &steps], extra].concat())
    };
    let refused = |extra: &[&str], says: &[&str]| {
        let (code, _, stderr) = resume(4, extra);
        assert!(code != 0 && says.iter().all(|part| stderr.contains(part)), "{stderr}");
    };
    // A class before the others gives every class another number, which nothing makes right.
    class(&data, "cat", 1);
    refused(&[], &["class 0 is \"dog\"", "added: cat"]);
    refused(&["--accept-changed-data"], &["class 0 is \"dog\"", "added: cat"]);
    fs::remove_dir_all(data.join("cat")).unwrap();
    let (code, _, stderr) = resume(3, &[]);
    assert_eq!(code, 0, "the data is as it was: {stderr}");
    // Other images of the same classes can be accepted.
    class(&data, "fox", 6);
    fs::remove_file(data.join("dog/3.png")).unwrap();
    refused(&[], &["9 images, 8 before", "dog has 3, 4 before, fox has 6, 4 before", "--accept-changed-data"]);
    let (code, _, stderr) = resume(4, &["--accept-changed-data"]);
    assert!(code == 0 && stderr.contains("goes on with changed data: 9 images, 8 before"), "{stderr}");
    let (code, _, stderr) = resume(5, &[]);
    assert!(code == 0, "what was accepted is what the run goes by: {stderr}");
    assert!(run(&["info", &out]).1.contains("4 to 6 of each in training"), "what was learnt once counts");
    // Renamed files, of the same number.
    fs::rename(data.join("dog/0.png"), data.join("dog/9.png")).unwrap();
    refused(&[], &["the same number of images, but other files"]);
    // An older version's checkpoint does not say what it was trained on.
    fs::rename(data.join("dog/9.png"), data.join("dog/0.png")).unwrap();
    let model = folder.path().join("run/checkpoints/step-00000005/model.json");
    let mut stored: serde_json::Value = serde_json::from_slice(&fs::read(&model).unwrap()).unwrap();
    stored.as_object_mut().unwrap().remove("trained_on").unwrap();
    fs::write(&model, stored.to_string()).unwrap();
    let (code, _, stderr) = resume(6, &["--no-verify"]);
    assert!(code == 0 && stderr.contains("cannot be compared"), "{stderr}");
}
