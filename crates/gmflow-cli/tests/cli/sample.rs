//! `gmflow sample`: files, reproducibility, metadata, and what it refuses.

use crate::models::{image_model, labelled_model, points_model, spectral_model, unet_model};
use crate::run;
use std::path::Path;

/// Runs `sample` and fails the test unless it succeeds.
fn sample(checkpoint: &Path, out: &Path, extra: &[&str]) -> String {
    let (code, stdout, stderr) = try_sample(checkpoint, out, extra);
    assert_eq!(code, 0, "{extra:?}: {stderr}");
    stdout
}

fn try_sample(checkpoint: &Path, out: &Path, extra: &[&str]) -> (i32, String, String) {
    let mut arguments = vec!["sample", "--checkpoint", checkpoint.to_str().unwrap(), "--out", out.to_str().unwrap()];
    // What is compared is compared in f32, where nothing else is said.
    if !extra.contains(&"--precision") {
        arguments.extend(["--precision", "f32"]);
    }
    arguments.extend(extra);
    run(&arguments)
}

/// (pixels, value of the text chunk `gmflow`, width, height).
pub fn read_png(path: &Path) -> (Vec<u8>, serde_json::Value, u32, u32) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let info = reader.info();
    let text = info.utf8_text.iter().find(|chunk| chunk.keyword == "gmflow").unwrap().get_text().unwrap();
    (pixels, serde_json::from_str(&text).unwrap(), info.width, info.height)
}

/// The tensor `samples` of a safetensors file.
pub fn read_samples(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("samples").unwrap();
    let values = tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (tensor.shape().to_vec(), values)
}

fn write_noise(path: &Path, shape: &[usize], values: &[f32]) {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
    std::fs::write(path, serialize([("noise", view)], None).unwrap()).unwrap();
}

#[test]
fn images_say_how_they_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("new/out"));
    image_model(&model);
    let extra =
        ["--num", "3", "--seed", "5", "--class", "dog,2", "--steps", "2", "--guidance", "0.3", "--substeps", "3"];
    sample(&model, &out, &extra);
    let mut names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["000005.png", "000006.png", "000007.png"]);
    let (_, made_by, width, height) = read_png(&out.join("000006.png"));
    assert_eq!((width, height), (8, 8));
    assert_eq!(made_by["solver"], "gm-ode");
    assert_eq!(made_by["order"], 2);
    assert_eq!(made_by["substeps"], 3);
    assert_eq!(made_by["steps"], 2);
    assert_eq!(made_by["guidance"], 0.3);
    assert_eq!(made_by["seed"], 6);
    assert_eq!((&made_by["class"], &made_by["class_name"]), (&2.into(), &"7".into()));
    assert!(made_by["checkpoint"].as_str().unwrap().ends_with("model"), "{made_by}");
    assert_eq!(read_png(&out.join("000007.png")).1["class_name"], "dog", "classes take turns");
}

#[test]
fn a_sample_depends_on_its_seed_and_not_on_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    for solver in ["gm-ode", "gm-sde"] {
        let out = |name: &str| folder.path().join(format!("{solver}-{name}.safetensors"));
        let common = ["--solver", solver, "--steps", "3", "--class", "cat"];
        sample(&model, &out("one"), &[&common[..], &["--num", "5", "--batch", "1"]].concat());
        sample(&model, &out("all"), &[&common[..], &["--num", "5", "--batch", "5"]].concat());
        sample(&model, &out("odd"), &[&common[..], &["--num", "5", "--batch", "2"]].concat());
        sample(&model, &out("late"), &[&common[..], &["--num", "2", "--seed", "3"]].concat());
        let (shape, one) = read_samples(&out("one"));
        assert_eq!(shape, [5, 1, 8, 8]);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        assert!(near(&one, &read_samples(&out("all")).1) && near(&one, &read_samples(&out("odd")).1), "{solver}");
        assert!(near(&one[3 * 64..], &read_samples(&out("late")).1), "{solver}: sample i has seed S+i");
        assert!(!near(&one[..64], &one[64..128]), "{solver}: seeds differ");
    }
}

#[test]
fn samples_in_fewer_bits_are_near_those_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    let draw = |name: &str, extra: &[&str]| {
        let out = folder.path().join(format!("{name}.safetensors"));
        sample(&model, &out, &[&["--steps", "2", "--num", "4"], extra].concat());
        read_samples(&out).1
    };
    let f32 = draw("f32", &[]);
    let largest = |x: &mut dyn Iterator<Item = f32>| x.fold(0.0, |a: f32, b| a.max(b.abs()));
    for precision in ["bf16", "int8"] {
        let other = draw(precision, &["--precision", precision]);
        let difference = largest(&mut f32.iter().zip(&other).map(|(a, b)| a - b));
        assert!(difference < 0.05 * largest(&mut f32.iter().copied()), "{precision}: {difference}");
    }
}

#[test]
fn the_precision_that_is_recorded_is_the_one_that_was_computed() {
    let folder = tempfile::tempdir().unwrap();
    let bf16 = gmflow::kernel::MatmulPrecision::Bf16.is_available();
    let int8 = gmflow::kernel::MatmulPrecision::Int8.is_available();
    let path = |name: &str| folder.path().join(name);
    image_model(&path("transformer"));
    unet_model(&path("unet"));
    points_model(&path("points"), 2);
    for (name, asked, computed, why) in [
        ("transformer", "f32", "f32", None),
        ("transformer", "bf16", if bf16 { "bf16" } else { "f32" }, (!bf16).then_some("AVX512-BF16")),
        ("transformer", "int8", if int8 { "int8" } else { "f32" }, (!int8).then_some("AVX512-VNNI")),
        ("points", "bf16", if bf16 { "bf16" } else { "f32" }, (!bf16).then_some("AVX512-BF16")),
        ("unet", "bf16", if bf16 { "bf16" } else { "f32" }, (!bf16).then_some("AVX512-BF16")),
        ("unet", "int8", "f32", Some("no layers")),
        ("unet", "f32", "f32", None),
    ] {
        let out = path(&format!("{name}-{asked}"));
        let (code, stdout, stderr) =
            try_sample(&path(name), &out, &["--steps", "1", "--num", "2", "--precision", asked, "--json"]);
        assert_eq!(code, 0, "{name}: {stderr}");
        let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(report["sampling"]["precision"], computed, "{name}, {asked}");
        if name != "points" {
            assert_eq!(read_png(&out.join("000001.png")).1["precision"], computed, "{name}, {asked}");
        }
        let warnings = stderr.matches(&format!("precision {asked}")).count();
        assert_eq!(warnings, usize::from(why.is_some()), "{name}, {asked}: {stderr}");
        assert!(stderr.contains(why.unwrap_or_default()), "{stderr}");
    }
}

/// What `auto` has chosen is recorded, and is one of the two by name to the last bit.
#[test]
fn auto_is_one_of_the_precisions_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    image_model(&path("transformer"));
    unet_model(&path("unet"));
    let fastest = gmflow::kernel::fastest_floats(&burn::tensor::Device::flex());
    for (name, computed) in [("transformer", serde_json::json!(fastest)), ("unet", serde_json::json!("f32"))] {
        let computed = computed.as_str().unwrap();
        let draw = |out: &str, extra: &[&str]| {
            let (model, out) = (path(name), path(out));
            let paths = ["--checkpoint", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
            let (code, stdout, stderr) =
                run(&[&["sample", "--steps", "1", "--num", "2"], &paths[..], extra].concat());
            assert_eq!((code, stderr.matches("warning").count()), (0, 0), "{stderr}");
            (stdout, read_png(&out.join("000001.png")))
        };
        let (said, auto) = draw(&format!("{name}-auto"), &[]);
        let (silent, by_name) = draw(&format!("{name}-by-name"), &["--precision", computed]);
        assert_eq!(auto.1["precision"], computed, "{name}");
        assert_eq!(auto.0, by_name.0, "{name} {computed}");
        assert_eq!(said.contains("computed in bf16"), computed == "bf16", "{said}");
        assert!(!silent.contains("computed in"), "{silent}");
    }
}

/// On a processor with a slow dot product the pictures are those of one with a fast one.
#[test]
fn bf16_is_the_same_arithmetic_by_either_products() {
    if !gmflow::kernel::MatmulPrecision::Bf16.is_available() {
        return eprintln!("SKIPPED: this processor does not multiply bf16");
    }
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    let draw = |name: &str, precision: &str| {
        let out = folder.path().join(format!("{name}.safetensors"));
        let paths = ["--checkpoint", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_gmflow"))
            .args(["sample", "--steps", "2", "--num", "4", "--precision", precision])
            .args(paths)
            .env("GMFLOW_BF16", name)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read_samples(&out).1
    };
    let [dot, widened] = ["dot-product", "widened"].map(|name| draw(name, "bf16"));
    let largest = |x: &mut dyn Iterator<Item = f32>| x.fold(0.0, |a: f32, b| a.max(b.abs()));
    let difference = largest(&mut dot.iter().zip(&widened).map(|(a, b)| a - b));
    assert!(difference > 0.0, "both took the same products");
    assert!(difference < 0.01 * largest(&mut dot.iter().copied()), "{difference}");
}

/// More parts than there are batches are refused whichever of them is asked for, and parts that do not fit together by file and setting.
#[test]
fn parts_that_cannot_be_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    for part in ["1/3", "3/3"] {
        let out = folder.path().join("too-many.npz");
        let (code, _, stderr) = try_sample(&model, &out, &["--steps", "1", "--num", "4", "--shard", part]);
        assert_eq!(code, 2, "{stderr}");
        let expected = format!("--shard: expected at most 1 parts, the number of batches (--batch), got {part}");
        assert!(stderr.contains(&expected), "{stderr}");
    }
    let parts: Vec<_> = ["1/2", "2/2"]
        .into_iter()
        .zip(["1", "2"])
        .map(|(part, steps)| {
            let out = folder.path().join(format!("{steps}.npz"));
            sample(&model, &out, &["--num", "4", "--batch", "2", "--steps", steps, "--shard", part]);
            std::fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{steps}.")))
                .unwrap()
        })
        .collect();
    let [first, second] = [&parts[0], &parts[1]].map(|path| path.to_str().unwrap());
    let whole = folder.path().join("whole.npz");
    let (code, _, stderr) = run(&["merge", first, second, "--out", whole.to_str().unwrap()]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains(&format!("got others in {second} (steps 2, now 1)")), "{stderr}");
    assert!(!whole.exists());
}

#[test]
fn averages_classes_and_given_noise_change_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    let draw = |name: &str, extra: &[&str]| {
        let out = folder.path().join(format!("{name}.safetensors"));
        sample(&model, &out, &[&["--steps", "2"], extra].concat());
        read_samples(&out).1
    };
    let noise = folder.path().join("noise.safetensors");
    write_noise(&noise, &[2, 1, 8, 8], &[0.5; 128]);
    let noise = noise.to_str().unwrap();
    let plain = draw("plain", &["--num", "2", "--class", "cat"]);
    assert_eq!(plain, draw("ema", &["--num", "2", "--class", "cat", "--ema", "slow"]));
    assert_ne!(plain, draw("raw", &["--num", "2", "--class", "cat", "--ema", "none"]));
    assert_ne!(plain, draw("dog", &["--num", "2", "--class", "dog"]));
    let given = draw("given", &["--noise", noise, "--class", "cat"]);
    assert_eq!(given.len(), 128);
    assert_eq!(given[..64], given[64..], "gm-ode from the same noise, whatever the seed");
    assert_eq!(given, draw("given2", &["--noise", noise, "--class", "cat", "--seed", "9"]));
}

#[test]
fn a_grid_is_one_picture() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    sample(&model, &folder.path().join("all.png"), &["--num", "5", "--grid", "--steps", "1"]);
    let (_, made_by, width, height) = read_png(&folder.path().join("all.png"));
    assert_eq!((width, height), (2 * 66 - 2, 3 * 66 - 2), "a row of enlarged images for each of three classes");
    assert_eq!(made_by["classes"], serde_json::json!([0, 1, 2, 0, 1]));
    sample(&model, folder.path(), &["--num", "1", "--grid", "--steps", "1"]);
    assert!(folder.path().join("grid.png").is_file());
}

/// Labels as in the published list of ImageNet's, where one is a part of another.
#[test]
fn a_label_with_commas_is_one_class() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let labels =
        ["missile", "projectile, missile", "crane", "crane", "cardigan", "Cardigan, Welsh corgi", "red,green", "red"];
    labelled_model(&model, &labels);
    let mut number = 0;
    let mut drawn = |asked: &[&str]| {
        number += 1;
        let out = folder.path().join(number.to_string());
        let classes = asked.iter().flat_map(|class| ["--class", class]);
        let extra: Vec<&str> = ["--num", "4", "--steps", "1", "--json"].into_iter().chain(classes).collect();
        let (code, _, stderr) = try_sample(&model, &out, &extra);
        let class = |seed: usize| read_png(&out.join(format!("{seed:06}.png"))).1["class"].as_u64().unwrap();
        if code == 0 { Ok([0, 1, 2, 3].map(class)) } else { Err((code, stderr)) }
    };
    for (class, label) in labels.iter().enumerate().filter(|(_, label)| **label != "crane") {
        assert_eq!(drawn(&[label]).unwrap(), [class as u64; 4], "{label}");
    }
    assert_eq!(drawn(&["missile,red,green"]).unwrap(), [0, 6, 0, 6]);
    assert_eq!(drawn(&["3", "projectile,missile", "red"]).unwrap(), [3, 1, 7, 3]);
    let (code, stderr) = drawn(&["crane"]).unwrap_err();
    assert!(code == 2 && stderr.contains("--class") && stderr.contains("2 (") && stderr.contains("3 ("), "{stderr}");
}

#[test]
fn points_give_arrays_and_a_histogram() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    points_model(&model, 4);
    let out = folder.path().join("points");
    let json = sample(&model, &out, &["--num", "100", "--steps", "2", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["num"], 100);
    assert!(out.join("samples.png").is_file());
    let archive = std::fs::File::open(out.join("samples.npz")).unwrap();
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(archive)).unwrap();
    let samples = npyz::NpyFile::new(archive.by_name("samples.npy").unwrap()).unwrap();
    assert_eq!(samples.shape(), [100, 2]);
    assert!(samples.into_vec::<f32>().unwrap().iter().all(|value| value.is_finite()));
    let seeds = npyz::NpyFile::new(archive.by_name("seeds.npy").unwrap()).unwrap();
    let seeds: Vec<u64> = seeds.into_vec().unwrap();
    assert_eq!(seeds[99], 99);
}

#[test]
fn every_solver_runs_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let (mixture, single) = (folder.path().join("k4"), folder.path().join("k1"));
    points_model(&mixture, 4);
    points_model(&single, 1);
    for (model, solver) in [
        (&mixture, "gm-ode"),
        (&mixture, "gm-sde"),
        (&single, "euler"),
        (&single, "heun"),
        (&single, "ddpm-small"),
        (&single, "ddpm-large"),
        (&single, "gm-ode"),
    ] {
        let out = folder.path().join(format!("{}-{solver}", model.file_name().unwrap().display()));
        sample(model, &out, &["--solver", solver, "--num", "3", "--steps", "2"]);
        assert!(out.join("samples.npz").is_file(), "{solver}");
    }
}

/// The files of a folder in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn force_replaces_samples_and_no_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("out"));
    image_model(&model);
    let extra = ["--num", "2", "--steps", "1"];
    let forced = [&extra[..], &["--force"]].concat();
    let refused = |out: &Path, extra: &[&str], part: &str| {
        let (code, _, stderr) = try_sample(&model, out, extra);
        assert!(code == 1 && stderr.contains(part), "{code}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    };
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    // A picture of the user's own, and what is no picture.
    let photo = out.join("000001.png");
    let mut encoder = png::Encoder::new(std::fs::File::create(&photo).unwrap(), 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&[7]).unwrap();
    let bytes = std::fs::read(&photo).unwrap();
    refused(&out, &extra, "000001.png");
    refused(&out, &forced, "gmflow sample did not write it");
    assert_eq!(std::fs::read(&photo).unwrap(), bytes);
    assert_eq!(names(&out), ["000001.png", "notes.txt"], "nothing is written when one file is in the way");
    std::fs::remove_file(&photo).unwrap();
    sample(&model, &out, &extra);
    refused(&out, &extra, "--force");
    let old = read_png(&photo).0;
    sample(&model, &out, &[&forced[..], &["--class", "7"]].concat());
    assert_ne!(read_png(&photo).0, old);
    for name in ["a.npz", "a.safetensors", "a.png"] {
        let file = folder.path().join(name);
        let extra = if name == "a.png" { [&extra[..], &["--grid"]].concat() } else { extra.to_vec() };
        let forced = [&extra[..], &["--force"]].concat();
        std::fs::write(&file, "mine").unwrap();
        refused(&file, &forced, name);
        std::fs::remove_file(&file).unwrap();
        sample(&model, &file, &forced);
        refused(&file, &extra, "--force");
        sample(&model, &file, &forced);
    }
}

#[test]
fn samples_of_other_settings_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("out"));
    image_model(&model);
    sample(&model, &out, &["--num", "3", "--steps", "1"]);
    // The same settings and other seeds go side by side.
    sample(&model, &out, &["--num", "2", "--seed", "10", "--steps", "1", "--class", "dog"]);
    let five = ["000000.png", "000001.png", "000002.png", "000010.png", "000011.png"];
    assert_eq!(names(&out), five);
    std::fs::write(out.join("9.png"), "no sample").unwrap();
    for extra in [
        &["--steps", "2"][..],
        &["--steps", "1", "--ema", "none"],
        &["--steps", "1", "--solver", "gm-sde"],
        &["--steps", "2", "--grid"],
        &["--steps", "2", "--format", "npz"],
    ] {
        let (code, _, stderr) = try_sample(&model, &out, &[&["--num", "1", "--seed", "50"], extra].concat());
        assert!(code == 1 && stderr.contains("000000.png") && stderr.contains("--force"), "{extra:?}: {stderr}");
    }
    let (_, _, stderr) = try_sample(&model, &out, &["--num", "1", "--seed", "50", "--steps", "2"]);
    assert!(stderr.contains("steps 1, now 2"), "{stderr}");
    let (code, _, stderr) = try_sample(&model, &out, &["--num", "2", "--seed", "1", "--steps", "2", "--force"]);
    assert!(code == 0 && stderr.contains("3 samples of other settings are removed"), "{stderr}");
    assert_eq!(names(&out), ["000001.png", "000002.png", "9.png"]);
    assert_eq!(std::fs::read(out.join("9.png")).unwrap(), b"no sample");
    assert_eq!(read_png(&out.join("000001.png")).1["steps"], 2);
    // A name of one's own says which is which.
    sample(&model, &out.join("one-step.png"), &["--num", "1", "--steps", "1", "--grid"]);
    sample(&model, &out, &["--num", "1", "--seed", "20", "--steps", "2"]);
}

#[test]
fn the_ending_of_a_name_says_the_format_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (images, points) = (folder.path().join("images"), folder.path().join("points"));
    image_model(&images);
    points_model(&points, 2);
    let extra = ["--num", "2", "--steps", "1"];
    let path = |name: &str| folder.path().join(name);
    sample(&images, &path("a.PNG"), &[&extra[..], &["--grid"]].concat());
    assert_eq!(read_png(&path("a.PNG")).1["solver"], "gm-ode");
    sample(&images, &path("a.Safetensors"), &extra);
    assert_eq!(read_samples(&path("a.Safetensors")).0, [2, 1, 8, 8]);
    sample(&points, &path("p.NPZ"), &extra);
    assert!(path("p.NPZ").is_file() && path("p.png").is_file());
    for (model, name, more, part) in [
        (&images, "b.jpg", &[][..], ".png (with --grid), .npz or .safetensors"),
        (&images, "b.jpg", &["--grid"], ".png"),
        (&images, "b.PNG", &[], "--grid"),
        (&images, "b.webp", &["--format", "png"], ".png"),
        (&images, "b.npy", &[], ".npz"),
        (&images, "b.png", &["--format", "npz"], ".npz"),
        (&points, "b.png", &[], ".npz or .safetensors"),
        (&points, "b.npz", &["--format", "safetensors"], ".safetensors"),
    ] {
        let (code, _, stderr) = try_sample(model, &path(name), &[&extra[..], more].concat());
        assert!(code == 2 && stderr.contains("--out") && stderr.contains(part), "{name}: {stderr}");
        assert!(!path(name).exists());
    }
    // A folder may be called like anything that is no file.
    sample(&images, &path("v1.5"), &extra);
    assert_eq!(names(&path("v1.5")), ["000000.png", "000001.png"]);
    std::fs::create_dir(path("folder.png")).unwrap();
    sample(&images, &path("folder.png"), &extra);
    assert!(path("folder.png/000001.png").is_file());
}

#[test]
fn what_does_not_fit_the_model_is_usage() {
    let folder = tempfile::tempdir().unwrap();
    let (images, points) = (folder.path().join("images"), folder.path().join("points"));
    image_model(&images);
    points_model(&points, 1);
    let out = folder.path().join("out");
    for (model, extra, words) in [
        (&images, &["--class", "bird"][..], r#""cat", "dog", "7", got bird"#),
        (&images, &["--class", "3"], "below 3"),
        (&images, &["--class", "dog,,cat"], "got nothing"),
        (&images, &["--class", "dog", "--class", "dog or cat"], "dog or cat"),
        (&images, &["--spectral", "on", "--solver", "gm-sde"], "spectrum"),
        (&images, &["--ema", "fast"], "slow"),
        (&points, &["--class", "0"], "class"),
        (&points, &["--guidance", "0.2"], "classes"),
        (&points, &["--grid"], "points"),
        (&points, &["--order", "1"], "euler"),
    ] {
        let (code, _, stderr) = try_sample(model, &out, extra);
        assert_eq!(code, 2, "{extra:?}: {stderr}");
        assert!(stderr.contains(words), "{extra:?}: {stderr}");
    }
    assert!(!out.exists());
}

/// A plan's grid may cross it with samplers that have no use for it: a word, not a refusal.
#[test]
fn a_variance_to_reweight_by_that_changes_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    let cases: [(&[&str], bool); 5] = [
        (&["--solver", "euler"], true),
        (&["--order", "1"], true),
        (&["--second-order", "translate"], true),
        (&["--order", "1", "--guidance", "0.3"], false),
        (&["--order", "2"], false),
    ];
    for (extra, is_idle) in cases {
        let common = ["--num", "1", "--steps", "2", "--reweight-by", "pixel", "--force"];
        let (code, _, stderr) = try_sample(&model, &folder.path().join("out"), &[&common, extra].concat());
        assert_eq!(code, 0, "{extra:?}: {stderr}");
        assert_eq!(stderr.contains("--reweight-by changes nothing"), is_idle, "{extra:?}: {stderr}");
    }
}

#[test]
fn noise_that_does_not_fit_is_refused_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let (model, noise) = (folder.path().join("model"), folder.path().join("noise.safetensors"));
    image_model(&model);
    let attempt = |words: &str| {
        let (code, _, stderr) = try_sample(&model, &folder.path().join("out"), &["--noise", noise.to_str().unwrap()]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("noise.safetensors") && stderr.contains(words), "{stderr}");
    };
    attempt("No such file");
    std::fs::write(&noise, "not safetensors").unwrap();
    attempt("safetensors");
    write_noise(&noise, &[2, 1, 8, 4], &[0.0; 64]);
    attempt("[n, 1, 8, 8]");
    write_noise(&noise, &[1, 1, 8, 8], &[f32::NAN; 64]);
    attempt("finite");
    // Numbers from 0 to 1 are no noise, but may be wanted.
    let uniform: Vec<f32> = (0..64).map(|i| i as f32 / 63.0).collect();
    write_noise(&noise, &[1, 1, 8, 8], &uniform);
    let arguments = ["--noise", noise.to_str().unwrap(), "--steps", "1"];
    let (code, _, stderr) = try_sample(&model, &folder.path().join("uniform"), &arguments);
    assert!(code == 0 && stderr.contains("mean 0 and standard deviation 1, got 0.500"), "{stderr}");
}

#[test]
fn a_spectrum_network_shapes_the_draws_unless_it_is_switched_off() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    spectral_model(&model);
    let draw = |name: &str, extra: &[&str]| {
        let out = folder.path().join(name);
        let common = ["--num", "2", "--steps", "2", "--solver", "gm-sde"];
        sample(&model, &out, &[&common, extra].concat());
        read_png(&out.join("000001.png"))
    };
    let (shaped, how, ..) = draw("default", &[]);
    let (on, ..) = draw("on", &["--spectral", "on"]);
    let (off, without, ..) = draw("off", &["--spectral", "off"]);
    assert_eq!((&how["spectral"], &without["spectral"]), (&true.into(), &false.into()));
    assert!(shaped == on && shaped != off);
}

#[test]
fn the_shipped_model_draws_the_digits_that_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mnist"));
    let out = folder.path().join("digits.safetensors");
    let report = sample(model, &out, &["--num", "16", "--class", "0,1", "--steps", "4", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let sampling = &report["sampling"];
    assert_eq!((&sampling["guidance"], &sampling["reweight_by"]), (&0.2.into(), &"pixel".into()), "the model's own");
    let (shape, values) = read_samples(&out);
    assert_eq!(shape, [16, 1, 28, 28]);
    let apart = folder.path().join("apart.safetensors");
    sample(model, &apart, &["--num", "16", "--class", "0,1", "--steps", "4", "--batch", "3"]);
    assert!(read_samples(&apart).1 == values, "the same to the last bit in any batch");
    // Ones have ink in the middle, which zeros leave empty.
    let middle = |digit: &[f32]| (11..17).flat_map(|y| digit[28 * y + 11..28 * y + 17].to_vec()).sum::<f32>() / 36.0;
    let mean = |class: usize| values.chunks(784).skip(class).step_by(2).map(middle).sum::<f32>() / 8.0;
    assert!(mean(0) < -0.8 && mean(1) > -0.2, "{} and {}", mean(0), mean(1));
}
