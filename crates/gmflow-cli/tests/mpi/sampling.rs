//! Samples, figures, sweeps and latents are the same whatever the number of processes, and in parts without MPI.

use super::{DIT, config, has_mpirun, path, well};
use burn::tensor::Device;
use gmflow::checkpoint::{DataInfo, DataKind, ExportOptions, LatentInfo, Model, ModelInfo, export_diffusers};
use gmflow::network::{AutoencoderConfig, GmDitConfig, NetworkConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every file below a folder, by its name.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_file() && !path.file_name().unwrap().to_string_lossy().starts_with('.') {
            found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// A model of small pictures.
fn model(folder: &Path) -> PathBuf {
    let out = folder.join("run");
    well(1, &["train", path(&config(folder, DIT)), "--out", path(&out), "--set", "train.steps=3"]);
    out
}

#[test]
fn a_thousand_samples_are_the_same_files_for_any_number_of_processes() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let sample = |ranks: usize, out: &Path, extra: &[&str]| {
        let mut arguments = vec![
            "sample",
            "--checkpoint",
            path(&model),
            "--num",
            "1000",
            "--steps",
            "1",
            "--batch",
            "64",
            "--out",
            path(out),
        ];
        arguments.extend(extra);
        well(ranks, &arguments)
    };
    let one = folder.path().join("one");
    sample(1, &one, &[]);
    let expected = files(&one);
    assert_eq!(expected.len(), 1000);
    for ranks in [3, 4] {
        let out = folder.path().join(format!("ranks-{ranks}"));
        let (printed, _) = sample(ranks, &out, &[]);
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(files(&out) == expected, "{ranks} ranks");
    }
    let parts = folder.path().join("parts");
    for part in ["1/3", "2/3", "3/3"] {
        sample(1, &parts, &["--shard", part]);
    }
    assert!(files(&parts) == expected, "three parts");

    for ending in ["npz", "safetensors"] {
        let whole = folder.path().join(format!("whole.{ending}"));
        sample(1, &whole, &[]);
        let expected = std::fs::read(&whole).unwrap();
        let together = folder.path().join(format!("together.{ending}"));
        sample(3, &together, &[]);
        assert!(std::fs::read(&together).unwrap() == expected, "{ending} of 3 ranks");
        let merged = folder.path().join(format!("parts.{ending}"));
        let mut names = Vec::new();
        for part in 1..=3 {
            sample(1, &merged, &["--shard", &format!("{part}/3")]);
            names.push(folder.path().join(format!("parts.{part}-of-3.{ending}")));
        }
        let mut arguments = vec!["merge"];
        arguments.extend(names.iter().rev().map(|name| path(name)));
        arguments.extend(["--out", path(&merged)]);
        well(1, &arguments);
        assert!(std::fs::read(&merged).unwrap() == expected, "{ending} of three parts");
    }
}

/// A row's figures, without the time that they took.
fn figures(file: &Path) -> serde_json::Value {
    let mut rows: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    for row in rows.as_array_mut().unwrap() {
        let took = row.as_object_mut().unwrap().remove("seconds");
        assert_eq!(took.is_some(), row["sampler"].is_object(), "{row}");
        assert!(row["metrics"].is_object(), "{row}");
    }
    rows
}

#[test]
fn figures_and_statistics_are_identical_for_any_number_of_processes() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let data = folder.path().join("data.toml");
    std::fs::write(&data, "data.source = { kind = 'shapes', size = 8, count = 500 }").unwrap();
    let files =
        |name: &str| (folder.path().join(format!("{name}.safetensors")), folder.path().join(format!("{name}.json")));
    let statistics = |ranks: usize, out: &Path, extra: &[&str]| {
        well(ranks, &[&["stats", path(&data), "--features", "pixels", "--out", path(out)], extra].concat());
    };
    // Also samples in files, and the likelihood.
    let samples = folder.path().join("samples.npz");
    well(1, &["sample", "--checkpoint", path(&model), "--num", "200", "--steps", "1", "--out", path(&samples)]);
    let figures_of = |ranks: usize, real: &Path, out: &Path, extra: &[&str]| {
        let fakes = ["eval", "--real", path(real), "--fake", path(&model), path(&samples), "--features", "pixels"];
        let rest = ["--num", "300", "--steps", "1", "--batch", "32", "--kid-subset-size", "100", "--out", path(out)];
        well(ranks, &[&fakes[..], &rest[..], extra].concat());
    };
    let likelihood = ["--nll", "--nll-times", "3"];
    let measure = |ranks: usize| {
        let (stats, out) = files(&ranks.to_string());
        statistics(ranks, &stats, &[]);
        figures_of(ranks, &data, &out, &likelihood);
        (std::fs::read(stats).unwrap(), figures(&out))
    };
    let (stats, rows) = measure(1);
    assert!(rows[0]["likelihood"]["bits_per_dim"].is_number() && rows[1]["metrics"].is_object(), "{rows}");
    for ranks in [3, 4] {
        let (other_stats, other_rows) = measure(ranks);
        assert!(stats == other_stats, "statistics of {ranks} ranks");
        assert_eq!(rows, other_rows, "{ranks} ranks");
    }

    // Three processes that do not talk. The third has no batch of the samples in files.
    let (merged_stats, merged) = (files("merged-stats").0, files("merged").1);
    let merge = |out: &Path| {
        let part = |part: usize| out.with_extension(format!("{part}-of-3.safetensors"));
        let parts = [3, 1, 2].map(part);
        let [a, b, c] = parts.each_ref().map(|part| path(part));
        well(1, &["merge", a, b, c, "--out", path(out)]);
    };
    for part in ["1/3", "2/3", "3/3"] {
        statistics(1, &merged_stats, &["--shard", part]);
        figures_of(1, &data, &merged, &[&likelihood[..], &["--shard", part]].concat());
    }
    merge(&merged_stats);
    assert!(std::fs::read(&merged_stats).unwrap() == stats, "statistics of three parts");
    merge(&merged);
    assert_eq!(figures(&merged), rows, "three parts");
    let against = folder.path().join("against.json");
    let known = files("1").0;
    figures_of(1, &known, &against, &[]);
    let parts_against = folder.path().join("parts-against.json");
    for part in ["1/3", "2/3", "3/3"] {
        figures_of(1, &known, &parts_against, &["--shard", part]);
    }
    merge(&parts_against);
    assert_eq!(figures(&parts_against), figures(&against), "three parts, against statistics");
}

#[test]
fn a_sweep_has_the_same_tables_for_any_number_of_processes() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    std::fs::write(folder.path().join("data.toml"), "data.source = { kind = 'shapes', size = 8, count = 200 }")
        .unwrap();
    let plan = folder.path().join("plan.toml");
    let text = format!(
        "title = 'Shapes'\nnum = 64\nreference = {{ data = 'data.toml', features = 'pixels' }}\n\
         [[model]]\nname = 'k2'\ncheckpoint = '{}'\n[[grid]]\nsolvers = ['gm-ode', 'euler', 'heun']\nsteps = [1, 2]\n",
        path(&model)
    );
    std::fs::write(&plan, text).unwrap();
    let table = |out: &Path| std::fs::read_to_string(out.join("table.md")).unwrap();
    let one = folder.path().join("one");
    well(1, &["sweep", path(&plan), "--out", path(&one)]);
    let without_seconds = |text: String| -> Vec<String> {
        let is_time = |cell: &str| cell.trim().ends_with(" s");
        text.lines().map(|line| line.split('|').filter(|cell| !is_time(cell)).collect::<Vec<_>>().join("|")).collect()
    };
    let expected = without_seconds(table(&one));
    let three = folder.path().join("three");
    well(3, &["sweep", path(&plan), "--out", path(&three)]);
    assert_eq!(without_seconds(table(&three)), expected);
    let parts = folder.path().join("parts");
    for part in ["1/2", "2/2"] {
        well(1, &["sweep", path(&plan), "--out", path(&parts), "--shard", part]);
    }
    assert!(!parts.join("table.md").exists());
    well(1, &["sweep", path(&plan), "--out", path(&parts)]);
    assert_eq!(without_seconds(table(&parts)), expected);
}

/// A checkpoint with an autoencoder that halves height and width.
fn write_autoencoder(folder: &Path) {
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 1,
        attention_head_dim: 4,
        num_layers: 1,
        sample_size: 8,
        num_embeds_ada_norm: 0,
        logstd_inner_dim: 8,
        ..GmDitConfig::default()
    });
    let vae = AutoencoderConfig {
        block_out_channels: vec![4, 4],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..AutoencoderConfig::default()
    };
    let data = DataInfo { channels: 4, height: 8, width: 8, kind: DataKind::Latents };
    let info = ModelInfo { latent: Some(LatentInfo::from(&vae)), ..ModelInfo::new(network.clone(), data) };
    let (network, vae) = (network.init(1, &device).unwrap(), Some(vae.init(2, &device).unwrap()));
    export_diffusers(&Model { info, network, spectrum: None, vae }, folder, &ExportOptions::default()).unwrap();
}

#[test]
fn a_cache_of_latents_has_the_same_bytes_for_any_number_of_processes() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (images, vae) = (folder.path().join("images"), folder.path().join("vae"));
    write_autoencoder(&vae);
    for (class, shade) in [("dark", 20u8), ("light", 200)] {
        std::fs::create_dir_all(images.join(class)).unwrap();
        for index in 0..17u8 {
            let pixel = |x: u32, y: u32| image::Rgb([shade, index * 9, (x * 16 + y) as u8]);
            image::RgbImage::from_fn(16, 16, pixel).save(images.join(class).join(format!("{index:02}.png"))).unwrap();
        }
    }
    let encode = |ranks: usize, out: &Path, extra: &[&str]| {
        let arguments =
            ["encode", "--vae", path(&vae), "--images", path(&images), "--size", "16", "--out", path(out)];
        well(ranks, &[&arguments[..], &["--mirror", "--batch", "4", "--shard", "10"], extra].concat());
    };
    let one = folder.path().join("one");
    encode(1, &one, &[]);
    let expected = files(&one);
    assert_eq!(expected.len(), 5, "four shards and the manifest: {:?}", expected.keys());
    for ranks in [2, 3] {
        let out = folder.path().join(format!("ranks-{ranks}"));
        encode(ranks, &out, &[]);
        assert!(files(&out) == expected, "{ranks} ranks");
    }
    let parts = folder.path().join("parts");
    for part in ["1/3", "2/3", "3/3"] {
        encode(1, &parts, &["--part", part]);
    }
    well(1, &["merge", path(&parts), "--out", path(&parts)]);
    assert!(files(&parts) == expected, "three parts");
}
