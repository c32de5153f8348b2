//! Model folders: what is needed to sample from a trained network.
//!
//! A [`Model`] folder holds `model.json` and safetensors files of weights, or is a published checkpoint in the layout of the
//! diffusers library, which [`export_diffusers`] writes. A [`PytorchFile`] becomes one of their files. Every file is written
//! atomically.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Precision};
//! use gmflow::network::{Mlp2dConfig, NetworkConfig};
//!
//! let network = NetworkConfig::Mlp2d(Mlp2dConfig { hidden_dim: 8, embed_dim: 4, ..Mlp2dConfig::default() });
//! let data = DataInfo { channels: 2, height: 1, width: 1, kind: DataKind::Points };
//! let (weights, info) = (network.init(0, &Device::flex())?, ModelInfo::new(network, data));
//! let model = Model { info, network: weights, spectrum: None, vae: None };
//!
//! let folder = tempfile::tempdir()?;
//! model.save(folder.path(), &[], Precision::F16)?;
//! assert_eq!(Model::load(folder.path(), None, &Device::flex())?.info, model.info);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod class_names;
mod diffusers;
mod digest;
mod file;
mod header;
pub mod hub;
mod model;
mod open;
mod precision;
mod pytorch;
mod weight_files;
mod weights;

pub use crate::network::LatentInfo;
pub use class_names::ClassNames;
pub use diffusers::{
    ExportOptions, StoredVae, export_diffusers, load_diffusers_spectrum, load_diffusers_transformer,
    load_diffusers_vae, weight_file,
};
pub use digest::{Digests, FileDigest};
pub use file::{remove_leftovers, write_atomic};
pub use gmflow_files::what_is;
pub use header::read as read_header;
pub use model::{DataInfo, DataKind, LoadOptions, Model, ModelInfo, Progress, StudentInfo, TeacherInfo, TrainedOn};
pub use open::model_folder;
pub use precision::Precision;
pub use pytorch::PytorchFile;
pub use weight_files::{StoredTensor, WeightFiles};
pub use weights::{load_weights, read_tensors, write_module, write_tensors};
