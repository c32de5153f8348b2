//! `gmflow eval`, `stats` and `features`: from data and models to tables, and what they refuse.

use crate::models::{distant_model, image_model, points_model, spectral_model};
use crate::run;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Runs a command that has to succeed, and returns what it prints.
pub fn done(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// 40 grey images of 8 x 8 pixels in three class folders, and the configuration that names them.
pub fn images(folder: &Path) -> PathBuf {
    for index in 0..40_u32 {
        let class = folder.join("photos").join(["a", "b", "c"][index as usize % 3]);
        std::fs::create_dir_all(&class).unwrap();
        let file = std::fs::File::create(class.join(format!("{index}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, 8, 8);
        encoder.set_color(png::ColorType::Grayscale);
        let pixels: Vec<u8> = (0..64_u32).map(|i| ((i * 37 + index * 91) % 251 / (1 + index % 3)) as u8).collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    }
    let config = folder.join("data.toml");
    let source = "[data.source]\nkind = 'folder'\npath = 'photos'\nimage = { size = 8, channels = 1 }\n";
    std::fs::write(&config, source).unwrap();
    config
}

#[test]
fn a_folder_a_file_and_a_checkpoint_with_the_same_samples_have_the_same_figures() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(folder.path());
    let (model, png, npz) =
        (folder.path().join("model"), folder.path().join("png"), folder.path().join("samples.npz"));
    spectral_model(&model);
    let drawn = ["--num", "24", "--steps", "2", "--seed", "5", "--precision", "f32"];
    done(&[&["sample", "--checkpoint", text(&model), "--out", text(&png)][..], &drawn].concat());
    done(&[&["sample", "--checkpoint", text(&model), "--out", text(&npz)][..], &drawn].concat());
    let stats = folder.path().join("data.stats.safetensors");
    done(&["stats", text(&data), "--features", "pixels", "--out", text(&stats)]);
    let eval = |real: &Path, fake: &Path, extra: &[&str]| -> Value {
        let start = ["eval", "--real", text(real), "--features", "pixels", "--json", "--fake", text(fake)];
        let rows: Value = serde_json::from_str(&done(&[&start[..], extra].concat())).unwrap();
        rows[0].clone()
    };
    let of_model = eval(&data, &model, &[&drawn[..], &["--nll", "--batch", "7"]].concat());
    assert_eq!(of_model["samples"], 24);
    assert_eq!((&of_model["sampler"]["solver"], &of_model["sampler"]["steps"]), (&"gm-ode".into(), &2.into()));
    assert!(of_model["metrics"]["fid"].is_null(), "distances of pixels are not called FID");
    assert_eq!(of_model["reference"]["count"], 40);
    let likelihood = &of_model["likelihood"];
    assert!(likelihood["bits_per_dim"].is_f64() && likelihood["bits_per_dim_spectral"].is_f64(), "{likelihood}");
    assert_eq!(likelihood["by_time"].as_array().unwrap().len(), 8);
    let distance = |row: &Value| row["metrics"]["frechet_distance"].as_f64().unwrap();
    for same in [eval(&stats, &model, &drawn), eval(&data, &npz, &[]), eval(&data, &png, &[])] {
        // Covariances of other batches, or from a file as a quotient, differ in the last digits, and are singular here.
        assert!((distance(&same) / distance(&of_model) - 1.0).abs() < 1e-7, "{same} {of_model}");
        for exact in ["kernel_distance", "precision", "recall", "density", "coverage", "colours"] {
            assert_eq!(same["metrics"][exact], of_model["metrics"][exact], "{exact}");
        }
    }
}

#[test]
fn a_classifier_is_trained_and_its_features_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, model) = (images(folder.path()), folder.path().join("model"));
    image_model(&model);
    let network = folder.path().join("features.safetensors");
    // 36 images to train on do not fill a batch of 64.
    let (code, _, stderr) = run(&["features", "train", text(&data), "--out", text(&network)]);
    assert!(code == 2 && stderr.contains("images"), "{stderr}");
    let many = folder.path().join("photos");
    for index in 40..90 {
        std::fs::copy(many.join("a/0.png"), many.join(format!("a/{index}.png"))).unwrap();
    }
    let outcome = done(&["features", "train", text(&data), "--out", text(&network), "--epochs", "1", "--json"]);
    let outcome: Value = serde_json::from_str(&outcome).unwrap();
    assert_eq!((outcome["trained_on"].as_u64(), outcome["held_out"].as_u64()), (Some(81), Some(9)));
    let features = format!("classifier={}", text(&network));
    let out = folder.path().join("figures.json");
    let table = done(&[
        "eval",
        "--real",
        text(&data),
        "--features",
        &features,
        "--fake",
        text(&model),
        "--num",
        "9",
        "--steps",
        "1",
        "--markdown",
        "--out",
        text(&out),
    ]);
    assert!(
        table.contains("Fréchet distance") && table.contains("classifier ") && table.contains("gm-ode 2"),
        "{table}"
    );
    assert_eq!(std::fs::read_to_string(out.with_extension("md")).unwrap().trim_end(), table.trim_end());
    let rows: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert!(rows[0]["metrics"]["classifier_score"]["mean"].as_f64().unwrap() >= 1.0);
    assert_eq!(rows[0]["features"]["weights"].as_str().unwrap().len(), 64);
    let again = ["eval", "--real", text(&data), "--features", &features, "--fake", text(&model), "--out", text(&out)];
    assert!(run(&again).2.contains("--force"));
}

#[test]
fn the_layers_of_a_classifier_and_its_training_are_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let (data, network) = (images(folder.path()), folder.path().join("features.safetensors"));
    let start = ["features", "train", text(&data), "--out", text(&network), "--batch-size", "16", "--epochs", "2"];
    for (extra, part) in [
        (&["--width", "32"][..], "--width: expected --network residual"),
        (&["--depth", "1"], "--depth: expected --network residual"),
        (&["--network", "residual", "--width", "20"], "width: expected a multiple of 16"),
        (&["--label-smoothing", "1"], "label_smoothing"),
        (&["--shift", "1000"], "shift"),
    ] {
        let (code, _, stderr) = run(&[&start[..], extra].concat());
        assert!(code == 2 && stderr.contains(part), "{code}: {stderr}");
        assert!(!network.exists());
    }
    let settings = ["--network", "residual", "--width", "16", "--flip", "--shift", "1", "--warmup", "0.5"];
    let (code, _, stderr) = run(&[&start[..], &settings].concat());
    assert!(code == 0 && stderr.contains("epoch 1 of 2: ") && stderr.contains("epoch 2 of 2: "), "{stderr}");
    // A model of three classes of which the classifier knows none has no such figure; one of the same names has.
    let model = folder.path().join("model");
    image_model(&model);
    let features = format!("classifier={}", text(&network));
    let eval =
        ["eval", "--real", text(&data), "--features", &features, "--fake", text(&model), "--num", "30", "--json"];
    let share = || {
        let rows: Value = serde_json::from_str(&done(&[&eval[..], &["--steps", "1"]].concat())).unwrap();
        rows[0]["metrics"]["read_as_asked"].as_f64()
    };
    assert_eq!(share(), None);
    let info = model.join("model.json");
    let renamed = std::fs::read_to_string(&info).unwrap();
    std::fs::write(&info, renamed.replace("\"cat\"", "\"a\"").replace("\"dog\"", "\"b\"").replace("\"7\"", "\"c\""))
        .unwrap();
    let share = share().unwrap();
    // Of labelled images it is the classifier's accuracy; these are the ones that it saw, and few.
    let labelled = ["eval", "--real", text(&data), "--features", &features, "--fake", text(&data), "--json"];
    let rows: Value = serde_json::from_str(&done(&labelled)).unwrap();
    assert!(rows[0]["metrics"]["read_as_asked"].as_f64().unwrap() >= 0.3, "{rows}");
    assert!((0.0..=1.0).contains(&share) && (share * 30.0 - (share * 30.0).round()).abs() < 1e-9, "{share}");
    let bytes = std::fs::read(&network).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let info: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["gmflow-classifier"]).unwrap();
    let settings = &info["settings"];
    assert_eq!(settings["network"], serde_json::json!({ "kind": "residual", "width": 16, "depth": 1 }));
    assert_eq!(settings["augment"], serde_json::json!({ "shift": 1, "flip": true }));
    assert_eq!((settings["warmup"].as_f64(), settings["batch_size"].as_u64()), (Some(0.5), Some(16)));
}

#[test]
fn likelihoods_stand_by_time_below_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let (data, with, without) = (images(folder.path()), folder.path().join("with"), folder.path().join("without"));
    spectral_model(&with);
    image_model(&without);
    let out = folder.path().join("figures.json");
    let fakes = ["eval", "--real", text(&data), "--features", "pixels", "--fake", text(&with), text(&without)];
    let settings = [
        "--num",
        "8",
        "--steps",
        "1",
        "--nll",
        "--nll-times",
        "5",
        "--limit",
        "30",
        "--out",
        text(&out),
        "--markdown",
    ];
    let printed = done(&[&fakes[..], &settings].concat());
    assert_eq!(std::fs::read_to_string(out.with_extension("md")).unwrap().trim_end(), printed.trim_end());
    let (_, by_time) = printed.split_once("\n\n").unwrap();
    let table: Vec<Vec<&str>> =
        by_time.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let spectral = format!("{}, with spectrum", text(&with));
    assert_eq!(table[0][1..], ["images", text(&with), &spectral, text(&without)]);
    assert_eq!(table.len(), 2 + 5);
    assert_eq!((table[2][0], table[6][0], table[4][1]), ("0 to 0.2", "0.8 to 1", "30"));
    let rows: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    for (row, fields) in [(0, &["bits_per_dim", "bits_per_dim_spectral"][..]), (1, &["bits_per_dim"])] {
        let likelihood = &rows[row]["likelihood"];
        for (column, field) in fields.iter().enumerate() {
            let parts: Vec<f64> =
                likelihood["by_time"].as_array().unwrap().iter().map(|at| at[field].as_f64().unwrap()).collect();
            let mean = parts.iter().sum::<f64>() / 5.0;
            assert!((mean - likelihood[field].as_f64().unwrap()).abs() < 1e-9, "{likelihood}");
            let column = if row == 0 { 2 + column } else { 4 };
            let shown: Vec<&str> = table[2..].iter().map(|line| line[column]).collect();
            assert_eq!(shown, parts.iter().map(|bits| format!("{bits:.4}")).collect::<Vec<_>>());
        }
    }
    let (code, _, stderr) = run(&[&fakes[..], &["--nll-times", "5"]].concat());
    assert!(code == 2 && stderr.contains("--nll"), "{stderr}");
    let (code, _, stderr) = run(&[&fakes[..], &["--num", "8", "--nll", "--nll-times", "2000"]].concat());
    assert!(code == 2 && stderr.contains("1000") && stderr.contains("2000"), "{stderr}");
}

#[test]
fn a_likelihood_that_is_no_number_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (data, model, out) = (images(folder.path()), folder.path().join("far"), folder.path().join("figures.json"));
    distant_model(&model);
    let start = ["eval", "--real", text(&data), "--features", "pixels", "--fake", text(&model), "--out", text(&out)];
    let sampler = ["--num", "8", "--solver", "euler", "--steps", "1"];
    let (code, _, stderr) = run(&[&start[..], &sampler, &["--nll"]].concat());
    let named =
        format!("{}: bits/dim of images 1 to 40 at t from 0 to 0.125: expected a finite number", text(&model));
    assert!(code == 1 && stderr.contains(&named), "{code}: {stderr}");
    assert!(!out.exists() && !out.with_extension("md").exists());
    // Without the likelihood there are figures.
    done(&[&start[..], &sampler].concat());
}

#[test]
fn vectors_are_left_out_where_moments_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(folder.path());
    let stats = folder.path().join("vectors.safetensors");
    done(&["stats", text(&data), "--features", "pixels", "--out", text(&stats)]);
    let size = |extra: &[&str]| {
        let out = folder.path().join(format!("{}.safetensors", extra.len()));
        done(&[&["stats", text(&stats), "--features", "pixels", "--out", text(&out)][..], extra].concat());
        std::fs::metadata(out).unwrap().len()
    };
    let (with, without) = (size(&[]), size(&["--moments-only"]));
    assert!(with >= without + 40 * 64 * 4, "{with} bytes, and {without} without 40 vectors of 64 numbers");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (data, model, points) = (images(folder.path()), folder.path().join("model"), folder.path().join("points"));
    image_model(&model);
    points_model(&points, 2);
    let stats = folder.path().join("stats.safetensors");
    done(&["stats", text(&data), "--features", "pixels", "--out", text(&stats), "--limit", "30"]);
    let density = folder.path().join("density.toml");
    std::fs::write(&density, "[data.source]\nkind = 'density'\nname = 'checkerboard'\n").unwrap();
    let refused = |real: &Path, fake: &Path, extra: &[&str], part: &str| {
        let start = ["eval", "--real", text(real), "--fake", text(fake)];
        let (code, _, stderr) = run(&[&start[..], extra].concat());
        assert!(code > 0 && stderr.contains(part), "{code}: {stderr}");
        let errors = stderr.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{stderr}");
    };
    refused(&data, &model, &["--features", "vgg"], "classifier=FILE");
    refused(&data, &model, &["--features", "inception=none.pth"], "none.pth");
    refused(&data, &points, &["--features", "pixels"], "points");
    refused(&density, &model, &[], "density");
    refused(&stats, &model, &["--features", "pixels", "--nll"], "--nll");
    refused(&data, &folder.path().join("nothing"), &["--features", "pixels"], "nothing");
    refused(&folder.path().join("nothing"), &model, &["--features", "pixels"], "--real");
    refused(&data, &model, &["--features", "pixels", "--num", "1"], "2");
    refused(&data, &model, &["--features", "pixels", "--solver", "unipc", "--order", "2"], "--order");
}
