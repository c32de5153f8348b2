//! PyTorch files: every format and layout of tensors, and files that want to do harm. `data/pytorch/make.py` wrote them.
#![allow(missing_docs)]

use burn::tensor::Device;
use gmflow::checkpoint::{Model, Precision, PytorchFile, load_diffusers_transformer, read_tensors};
use gmflow::network::{HostTensor, named_tensors};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const PREFIX: &str = "diffusion_ema.denoising.";

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pytorch").join(name)
}

fn open(name: &str) -> gmflow::Result<PytorchFile> {
    PytorchFile::open(&data(name), None)
}

fn converted(file: &PytorchFile, precision: Precision) -> gmflow::Result<BTreeMap<String, HostTensor>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.safetensors");
    let result = file.convert(&path, precision).and_then(|()| read_tensors(&path));
    let left = fs::read_dir(folder.path()).expect("readable").count();
    assert_eq!(left, usize::from(result.is_ok()), "a file is whole or not there");
    result
}

fn message<T>(result: gmflow::Result<T>) -> String {
    let message = result.err().expect("an error").to_string();
    assert!(!message.contains('\n') && message.contains("expected") && message.len() < 1000, "{message}");
    message
}

/// What `make.py` saved below the prefix.
fn expected() -> BTreeMap<String, HostTensor> {
    let base: Vec<f32> = (0..12u8).map(f32::from).collect();
    let transposed = vec![0.0, 4.0, 8.0, 1.0, 5.0, 9.0, 2.0, 6.0, 10.0, 3.0, 7.0, 11.0];
    let tensors = [
        ("a.weight", vec![3, 4], base),
        ("a.transposed", vec![4, 3], transposed),
        ("a.part", vec![2, 2], vec![5.0, 6.0, 9.0, 10.0]),
        ("half", vec![3], vec![0.5, -2.0, 65504.0]),
        ("brain", vec![2, 2], vec![1.0, -3.0, 0.0, 2f32.powi(100)]),
        ("double", vec![], vec![0.25]),
        ("empty", vec![0, 3], vec![]),
    ];
    tensors.into_iter().map(|(name, shape, values)| (name.to_owned(), HostTensor { shape, values })).collect()
}

#[test]
fn every_number_format_and_layout_is_read() {
    for name in ["nested.pt", "legacy.pt"] {
        let file = open(name).and_then(|file| file.select(PREFIX)).expect(name);
        assert_eq!((file.len(), file.left_out()), (7, 3), "{name}");
        assert_eq!(converted(&file, Precision::F32).expect(name), expected(), "{name}");
        let short = converted(&file, Precision::Bf16).expect(name);
        assert_eq!((&short["brain"], &short["half"].values[2]), (&expected()["brain"], &65536.0), "{name}");
    }
}

#[test]
fn a_key_is_found_or_chosen() {
    let names = |file: PytorchFile| file.shapes().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(open("flat.pt").expect("whole")), ["b", "w"]);
    let all = open("nested.pt").expect("whole");
    assert_eq!(all.integers(), ["diffusion.steps"], "of the chosen key, without it");
    assert!(names(all).iter().all(|name| name.starts_with("diffusion")));
    let optimizer = PytorchFile::open(&data("nested.pt"), Some("optimizer")).expect("a key");
    assert_eq!(names(optimizer), ["state.0.exp_avg"]);
    let error = message(PytorchFile::open(&data("nested.pt"), Some("model")));
    assert!(error.contains("model.") && error.contains("optimizer.") && error.contains("state_dict."), "{error}");
}

#[test]
fn a_prefix_that_is_not_there_is_answered_with_those_that_are() {
    let select = |prefix: &str| open("nested.pt").expect("whole").select(prefix);
    assert_eq!(select("diffusion_ema.denoising").expect("without the dot").len(), 7);
    let error = message(select("ema."));
    for prefix in ["ema.", "diffusion_ema.denoising.", "diffusion.denoising."] {
        assert!(error.contains(prefix), "{error}");
    }
}

#[test]
fn numbers_that_weights_cannot_be_are_refused_by_name() {
    let error = message(converted(&open("not_finite.pt").expect("whole"), Precision::F32));
    assert!(error.contains("tensor broken") && error.contains("NaN"), "{error}");
    let large = open("large.pt").expect("whole");
    assert_eq!(converted(&large, Precision::F32).expect("in range")["w"].values, [1e6]);
    let error = message(converted(&large, Precision::F16));
    assert!(error.contains("tensor w") && error.contains("f16"), "{error}");
}

#[test]
fn a_pickle_is_not_run() {
    let file = open("command_beside.pt").expect("weights beside a call");
    assert_eq!(converted(&file, Precision::F32).expect("whole")["w"].values, [1.0, 1.0]);
    for name in ["command.pt", "command.pkl"] {
        message(open(name));
    }
    assert!(!Path::new("run-by-the-pickle").exists());
}

#[test]
fn claims_beyond_the_file_are_refused() {
    let error = message(open("compressed.pt"));
    assert!(error.contains("compress"), "{error}");
    let error = message(converted(&open("expanded.pt").expect("metadata only"), Precision::F32));
    assert!(error.contains("tensor w") && error.contains("8589934592"), "{error}");
    let error = message(converted(&open("short_storage.pt").expect("metadata only"), Precision::F32));
    assert!(error.contains("tensor w"), "{error}");
    message(open("overflow.pt"));
    // The mark of a tar file.
    let folder = tempfile::tempdir().expect("a folder");
    let tar = folder.path().join("old.pt");
    fs::write(&tar, [vec![0x80; 257], b"ustar\0".to_vec()].concat()).expect("written");
    assert!(message(PytorchFile::open(&tar, None)).contains("0.1.10"));
    message(PytorchFile::open(folder.path(), None));
    assert!(PytorchFile::open(&folder.path().join("none"), None).is_err());
}

#[test]
fn no_truncation_is_taken_for_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("short.pt");
    for name in ["flat.pt", "legacy.pt"] {
        let whole = fs::read(data(name)).expect("readable");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("written");
            let out = folder.path().join("out");
            let result = PytorchFile::open(&path, None).and_then(|file| file.convert(&out, Precision::F32));
            assert!(result.is_err(), "{name} cut to {length} of {} bytes", whole.len());
        }
    }
}

#[test]
fn a_component_is_checked_and_loads() {
    let folder = tempfile::tempdir().expect("a folder");
    let (dir, config) = (folder.path().join("transformer"), data("transformer.json"));
    let file = || open("transformer.pt").and_then(|file| file.select(PREFIX)).expect("whole");
    file().convert_component(&config, &dir, Precision::Bf16).expect("it fits");
    let network = load_diffusers_transformer(&dir, None, &Device::flex()).expect("loads");
    let direct = converted(&file(), Precision::F32).expect("whole");
    assert_eq!(named_tensors(&network).into_iter().collect::<BTreeMap<_, _>>(), direct);
    Model::load(&dir, None, &Device::flex()).expect("a model");
    // A network of another shape, one with more tensors, one with fewer, and no network.
    let text = fs::read_to_string(&config).expect("readable");
    let changed = folder.path().join("changed.json");
    let with = |from: &str, to: &str| {
        assert!(text.contains(from));
        fs::write(&changed, text.replace(from, to)).expect("written");
        let out = folder.path().join("other");
        let error = message(file().convert_component(&changed, &out, Precision::F32));
        assert!(!out.exists(), "{error}");
        error
    };
    assert!(with("\"logstd_inner_dim\": 4", "\"logstd_inner_dim\": 8").contains("tensor gm_out"));
    assert!(with("\"num_layers\": 1", "\"num_layers\": 2").contains("transformer_blocks.1"));
    assert!(with("\"in_channels\": 1", "\"in_channels\": 0").contains("in_channels"));
    assert!(with("GMDiTTransformer2DModel", "FlowEulerODEScheduler").contains("scheduler"));
    let whole = open("transformer.pt").expect("whole").convert_component(&config, &dir, Precision::F32);
    assert!(message(whole).contains("tensor"));
}
