//! Weights in safetensors files.

use super::file;
use crate::network::{HostTensor, TorchNames, load_named};
use crate::{Error, Result};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

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

    fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        }
    }
}

/// Writes named tensors to a safetensors file, atomically.
pub fn write_tensors(path: &Path, tensors: &[(String, HostTensor)], precision: Precision) -> Result<()> {
    let encoded: Vec<Vec<u8>> = tensors.iter().map(|(_, tensor)| precision.encode(&tensor.values)).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), bytes) in tensors.iter().zip(&encoded) {
        let view = TensorView::new(precision.dtype(), tensor.shape.clone(), bytes)
            .map_err(|error| Error::file(path, name, "as many values as the shape has", error))?;
        views.push((name.as_str(), view));
    }
    let bytes = serialize(views, None).map_err(|error| Error::file(path, "header", "serialisable tensors", error))?;
    file::write_atomic(path, &bytes)
}

/// Reads every tensor of a safetensors file (f32, bf16 or f16) as f32.
///
/// # Errors
/// [`Error::Io`] where it cannot be read; [`Error::File`] where it is truncated, not a safetensors file or holds
/// another number format.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, HostTensor>> {
    let bytes = file::read(path)?;
    let archive = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::file(path, "header", "a complete safetensors file", error))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in archive.iter() {
        let values = decode(&view).ok_or_else(|| {
            Error::file(path, format!("tensor {name}"), "f32, bf16 or f16", format!("{:?}", view.dtype()))
        })?;
        tensors.insert(name.to_owned(), HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
}

/// Replaces a module's parameters by those of a safetensors file.
///
/// # Errors
/// Those of [`read_tensors`], and [`Error::File`] naming a tensor that is missing, left over, of the wrong shape or not
/// finite.
pub fn load_weights<M: TorchNames>(module: M, path: &Path) -> Result<M> {
    load_named(module, read_tensors(path)?).map_err(|error| in_file(path, error))
}

/// The same error with the file that a setting or tensor was read from.
pub(super) fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Config { field, expected, got } => Error::file(path, field, expected, got),
        other => other,
    }
}

fn decode(view: &TensorView) -> Option<Vec<f32>> {
    let pairs = || view.data().as_chunks::<2>().0.iter();
    match view.dtype() {
        Dtype::F32 => Some(view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        Dtype::BF16 => Some(pairs().map(|&b| bf16::from_le_bytes(b).to_f32()).collect()),
        Dtype::F16 => Some(pairs().map(|&b| f16::from_le_bytes(b).to_f32()).collect()),
        _ => None,
    }
}
