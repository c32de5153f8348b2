//! From a checkpoint to a trainer that continues.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use gmflow::checkpoint::{LoadOptions, Model, ModelInfo, read_tensors};
use gmflow::network::HostTensor;
use rayon::prelude::*;

use super::folders::{OPTIMIZER_FILE, SPECTRUM_OPTIMIZER_FILE, entries};
use super::state::State;
use crate::config::Config;
use crate::ema::Ema;
use crate::fit::open_data;
use crate::optimizer::AdamW;
use crate::params::{self, Values};
use crate::same_data;
use crate::start::{check_network, check_spectrum};
use crate::trainable::{ParamInfo, Trainable};
use crate::trainer::{Networks, Trainer, training_device};
use crate::world::Team;
use crate::{Error, Result};

/// How a run is continued.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResumeOptions {
    /// The step of the checkpoint to continue from; absent: the newest. Later checkpoints are set aside.
    pub from: Option<u64>,
    /// Reads the checkpoint without comparing its files with their checksums.
    pub unverified: bool,
    /// Goes on although the data changed: with other images, and with classes added behind the others or removed from the end.
    pub accept_changed_data: bool,
}

/// Refuses a run that would end before the step that it has come to.
fn expect_enough_steps(config: &Config, state: &State) -> Result<()> {
    if config.total_steps() >= state.step {
        return Ok(());
    }
    let (name, least, got) = match config.train.images {
        Some(images) => ("train.images", state.step.saturating_mul(state.batch_size as u64), images),
        None => ("train.steps", state.step, config.total_steps()),
    };
    let expected =
        format!("at least {least}, which the run has done (--resume-from goes back to an earlier checkpoint)");
    Err(Error::config(name, expected, got))
}

/// A trainer that continues from the checkpoint in `folder`. Unless `resume` says otherwise, every file is first compared with its digest,
/// and the data must be what the checkpoint knows.
///
/// # Errors
/// A damaged file; a value that is not finite; data that changed; a network or batch size that differs from the checkpoint's; an average that the checkpoint
/// does not have.
pub fn load(folder: &Path, config: Config, device: &Device, resume: ResumeOptions) -> Result<Trainer> {
    load_in(folder, config, device, resume, Team::solo())
}

/// [`load`] for a run of these ranks.
pub(crate) fn load_in(
    folder: &Path,
    mut config: Config,
    device: &Device,
    resume: ResumeOptions,
    team: Team,
) -> Result<Trainer> {
    let verify = !resume.unverified;
    config.settle_precision(device);
    let state = State::read(folder, verify)?;
    if verify {
        verify_files(folder, &state)?;
    }
    if state.batch_size != config.train.batch_size {
        let expected = format!("{}, as in the checkpoint", state.batch_size);
        return Err(Error::config("train.batch_size", expected, config.train.batch_size));
    }
    let enough = expect_enough_steps(&config, &state);
    let data = open_data(&mut config, state.step, (device, &team), |info| {
        same_data::check_resumed(&ModelInfo::load(folder)?, info, resume.accept_changed_data)?;
        enough
    })?;
    // The digests in the state are those of the model's files too.
    let options = LoadOptions { unverified: !state.files.is_empty() || !verify, ..LoadOptions::default() };
    let mut model = Model::load_with(folder, options, &training_device(&config, device))?;
    model.network.compute_in(config.arithmetic(device));
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
    Trainer::start(config, device, Networks { network, spectrum, earlier: model.info.earlier }, data, team)
}

/// Checks that a checkpoint is whole: its state, and every file by its digest. The weight files of a checkpoint that was written without
/// digests are read, and their values must be finite.
///
/// # Errors
/// The first damage.
pub fn verify(folder: &Path) -> Result<State> {
    let state = State::read(folder, true)?;
    verify_files(folder, &state)?;
    if state.files.is_empty() {
        let is_weights = |path: &&PathBuf| path.extension().is_some_and(|end| end == "safetensors");
        let files = entries(folder)?;
        for path in files.iter().filter(is_weights) {
            for (name, tensor) in read_tensors(path)? {
                check_values(path, &name, &tensor.values)?;
            }
        }
        for file in ["model.safetensors", OPTIMIZER_FILE] {
            let path = folder.join(file);
            std::fs::metadata(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(state)
}

fn verify_files(folder: &Path, state: &State) -> Result<()> {
    let check = |(name, digest): (&String, &gmflow::checkpoint::FileDigest)| digest.verify(&folder.join(name));
    Ok(state.files.par_iter().try_for_each(check)?)
}

fn load_optimizer(path: &Path, infos: &[ParamInfo], step: u64, device: &Device) -> Result<AdamW> {
    let mut tensors = read_tensors(path)?;
    let exp_avg = take_values(path, "exp_avg.", infos, &mut tensors, device)?;
    let exp_avg_sq = take_values(path, "exp_avg_sq.", infos, &mut tensors, device)?;
    Ok(AdamW { exp_avg, exp_avg_sq, step })
}

fn load_averages(folder: &Path, infos: &[ParamInfo], averages: &mut [Ema], device: &Device) -> Result<()> {
    let stored = Model::ema_names(folder)?;
    for (index, ema) in averages.iter_mut().enumerate() {
        let name = &ema.config.name;
        if !stored.contains(name) {
            let there = if stored.is_empty() { "none".to_owned() } else { stored.join(", ") };
            let expected = format!("an average of the checkpoint ({there}), as one cannot begin in mid-run");
            return Err(Error::config(format!("ema.{index}.name"), expected, name));
        }
        let path = folder.join(format!("ema.{name}.safetensors"));
        ema.values = take_values(&path, "", infos, &mut read_tensors(&path)?, device)?;
    }
    for name in stored.iter().filter(|name| !averages.iter().any(|ema| ema.config.name == **name)) {
        log::warn!("the average {name} of the checkpoint is not in the configuration; the run goes on without it");
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
            Some(tensor) if tensor.shape == info.shape => {
                check_values(path, &name, &tensor.values)?;
                Ok(params::on_device(tensor.values, device))
            }
            Some(tensor) => {
                Err(Error::file(path, name, format!("shape {:?}", info.shape), format!("{:?}", tensor.shape)))
            }
            None => Err(Error::file(path, name, format!("shape {:?}", info.shape), "no tensor")),
        }
    };
    infos.iter().map(take).collect()
}

/// The largest part that one thread looks through at a time.
const CHUNK: usize = 1 << 16;

/// Values must be finite, and second moments, of which the root is taken, at least 0.
fn check_values(path: &Path, name: &str, values: &[f32]) -> Result<()> {
    let least = if name.starts_with("exp_avg_sq.") { 0.0 } else { f32::MIN };
    let unfit = |value: &&f32| !(value.is_finite() && **value >= least);
    match values.par_chunks(CHUNK).find_map_first(|part| part.iter().find(unfit)) {
        Some(value) => {
            let expected = if least == 0.0 { "finite values of at least 0" } else { "finite values" };
            Err(Error::file(path, name, expected, value))
        }
        None => Ok(()),
    }
}
