//! The network of a configuration and the data: what the one leaves open the other tells, and where both speak they must agree.

use burn::tensor::Device;
use gmflow::checkpoint::{ModelInfo, model_folder};
use gmflow::kernel::{MatmulPrecision, PrecisionChoice};
use gmflow::limits::{self, Teacher, Training};
use gmflow::network::{GmDitConfig, NetworkConfig, UnetConfig};

use crate::config::{Config, FromData, below};
use crate::source::{OpenData, SourceInfo, TrainingData};
use crate::world::Team;
use crate::{Error, Result};

/// Patches of an image at the most, where the configuration does not say how large they are.
const MOST_PATCHES: usize = 64;

/// Opens the data of a configuration, fills in what the configuration leaves to the data, and starts to prepare the batch of optimiser
/// step `first_step`, counted from 0. `check` looks at the data first.
///
/// # Errors
/// Data that cannot be opened, that `check` refuses, or that contradicts the configuration; a run that does not fit in memory.
pub(crate) fn open_data(
    config: &mut Config,
    first_step: u64,
    (device, team): (&Device, &Team),
    check: impl FnOnce(&mut SourceInfo) -> Result<()>,
) -> Result<TrainingData> {
    fit_data(OpenData::open(&config.data.source)?, config, first_step, (device, team), check)
}

/// [`open_data`] of a set that is open already.
pub(crate) fn fit_data(
    mut data: OpenData,
    config: &mut Config,
    first_step: u64,
    (device, team): (&Device, &Team),
    check: impl FnOnce(&mut SourceInfo) -> Result<()>,
) -> Result<TrainingData> {
    check(&mut data.info)?;
    config.fit(&data.info)?;
    check_memory(config, data.info.shape, device, Split::of(team, config)?)?;
    data.start(config, first_step, team.part(config.train.batch_size)?)
}

/// What a process holds of a run of several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    /// Samples of a step that it computes.
    samples: usize,
    /// Processes on this machine.
    processes: usize,
    /// Processes that share moments and averages.
    state_shares: usize,
}

impl Split {
    /// All of it.
    pub(crate) fn whole(config: &Config) -> Self {
        Self { samples: config.train.batch_size, processes: 1, state_shares: 1 }
    }

    /// The part of a rank.
    ///
    /// # Errors
    /// A batch with fewer samples than there are ranks.
    pub(crate) fn of(team: &Team, config: &Config) -> Result<Self> {
        Ok(Self {
            samples: team.part(config.train.batch_size)?.len(),
            processes: team.world().place().local_ranks,
            state_shares: if config.train.shard_state { team.world().size() } else { 1 },
        })
    }
}

/// Refuses a run on samples `[c h w]` that does not fit in memory, before the first batch is prepared.
///
/// # Errors
/// [`gmflow::Error::Memory`].
pub(crate) fn check_memory(config: &Config, shape: [usize; 3], device: &Device, split: Split) -> Result<()> {
    let teacher = match &config.distill {
        Some(distill) => Some(ModelInfo::load(&model_folder(&distill.teacher)?)?),
        None => None,
    };
    let guidance = config.distill.as_ref().and_then(|distill| distill.guidance);
    let teacher = teacher.as_ref().map(|teacher| Teacher {
        network: &teacher.network,
        weight_bytes: if config.train.precision == PrecisionChoice::F32 { 4 } else { 2 },
        is_guided: guidance.unwrap_or(teacher.guidance).is_active(),
    });
    Ok(limits::check_training(&Training {
        network: &config.network,
        shape,
        batch: split.samples,
        micro_batch: config.train.micro_batch.map(|micro| micro.min(split.samples)),
        processes: split.processes,
        state_shares: split.state_shares,
        queue: config.data.queue,
        averages: config.ema.len(),
        all_trained: config.train.trains_all(),
        recomputed: config.train.gradient_checkpointing,
        teacher,
        device,
    })?)
}

impl Config {
    /// Settles what `train.precision` is on this device, before anything depends on it.
    pub(crate) fn settle_precision(&mut self, device: &Device) {
        self.train.precision = self.arithmetic(device).into();
    }

    /// What the layers multiply on a device.
    pub(crate) fn arithmetic(&self, device: &Device) -> MatmulPrecision {
        self.network.for_training(self.train.precision, device)
    }

    /// Takes from the data what the configuration does not give, and checks the rest against it.
    ///
    /// # Errors
    /// Every setting of the network that the data contradicts.
    pub(crate) fn fit(&mut self, info: &SourceInfo) -> Result<()> {
        let from_data = std::mem::take(&mut self.from_data);
        let [c, h, w] = info.shape;
        let classes = info.classes.as_ref().map_or(0, Vec::len);
        let set = |open: bool, value: &mut usize, told: usize| {
            if open {
                *value = told;
            }
        };
        match &mut self.network {
            NetworkConfig::GmDit(net) => {
                set(from_data.channels, &mut net.in_channels, c);
                set(from_data.size, &mut net.sample_size, h.max(w));
                set(from_data.classes, &mut net.num_embeds_ada_norm, classes);
                set(from_data.patch, &mut net.patch_size, patch_size([h, w]));
            }
            NetworkConfig::Unet(net) => {
                set(from_data.channels, &mut net.in_channels, c);
                set(from_data.size, &mut net.sample_size, h.max(w));
                set(from_data.classes, &mut net.num_classes, classes);
            }
            NetworkConfig::Mlp2d(_) => {}
        }
        self.check_fit(info)?;
        self.network.validate().map_err(|error| below("network", error.into()))
    }

    /// Takes the settings that were left to the data from another configuration of the same run.
    pub fn fit_like(&mut self, other: &Self) {
        let FromData { channels, size, classes, patch, network } = std::mem::take(&mut self.from_data);
        if self.train.precision == PrecisionChoice::Auto {
            self.train.precision = other.train.precision;
        }
        if network && (other.train.from.is_some() || other.distill.is_some()) {
            self.network = other.network.clone();
        }
        match (&mut self.network, &other.network) {
            (NetworkConfig::GmDit(net), NetworkConfig::GmDit(other)) => {
                let pairs = [
                    (channels, &mut net.in_channels, other.in_channels),
                    (size, &mut net.sample_size, other.sample_size),
                    (classes, &mut net.num_embeds_ada_norm, other.num_embeds_ada_norm),
                    (patch, &mut net.patch_size, other.patch_size),
                ];
                pairs.into_iter().filter(|(open, ..)| *open).for_each(|(_, value, told)| *value = told);
            }
            (NetworkConfig::Unet(net), NetworkConfig::Unet(other)) => {
                let pairs = [
                    (channels, &mut net.in_channels, other.in_channels),
                    (size, &mut net.sample_size, other.sample_size),
                    (classes, &mut net.num_classes, other.num_classes),
                ];
                pairs.into_iter().filter(|(open, ..)| *open).for_each(|(_, value, told)| *value = told);
            }
            _ => {}
        }
    }

    /// The network must take the data's shape and labels. A network that another training has made may have been laid out for another
    /// size and other classes.
    fn check_fit(&self, info: &SourceInfo) -> Result<()> {
        let new = self.train.from.is_none() && self.distill.is_none();
        let mut wrong = match &self.network {
            NetworkConfig::Mlp2d(_) if info.shape != [2, 1, 1] => {
                vec![Error::config("network.type", "gm-dit or unet for images", "mlp2d")]
            }
            NetworkConfig::Mlp2d(_) => Vec::new(),
            _ if info.points => vec![Error::config("network.type", "mlp2d for points", self.network.kind())],
            NetworkConfig::GmDit(net) => transformer(net, info.shape, new),
            NetworkConfig::Unet(net) => unet(net, info.shape, new),
        };
        if !info.points {
            wrong.extend(self.wrong_classes(info, new));
        }
        Error::all(wrong)
    }

    fn wrong_classes(&self, info: &SourceInfo, new: bool) -> Option<Error> {
        let (field, given) = (self.network.num_classes_field(), self.network.num_classes());
        let wrong = |expected: String| Some(Error::config(format!("network.{field}"), expected, given));
        match &info.classes {
            // Labels that a network without classes does not see.
            _ if given == 0 => None,
            None => wrong("0, because the data has no labels".into()),
            Some(names) if new && names.len() != given => {
                wrong(format!("{}, the number of classes in the data, or 0 to leave them out", names.len()))
            }
            Some(names) if names.len() > given => wrong(format!("at least {}, as in the data", names.len())),
            Some(_) => None,
        }
    }
}

/// The size of patches where it is not given: the smallest that leaves few enough of them.
fn patch_size([h, w]: [usize; 2]) -> usize {
    let fits = |patch: &usize| {
        h.is_multiple_of(*patch) && w.is_multiple_of(*patch) && (h / patch) * (w / patch) <= MOST_PATCHES
    };
    (1..=h.min(w)).find(fits).unwrap_or(1)
}

/// Channels and size that do not agree with the data's.
fn channels_and_size(
    [in_channels, out_channels, sample_size]: [usize; 3],
    [c, h, w]: [usize; 3],
    new: bool,
) -> Vec<Error> {
    let mut wrong = Vec::new();
    if in_channels != c {
        wrong.push(Error::config("network.in_channels", format!("{c}, as in the data"), in_channels));
    } else if out_channels != c {
        wrong.push(Error::config("network.out_channels", format!("{c}, as in the data"), out_channels));
    }
    if new && sample_size != h.max(w) {
        let expected = format!("{}, because the data is {h}x{w}", h.max(w));
        wrong.push(Error::config("network.sample_size", expected, sample_size));
    }
    wrong
}

fn transformer(net: &GmDitConfig, shape: [usize; 3], new: bool) -> Vec<Error> {
    let [_, h, w] = shape;
    let mut wrong = channels_and_size([net.in_channels, net.out_channels(), net.sample_size], shape, new);
    if net.patch_size == 0 || h % net.patch_size != 0 || w % net.patch_size != 0 {
        let expected = format!("a divisor of the image size {h}x{w}");
        wrong.push(Error::config("network.patch_size", expected, net.patch_size));
    }
    wrong
}

fn unet(net: &UnetConfig, shape: [usize; 3], new: bool) -> Vec<Error> {
    let [_, h, w] = shape;
    let mut wrong = channels_and_size([net.in_channels, net.out_channels(), net.sample_size], shape, new);
    if h % net.scale() != 0 || w % net.scale() != 0 {
        let expected = format!("levels whose number n fits images of {h}x{w}: multiples of 2^(n - 1)");
        wrong.push(Error::config("network.block_out_channels", expected, net.block_out_channels.len()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_as_small_as_their_number_allows() {
        let sizes = [[8, 8], [16, 16], [28, 28], [32, 32], [64, 64], [48, 32]];
        assert_eq!(sizes.map(patch_size), [1, 2, 4, 4, 8, 8]);
        assert_eq!(patch_size([97, 97]), 97, "a prime");
    }
}
