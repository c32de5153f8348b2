//! Checkpoints: a model folder with the optimiser's state, complete or not there at all.
//!
//! `optimizer.safetensors` holds `exp_avg.NAME` and `exp_avg_sq.NAME` for every parameter, `spectrum_optimizer.safetensors`
//! the same for the spectrum network where one is trained, and `state.json` the progress.
//! The generators need no state: every draw is a function of the seed and the number of the sample.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use gmflow::checkpoint::{
    DataInfo, DataKind, LoadOptions, Model, ModelInfo, Precision, Progress, read_tensors, write_tensors,
};
use gmflow::guidance::{Guidance, Variance};
use gmflow::network::{HostTensor, Network, NetworkConfig, SpectrumMlp, SpectrumMlpConfig, TorchNames};
use gmflow::solver::SecondOrder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Config, from_json};
use crate::ema::Ema;
use crate::optimizer::AdamW;
use crate::params::{self, Values};
use crate::trainable::{ParamInfo, Trainable};
use crate::trainer::{Networks, Trainer, training_device};
use crate::{Error, Result};

const FORMAT: &str = "gmflow-training-state";
const VERSION: u32 = 1;
const PREFIX: &str = "step-";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const SPECTRUM_OPTIMIZER_FILE: &str = "spectrum_optimizer.safetensors";
/// Extension of a folder that is being written or removed.
const UNFINISHED: &str = "unfinished";

/// What `state.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Always "gmflow-training-state".
    pub format: String,
    /// Version of the form.
    pub version: u32,
    /// Optimiser steps taken.
    pub step: u64,
    /// Samples seen.
    pub images: u64,
    /// Samples per step.
    pub batch_size: usize,
}

/// Writes the checkpoint of the trainer's current step below `run_folder` and returns its folder.
///
/// It is written beside its place under another name, synced and renamed, so a folder `step-*` is always complete.
///
/// # Errors
/// A file cannot be written.
pub fn save(trainer: &Trainer, run_folder: &Path) -> Result<PathBuf> {
    let parent = run_folder.join("checkpoints");
    let name = format!("{PREFIX}{:08}", trainer.steps_taken());
    let (unfinished, folder) = (parent.join(format!(".{name}.{UNFINISHED}")), parent.join(&name));
    if folder.exists() {
        return Ok(folder);
    }
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|e| Error::io(&unfinished, e))?;
    }
    fs::create_dir_all(&unfinished).map_err(|e| Error::io(&unfinished, e))?;
    write_files(trainer, &unfinished)?;
    sync(&unfinished)?;
    fs::rename(&unfinished, &folder).map_err(|e| Error::io(&folder, e))?;
    sync(&parent)?;
    Ok(folder)
}

fn write_files(trainer: &Trainer, folder: &Path) -> Result<()> {
    let network = trainer.network();
    write_tensors(&folder.join(OPTIMIZER_FILE), &moments(network)?, Precision::F32)?;
    if let Some(spectrum) = trainer.spectrum() {
        write_tensors(&folder.join(SPECTRUM_OPTIMIZER_FILE), &moments(spectrum)?, Precision::F32)?;
    }
    let state = State {
        format: FORMAT.into(),
        version: VERSION,
        step: trainer.steps_taken(),
        images: trainer.images(),
        batch_size: trainer.config().train.batch_size,
    };
    let path = folder.join("state.json");
    let text = serde_json::to_string_pretty(&state).map_err(|e| Error::file(&path, "state", "numbers", e))?;
    gmflow::checkpoint::write_atomic(&path, text.as_bytes())?;
    let names: Vec<&str> = network.averages.iter().map(|ema| ema.config.name.as_str()).collect();
    let snapshots = names.iter().map(|name| network.snapshot(Some(name))).collect::<Result<Vec<Network>>>()?;
    let averages: Vec<(&str, &Network)> = names.iter().copied().zip(&snapshots).collect();
    Ok(model(trainer)?.save(folder, &averages, Precision::F32)?)
}

/// The model of the trainer's raw weights, with everything that its folder tells.
///
/// # Errors
/// A configuration that JSON cannot hold.
pub fn model(trainer: &Trainer) -> Result<Model> {
    let (info, network) = (trainer.data_info(), trainer.snapshot(None)?);
    let [channels, height, width] = info.shape;
    let kind = match (info.points, &info.latent) {
        (true, _) => DataKind::Points,
        (false, Some(_)) => DataKind::Latents,
        (false, None) => DataKind::Image,
    };
    // Labels that the network does not see are no part of the model.
    let classes = info.classes.clone().filter(|_| network.null_class().is_some_and(|null| null > 0));
    let training = serde_json::to_value(trainer.config())
        .map_err(|error| Error::config("config", "values that JSON can hold", error))?;
    let spectrum = trainer.spectrum().map(|spectrum| spectrum.snapshot(None)).transpose()?;
    let sampler = trainer.config().sample.as_ref().map(|sample| sample.sampler);
    let info = ModelInfo {
        network: trainer.config().network.clone(),
        spectrum: spectrum.as_ref().map(|spectrum| spectrum.config().clone()),
        data: DataInfo { channels, height, width, kind },
        latent: info.latent.clone(),
        classes,
        guidance: sampler.map_or(Guidance::Off, |sampler| sampler.guidance),
        reweight_by: sampler.map_or_else(Variance::default, |sampler| sampler.reweight_by),
        shift: sampler.map_or(1.0, |sampler| sampler.shift),
        second_order: sampler.map_or_else(SecondOrder::default, |sampler| sampler.second_order),
        training: Some(training),
        progress: Progress { step: trainer.steps_taken(), images: trainer.images() },
    };
    Ok(Model { info, network, spectrum, vae: None })
}

/// The newest complete checkpoint of a run.
///
/// # Errors
/// [`Error::NoCheckpoint`].
pub fn latest(run_folder: &Path) -> Result<PathBuf> {
    list(run_folder)?.pop().ok_or_else(|| Error::NoCheckpoint { path: run_folder.to_path_buf() })
}

/// Removes all but the newest `keep` checkpoints, and what an interrupted write left.
///
/// # Errors
/// A folder cannot be removed.
pub fn prune(run_folder: &Path, keep: usize) -> Result<()> {
    let mut old = list(run_folder)?;
    old.truncate(old.len().saturating_sub(keep));
    for folder in old {
        // Renamed first, so that a process killed here leaves no half of a checkpoint under a checkpoint's name.
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let unfinished = folder.with_file_name(format!(".{name}.{UNFINISHED}"));
        fs::rename(&folder, &unfinished).map_err(|e| Error::io(&folder, e))?;
    }
    for folder in entries(run_folder)?.iter().filter(|path| path.extension().is_some_and(|e| e == UNFINISHED)) {
        fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    Ok(())
}

/// Everything in the folder of checkpoints; nothing where there is no such folder.
fn entries(run_folder: &Path) -> Result<Vec<PathBuf>> {
    let parent = run_folder.join("checkpoints");
    if !parent.is_dir() {
        return Ok(Vec::new());
    }
    let found = fs::read_dir(&parent).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    found.map_err(|e| Error::io(&parent, e))
}

/// Complete checkpoints, oldest first.
fn list(run_folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(run_folder)? {
        let step = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
        if let Some(step) = step.and_then(|digits| digits.parse::<u64>().ok())
            && path.join("state.json").is_file()
        {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// A trainer that continues from the checkpoint in `folder`. An average that the checkpoint does not have starts at the
/// checkpoint's weights.
///
/// # Errors
/// A damaged file; a network or batch size that differs from the checkpoint's.
pub fn load(folder: &Path, config: Config, device: &Device) -> Result<Trainer> {
    let state = load_state(folder)?;
    if state.batch_size != config.train.batch_size {
        let expected = format!("{}, as in the checkpoint", state.batch_size);
        return Err(Error::config("train.batch_size", expected, config.train.batch_size));
    }
    let mut model = Model::load(folder, None, &training_device(&config, device))?;
    model.network.compute_in(config.train.precision);
    check_network(&model.info.network, &config)?;
    check_spectrum(model.info.spectrum.as_ref(), &config)?;
    let mut network = Trainable::new(model.network, &config.ema)?;
    network.optimizer = load_optimizer(&folder.join(OPTIMIZER_FILE), &network.infos, state.step, device)?;
    load_averages(folder, &network.infos, &mut network.averages, device)?;
    let spectrum = match (model.spectrum, &config.spectrum) {
        (Some(module), Some(_)) => {
            let mut spectrum = Trainable::new(module, &[])?;
            let path = folder.join(SPECTRUM_OPTIMIZER_FILE);
            spectrum.optimizer = load_optimizer(&path, &spectrum.infos, state.step, device)?;
            Some(spectrum)
        }
        _ => None,
    };
    Trainer::start(config, device, Networks { network, spectrum }, state.step)
}

/// The networks whose weights a run starts from: those of a model folder or of a run's latest checkpoint, the first average by name before
/// the weights themselves; the spectrum network only where one is trained.
///
/// # Errors
/// A folder that holds neither; a damaged file; another network than the configuration's.
pub(crate) fn weights(path: &Path, config: &Config, device: &Device) -> Result<(Network, Option<SpectrumMlp>)> {
    let folder = if path.join("checkpoints").is_dir() { latest(path)? } else { path.to_path_buf() };
    let average = Model::ema_names(&folder)?.into_iter().next();
    let options = LoadOptions { ema: average.as_deref(), without_vae: true, ..LoadOptions::default() };
    let model = Model::load_with(&folder, options, device)?;
    check_network(&model.info.network, config)?;
    check_spectrum(model.info.spectrum.as_ref(), config)?;
    Ok((model.network, model.spectrum.filter(|_| config.spectrum.is_some())))
}

/// The network of a checkpoint must be the configuration's.
fn check_network(stored: &NetworkConfig, config: &Config) -> Result<()> {
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
fn check_spectrum(stored: Option<&SpectrumMlpConfig>, config: &Config) -> Result<()> {
    let (Some(stored), Some(wanted)) = (stored, &config.spectrum) else { return Ok(()) };
    let size_differs = wanted.base_size.is_some_and(|size| size != stored.base_size);
    if size_differs || wanted.layers != stored.layers {
        let expected = format!("{stored:?}, as in the checkpoint");
        return Err(Error::config("spectrum", expected, format!("{wanted:?}")));
    }
    Ok(())
}

fn load_state(folder: &Path) -> Result<State> {
    let path = folder.join("state.json");
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let state: State = from_json(&path, &text)?;
    if state.format != FORMAT || state.version != VERSION {
        let got = format!("{} version {}", state.format, state.version);
        return Err(Error::file(&path, "format", format!("{FORMAT} version {VERSION}"), got));
    }
    Ok(state)
}

/// Both moments of every parameter, under the parameter's name.
fn moments<M: TorchNames>(trainable: &Trainable<M>) -> Result<Vec<(String, HostTensor)>> {
    let AdamW { exp_avg, exp_avg_sq, .. } = &trainable.optimizer;
    let mut named = Vec::new();
    for (kind, values) in [("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)] {
        for (info, values) in trainable.infos.iter().zip(values) {
            let tensor = HostTensor { shape: info.shape.clone(), values: params::on_host(values)? };
            named.push((format!("{kind}.{}", info.name), tensor));
        }
    }
    Ok(named)
}

fn load_optimizer(path: &Path, infos: &[ParamInfo], step: u64, device: &Device) -> Result<AdamW> {
    let mut tensors = read_tensors(path)?;
    let exp_avg = take_values(path, "exp_avg.", infos, &mut tensors, device)?;
    let exp_avg_sq = take_values(path, "exp_avg_sq.", infos, &mut tensors, device)?;
    Ok(AdamW { exp_avg, exp_avg_sq, step })
}

fn load_averages(folder: &Path, infos: &[ParamInfo], averages: &mut [Ema], device: &Device) -> Result<()> {
    for ema in averages {
        let path = folder.join(format!("ema.{}.safetensors", ema.config.name));
        if path.is_file() {
            ema.values = take_values(&path, "", infos, &mut read_tensors(&path)?, device)?;
        }
    }
    Ok(())
}

/// The tensor `prefix` + name of every parameter, in order.
fn take_values(
    path: &Path,
    prefix: &str,
    infos: &[ParamInfo],
    tensors: &mut BTreeMap<String, HostTensor>,
    device: &Device,
) -> Result<Values> {
    let take = |info: &ParamInfo| {
        let name = format!("{prefix}{}", info.name);
        match tensors.remove(&name) {
            Some(tensor) if tensor.shape == info.shape => Ok(params::on_device(tensor.values, device)),
            Some(tensor) => {
                Err(Error::file(path, name, format!("shape {:?}", info.shape), format!("{:?}", tensor.shape)))
            }
            None => Err(Error::file(path, name, format!("shape {:?}", info.shape), "no tensor")),
        }
    };
    infos.iter().map(take).collect()
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(folder, e))
}
