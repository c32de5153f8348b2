//! From images to latents, to a model of them, to pictures.

use crate::published::latent_model;
use crate::run;
use crate::sample::read_png;
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::{ExportOptions, export_diffusers, load_diffusers_vae};
use gmflow_data::{Columns, ImageDataset, ImageSettings, ParquetDataset};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Two classes of three images each, 16x16, and a checkpoint whose autoencoder halves height and width.
fn materials(folder: &Path) {
    for (class, shade) in [("dark", 20u8), ("light", 200)] {
        std::fs::create_dir_all(folder.join("images").join(class)).unwrap();
        for index in 0..3u8 {
            let path = folder.join("images").join(class).join(format!("{index}.png"));
            let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), 16, 16);
            encoder.set_color(png::ColorType::Rgb);
            let pixels: Vec<u8> = (0..16 * 16 * 3).map(|i| shade + (i % 16) as u8 * (index + 1)).collect();
            encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        }
    }
    export_diffusers(&latent_model(), &folder.join("published"), &ExportOptions::default()).unwrap();
}

fn at(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

fn encode(folder: &Path, extra: &[&str]) -> (i32, String, String) {
    let (vae, images, out) = (at(folder, "published"), at(folder, "images"), at(folder, "latents"));
    let arguments = ["encode", "--vae", &vae, "--images", &images, "--size", "16", "--out", &out];
    run(&[&arguments[..], extra].concat())
}

/// The recipe for ImageNet at the size of a test.
fn train(folder: &Path, out: &str, extra: &[&str]) -> (i32, String, String) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/imagenet256.toml");
    let (out, source) = (at(folder, out), format!("data.source.path={}", at(folder, "latents")));
    let vae = format!("sample.vae={}", at(folder, "published"));
    let mut arguments = vec!["train".to_owned(), config.to_str().unwrap().to_owned(), "--out".into(), out];
    let settings = [
        &source,
        &vae,
        "network.num_layers=1",
        "network.num_attention_heads=2",
        "network.attention_head_dim=8",
        "network.sample_size=8",
        "network.num_embeds_ada_norm=2",
        "network.logstd_inner_dim=8",
        "train.batch_size=8",
        "train.micro_batch=4",
        "train.warmup_steps=2",
        "train.gradient_checkpointing=false",
        "sample.every=4",
        "sample.num=2",
        "sample.sampler.steps=2",
        "log.every=1",
    ];
    for setting in settings {
        arguments.extend(["--set".to_owned(), setting.to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(extra.iter().copied()).collect();
    run(&arguments)
}

#[test]
fn the_recipe_for_imagenet_runs_at_toy_size() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    materials(folder);
    let (code, stdout, stderr) = encode(folder, &["--mirror", "--shard", "4", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["count"], 6);
    let (code, _, stderr) = train(folder, "run", &["--set", "train.steps=4"]);
    assert_eq!(code, 0, "{stderr}");
    // Decoded: two pictures of 16x16 with a frame of one pixel.
    let picture = folder.join("run/samples/step-00000004.png");
    let size = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(picture).unwrap())).read_info().unwrap();
    assert_eq!((size.info().width, size.info().height), (18, 35));
    let (code, _, stderr) = train(folder, "run", &["--set", "train.steps=6", "--resume"]);
    assert_eq!(code, 0, "{stderr}");
    // Bit for bit what a run without an interruption gives.
    assert_eq!(train(folder, "whole", &["--set", "train.steps=6"]).0, 0);
    let weights =
        |run: &str, file: &str| std::fs::read(folder.join(run).join("checkpoints/step-00000006").join(file)).unwrap();
    for file in ["model.safetensors", "ema.ema.safetensors", "spectrum.safetensors", "optimizer.safetensors"] {
        assert!(weights("run", file) == weights("whole", file), "{file}");
    }

    let (run_folder, pictures) = (at(folder, "run"), at(folder, "pictures"));
    let sample =
        ["sample", "--checkpoint", &run_folder, "--steps", "2", "--num", "1", "--class", "light", "--out", &pictures];
    let (code, _, stderr) = run(&sample);
    assert_eq!(code, 0, "{stderr}");
    let (_, made_by, width, _) = read_png(&folder.join("pictures/000000.png"));
    assert_eq!((width, &made_by["class_name"]), (16, &"light".into()));

    // What is exported holds the autoencoder and samples the same.
    let exported = at(folder, "exported");
    let (code, _, stderr) = run(&["export", "--checkpoint", &run_folder, "--out", &exported]);
    assert_eq!(code, 0, "{stderr}");
    assert!(folder.join("exported/vae/config.json").is_file() && folder.join("exported/spectrum_net").is_dir());
    let again = at(folder, "again");
    let sample =
        ["sample", "--checkpoint", &exported, "--steps", "2", "--num", "1", "--class", "light", "--out", &again];
    assert_eq!(run(&sample).0, 0);
    let pixels = |name: &str| read_png(&folder.join(name)).0;
    assert!(pixels("pictures/000000.png") == pixels("again/000000.png"));
}

#[test]
fn encoding_continues_and_does_not_overwrite() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    materials(folder);
    assert_eq!(encode(folder, &["--shard", "2"]).0, 0);
    let shards = || {
        let read = |name: usize| std::fs::read(folder.join(format!("latents/shard-{name:05}.safetensors"))).unwrap();
        [read(0), read(1), read(2)]
    };
    let whole = shards();
    let (code, _, stderr) = encode(folder, &["--shard", "2"]);
    assert!(code == 1 && stderr.contains("complete") && stderr.contains("--force"), "{stderr}");
    interrupt(&folder.join("latents"), 1, 3);
    let (code, _, stderr) =
        train(folder, "run", &["--set", "train.steps=1", "--set", "data.source.horizontal_flip=false"]);
    assert!(code == 1 && stderr.contains("gmflow encode"), "{stderr}");
    let (code, _, stderr) = encode(folder, &["--shard", "3"]);
    assert!(code == 1 && stderr.contains("other settings"), "{stderr}");
    assert_eq!(encode(folder, &["--shard", "2"]).0, 0);
    assert!(whole == shards());
    assert_eq!(encode(folder, &["--shard", "3", "--force"]).0, 0);
    assert!(!folder.join("latents/shard-00002.safetensors").exists());
    let (code, _, stderr) = train(folder, "run", &["--set", "train.steps=1"]);
    assert!(code == 2 && stderr.contains("horizontal_flip"), "{stderr}");
}

#[test]
fn encoding_does_not_continue_with_other_images() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    materials(folder);
    assert_eq!(encode(folder, &["--shard", "2"]).0, 0);
    interrupt(&folder.join("latents"), 1, 3);
    // A picture that comes before the others: every position behind it would be that of another picture.
    let (image, added) = (folder.join("images/dark/0.png"), folder.join("images/dark/-0.png"));
    std::fs::copy(&image, &added).unwrap();
    let (code, _, stderr) = encode(folder, &["--shard", "2"]);
    let says = ["other images: 7 images, 6 before; dark has 4, 3 before", "--force"];
    assert!(code == 1 && says.iter().all(|part| stderr.contains(part)), "{stderr}");
    std::fs::remove_file(&added).unwrap();
    std::fs::create_dir(folder.join("images/cat")).unwrap();
    std::fs::copy(&image, folder.join("images/cat/0.png")).unwrap();
    let (code, _, stderr) = encode(folder, &["--shard", "2"]);
    assert!(code == 1 && stderr.contains("class cat added"), "{stderr}");
    let (code, stdout, stderr) = encode(folder, &["--shard", "2", "--force"]);
    assert!(code == 0 && stdout.contains("7 latents"), "{stdout} {stderr}");
    // A cache of an older version does not say what it was made of.
    interrupt(&folder.join("latents"), 1, 4);
    let manifest = folder.join("latents/latents.json");
    let mut stored: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    stored["manifest"].as_object_mut().unwrap().remove("data").unwrap();
    std::fs::write(&manifest, stored.to_string()).unwrap();
    let (code, _, stderr) = encode(folder, &["--shard", "2"]);
    assert!(code == 0 && stderr.contains("cannot be compared"), "{stderr}");
}

#[test]
fn files_of_other_origin_are_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    materials(folder);
    std::fs::create_dir(folder.join("latents")).unwrap();
    for (name, said) in [("shard-00000.safetensors", "not overwritten"), ("latents.json", "not removed")] {
        let path = folder.join("latents").join(name);
        std::fs::write(&path, "{}").unwrap();
        let (code, _, stderr) = encode(folder, &["--force"]);
        assert!(code == 1 && stderr.contains(name) && stderr.contains(said), "{stderr}");
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
        std::fs::remove_file(&path).unwrap();
    }
}

/// The cache as a call leaves it that was interrupted after `shards` of its `of` shards.
fn interrupt(cache: &Path, shards: usize, of: usize) {
    let manifest = cache.join("latents.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("\"complete\": true"));
    std::fs::write(&manifest, text.replace("\"complete\": true", "\"complete\": false")).unwrap();
    for shard in shards..of {
        std::fs::remove_file(cache.join(format!("shard-{shard:05}.safetensors"))).unwrap();
    }
}

#[test]
fn damaged_images_are_left_out_and_encoded_ones_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    materials(folder);
    for name in ["dark/1.png", "light/2.png"] {
        std::fs::write(folder.join("images").join(name), b"no picture").unwrap();
    }
    let config = folder.join("data.toml");
    let text = "[data.source]\nkind = \"folder\"\npath = \"images\"\nimage = { size = 16, corrupt = \"skip\" }\n";
    std::fs::write(&config, text).unwrap();
    let (vae, data, out) = (at(folder, "published"), at(folder, "data.toml"), at(folder, "latents"));
    let encode = |extra: &[&str]| {
        let arguments = ["encode", "--vae", &vae, "--data", &data, "--out", &out, "--shard", "2", "--json"];
        run(&[&arguments[..], extra].concat())
    };
    let check = |(code, stdout, stderr): (i32, String, String)| {
        assert_eq!(code, 0, "{stderr}");
        let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&report["count"], &report["left_out"]), (&4.into(), &2.into()), "{stdout}");
        let shards = [0, 1].map(|shard| folder.join(format!("latents/shard-{shard:05}.safetensors")));
        let positions = shards.each_ref().map(|shard| numbers(shard, "indices"));
        assert_eq!(positions, [[0, 2], [3, 4]]);
        shards.map(|shard| std::fs::read(shard).unwrap())
    };
    let whole = check(encode(&[]));
    interrupt(&folder.join("latents"), 1, 2);
    // The first image is in the cache; nobody reads its file any more. Its size is part of what the images are known by.
    let first = folder.join("images/dark/0.png");
    let size = std::fs::metadata(&first).unwrap().len();
    std::fs::write(&first, vec![b'?'; size as usize]).unwrap();
    let (code, _, stderr) = encode(&["--limit", "2"]);
    assert!(code == 2 && stderr.contains("--limit: expected at least 3"), "{stderr}");
    assert!(whole == check(encode(&[])));
}

#[test]
fn an_error_in_the_middle_keeps_what_was_encoded_before() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    materials(folder);
    let (shard, waiting) =
        (folder.join("latents/shard-00000.safetensors"), folder.join("latents/waiting.safetensors"));
    assert_eq!(encode(folder, &["--batch", "4"]).0, 0);
    let whole = std::fs::read(&shard).unwrap();
    std::fs::remove_dir_all(folder.join("latents")).unwrap();
    // The same size and the same header: only whoever decodes it can tell.
    let path = folder.join("images/light/2.png");
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    let data = bad.windows(4).position(|name| name == b"IDAT").unwrap() + 4;
    bad[data..data + 8].fill(0);
    std::fs::write(&path, bad).unwrap();
    for _ in 0..2 {
        let (code, _, stderr) = encode(folder, &["--batch", "4"]);
        assert!(code == 1 && stderr.contains("2.png"), "{stderr}");
        assert_eq!(numbers(&waiting, "indices"), [0, 1, 2, 3, 4], "all images before it");
        assert!(!shard.exists());
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(encode(folder, &["--batch", "4"]).0, 0);
    assert!(whole == std::fs::read(&shard).unwrap() && !waiting.exists());
}

#[cfg(unix)]
#[test]
fn a_stopped_encoding_loses_no_image() {
    use crate::signals::send;
    use crate::start;
    use std::time::{Duration, Instant};
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    materials(folder);
    for index in 3..500 {
        let images = folder.join("images/dark");
        std::fs::copy(images.join("1.png"), images.join(format!("{index}.png"))).unwrap();
    }
    let (vae, images) = (at(folder, "published"), at(folder, "images"));
    let arguments = ["encode", "--vae", &vae, "--images", &images, "--size", "16", "--batch", "1", "--out"];
    let [broken, whole] = ["broken", "whole"].map(|name| at(folder, name));
    let waiting = folder.join("broken/waiting.safetensors");
    let mut child = start(&[&arguments[..], &[&broken]].concat());
    let started = Instant::now();
    while !folder.join("broken/latents.json").exists() {
        assert!(started.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(), "no cache");
        std::thread::sleep(Duration::from_millis(1));
    }
    send(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(143), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let done = numbers(&waiting, "indices").len();
    assert!(done > 0 && stdout.contains(&format!("{done} of 503 images are done")), "{stdout}");
    for out in [&broken, &whole] {
        assert_eq!(run(&[&arguments[..], &[out]].concat()).0, 0);
    }
    let shard = |out: &str| std::fs::read(Path::new(out).join("shard-00000.safetensors")).unwrap();
    assert!(shard(&broken) == shard(&whole) && !waiting.exists());
}

/// A tensor of whole numbers.
fn numbers(shard: &Path, name: &str) -> Vec<u32> {
    let bytes = std::fs::read(shard).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// A file of the folder that the variable names, or of `folder` in `shared` beside the checkout; where it is absent this is said, and
/// fails with `CI=true`.
fn shared(variable: &str, folder: &str, name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(folder);
    let path = std::env::var_os(variable).map_or_else(beside, PathBuf::from).join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{name} is absent");
    // Past the harness, which hides what a test that passes prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name} is absent");
    None
}

#[test]
fn photographs_become_what_the_autoencoder_says_of_them_and_of_their_mirrors() {
    let vae = shared("GMFLOW_GOLDEN", "golden", "checkpoint_tiny/vae");
    let data = shared("GMFLOW_DATA", "data", "cifar10/test.parquet");
    let (Some(vae), Some(data)) = (vae, data) else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = format!("[data.source]\nkind = \"parquet\"\npath = {data:?}\n");
    std::fs::write(folder.join("data.toml"), text).unwrap();
    let encode = |out: &str, extra: &[&str]| {
        let (config, out, vae) = (at(folder, "data.toml"), at(folder, out), vae.to_str().unwrap());
        let arguments = ["encode", "--vae", vae, "--data", &config, "--out", &out, "--limit", "5", "--batch", "2"];
        let (code, _, stderr) = run(&[&arguments[..], &["--mirror"], extra].concat());
        assert_eq!(code, 0, "{stderr}");
        Path::new(&out).join("shard-00000.safetensors")
    };
    let (whole, rounded) = (encode("whole", &["--full-precision"]), encode("rounded", &[]));

    let images = ParquetDataset::open(&data, Columns::default(), &ImageSettings::default()).unwrap();
    let vae = load_diffusers_vae(&vae, None, &Device::flex()).unwrap();
    assert_eq!(numbers(&whole, "indices"), [0, 1, 2, 3, 4]);
    for index in 0..5 {
        let image = images.get(index).unwrap();
        assert_eq!(numbers(&whole, "labels")[index], image.label);
        let image = Tensor::<4>::from_data(TensorData::new(image.pixels, [1, 3, 32, 32]), &Device::flex());
        let mirror = image.clone().flip([3]);
        for (image, names) in [(image, ["mean", "std"]), (mirror, ["mirror_mean", "mirror_std"])] {
            let latents = vae.encode(image);
            for (name, tensor) in names.into_iter().zip([latents.mean, latents.std]) {
                let expected: Vec<f32> = tensor.into_data().try_into_vec().unwrap();
                assert_eq!(expected.len(), 4 * 8 * 8);
                let range = index * expected.len()..(index + 1) * expected.len();
                for (got, expected) in stored(&whole, name)[range].iter().zip(&expected) {
                    assert!((got - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{name}: {got} {expected}");
                }
            }
        }
    }
    // Half precision rounds by at most 2^-11 of a value, which is nothing beside the standard deviation of the draw.
    for name in ["mean", "std"] {
        for (a, b) in stored(&whole, name).into_iter().zip(stored(&rounded, name)) {
            assert!((a - b).abs() <= a.abs() * 2f32.powi(-11) + 1e-7, "{name}: {a} {b}");
        }
    }
}

/// IEEE half precision by its definition.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    let size = if exponent == 0 { fraction * 2f32.powi(-14) } else { (1.0 + fraction) * 2f32.powi(exponent - 15) };
    if bits >> 15 == 1 { -size } else { size }
}

/// The values of a tensor of a shard, whatever its number format.
fn stored(shard: &Path, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(shard).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    match tensor.dtype() {
        safetensors::Dtype::F16 => {
            tensor.data().chunks_exact(2).map(|b| half(u16::from_le_bytes([b[0], b[1]]))).collect()
        }
        _ => tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
    }
}

#[test]
fn what_cannot_be_encoded_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    materials(folder);
    let (vae, images, out) = (at(folder, "published"), at(folder, "images"), at(folder, "l"));
    let (code, _, stderr) = run(&["encode", "--vae", &vae, "--images", &images, "--size", "15", "--out", &out]);
    assert!(code == 2 && stderr.contains("multiples of 2"), "{stderr}");
    assert_eq!(run(&["encode", "--vae", &vae, "--out", &out]).0, 2);
    let (code, _, stderr) = run(&["encode", "--vae", &images, "--images", &images, "--size", "16", "--out", &out]);
    assert!(code == 1 && stderr.contains("config.json"), "{stderr}");
    let points = folder.join("points.toml");
    std::fs::write(&points, "[data.source]\nkind = \"density\"\nname = \"moons\"\n").unwrap();
    let (code, _, stderr) = run(&["encode", "--vae", &vae, "--data", points.to_str().unwrap(), "--out", &out]);
    assert!(code == 2 && stderr.contains("data.source"), "{stderr}");
    std::fs::write(&points, "[data]\nqueue = 3\n").unwrap();
    let (code, _, stderr) = run(&["encode", "--vae", &vae, "--data", points.to_str().unwrap(), "--out", &out]);
    assert!(code == 2 && stderr.contains("data.source"), "{stderr}");
    // A damaged image is refused by name.
    std::fs::write(folder.join("images/dark/1.png"), b"no picture").unwrap();
    let (code, _, stderr) = encode(folder, &[]);
    assert!(code == 1 && stderr.contains("1.png"), "{stderr}");
}
