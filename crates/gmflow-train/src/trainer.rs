//! The training loop's state and its one step, without any folder.

use std::path::PathBuf;

use burn::tensor::Device;
use gmflow::network::Network;

use crate::batch::{DrawPlan, Feed, HostBatch};
use crate::config::Config;
use crate::dump::{self, Failure};
use crate::params::Buffers;
use crate::schedule::learning_rate;
use crate::source::Source;
use crate::trainable::Trainable;
use crate::{Error, Result};

/// What one optimiser step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Optimiser steps taken so far.
    pub step: u64,
    /// Samples seen so far.
    pub images: u64,
    /// The batch's mean loss before the step.
    pub loss: f64,
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the step.
    pub lr: f64,
}

/// A network in training. Equal configurations give equal weights on a CPU, whatever the accumulation split to float
/// tolerance, and bit for bit when a run is resumed.
#[derive(Debug)]
pub struct Trainer {
    config: Config,
    device: Device,
    network: Trainable<Network>,
    info: SourceInfo,
    feed: Feed,
    step: u64,
    dump_folder: Option<PathBuf>,
}

/// What the data set says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// The names of the classes, where the data has labels.
    pub classes: Option<Vec<String>>,
    /// Points in the plane rather than images.
    pub points: bool,
}

impl Trainer {
    /// Draws the weights, opens the data and starts the data thread.
    ///
    /// # Errors
    /// An invalid configuration, data that cannot be opened, a network that does not fit the data.
    pub fn new(config: Config, device: &Device) -> Result<Self> {
        config.validate()?;
        let module = config.network.init(config.train.seed, &training_device(&config, device))?;
        let network = Trainable::new(module, &config.ema)?;
        Self::start(config, device, network, 0)
    }

    /// Joins a network in training with its data from optimiser step `step` on.
    pub(crate) fn start(config: Config, device: &Device, network: Trainable<Network>, step: u64) -> Result<Self> {
        let source = Source::open(&config, step)?;
        let info = source.info().clone();
        let null_class = network.module()?.null_class();
        check_fit(&config, &info, null_class)?;
        let plan = DrawPlan::new(&config, null_class);
        let feed = Feed::start(source, plan, step, config.data.queue)?;
        Ok(Self { device: device.clone(), config, network, info, feed, step, dump_folder: None })
    }

    /// Takes one optimiser step on the next global batch.
    ///
    /// # Errors
    /// Data that cannot be read; a loss or gradient that is not finite, before the weights are touched.
    pub fn step(&mut self) -> Result<StepReport> {
        let batch = self.feed.next()?;
        let (loss, gradients) = self.gradients(&batch)?;
        let (grad_norm, norms) = self.network.norms(&gradients);
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(self.not_finite(&batch, loss, norms));
        }
        let lr = learning_rate(&self.config.train, self.step, self.config.total_steps());
        self.network.update(&self.config.train, lr, &gradients, grad_norm)?;
        self.step += 1;
        Ok(StepReport { step: self.step, images: self.images(), loss, grad_norm, lr })
    }

    /// The mean loss of the batch and its gradient, summed over parts of `micro_batch` samples.
    fn gradients(&self, batch: &HostBatch) -> Result<(f64, Buffers)> {
        let device = training_device(&self.config, &self.device);
        let (size, micro) = (self.config.train.batch_size, self.config.micro_batch());
        let (mut total, mut loss) = (None, 0.0);
        for start in (0..size).step_by(micro.max(1)) {
            let range = start..(start + micro).min(size);
            let share = range.len() as f64 / size as f64;
            let part = self.config.loss.evaluate(self.network.module()?, batch.part(range, &device)) * share; // [1]
            let mut gradients = part.backward();
            loss += f64::from(part.into_scalar::<f32>());
            self.network.accumulate(&mut total, &mut gradients)?;
        }
        Ok((loss, total.unwrap_or_default()))
    }

    fn not_finite(&self, batch: &HostBatch, loss: f64, norms: Vec<f64>) -> Error {
        let first = self.network.infos.iter().zip(&norms).find(|(_, norm)| !norm.is_finite());
        let what = match first {
            _ if !loss.is_finite() => "the loss".to_string(),
            Some((info, _)) => format!("the gradient of {}", info.name),
            None => "the gradient's norm".to_string(),
        };
        let failure = Failure { step: self.step + 1, loss, what: &what, infos: &self.network.infos, norms: &norms };
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

/// The device that records gradients, with or without recomputation of activations.
pub(crate) fn training_device(config: &Config, device: &Device) -> Device {
    let device = device.clone().autodiff();
    if config.train.gradient_checkpointing { device.gradient_checkpointing() } else { device }
}

/// The network must take the data's shape and labels.
fn check_fit(config: &Config, info: &SourceInfo, null_class: Option<usize>) -> Result<()> {
    let [c, h, w] = info.shape;
    match &config.network {
        gmflow::network::NetworkConfig::Mlp2d(_) if info.shape != [2, 1, 1] => {
            return Err(Error::config("network.type", "gm-dit for images", "mlp2d"));
        }
        gmflow::network::NetworkConfig::GmDit(net) => {
            if net.in_channels != c {
                return Err(Error::config("network.in_channels", format!("{c}, as in the data"), net.in_channels));
            }
            if h % net.patch_size != 0 || w % net.patch_size != 0 {
                let expected = format!("a divisor of the image size {h}x{w}");
                return Err(Error::config("network.patch_size", expected, net.patch_size));
            }
        }
        _ => {}
    }
    match (&info.classes, null_class) {
        (Some(classes), Some(null)) if null > 0 && classes.len() > null => {
            Err(Error::config("network.num_embeds_ada_norm", format!("at least {} classes", classes.len()), null))
        }
        (None, Some(null)) if null > 0 => {
            Err(Error::config("network.num_embeds_ada_norm", "0, because the data has no labels", null))
        }
        _ => Ok(()),
    }
}
