//! PyTorch files with more than weights in them.

use super::message;
use gmflow::checkpoint::{Precision, PytorchFile, read_tensors};
use std::path::Path;

#[test]
fn counters_beside_weights_do_not_block_an_import() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pytorch/nested.pt");
    let file = PytorchFile::open(&path, None).expect("opened").select("diffusion").expect("tensors below it");
    assert_eq!(file.integers(), ["steps"]);
    let out = tempfile::tempdir().expect("a folder");
    let out = out.path().join("out.safetensors");
    file.convert(&out, Precision::F32).expect("converted");
    let written = read_tensors(&out).expect("readable");
    assert!(!written.is_empty() && !written.contains_key("steps"), "{:?}", written.keys());
}

#[test]
fn what_is_no_pytorch_file_is_called_what_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("weights.pth");
    for (bytes, words) in [
        (&b""[..], "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>Sign in</html>", "an HTML page"),
        (b"\x08\0\0\0\0\0\0\0{}      ", "a safetensors file"),
        (b"Access denied", "a text file"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        let message = message(&path, PytorchFile::open(&path, None));
        assert!(message.contains(words), "{words}: {message}");
    }
}
