//! Weights in one safetensors file: number formats, writing, reading.

use super::digest::FileDigest;
use super::file;
use super::weight_files::WeightFiles;
use crate::kernel::MatmulPrecision;
use crate::network::{HostTensor, LazyTensor, Network, TorchNames, lazy_tensors, load_named, load_packed};
use crate::{Error, Result};
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Values that one thread converts at a time.
const CHUNK: usize = 1 << 16;
/// Headers are padded to a multiple of this, as the format asks.
const ALIGNMENT: usize = 8;

/// The number format of weights in a file; arithmetic is in f32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 16 bits, IEEE half precision.
    F16,
}

impl Precision {
    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The number that is stored for `value`.
    pub(super) fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => bf16::from_f32(value).to_f32(),
            Self::F16 => f16::from_f32(value).to_f32(),
        }
    }

    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    pub(super) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        }
    }
}

/// Writes named tensors to a safetensors file, atomically, and returns the file's digest.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] naming a tensor with a value that is not finite in that precision: no file is written that cannot be
/// loaded.
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
/// [`Error::Io`] where it cannot be read; [`Error::File`] where it is truncated, not a safetensors file or holds
/// another number format.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, HostTensor>> {
    WeightFiles::open(path)?.read_all()
}

/// Replaces a module's parameters by those of a safetensors file.
///
/// # Errors
/// Those of [`read_tensors`], and [`Error::File`] naming a tensor that is missing, left over, of the wrong shape or not
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
        Error::Config { field, expected, got } => Error::file(path, field, expected, got),
        other => other,
    }
}

/// Little-endian numbers as f32; `None` for number formats that are no weights.
pub(super) fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(convert(bytes, f32::from_le_bytes)),
        Dtype::BF16 => Some(convert(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        Dtype::F16 => Some(convert(bytes, |b| f16::from_le_bytes(b).to_f32())),
        Dtype::F64 => Some(convert(bytes, |b| f64::from_le_bytes(b) as f32)),
        _ => None,
    }
}

pub(super) fn convert<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    let numbers = bytes.as_chunks::<N>().0;
    let mut values = vec![0.0; numbers.len()];
    let parts = values.par_chunks_mut(CHUNK).zip(numbers.par_chunks(CHUNK));
    parts.for_each(|(values, numbers)| values.iter_mut().zip(numbers).for_each(|(v, &b)| *v = number(b)));
    values
}
