//! Models as they are measured: which folder, which weights, in which arithmetic.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow_eval::models::model_folder;
//! use gmflow_eval::{LoadedModel, ModelOptions};
//! # use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Precision};
//! # use gmflow::network::{Mlp2dConfig, NetworkConfig};
//!
//! let run = tempfile::tempdir()?;
//! # let data = DataInfo { channels: 2, height: 1, width: 1, kind: DataKind::Points };
//! # let info = ModelInfo::new(NetworkConfig::Mlp2d(Mlp2dConfig::default()), data);
//! # let network = info.network.init(1, &Device::flex())?;
//! # let checkpoint = run.path().join("checkpoints/step-00000100");
//! # Model { info, network, spectrum: None, vae: None }.save(&checkpoint, &[], Precision::F32)?;
//! let folder = model_folder(run.path())?;
//! assert!(folder.ends_with("step-00000100"));
//! let loaded = LoadedModel::open("mine", &folder, &ModelOptions::default(), &Device::flex())?;
//! assert_eq!(loaded.name, "mine");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::{Error, Result};
use burn::tensor::Device;
use gmflow::checkpoint::{DataKind, LoadOptions, Model, ModelInfo, StoredVae};
use gmflow::kernel::{MatmulPrecision, PrecisionChoice};
use gmflow::network::Autoencoder;
use serde_json::json;
use std::path::{Path, PathBuf};

pub use gmflow::checkpoint::model_folder;

/// What samples of a network are computed in where `asked` is wanted, with a warning where that is something else.
pub fn computed_in(asked: PrecisionChoice, info: &ModelInfo, device: &Device) -> MatmulPrecision {
    let asked = info.network.for_sampling(asked, device);
    let (precision, why_not) = info.network.computed_in(asked, device);
    if let Some(why) = why_not {
        let asked = json!(asked);
        log::warn!(
            "precision {}: {why}; it is computed in f32, and recorded as f32",
            asked.as_str().unwrap_or_default()
        );
    }
    precision
}

/// The moving average to load: the one with the name `asked`, or the first by name; `None` for the weights themselves, which are asked for
/// as `none`.
///
/// # Errors
/// A folder that cannot be read, or one without this average.
pub fn average(folder: &Path, asked: Option<&str>) -> Result<Option<String>> {
    let names = Model::ema_names(folder)?;
    match asked {
        None => Ok(names.into_iter().next()),
        Some("none") => Ok(None),
        Some(name) if names.iter().any(|known| known == name) => Ok(Some(name.to_owned())),
        Some(name) => Err(Error::config("ema", [&names[..], &["none".to_owned()]].concat().join(" or "), name)),
    }
}

/// The autoencoder of a model of latents: the one in the folder `asked`, or that came with the model, or that its data was encoded with.
///
/// # Errors
/// As [`stored_vae`]; weights that cannot be read.
pub fn find_vae(model: &mut Model, asked: Option<&Path>, device: &Device) -> Result<Autoencoder> {
    match model.vae.take() {
        Some(vae) if asked.is_none() => Ok(vae),
        _ => Ok(stored_vae(&model.info, None, asked)?.load(device)?),
    }
}

/// The same as it is stored; `own` is the folder of a model that came with one, and the variant.
///
/// # Errors
/// There is none, or it is no autoencoder.
pub fn stored_vae(info: &ModelInfo, own: Option<(&Path, Option<&str>)>, asked: Option<&Path>) -> Result<StoredVae> {
    if let Some(path) = asked {
        return Ok(StoredVae::open(path, None)?);
    }
    let encoded_with = info.latent.as_ref().and_then(|latent| latent.vae.as_deref());
    if let (Some((folder, variant)), None) = (own, encoded_with)
        && folder.join("vae").is_dir()
    {
        return Ok(StoredVae::open(folder, variant)?);
    }
    match encoded_with.map(PathBuf::from).filter(|path| path.is_dir()) {
        Some(path) => Ok(StoredVae::open(&path, None)?),
        None => {
            let expected = "the folder of the autoencoder that this model's latents belong to";
            let got = encoded_with.map_or("none".into(), |path| format!("{path}, which is not there"));
            Err(Error::config("vae", expected, got))
        }
    }
}

/// Which weights of a model folder are measured.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// The moving average; without it the first by name, with `none` the weights themselves.
    pub ema: Option<String>,
    /// The arithmetic that is wanted of the network's large layers.
    pub precision: PrecisionChoice,
    /// The variant of a published checkpoint, such as `bf16`.
    pub variant: Option<String>,
    /// The autoencoder of a model of latents; without it the model's own.
    pub vae: Option<PathBuf>,
    /// Reads weights that differ from the checksums beside them.
    pub unverified: bool,
}

/// A model that is ready to be measured.
#[derive(Clone, Debug)]
pub struct LoadedModel {
    /// What it is called in results.
    pub name: String,
    /// The model; of latents with its autoencoder.
    pub model: Model,
    /// What its network is computed in.
    pub precision: MatmulPrecision,
}

impl LoadedModel {
    /// Loads the model in `folder` (see [`model_folder`]).
    ///
    /// # Errors
    /// Weights or an autoencoder that are not there or cannot be read.
    pub fn open(name: &str, folder: &Path, options: &ModelOptions, device: &Device) -> Result<Self> {
        let precision = computed_in(options.precision, &ModelInfo::load(folder)?, device);
        let average = average(folder, options.ema.as_deref())?;
        let load = LoadOptions {
            ema: average.as_deref(),
            variant: options.variant.as_deref(),
            without_vae: options.vae.is_some(),
            pack: Some(precision),
            unverified: options.unverified,
        };
        let mut model = Model::load_with(folder, load, device)?;
        if model.info.data.kind == DataKind::Latents {
            model.vae = Some(find_vae(&mut model, options.vae.as_deref(), device)?);
        }
        Ok(Self { name: name.to_owned(), model, precision })
    }
}
