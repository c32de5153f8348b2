//! The model that a checkpoint holds.

use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Progress};
use gmflow::guidance::{Guidance, ReweightScale};
use gmflow::solver::SecondOrder;
use gmflow_files::{Wrong, json};

use std::path::Path;

use crate::config::Config;
use crate::same_data;
use crate::trainer::Trainer;
use crate::{Error, Result};

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
    let trained_on = same_data::trained_on(info, classes.is_some());
    let spectrum = trainer.spectrum().map(|spectrum| spectrum.snapshot(None)).transpose()?;
    let sampler = trainer.config().sample.as_ref().map(|sample| sample.sampler);
    let shift = trainer.config().distill.as_ref().map(|distill| distill.shift as f32);
    let info = ModelInfo {
        network: trainer.config().network.clone(),
        spectrum: spectrum.as_ref().map(|spectrum| spectrum.config().clone()),
        data: DataInfo { channels, height, width, kind },
        latent: info.latent.clone(),
        classes,
        guidance: sampler.map_or(Guidance::Off, |sampler| sampler.guidance),
        reweight_by: sampler.map_or_else(ReweightScale::default, |sampler| sampler.reweight_by),
        shift: shift.or(sampler.map(|sampler| sampler.shift)).unwrap_or(1.0),
        second_order: sampler.map_or_else(SecondOrder::default, |sampler| sampler.second_order),
        student: trainer.student(),
        training: Some(training),
        progress: Progress { step: trainer.steps_taken(), images: trainer.images() },
        earlier: trainer.earlier().to_vec(),
        trained_on,
    };
    Ok(Model { info, network, spectrum, vae: None })
}

/// The configuration that a checkpoint was made with.
///
/// # Errors
/// A description that cannot be read, or holds none.
pub(crate) fn config_of(folder: &Path) -> Result<Config> {
    let training = ModelInfo::load(folder)?.training.unwrap_or_default();
    json::from_value(training).map_err(|Wrong { field, expected, got }| {
        Error::file(folder.join("model.json"), format!("training.{field}"), expected, got)
    })
}
