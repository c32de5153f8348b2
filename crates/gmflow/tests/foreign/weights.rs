//! Files of weights.

use super::{WEIGHTS, folder, load, message, model, weights};
use half::f16;
use serde_json::{Map, Value, json};
use std::fs;

const LFS: &str =
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n";

/// A tensor as it stands in a file.
struct Stored {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(name: &str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self { name: name.into(), dtype, shape: shape.to_vec(), bytes }
    }
}

/// The weights of the model, each number written by `write`.
fn stored(dtype: &'static str, write: impl Fn(f32) -> Vec<u8>) -> Vec<Stored> {
    let all = weights(&model());
    let bytes = |values: &[f32]| values.iter().flat_map(|value| write(*value)).collect();
    all.iter().map(|(name, tensor)| Stored::new(name, dtype, &tensor.shape, bytes(&tensor.values))).collect()
}

fn plain() -> Vec<Stored> {
    stored("F32", |value| value.to_le_bytes().to_vec())
}

/// The header, and the bytes of the tensors with `gap` zeros between them.
fn packed(tensors: &[Stored], gap: usize) -> (Map<String, Value>, Vec<u8>) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for tensor in tensors {
        data.extend(vec![0; if data.is_empty() { 0 } else { gap }]);
        let offsets = [data.len(), data.len() + tensor.bytes.len()];
        header.insert(
            tensor.name.clone(),
            json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}),
        );
        data.extend(&tensor.bytes);
    }
    (header, data)
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn file_of(tensors: &[Stored]) -> Vec<u8> {
    let (header, data) = packed(tensors, 0);
    file(&Value::Object(header).to_string(), &data)
}

/// The file with another entry in its header.
fn file_with(name: &str, entry: Value) -> Vec<u8> {
    let (mut header, data) = packed(&plain(), 0);
    header.insert(name.into(), entry);
    file(&Value::Object(header).to_string(), &data)
}

#[test]
fn files_that_are_right_in_an_unusual_way_are_read() {
    let dir = folder();
    let (header, data) = packed(&plain(), 0);
    let header = Value::Object(header).to_string();
    let with = |more: Stored| file_of(&plain().into_iter().chain([more]).collect::<Vec<_>>());
    for (what, bytes) in [
        ("the format of PyTorch", file_with("__metadata__", json!({"format": "pt"}))),
        ("metadata that are null", file_with("__metadata__", Value::Null)),
        ("a header of any length", file(&format!("{header}{}", " ".repeat(3)), &data)),
        ("many blanks", file(&format!("{header}{}", " ".repeat(1000)), &data)),
        ("a blank in front", file(&format!(" {header}"), &data)),
        ("f64", file_of(&stored("F64", |value| f64::from(value).to_le_bytes().to_vec()))),
        ("an empty tensor more", with(Stored::new("extra.empty", "F32", &[0, 4], Vec::new()))),
        ("a buffer of integers", with(Stored::new("pos_embed.position_ids", "I64", &[1, 4], vec![0; 32]))),
        ("a buffer of truth values", with(Stored::new("transformer_blocks.0.mask", "BOOL", &[3], vec![0; 3]))),
        ("a number beside the network", with(Stored::new("ema.decay", "F32", &[1], vec![0; 4]))),
    ] {
        fs::write(dir.path().join(WEIGHTS), bytes).expect("written");
        let got = load(dir.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(weights(&got), weights(&model()), "{what}");
    }
    fs::write(dir.path().join(WEIGHTS), file_of(&stored("F16", |value| f16::from_f32(value).to_le_bytes().to_vec())))
        .expect("written");
    let got = load(dir.path()).expect("f16");
    for (name, tensor) in weights(&model()) {
        let rounded: Vec<f32> = tensor.values.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
        assert_eq!(weights(&got)[&name].values, rounded, "{name}");
    }
}

#[test]
fn files_that_are_wrong_are_called_what_they_are() {
    let dir = folder();
    let path = dir.path().join(WEIGHTS);
    let (header, data) = packed(&plain(), 0);
    let (name, entry) = header.iter().next().map(|(name, entry)| (name.clone(), entry.clone())).expect("a tensor");
    let header = Value::Object(header).to_string();
    let twice = format!("{},\"{name}\":{entry}}}", &header[..header.len() - 1]);
    let gap = packed(&plain(), 4);
    let eight_bits = stored("F8_E4M3", |_| vec![0]);
    let prefixed: Vec<Stored> =
        plain().into_iter().map(|tensor| Stored { name: format!("module.{}", tensor.name), ..tensor }).collect();
    let mut reshaped = plain();
    reshaped[0].shape.push(1);
    let mut more_layers = plain();
    more_layers.push(Stored::new("transformer_blocks.1.attn1.to_q.bias", "F32", &[1], vec![0; 4]));
    let pytorch =
        [b"PK\x03\x04", &[0; 22][..], &16u16.to_le_bytes(), &[0; 2], b"archive/data.pkl", &[0; 99]].concat();
    let mut entry_without_shape = entry.clone();
    entry_without_shape.as_object_mut().expect("an object").remove("shape");
    for (bytes, words) in [
        (b"".to_vec(), "content: expected a safetensors file, got an empty file"),
        (vec![0; 500], "got zero bytes"),
        (LFS.into(), "got a Git LFS pointer in place of the file (run `git lfs pull`)"),
        ("<!DOCTYPE html><html><body>Please log in</body></html>".repeat(50).into(), "got an HTML page"),
        ("{\"error\": \"Entry not found\"}".into(), "got a JSON text"),
        ("Entry not found".into(), "got a text file"),
        (pytorch, "got a PyTorch file (`gmflow import` turns it into safetensors)"),
        (b"\x80\x02}q\x00.".to_vec(), "got a Python pickle"),
        (file(&header, &data)[..7].to_vec(), "expected a complete safetensors file, got 7 bytes"),
        (file(&header, &data)[..100].to_vec(), "less than its header says: it is cut short"),
        (file(&header, &data[..data.len() - 4]), "content: expected a complete safetensors file"),
        (file(&header, &[&data[..], &[0; 16]].concat()), "content: expected a complete safetensors file"),
        (file(&twice, &data), "expected a name that stands once in its object, got it twice"),
        (file(&Value::Object(gap.0).to_string(), &gap.1), "got a gap or an overlap"),
        (file_with("__metadata__", json!({"step": 1000})), "header: __metadata__.step: expected text, got 1000"),
        (file_with(&name, entry_without_shape), "shape: expected a value, got none: the setting is missing"),
        (file_with("x", json!(3)), "tensor x: content: expected an object, got 3"),
        (file_of(&eight_bits), "expected f32, f64, bf16 or f16, got F8_E4M3"),
        (file_of(&plain()[1..]), "got no tensor of that name"),
        (file_of(&prefixed), "names that begin with module."),
        (file_of(&reshaped), ", 1]"),
        (
            file_of(&more_layers),
            "tensor transformer_blocks.1.attn1.to_q.bias: expected no such tensor in this network",
        ),
    ] {
        fs::write(&path, bytes).expect("written");
        let message = message(&path, load(dir.path()));
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[test]
fn a_shard_that_is_missing_or_a_pointer_is_named() {
    let dir = folder();
    let path = dir.path().join(WEIGHTS);
    fs::remove_file(&path).expect("removed");
    let (all, shards) = (plain(), ["s-00001-of-00002.safetensors", "s-00002-of-00002.safetensors"]);
    let map: Map<String, Value> =
        all.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), json!(shards[i * 2 / all.len()]))).collect();
    let half = all.len().div_ceil(2);
    for (shard, part) in shards.iter().zip([&all[..half], &all[half..]]) {
        fs::write(path.with_file_name(shard), file_of(part)).expect("written");
    }
    let index = path.with_file_name("diffusion_pytorch_model.safetensors.index.json");
    for index_text in [json!({"weight_map": map}), json!({"metadata": {"total_size": 1}, "weight_map": map})] {
        fs::write(&index, format!("\u{feff}{index_text}")).expect("written");
        assert_eq!(weights(&load(dir.path()).expect("loaded")), weights(&model()));
    }
    let second = path.with_file_name(shards[1]);
    fs::write(&second, LFS).expect("written");
    assert!(message(&second, load(dir.path())).contains("Git LFS pointer"));
    fs::remove_file(&second).expect("removed");
    let missing = load(dir.path()).expect_err("an error").to_string();
    assert!(missing.starts_with(&second.display().to_string()), "{missing}");
    fs::write(&index, LFS).expect("written");
    assert!(message(&index, load(dir.path())).contains("Git LFS pointer"));
    fs::write(&index, "{\"weight_map\": []}").expect("written");
    assert!(message(&index, load(dir.path())).contains("weight_map: expected an object, got a list of 0"));
}
