//! `gmflow eval` and `stats` on array files of other programs: the same images in every form have the same figures.

use crate::eval::{done, text};
use crate::models::image_model;
use crate::run;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

const N: usize = 64;
const SIDE: usize = 8;
const NCHW: &str = "(64, 3, 8, 8)";
const NHWC: &str = "(64, 8, 8, 3)";

/// 64 colour images `[n c h w]` of 8 x 8 pixels that vary around one picture.
fn images(seed: u32, spread: u32) -> Vec<u8> {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let picture = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 24;
    (0..N * 3 * SIDE * SIDE)
        .map(|i| (picture(i % (3 * SIDE * SIDE)) * 6 / 10 + random() % spread + random() % spread).min(255) as u8)
        .collect()
}

/// `[n h w c]` of `[n c h w]`.
fn channels_last<T: Copy>(images: &[T]) -> Vec<T> {
    let area = SIDE * SIDE;
    images.chunks(3 * area).flat_map(|image| (0..3 * area).map(|i| image[i % 3 * area + i / 3])).collect()
}

/// The first axis fastest.
fn columns<T: Copy>(images: &[T]) -> Vec<T> {
    let (n, c, h) = (N, 3, SIDE);
    let place = |i: usize| ((i % n * 3 + i / n % c) * SIDE + i / (n * c) % h) * SIDE + i / (n * c * h);
    (0..images.len()).map(|i| images[place(i)]).collect()
}

fn write_folder(folder: &Path, images: &[u8]) {
    std::fs::create_dir(folder).unwrap();
    for (index, image) in channels_last(images).chunks(3 * SIDE * SIDE).enumerate() {
        let file = std::fs::File::create(folder.join(format!("{index:03}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, SIDE as u32, SIDE as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(image).unwrap();
    }
}

/// A .npy file of format `version`.
fn npy(version: u8, (kind, is_fortran, shape): (&str, bool, &str), data: &[u8]) -> Vec<u8> {
    let is_fortran = if is_fortran { "True" } else { "False" };
    let header = format!("{{'descr': '{kind}', 'fortran_order': {is_fortran}, 'shape': {shape}, }}\n");
    let length = header.len();
    let length = match version {
        1 => u16::try_from(length).unwrap().to_le_bytes().to_vec(),
        _ => u32::try_from(length).unwrap().to_le_bytes().to_vec(),
    };
    [b"\x93NUMPY", &[version, 0][..], &length, header.as_bytes(), data].concat()
}

fn npz(members: &[(&str, Vec<u8>)], method: zip::CompressionMethod) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        archive.start_file(format!("{name}.npy"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn tensor(dtype: safetensors::Dtype, data: &[u8]) -> Vec<u8> {
    let view = safetensors::tensor::TensorView::new(dtype, vec![N, 3, SIDE, SIDE], data).unwrap();
    safetensors::serialize([("samples", view)], None).unwrap()
}

fn f4(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The generated images in every form that other programs write, with what has to be said of it.
fn forms(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    use zip::CompressionMethod::{Deflated, Stored};
    let unit: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 127.5 - 1.0).collect();
    let half: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 255.0).collect();
    let whole: Vec<f32> = bytes.iter().map(|&b| f32::from(b)).collect();
    let plain = |kind: &str, data: Vec<u8>| npy(1, (kind, false, NCHW), &data);
    let last = npy(1, ("|u1", false, NHWC), &channels_last(bytes));
    let labels = npy(1, ("<i8", false, "(64,)"), &[0; 64 * 8]);
    let mu = npy(1, ("<f8", false, "(192,)"), &[0; 192 * 8]);
    let sigma = npy(1, ("<f8", false, "(192, 192)"), &[0; 192 * 192 * 8]);
    let images = |name, method| npz(&[(name, plain("<f4", f4(&unit)))], method);
    vec![
        ("f4.npy", plain("<f4", f4(&unit)), &[]),
        ("f8.npy", plain("<f8", unit.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect()), &[]),
        ("f2.npy", plain("<f2", unit.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect()), &[]),
        ("fortran.npy", npy(1, ("<f4", true, NCHW), &f4(&columns(&unit))), &[]),
        ("bigendian.npy", plain(">f4", unit.iter().flat_map(|x| x.to_be_bytes()).collect()), &[]),
        ("nhwc.npy", npy(1, ("<f4", false, NHWC), &f4(&channels_last(&unit))), &[]),
        ("version2.npy", npy(2, ("<f4", false, NCHW), &f4(&unit)), &[]),
        ("version3.npy", npy(3, ("<f4", false, NCHW), &f4(&unit)), &[]),
        ("bytes.npy", plain("|u1", bytes.to_vec()), &[]),
        ("bytes-fortran.npy", npy(1, ("|u1", true, NCHW), &columns(bytes)), &[]),
        ("adm.npz", npz(&[("arr_0", last.clone())], Stored), &[]),
        ("adm-labelled.npz", npz(&[("arr_0", last.clone()), ("arr_1", labels)], Deflated), &[]),
        ("adm-reference.npz", npz(&[("arr_0", last.clone()), ("mu", mu), ("sigma", sigma)], Stored), &[]),
        ("one.npz", images("anything", Deflated), &[]),
        ("f4.safetensors", tensor(safetensors::Dtype::F32, &f4(&unit)), &[]),
        ("bytes.safetensors", tensor(safetensors::Dtype::U8, bytes), &[]),
        ("zero-one.npy", plain("<f4", f4(&half)), &["--range", "0,1"]),
        ("zero-one-last.npy", npy(1, ("<f4", false, NHWC), &f4(&channels_last(&half))), &["--range=0..1"]),
        ("zero-255.npy", plain("<f4", f4(&whole)), &["--range", "0,255"]),
        (
            "int64.npy",
            plain("<i8", bytes.iter().flat_map(|&b| i64::from(b).to_le_bytes()).collect()),
            &["--range=0,255"],
        ),
        ("said.npy", plain("<f4", f4(&unit)), &["--range", "-1,1", "--layout", "nchw"]),
    ]
}

/// The Fréchet distances of pixels.
fn distances(real: &Path, fakes: &[PathBuf], extra: &[&str]) -> Vec<f64> {
    let mut arguments = vec!["eval", "--real", text(real), "--features", "pixels", "--json"];
    arguments.extend(extra);
    arguments.push("--fake");
    arguments.extend(fakes.iter().map(|fake| text(fake)));
    let rows: Value = serde_json::from_str(&done(&arguments)).unwrap();
    let distance = |row: &Value| row["metrics"]["frechet_distance"].as_f64().unwrap();
    rows.as_array().unwrap().iter().map(distance).collect()
}

#[test]
fn the_same_images_have_the_same_distance_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let (real, fake) = (folder.path().join("real"), folder.path().join("fake"));
    let bytes = images(2, 70);
    write_folder(&real, &images(1, 40));
    write_folder(&fake, &bytes);
    let right = distances(&real, std::slice::from_ref(&fake), &[])[0];
    assert!(right > 1.0, "{right}");
    let forms = forms(&bytes);
    let path = |name: &str| folder.path().join(name);
    for (name, bytes, _) in &forms {
        std::fs::write(path(name), bytes).unwrap();
    }
    // Forms of which the same is said are measured together.
    for said in [&[][..], &["--range", "0,1"], &["--range=0..1"], &["--range", "0,255"], &["--range=0,255"]]
        .into_iter()
        .chain([&["--range", "-1,1", "--layout", "nchw"][..]])
    {
        let of: Vec<&str> = forms.iter().filter(|form| form.2 == said).map(|form| form.0).collect();
        let paths: Vec<PathBuf> = of.iter().map(|name| path(name)).collect();
        for (name, distance) in of.iter().zip(distances(&real, &paths, said)) {
            // Sums in another order; the images are the same bytes.
            assert!((distance / right - 1.0).abs() < 1e-6, "{name}: {distance}, the folder has {right}");
        }
    }
    // As the reference, and through its statistics.
    let stats = path("stats.safetensors");
    done(&["stats", text(&path("zero-one.npy")), "--range", "0,1", "--features", "pixels", "--out", text(&stats)]);
    for reference in [&stats, &path("adm-labelled.npz")] {
        let same = distances(reference, std::slice::from_ref(&fake), &[])[0];
        // Not 0: the root of a singular matrix.
        assert!(same.abs() < 1e-4 * right, "{}: {same}", reference.display());
    }
}

#[test]
fn what_an_array_means_is_asked_for_where_it_is_not_clear() {
    let folder = tempfile::tempdir().unwrap();
    let (real, model) = (folder.path().join("real"), folder.path().join("model"));
    let bytes = images(2, 70);
    write_folder(&real, &images(1, 40));
    image_model(&model);
    let forms = forms(&bytes);
    for (name, part) in [
        ("zero-one.npy", "--range 0,1"),
        ("zero-one-last.npy", "none of them negative"),
        ("zero-255.npy", "--range 0,255"),
        ("int64.npy", "int64"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, &forms.iter().find(|form| form.0 == name).unwrap().1).unwrap();
        let out = folder.path().join("stats.safetensors");
        for arguments in [
            &["eval", "--real", text(&real), "--features", "pixels", "--fake", text(&path)][..],
            &["stats", text(&path), "--features", "pixels", "--out", text(&out)],
        ] {
            let (code, _, stderr) = run(arguments);
            assert!(code == 1 && stderr.contains(part) && stderr.contains(name), "{name}: {stderr}");
            assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
        }
    }
    for (name, shape, size, part) in [
        ("none.npy", "(0, 3, 8, 8)", 0, "none.npy: expected at least 2 samples, got 0"),
        ("one.npy", "(1, 3, 8, 8)", 192, "one.npy: expected at least 2 samples, got 1"),
        ("cut.npy", NCHW, 1000, "cut.npy: arrays: expected a readable NumPy file, got one that ends too early"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, npy(1, ("|u1", false, shape), &bytes[..size])).unwrap();
        let (code, _, stderr) =
            run(&["eval", "--real", text(&real), "--features", "pixels", "--moments-only", "--fake", text(&path)]);
        assert!(code > 0 && stderr.contains(part), "{name}: {stderr}");
    }
    for range in ["1,0", "0", "0,1,2", "a,b", "0,nan", "-1..-1"] {
        let arguments =
            ["eval", "--real", text(&real), "--fake", text(&real), "--features", "pixels", "--range", range];
        let (code, _, stderr) = run(&arguments);
        assert!(code == 2 && stderr.contains("--range"), "{range}: {stderr}");
    }
}

#[test]
fn a_unit_is_no_argument_for_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features.npy");
    std::fs::write(&path, npy(1, ("<f4", false, "(4, 2)"), &f4(&[0.0, 1.0, 2.0, 3.0, 5.0, 4.0, 6.0, 8.0]))).unwrap();
    let eval = ["eval", "--real", text(&path), "--fake", text(&path), "--features", "precomputed", "--moments-only"];
    done(&eval);
    let (code, _, stderr) = run(&[&eval[..], &["--range", "0,1"]].concat());
    assert!(code == 2 && stderr.contains("--range"), "{stderr}");
}

/// What a model draws may go beyond black and white. Its files say so, and are cut off as pictures are.
#[test]
fn files_of_sample_say_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    let path = |name: &str| folder.path().join(name);
    let draw = |out: &Path| {
        done(&["sample", "--checkpoint", text(&model), "--num", "12", "--steps", "1", "--out", text(out)]);
    };
    ["png", "a.npz", "a.safetensors"].iter().for_each(|name| draw(&path(name)));
    let real = crate::eval::images(folder.path());
    let (_, values) = crate::sample::read_samples(&path("a.safetensors"));
    assert!(values.iter().any(|x| x.abs() > 1.05), "nothing to cut off");
    let found = distances(&real, &[path("png"), path("a.npz"), path("a.safetensors")], &[]);
    assert!(found.iter().all(|distance| (distance / found[0] - 1.0).abs() < 1e-6), "{found:?}");
    // What is said of other files is nothing to them.
    let again = distances(&real, &[path("a.npz")], &["--range", "0,255", "--layout", "nhwc"])[0];
    assert!((again / found[1] - 1.0).abs() < 1e-9, "{again} {found:?}");
}
