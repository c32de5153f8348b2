//! Model folders: what is needed to sample from a trained network.
//!
//! A [`Model`] folder holds `model.json` and safetensors files of weights; [`load_diffusers_transformer`] reads the
//! folders of published checkpoints. Every file is written atomically.

mod diffusers;
mod file;
mod model;
mod weights;

pub use diffusers::{load_diffusers_spectrum, load_diffusers_transformer};
pub use file::write_atomic;
pub use model::{DataInfo, DataKind, LatentInfo, Model, ModelInfo, Progress};
pub use weights::{Precision, load_weights, read_tensors, write_tensors};
