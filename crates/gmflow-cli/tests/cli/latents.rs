//! From images to latents, to a model of them, to pictures.

use crate::published::latent_model;
use crate::run;
use crate::sample::read_png;
use gmflow::checkpoint::{ExportOptions, export_diffusers};
use std::path::Path;

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
    assert_eq!((size.info().width, size.info().height), (35, 18));
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
    // As an interrupted call leaves it: one shard, and a manifest that says so.
    let manifest = folder.join("latents/latents.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let begun = text.replace("\"complete\": true", "\"complete\": false").replace("\"count\": 6", "\"count\": 0");
    std::fs::write(&manifest, begun).unwrap();
    std::fs::remove_file(folder.join("latents/shard-00001.safetensors")).unwrap();
    std::fs::remove_file(folder.join("latents/shard-00002.safetensors")).unwrap();
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
