//! Weights in one safetensors file: writing, reading.

use super::digest::FileDigest;
use super::file;
use super::precision::{CHUNK, Precision};
use super::weight_files::WeightFiles;
use crate::kernel::MatmulPrecision;
use crate::network::{HostTensor, LazyTensor, Network, TorchNames, lazy_tensors, load_named, load_packed};
use crate::{Error, Result};
use rayon::prelude::*;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Headers are padded to a multiple of this, as the format asks.
const ALIGNMENT: usize = 8;

/// Writes named tensors to a safetensors file, atomically, and returns the file's digest.
///
/// # Errors
/// [`crate::FilesError::Io`]; [`crate::FilesError::File`] naming a tensor with a value that is not finite in that precision: no file is
/// written that cannot be loaded.
pub fn write_tensors(path: &Path, tensors: &[(String, HostTensor)], precision: Precision) -> Result<FileDigest> {
    let named: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect();
    write(path, &named, precision, |i| encode_finite(path, &tensors[i].0, &tensors[i].1.values, precision))
}

/// [`write_tensors`] of a module's parameters. One tensor at a time is copied.
///
/// # Errors
/// Those of [`write_tensors`].
pub fn write_module<M: TorchNames>(path: &Path, module: &M, precision: Precision) -> Result<FileDigest> {
    write_lazy(path, &lazy_tensors(module), precision)
}

/// [`write_module`] for parameters that have been listed.
pub(super) fn write_lazy(path: &Path, tensors: &[(String, LazyTensor)], precision: Precision) -> Result<FileDigest> {
    let named: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.as_slice())).collect();
    write(path, &named, precision, |i| encode_finite(path, &tensors[i].0, &tensors[i].1.values(), precision))
}

/// The bytes of a tensor; a value that is not finite, or becomes so in the precision, is refused.
fn encode_finite(path: &Path, name: &str, values: &[f32], precision: Precision) -> Result<Vec<u8>> {
    let unfit = |value: &&f32| !precision.round(**value).is_finite();
    match values.par_chunks(CHUNK).find_map_first(|part| part.iter().find(unfit)) {
        Some(value) => {
            let expected = format!("finite values within the range of {}", precision.name());
            Err(Error::file(path, format!("tensor {name}"), expected, value))
        }
        None => Ok(precision.encode(values)),
    }
}

/// Writes the header of tensors with these names and shapes, and then the bytes that `data` gives for each; returns the file's digest.
pub(super) fn write(
    path: &Path,
    tensors: &[(&str, &[usize])],
    precision: Precision,
    data: impl Fn(usize) -> Result<Vec<u8>>,
) -> Result<FileDigest> {
    let mut offset = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for (name, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * precision.bytes();
        let info = TensorInfo { dtype: precision.dtype(), shape: shape.to_vec(), data_offsets: (offset, end) };
        infos.push(((*name).to_owned(), info));
        offset = end;
    }
    let sizes: Vec<usize> = infos.iter().map(|(_, info)| info.data_offsets.1 - info.data_offsets.0).collect();
    let unwritable = |error: &dyn std::fmt::Display| Error::file(path, "header", "serialisable tensors", error);
    let metadata = Metadata::new(None, infos).map_err(|error| unwritable(&error))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| unwritable(&error))?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let mut failure = None;
    file::write_atomic_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (i, size) in sizes.iter().enumerate() {
            let wrong = |got| Error::file(path, tensors[i].0, format!("{size} bytes, as its shape says"), got);
            match data(i) {
                Ok(bytes) if bytes.len() == *size => file.write_all(&bytes)?,
                Ok(bytes) => failure = Some(wrong(bytes.len())),
                Err(error) => failure = Some(error),
            }
            if failure.is_some() {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    })
    .map_err(|error| failure.unwrap_or(error))
}

/// Reads every tensor of a safetensors file (f32, f64, bf16 or f16) as f32; integers are left out.
///
/// # Errors
/// [`crate::FilesError::Io`] where it cannot be read; [`crate::FilesError::File`] where it is truncated, not a safetensors file or holds
/// another number format.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, HostTensor>> {
    WeightFiles::open(path)?.read_all()
}

/// Replaces a module's parameters by those of a safetensors file.
///
/// # Errors
/// Those of [`read_tensors`], and [`crate::FilesError::File`] naming a tensor that is missing, left over, of the wrong shape or not
/// finite.
pub fn load_weights<M: TorchNames>(module: M, path: &Path) -> Result<M> {
    load_files(module, WeightFiles::open(path)?)
}

/// [`load_weights`] from open files.
pub(super) fn load_files<M: TorchNames>(module: M, files: WeightFiles) -> Result<M> {
    let path = files.path().to_owned();
    load_named(module, files).map_err(|error| in_file(&path, error))
}

/// [`load_files`] of a network without values, packed on the way where that is asked for.
pub(super) fn load_network(network: Network, files: WeightFiles, pack: Option<MatmulPrecision>) -> Result<Network> {
    let Some(arithmetic) = pack else { return load_files(network, files) };
    let path = files.path().to_owned();
    load_packed(network, files, arithmetic).map_err(|error| in_file(&path, error))
}

/// The same error with the file that a setting or tensor was read from.
pub(super) fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Files(error) => error.in_file(path).into(),
        other => other,
    }
}
