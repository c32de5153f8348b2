//! The folders of published checkpoints, in the layout of the diffusers library:
//!
//! ```text
//! model_index.json                          the components; id2label: the classes' names
//! transformer/config.json                   and diffusion_pytorch_model[.variant].safetensors, whole or in shards;
//!                                           unet/ for a U-Net, which the published code does not know
//! spectrum_net/, vae/                       the same
//! scheduler/scheduler_config.json           the time grid
//! ```
//!
//! What a component is, its own config tells, whatever Python module the index names.

mod config;
mod export;
mod files;
mod folder;

pub use export::{ExportOptions, export_diffusers};
pub use files::weight_file;

pub(super) use files::choose_weights;
pub(super) use folder::{DiffusersFolder, INDEX_FILE, component_names, is_diffusers};

use super::weight_files::WeightFiles;
use super::weights::{in_file, load_files, load_network};
use crate::kernel::MatmulPrecision;
use crate::network::{
    Autoencoder, AutoencoderConfig, GmDit, Initializer, Network, NetworkConfig, SpectrumMlp, SpectrumMlpConfig,
    parameter_shapes,
};
use crate::{Error, Result};
use burn::tensor::Device;
use config::ComponentConfig;
use std::collections::BTreeMap;
use std::path::Path;

/// The file that describes a component.
pub(super) const CONFIG_FILE: &str = "config.json";
/// The name of weight files, without variant and extension.
pub(super) const WEIGHTS_STEM: &str = "diffusion_pytorch_model";

/// Reads the `transformer` folder of a published checkpoint; `variant` is the part of the file name such as `bf16`.
///
/// # Errors
/// [`crate::FilesError::Io`] or [`crate::FilesError::File`] naming the file and the tensor or field that is wrong, or a setting that
/// describes another architecture.
pub fn load_diffusers_transformer(dir: &Path, variant: Option<&str>, device: &Device) -> Result<GmDit> {
    match ComponentConfig::read(dir)? {
        ComponentConfig::Denoiser(NetworkConfig::GmDit(config)) => {
            let network = config.build(Initializer::blank(device)).map_err(|error| in_config(dir, error))?;
            load_files(network, files::open(dir, variant)?)
        }
        other => Err(other.instead_of("a GM-DiT", dir)),
    }
}

/// Reads the `spectrum_net` folder of a published checkpoint; see [`load_diffusers_transformer`].
///
/// # Errors
/// As [`load_diffusers_transformer`].
pub fn load_diffusers_spectrum(dir: &Path, variant: Option<&str>, device: &Device) -> Result<SpectrumMlp> {
    match ComponentConfig::read(dir)? {
        ComponentConfig::Spectrum(config) => load_spectrum(&config, dir, variant, device),
        other => Err(other.instead_of("a spectrum network", dir)),
    }
}

/// An autoencoder whose files are open and not yet read: its weights need memory only once it is wanted.
#[derive(Debug)]
pub struct StoredVae {
    config: AutoencoderConfig,
    files: WeightFiles,
}

impl StoredVae {
    /// Opens the `vae` folder of a published checkpoint, an AutoencoderKL, or that of the checkpoint in `dir`, which may have it in full
    /// precision only; see [`load_diffusers_transformer`]. The names that older versions gave to its attention are understood.
    ///
    /// # Errors
    /// As [`load_diffusers_transformer`].
    pub fn open(dir: &Path, variant: Option<&str>) -> Result<Self> {
        let inside = dir.join("vae");
        let is_part = dir.join(INDEX_FILE).is_file() && inside.is_dir();
        let (dir, variant) = if is_part { (&*inside, folder::beside(&inside, variant)) } else { (dir, variant) };
        match ComponentConfig::read(dir)? {
            ComponentConfig::Autoencoder(config) => {
                let files = files::open(dir, variant)?.adapted(files::new_attention_name)?;
                Ok(Self { config, files })
            }
            other => Err(other.instead_of("an autoencoder", dir)),
        }
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// As [`load_diffusers_transformer`].
    pub fn load(self, device: &Device) -> Result<Autoencoder> {
        let config = self.files.path().with_file_name("config.json");
        let network = self.config.build(Initializer::blank(device)).map_err(|error| in_file(&config, error))?;
        load_files(network, self.files)
    }
}

/// [`StoredVae::open`] and [`StoredVae::load`].
///
/// # Errors
/// As [`load_diffusers_transformer`].
pub fn load_diffusers_vae(dir: &Path, variant: Option<&str>, device: &Device) -> Result<Autoencoder> {
    StoredVae::open(dir, variant)?.load(device)
}

/// What the weights of a component must be.
pub(super) struct Architecture {
    /// Names and shapes.
    pub(super) shapes: BTreeMap<String, Vec<usize>>,
    /// The name and shape that a tensor has today, from those of any version.
    pub(super) rename: fn(&str, &[usize]) -> (String, Vec<usize>),
}

/// The architecture that the config in `bytes`, read from `path`, describes.
///
/// # Errors
/// [`crate::FilesError::File`] naming the field that is wrong.
pub(super) fn architecture(path: &Path, bytes: &[u8]) -> Result<Architecture> {
    let device = Device::flex();
    let init = Initializer::blank(&device);
    let mut rename: fn(&str, &[usize]) -> (String, Vec<usize>) = |name, shape| (name.to_owned(), shape.to_vec());
    let shapes = match ComponentConfig::parse(path, bytes)? {
        ComponentConfig::Denoiser(config) => config.build(init).map(|network| parameter_shapes(&network)),
        ComponentConfig::Spectrum(config) => config.build(init).map(|network| parameter_shapes(&network)),
        ComponentConfig::Autoencoder(config) => {
            rename = files::new_attention_name;
            config.build(init).map(|network| parameter_shapes(&network))
        }
        ComponentConfig::Scheduler { .. } => {
            return Err(Error::file(path, "_class_name", "a network", "a scheduler"));
        }
    };
    let shapes = shapes.map_err(|error| in_file(path, error))?.into_iter().collect();
    Ok(Architecture { shapes, rename })
}

fn load_denoiser(
    config: &NetworkConfig,
    dir: &Path,
    (variant, pack): (Option<&str>, Option<MatmulPrecision>),
    device: &Device,
) -> Result<Network> {
    let network = config.build(Initializer::blank(device)).map_err(|error| in_config(dir, error))?;
    load_network(network, files::open(dir, variant)?, pack)
}

fn load_spectrum(
    config: &SpectrumMlpConfig,
    dir: &Path,
    variant: Option<&str>,
    device: &Device,
) -> Result<SpectrumMlp> {
    let network = config.build(Initializer::blank(device)).map_err(|error| in_config(dir, error))?;
    load_files(network, files::open(dir, variant)?)
}

fn in_config(dir: &Path, error: Error) -> Error {
    in_file(&dir.join(CONFIG_FILE), error)
}
