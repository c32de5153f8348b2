//! Damaged files: whatever becomes of their bytes, reading them ends in an error or in a valid value.
#![allow(missing_docs)]

use burn::tensor::Device;
use gmflow::checkpoint::{
    DataInfo, DataKind, ExportOptions, LatentInfo, Model, ModelInfo, Precision, Progress, PytorchFile, WeightFiles,
    export_diffusers, load_diffusers_transformer, load_diffusers_vae, load_weights,
};
use gmflow::network::{AutoencoderConfig, GmDitConfig, NetworkConfig};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::cell::Cell;
use std::fs;
use std::path::Path;

const CASES: u32 = 300;
/// What parsers of numbers and of nested values stumble over.
const TOKENS: [&[u8]; 14] = [
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967296",
    b"99999",
    b"null",
    b"[[[[",
    b"{}",
    b"\"\"",
    b"..",
    &[0xff; 8],
    &[0x00; 8],
];

/// One change to the bytes of a file; places are fractions of its length.
#[derive(Clone, Debug)]
enum Change {
    Flip(f64, u8),
    Truncate(f64),
    /// Copies a part over another.
    Splice(f64, f64, usize),
    Remove(f64, usize),
    Insert(f64, usize),
    Overwrite(f64, usize),
    /// Puts a token in the place of the next number in decimal digits.
    Number(f64, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |fraction: f64| (fraction * bytes.len() as f64) as usize;
        match *self {
            Self::Flip(place, mask) => {
                let at = at(place);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Self::Truncate(place) => bytes.truncate(at(place)),
            Self::Splice(from, to, length) => {
                let (from, to) = (at(from), at(to));
                let part: Vec<u8> = bytes.iter().skip(from).take(length).copied().collect();
                bytes.iter_mut().skip(to).zip(part).for_each(|(byte, new)| *byte = new);
            }
            Self::Remove(place, length) => {
                let start = at(place);
                let end = bytes.len().min(start + length);
                drop(bytes.drain(start..end));
            }
            Self::Insert(place, token) => {
                let at = at(place);
                drop(bytes.splice(at..at, TOKENS[token].iter().copied()));
            }
            Self::Overwrite(place, token) => {
                let at = at(place);
                bytes.iter_mut().skip(at).zip(TOKENS[token]).for_each(|(byte, new)| *byte = *new);
            }
            Self::Number(place, token) => {
                let number = bytes.iter().skip(at(place)).position(u8::is_ascii_digit).map(|found| at(place) + found);
                if let Some(start) = number {
                    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    drop(bytes.splice(start..start + length, TOKENS[token].iter().copied()));
                }
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let (place, token) = (0.0..1.0f64, 0..TOKENS.len());
    prop_oneof![
        4 => (place.clone(), 1..=255u8).prop_map(|(at, mask)| Change::Flip(at, mask)),
        1 => place.clone().prop_map(Change::Truncate),
        2 => (place.clone(), place.clone(), 1..64usize).prop_map(|(from, to, n)| Change::Splice(from, to, n)),
        1 => (place.clone(), 1..32usize).prop_map(|(at, n)| Change::Remove(at, n)),
        2 => (place.clone(), token.clone()).prop_map(|(at, token)| Change::Insert(at, token)),
        2 => (place.clone(), token.clone()).prop_map(|(at, token)| Change::Overwrite(at, token)),
        4 => (place, token).prop_map(|(at, token)| Change::Number(at, token)),
    ]
}

/// Damages the file at `path` again and again and lets `read` look at it: no panic, and errors as the house writes them.
fn survive<T>(path: &Path, read: impl Fn() -> gmflow::Result<T>) {
    let whole = fs::read(path).expect("readable");
    assert!(read().is_ok(), "{}: undamaged, it is valid", path.display());
    let config = Config { cases: CASES, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..Config::default() };
    let refused = Cell::new(0);
    let result = TestRunner::new(config).run(&proptest::collection::vec(change(), 1..4), |changes| {
        let mut bytes = whole.clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        fs::write(path, &bytes).expect("written");
        if let Err(error) = read() {
            refused.set(refused.get() + 1);
            let message = error.to_string();
            prop_assert!(message.len() < 4000, "{} characters: {message}", message.len());
        }
        Ok(())
    });
    fs::write(path, &whole).expect("written");
    result.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(refused.get() > CASES / 4, "{}: only {} files were refused", path.display(), refused.get());
}

/// A small model with everything that a folder can hold.
fn model() -> Model {
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 1,
        attention_head_dim: 4,
        num_layers: 1,
        sample_size: 4,
        num_embeds_ada_norm: 2,
        logstd_inner_dim: 4,
        ..GmDitConfig::default()
    });
    let vae = AutoencoderConfig {
        block_out_channels: vec![2, 4],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..AutoencoderConfig::default()
    };
    Model {
        network: network.init(1, &device).expect("valid"),
        spectrum: None,
        vae: Some(vae.init(3, &device).expect("valid")),
        info: ModelInfo {
            latent: Some(LatentInfo { scaling_factor: 0.2, shift_factor: 0.0, downsampling: 2, vae: None }),
            classes: Some(vec!["tench".into(), "magpie".into()]),
            progress: Progress { step: 7, images: 70 },
            ..ModelInfo::new(network, DataInfo { channels: 4, height: 4, width: 4, kind: DataKind::Latents })
        },
    }
}

fn published(options: &ExportOptions) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    export_diffusers(&model(), folder.path(), options).expect("written");
    folder
}

#[test]
fn weights() {
    let folder = published(&ExportOptions { precision: Precision::Bf16, ..ExportOptions::default() });
    let path = folder.path().join("transformer/diffusion_pytorch_model.safetensors");
    let network = model().network;
    survive(&path, || load_weights(network.clone(), &path));
}

#[test]
fn indices_of_shards() {
    let folder = published(&ExportOptions { shard_bytes: 1000, ..ExportOptions::default() });
    let path = folder.path().join("transformer/diffusion_pytorch_model.safetensors.index.json");
    survive(&path, || WeightFiles::open_index(&path));
}

#[test]
fn configs_of_components() {
    let folder = published(&ExportOptions::default());
    let device = Device::flex();
    let transformer = folder.path().join("transformer");
    survive(&transformer.join("config.json"), || load_diffusers_transformer(&transformer, None, &device));
    let vae = folder.path().join("vae");
    survive(&vae.join("config.json"), || load_diffusers_vae(&vae, None, &device));
}

#[test]
fn descriptions_of_models() {
    let device = Device::flex();
    let folder = published(&ExportOptions::default());
    survive(&folder.path().join("model_index.json"), || Model::load(folder.path(), None, &device));
    let folder = tempfile::tempdir().expect("a folder");
    model().save(folder.path(), &[], Precision::F32).expect("saved");
    survive(&folder.path().join("model.json"), || Model::load(folder.path(), None, &device));
}

#[test]
fn pytorch_files() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pytorch");
    let folder = tempfile::tempdir().expect("a folder");
    let (path, out) = (folder.path().join("file.pt"), folder.path().join("out.safetensors"));
    for name in ["nested.pt", "legacy.pt", "flat.pt"] {
        fs::copy(data.join(name), &path).expect("copied");
        let prefix = if name == "flat.pt" { "" } else { "diffusion_ema." };
        survive(&path, || PytorchFile::open(&path, None)?.select(prefix)?.convert(&out, Precision::F32));
    }
}
