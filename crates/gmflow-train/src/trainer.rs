//! The training loop's state and its one step, without any folder.

use std::path::PathBuf;

use burn::tensor::Device;
use gmflow::checkpoint::{ModelInfo, Progress, StudentInfo, model_folder};
use gmflow::kernel;
use gmflow::loss::spectral_loss;
use gmflow::mixture::spectral::Bases;
use gmflow::network::{Network, SpectrumMlp, SpectrumMlpConfig};
use gmflow::pipeline::SamplerConfig;
use gmflow::solver::SolverConfig;
use gmflow_data::Dataset;

use crate::batch::{BatchQueue, DrawPlan, HostBatch};
use crate::config::{Config, SampleConfig, SpectrumConfig};
use crate::distillation::{Distillation, Part, first_student};
use crate::dump::{self, Failure};
use crate::fit::fit_data;
use crate::params::Values;
use crate::same_data;
use crate::schedule::learning_rate;
use crate::source::{OpenData, SourceInfo, TrainingData};
use crate::start::{self, Start};
use crate::trainable::Trainable;
use crate::world::{Computed, Team, largest_of};
use crate::{Error, Result};

/// What one optimiser step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepReport {
    /// Optimiser steps taken so far.
    pub step: u64,
    /// Samples seen so far.
    pub images: u64,
    /// The batch's mean loss before the step.
    pub loss: f64,
    /// The batch's mean spectral loss, where a spectrum network is trained.
    pub spectral_loss: Option<f64>,
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// The largest loss of a sample, in distillation.
    pub largest_loss: Option<f64>,
    /// Whether the batch was passed over, because its loss or gradient was not finite; loss and norm are then 0.
    pub skipped: bool,
}

/// A network in training. Equal configurations give equal weights on a CPU, whatever the accumulation split to float
/// tolerance, and bit for bit when a run is resumed.
#[derive(Debug)]
pub struct Trainer {
    config: Config,
    device: Device,
    pub(crate) network: Trainable<Network>,
    pub(crate) spectrum: Option<Trainable<SpectrumMlp>>,
    /// The trainings that the weights come from.
    earlier: Vec<Progress>,
    info: SourceInfo,
    batches: BatchQueue,
    step: u64,
    dump_folder: Option<PathBuf>,
    distillation: Option<Distillation>,
    /// Batches that were passed over, one after the other.
    skipped: usize,
    /// The processes that train together.
    pub(crate) team: Team,
}

/// The networks that are trained.
pub(crate) struct Networks {
    pub(crate) network: Trainable<Network>,
    pub(crate) spectrum: Option<Trainable<SpectrumMlp>>,
    /// How far the trainings had come that the weights come from.
    pub(crate) earlier: Vec<Progress>,
}

/// What a gradient is computed from.
struct Parts<'a> {
    config: &'a Config,
    /// Where gradients are recorded.
    device: Device,
    network: &'a Trainable<Network>,
    spectrum: Option<&'a Trainable<SpectrumMlp>>,
    distillation: Option<&'a Distillation>,
    /// The optimiser step, counted from 0.
    step: u64,
}

impl Parts<'_> {
    /// The mean losses of the batch and their gradients, summed over parts of `micro_batch` samples; of several processes the share of
    /// this one's samples.
    fn gradients(&self, batch: &HostBatch) -> Result<Computed> {
        let (size, network) = (self.config.train.batch_size, self.network.module()?);
        let own = batch.dims[0];
        let micro = self.config.train.micro_batch.or_else(|| network.fastest_pass(&self.device)).unwrap_or(own);
        let (mut total, mut loss) = (None, 0.0);
        let mut spectral: Option<(f64, Option<Values>)> = None;
        let mut largest: Option<f64> = None;
        for start in (0..own).step_by(micro) {
            let range = start..(start + micro).min(own);
            let share = range.len() as f64 / size as f64;
            if let Some(distillation) = self.distillation {
                let part = Part { batch, range, share, step: self.step };
                let part = distillation.backward(self.network, part, &self.device, &mut total)?;
                loss += part.loss;
                largest = Some(largest.map_or(part.largest, |largest| largest_of(largest, part.largest)));
                continue;
            }
            let in_training = network.in_training(batch.keys(range.clone()));
            let part = batch.part(range, &self.device);
            let (x0, t) = (part.x0.clone(), part.t.clone());
            let evaluation = self.config.loss.evaluate(&in_training, part);
            let part = evaluation.loss * share; // [1]
            self.network.backward(&part, &mut total)?;
            loss += f64::from(part.into_scalar::<f32>());
            let (Some(spectrum), Some(config)) = (self.spectrum, &self.config.spectrum) else { continue };
            let prediction = evaluation.velocity.to_data(&evaluation.x_t, &t).detached();
            let part = spectral_loss(spectrum.module()?, &prediction, &x0.inner(), Bases::Shared)?;
            let part = part * (share * config.weight); // [1]
            let (sum, total) = spectral.get_or_insert((0.0, None));
            spectrum.backward(&part, total)?;
            *sum += f64::from(part.into_scalar::<f32>());
        }
        let spectral = spectral.map(|(loss, gradients)| (loss, gradients.unwrap_or_default()));
        Ok(Computed { loss, network: total.unwrap_or_default(), spectral, largest })
    }
}

impl Trainer {
    /// Draws the weights or reads those to start from, opens the data and starts the data thread.
    ///
    /// # Errors
    /// An invalid configuration, data that cannot be opened, a network that does not fit the data; weights that cannot be read or are
    /// another network's.
    pub fn new(config: Config, device: &Device) -> Result<Self> {
        Self::on(config, None, device, Team::solo())
    }

    /// [`Trainer::new`] for these ranks, and on a data set that is open, where one is given, in place of that of the configuration.
    pub(crate) fn on(mut config: Config, dataset: Option<Dataset>, device: &Device, team: Team) -> Result<Self> {
        config.validate()?;
        start::take_network(&mut config)?;
        config.settle_precision(device);
        let teacher = config.distill.as_ref().map(|distill| distill.teacher.clone());
        let from = config.train.from.clone().or(teacher).filter(|_| !config.train.new_classes);
        let data = match dataset {
            Some(dataset) => OpenData::of(dataset),
            None => OpenData::open(&config.data.source)?,
        };
        let data = fit_data(data, &mut config, 0, (device, &team), |info| match from {
            Some(from) => same_data::check_started_from(&ModelInfo::load(&model_folder(&from)?)?, info),
            None => Ok(()),
        })?;
        let device_with_gradients = training_device(&config, device);
        let Start { mut network, spectrum, earlier } = match (&config.train.from, &config.distill) {
            (None, Some(distill)) => {
                let network = first_student(&config, distill, &device_with_gradients)?;
                Start { network, spectrum: None, earlier: Vec::new() }
            }
            (None, None) => {
                let network = config.network.init(config.train.seed, &device_with_gradients)?;
                Start { network, spectrum: None, earlier: Vec::new() }
            }
            (Some(path), _) => start::weights(path, &config, &device_with_gradients)?,
        };
        network.compute_in(config.arithmetic(device));
        let network = Trainable::new(network, &config.ema)?;
        let spectrum = spectrum.map(|module| Trainable::new(module, &[])).transpose()?;
        Self::start(config, device, Networks { network, spectrum, earlier }, data, team)
    }

    /// Joins networks in training with their data, from the optimiser step on that the data starts with. A spectrum network that the
    /// configuration asks for and that is not there yet starts flat.
    pub(crate) fn start(
        config: Config,
        device: &Device,
        networks: Networks,
        data: TrainingData,
        mut team: Team,
    ) -> Result<Self> {
        team.configure(&config);
        let step = data.first_step();
        let Networks { mut network, spectrum, earlier } = networks;
        if let (_, Some(why)) = config.network.computed_in(config.arithmetic(device), device) {
            log::warn!("train.precision: {why}; it is computed in f32");
        }
        let info = data.info().clone();
        let null_class = network.module()?.null_class();
        let distillation = Distillation::load(&config, info.shape, device)?;
        let mut spectrum = match (spectrum_config(&config, &info)?, spectrum) {
            (Some(shape), None) => {
                let module = shape.init(config.train.seed, &training_device(&config, device))?;
                let mut spectrum = Trainable::new(module, &[])?;
                // One count of steps for both, so that a checkpoint needs to hold only one.
                spectrum.optimizer.step = step;
                Some(spectrum)
            }
            (_, spectrum) => spectrum,
        };
        train_only(config.train.only.as_deref().unwrap_or_default(), &mut network, spectrum.as_mut())?;
        let plan = DrawPlan::new(&config, null_class, data.part());
        let batches = BatchQueue::start(data, plan, step, config.data.queue)?;
        Ok(Self {
            device: device.clone(),
            config,
            network,
            spectrum,
            earlier,
            info,
            batches,
            step,
            dump_folder: None,
            distillation,
            skipped: 0,
            team,
        })
    }

    /// Takes one optimiser step on the next global batch.
    ///
    /// # Errors
    /// Data that cannot be read; a loss or gradient that is not finite, before the weights are touched.
    pub fn step(&mut self) -> Result<StepReport> {
        let own = self.batches.next().and_then(|batch| Ok((self.gradients(&batch)?, batch)));
        let (Computed { loss, network: mut gradients, mut spectral, largest }, batch) = self.join(own)?;
        let (grad_norm, norms) = self.norms(&self.network, &mut gradients)?;
        let spectral_norm = match (&self.spectrum, &mut spectral) {
            (Some(spectrum), Some((_, gradients))) => self.norms(spectrum, gradients)?.0,
            _ => 0.0,
        };
        let spectral_loss = spectral.as_ref().map(|(loss, _)| *loss);
        let finite = [loss, grad_norm, spectral_norm, spectral_loss.unwrap_or(0.0)].iter().all(|x| x.is_finite());
        let lr = learning_rate(&self.config.train, self.step, self.config.total_steps());
        if !finite && self.distillation.as_ref().is_some_and(Distillation::skips) && self.skipped < MOST_SKIPPED {
            return Ok(self.pass_over(lr));
        }
        if !finite {
            return Err(self.not_finite_on_a_rank(&batch, loss, norms));
        }
        self.skipped = 0;
        self.network.update(&self.config.train, lr, gradients, grad_norm)?;
        if let (Some(spectrum), Some((_, gradients))) = (&mut self.spectrum, spectral) {
            spectrum.update(&self.config.train, lr, gradients, spectral_norm)?;
        }
        self.share_weights()?;
        self.step += 1;
        let (step, images) = (self.step, self.images());
        Ok(StepReport { step, images, loss, spectral_loss, grad_norm, lr, largest_loss: largest, skipped: false })
    }

    /// Counts a step that changes no weight.
    fn pass_over(&mut self, lr: f64) -> StepReport {
        self.skipped += 1;
        self.step += 1;
        // One count of steps for all, as in checkpoints.
        self.network.optimizer.step += 1;
        log::warn!("step {}: the loss or its gradient is not finite; the batch is passed over", self.step);
        StepReport { step: self.step, images: self.images(), lr, skipped: true, ..StepReport::default() }
    }

    /// How pictures are drawn: a student of distillation as it is trained, others as their configuration says.
    pub(crate) fn picture_sampler(&self, sample: &SampleConfig) -> SamplerConfig {
        match (self.student(), &self.config.distill) {
            (Some(student), Some(distill)) => SamplerConfig {
                shift: distill.shift as f32,
                ..SamplerConfig::new(SolverConfig::PiFlow(student.policy), student.steps)
            },
            _ => sample.sampler,
        }
    }

    /// How a student of distillation is sampled.
    pub(crate) fn student(&self) -> Option<StudentInfo> {
        self.distillation.as_ref().map(Distillation::student)
    }

    /// Checks that every weight, moment and average is finite, as it must be to be saved.
    ///
    /// # Errors
    /// [`Error::StateNotFinite`] naming the first that is not.
    pub fn check_finite(&self) -> Result<()> {
        let of_spectrum = self.spectrum.as_ref().map(Trainable::not_finite).transpose()?.flatten();
        let what = self.network.not_finite()?.or_else(|| Some(format!("{} ({SPECTRUM})", of_spectrum?)));
        what.map_or(Ok(()), |what| Err(Error::StateNotFinite { step: self.step, what }))
    }

    /// The losses of a batch, or of this process's part of it, and their gradients.
    pub(crate) fn gradients(&self, batch: &HostBatch) -> Result<Computed> {
        let parts = Parts {
            config: &self.config,
            device: training_device(&self.config, &self.device),
            network: &self.network,
            spectrum: self.spectrum.as_ref(),
            distillation: self.distillation.as_ref(),
            step: self.step,
        };
        kernel::in_pool(|| parts.gradients(batch))
    }

    /// The error of a step that is not finite, after a dump of it.
    pub(crate) fn not_finite(&self, batch: &HostBatch, loss: f64, norms: &[f64]) -> Error {
        let first = self.network.infos.iter().zip(norms).find(|(_, norm)| !norm.is_finite());
        let what = match first {
            _ if !loss.is_finite() => "the loss".to_string(),
            Some((info, _)) => format!("the gradient of {}", info.name),
            None => "the gradient's norm or the spectral loss".to_string(),
        };
        let failure = Failure { step: self.step + 1, loss, what: &what, infos: &self.network.infos, norms };
        let dump = self.dump_folder.as_ref().and_then(|folder| match dump::write(folder, &failure, batch) {
            Ok(()) => Some(folder.clone()),
            Err(error) => {
                log::error!("the dump could not be written: {error}");
                None
            }
        });
        Error::NonFinite { step: self.step + 1, what, dump }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The device that inference copies live on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The network with its moments and averages.
    pub fn network(&self) -> &Trainable<Network> {
        &self.network
    }

    /// The spectrum network with its moments, where one is trained.
    pub fn spectrum(&self) -> Option<&Trainable<SpectrumMlp>> {
        self.spectrum.as_ref()
    }

    /// A copy of the network for inference: of the weights, or of the average of that name.
    ///
    /// # Errors
    /// No average has that name.
    pub fn snapshot(&self, average: Option<&str>) -> Result<Network> {
        self.network.snapshot(average)
    }

    /// What the data set says of itself.
    pub fn data_info(&self) -> &SourceInfo {
        &self.info
    }

    /// How far the trainings had come that the weights come from, the first one first.
    pub fn earlier(&self) -> &[Progress] {
        &self.earlier
    }

    /// What one sample is called: images, latents or points.
    pub fn samples_are(&self) -> &'static str {
        match (self.info.points, &self.info.latent) {
            (true, _) => "points",
            (false, Some(_)) => "latents",
            (false, None) => "images",
        }
    }

    /// Optimiser steps taken.
    pub fn steps_taken(&self) -> u64 {
        self.step
    }

    /// Samples seen.
    pub fn images(&self) -> u64 {
        self.step * self.config.train.batch_size as u64
    }

    /// Where the dump of a non-finite step goes; without one only the error tells.
    pub fn set_dump_folder(&mut self, folder: PathBuf) {
        self.dump_folder = Some(folder);
    }
}

/// So many batches in a row may be passed over; then something is wrong.
const MOST_SKIPPED: usize = 100;

/// What stands before the names of the spectrum network's parameters.
const SPECTRUM: &str = "spectrum.";

/// Leaves the parameters whose names begin with none of `only` as they are; without any all are trained.
fn train_only(
    only: &[String],
    network: &mut Trainable<Network>,
    spectrum: Option<&mut Trainable<SpectrumMlp>>,
) -> Result<()> {
    if only.is_empty() {
        return Ok(());
    }
    let of_spectrum =
        spectrum.iter().flat_map(|spectrum| &spectrum.infos).map(|info| format!("{SPECTRUM}{}", info.name));
    let names: Vec<String> = network.infos.iter().map(|info| info.name.clone()).chain(of_spectrum).collect();
    for (index, start) in only.iter().enumerate() {
        if !names.iter().any(|name| name.starts_with(start)) {
            let mut modules: Vec<&str> = names.iter().filter_map(|name| name.split('.').next()).collect();
            modules.dedup();
            let expected = format!("the beginning of a parameter's name, as of those in {}", modules.join(", "));
            return Err(Error::config(format!("train.only.{index}"), expected, start));
        }
    }
    network.train_only(|name| only.iter().any(|start| name.starts_with(start)))?;
    spectrum.map_or(Ok(()), |spectrum| {
        spectrum.train_only(|name| only.iter().any(|start| format!("{SPECTRUM}{name}").starts_with(start)))
    })
}

/// The device that records gradients, with or without recomputation of activations.
pub(crate) fn training_device(config: &Config, device: &Device) -> Device {
    let device = device.clone().autodiff();
    if config.train.gradient_checkpointing { device.gradient_checkpointing() } else { device }
}

/// The spectrum network's shape, where one is wanted.
pub(crate) fn spectrum_config(config: &Config, info: &SourceInfo) -> Result<Option<SpectrumMlpConfig>> {
    let Some(SpectrumConfig { base_size, layers, .. }) = &config.spectrum else { return Ok(None) };
    if info.points {
        return Err(Error::config("spectrum", "none for points, which have one pixel", "a spectrum network"));
    }
    let shape = SpectrumMlpConfig { base_size: base_size.unwrap_or(info.shape), layers: layers.clone() };
    shape.validate()?;
    if shape.base_size[0] != info.shape[0] {
        let expected = format!("{} channels, as in the data", info.shape[0]);
        return Err(Error::config("spectrum.base_size", expected, shape.base_size[0]));
    }
    Ok(Some(shape))
}
