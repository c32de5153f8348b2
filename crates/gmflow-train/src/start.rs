//! The weights that a training starts from.

use std::path::Path;

use burn::tensor::Device;
use gmflow::checkpoint::{LoadOptions, Model, ModelInfo, Progress, model_folder};
use gmflow::distill::{StudentHead, student};
use gmflow::network::{Network, NetworkConfig, SpectrumMlp, SpectrumMlpConfig};
use serde_json::Value;

use crate::config::{Config, FromData};
use crate::distillation::student_network;
use crate::{Error, Result};

/// What a run starts from.
pub(crate) struct Start {
    pub(crate) network: Network,
    pub(crate) spectrum: Option<SpectrumMlp>,
    /// How far the trainings had come that the weights come from.
    pub(crate) earlier: Vec<Progress>,
}

/// Takes the network of the model that training starts from, or of the teacher, where the configuration gives none.
///
/// # Errors
/// A model whose description cannot be read.
pub(crate) fn take_network(config: &mut Config) -> Result<()> {
    if !config.from_data.network {
        return Ok(());
    }
    config.network = match (&config.train.from, &config.distill) {
        (Some(from), _) => ModelInfo::load(&model_folder(from)?)?.network,
        (None, Some(distill)) => student_network(distill)?,
        (None, None) => return Ok(()),
    };
    config.from_data = FromData::default();
    Ok(())
}

/// The networks whose weights a run starts from: those of a model folder or of a run's latest checkpoint, the first average by name before
/// the weights themselves; the spectrum network only where one is trained. A model with one component may become a mixture: its head is
/// widened as that of a student, and everything else is copied.
///
/// # Errors
/// A folder that holds neither; a damaged file; another network than the configuration's, but for the head of a model with one component.
pub(crate) fn weights(path: &Path, config: &Config, device: &Device) -> Result<Start> {
    let folder = model_folder(path)?;
    let average = Model::ema_names(&folder)?.into_iter().next();
    let options = LoadOptions { ema: average.as_deref(), without_vae: true, ..LoadOptions::default() };
    let model = Model::load_with(&folder, options, device)?;
    let stored = &model.info.network;
    let (ours, wanted) = (stored.num_gaussians(), config.network.num_gaussians());
    if ours > 1 && ours != wanted {
        let expected = format!("{ours}, as in {}: only a model with one component can be widened", path.display());
        return Err(Error::config("network.num_gaussians", expected, wanted));
    }
    check_network(&widened(stored, &config.network), config)?;
    let network = match *stored == config.network {
        true => model.network,
        false => student(&model.network, &config.network, StudentHead::Mixture, config.train.seed, device)?,
    };
    check_spectrum(model.info.spectrum.as_ref(), config)?;
    let spectrum = model.spectrum.filter(|_| config.spectrum.is_some());
    let mut earlier = model.info.earlier;
    earlier.extend(Some(model.info.progress).filter(|progress| progress.step > 0));
    Ok(Start { network, spectrum, earlier })
}

/// The network `stored` with the head of `wanted`, where it has one component and is to become a mixture; else as it is.
fn widened(stored: &NetworkConfig, wanted: &NetworkConfig) -> NetworkConfig {
    let mut network = stored.clone();
    if stored.num_gaussians() != 1 || wanted.num_gaussians() == 1 {
        return network;
    }
    match (&mut network, wanted) {
        (NetworkConfig::Mlp2d(ours), NetworkConfig::Mlp2d(wanted)) => {
            ours.num_gaussians = wanted.num_gaussians;
            ours.constant_logstd = wanted.constant_logstd;
            ours.mean_spread = wanted.mean_spread;
        }
        (NetworkConfig::Unet(ours), NetworkConfig::Unet(wanted)) => {
            ours.num_gaussians = wanted.num_gaussians;
            ours.constant_logstd = wanted.constant_logstd;
            ours.logstd_inner_dim = wanted.logstd_inner_dim;
            ours.gm_num_logstd_layers = wanted.gm_num_logstd_layers;
        }
        (NetworkConfig::GmDit(ours), NetworkConfig::GmDit(wanted)) => {
            ours.num_gaussians = wanted.num_gaussians;
            ours.constant_logstd = wanted.constant_logstd;
            ours.logstd_inner_dim = wanted.logstd_inner_dim;
            ours.gm_num_logstd_layers = wanted.gm_num_logstd_layers;
        }
        _ => (),
    }
    network
}

/// The network of a checkpoint must be the configuration's.
pub(crate) fn check_network(stored: &NetworkConfig, config: &Config) -> Result<()> {
    if *stored == config.network {
        return Ok(());
    }
    let fields = |network: &NetworkConfig| match serde_json::to_value(network) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (stored, wanted) = (fields(stored), fields(&config.network));
    let mut names = std::iter::once("type").chain(wanted.keys().map(String::as_str));
    let name = names.find(|name| stored.get(*name) != wanted.get(*name)).unwrap_or("type");
    let [expected, got] = [&stored, &wanted].map(|fields| fields.get(name).unwrap_or(&Value::Null));
    Err(Error::config(format!("network.{name}"), format!("{expected}, as in the checkpoint"), got))
}

/// The spectrum network of a checkpoint must be the one that the configuration asks for.
pub(crate) fn check_spectrum(stored: Option<&SpectrumMlpConfig>, config: &Config) -> Result<()> {
    let (Some(stored), Some(wanted)) = (stored, &config.spectrum) else { return Ok(()) };
    let size_differs = wanted.base_size.is_some_and(|size| size != stored.base_size);
    if size_differs || wanted.layers != stored.layers {
        let expected = format!("{stored:?}, as in the checkpoint");
        return Err(Error::config("spectrum", expected, format!("{wanted:?}")));
    }
    Ok(())
}
