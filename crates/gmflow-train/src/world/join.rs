//! How a rank gets what it needs: rank 0 has the run's folder, and tells the others the configuration, the step and the weights.
//!
//! The others need no folder and no model, only the data, at the place where rank 0 has it. What they find there must be what rank 0 found.

use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use gmflow::checkpoint::LatentInfo;
use gmflow::network::TorchNames;
use gmflow_data::Fingerprint;
use gmflow_world::World;
use serde::{Deserialize, Serialize};

use super::{Status, Team};
use crate::config::Config;
use crate::fit::{Split, check_memory};
use crate::params::{self, Values};
use crate::source::{OpenData, SourceInfo};
use crate::trainable::Trainable;
use crate::trainer::{Networks, Trainer, training_device};
use crate::{Error, Result};

/// What rank 0 tells the others first.
#[derive(Serialize, Deserialize)]
pub(super) struct Hello {
    version: String,
    /// The resolved configuration, in TOML.
    config: String,
    /// Steps taken.
    step: u64,
    /// Whether the state of the optimiser is not that of a start.
    has_state: bool,
    /// The run's folder.
    pub(super) folder: Option<PathBuf>,
    data: Known,
}

/// What the ranks must agree on of the data.
#[derive(Serialize, Deserialize)]
struct Known {
    shape: [usize; 3],
    classes: Option<Vec<String>>,
    count: Option<usize>,
    fingerprint: Option<Fingerprint>,
    latent: Option<LatentInfo>,
}

impl Known {
    fn of(info: &SourceInfo) -> Self {
        let SourceInfo { shape, classes, count, fingerprint, latent, .. } = info.clone();
        Self { shape, classes, count, fingerprint, latent }
    }

    /// # Errors
    /// What this rank found otherwise.
    fn check(&self, own: &SourceInfo) -> Result<()> {
        let same = |what: &str, same: bool, expected: String, got: String| match same {
            true => Ok(()),
            false => Err(Error::config(format!("data.source: {what}"), format!("{expected}, as on rank 0"), got)),
        };
        let words = |count: Option<usize>| count.map_or("no images".to_owned(), |count| count.to_string());
        let names =
            |names: &Option<Vec<String>>| names.as_ref().map_or("no names".to_owned(), |names| names.join(", "));
        same("shape", self.shape == own.shape, format!("{:?}", self.shape), format!("{:?}", own.shape))?;
        same("images", self.count == own.count, words(self.count), words(own.count))?;
        same("classes", self.classes == own.classes, names(&self.classes), names(&own.classes))?;
        if let (Some(first), Some(own)) = (&self.fingerprint, &own.fingerprint)
            && let Some(changes) = first.changes(own)
        {
            return same("content", false, "the data".to_owned(), format!("other data: {changes}"));
        }
        same("latents", self.latent == own.latent, format!("{:?}", self.latent), format!("{:?}", own.latent))
    }
}

impl Trainer {
    /// Takes the other ranks into a run that rank 0 has opened: they get the configuration, the step, weights and state.
    ///
    /// # Errors
    /// [`Error::Rank`] where a rank cannot take part: it has other data, another version or too little memory.
    pub(crate) fn lead(&mut self, folder: Option<&Path>) -> Result<()> {
        if self.team.is_solo() {
            return Ok(());
        }
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: self.config().to_toml()?,
            step: self.steps_taken(),
            has_state: self.steps_taken() > 0,
            folder: folder.map(|folder| std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf())),
            data: Known::of(self.data_info()),
        };
        let mut text = serde_json::to_vec(&hello).map_err(|e| Error::config("ranks", "a greeting", e))?;
        self.team.world().broadcast(&mut text)?;
        self.team.agree(Ok(()))?;
        self.spread(hello.has_state)
    }

    /// A trainer of a rank that joins rank 0's run, and the run's folder. `own` is the configuration that this rank was started with, where
    /// it has one.
    ///
    /// # Errors
    /// As [`Trainer::lead`].
    pub(super) fn joining(mut team: Team, device: &Device, own: Option<&Config>) -> Result<(Self, Option<PathBuf>)> {
        let mut text = Vec::new();
        team.world().broadcast(&mut text)?;
        let prepared = Hello::read(&text).and_then(|hello| {
            let config = hello.config(own)?;
            let part = team.part(config.train.batch_size)?;
            let data = OpenData::open(&config.data.source)?;
            hello.data.check(&data.info)?;
            check_memory(&config, data.info.shape, device, Split::of(&team, &config)?)?;
            let mut network = config.network.init(config.train.seed, &training_device(&config, device))?;
            network.compute_in(config.arithmetic(device));
            // Moments and averages come with the weights of rank 0: memory never holds more than the part of this rank.
            let mut network = Trainable::bare(network, &config.ema);
            network.optimizer.step = hello.step;
            let networks = Networks { network, spectrum: None, earlier: Vec::new() };
            Ok((networks, data.start(&config, hello.step, part)?, config, hello))
        });
        let (networks, data, config, hello) = team.agree(prepared)?;
        let mut trainer = Self::start(config, device, networks, data, team)?;
        trainer.spread(hello.has_state)?;
        Ok((trainer, hello.folder))
    }

    /// Gives all ranks the weights of rank 0 and, with `has_state`, its moments and averages. Averages begin at the weights otherwise.
    fn spread(&mut self, has_state: bool) -> Result<()> {
        let device = self.device().clone();
        let (world, sharded) = (self.team.world(), self.is_sharded());
        give(world, &mut self.network, (has_state, sharded), &device)?;
        if let Some(spectrum) = &mut self.spectrum {
            give(world, spectrum, (has_state, sharded), &device)?;
        }
        self.keep_own_state();
        self.check_replicas()
    }

    /// Compares the weights of all ranks, which must be the same to the last bit.
    ///
    /// # Errors
    /// [`Error::Drift`] on all ranks; [`Error::Rank`] where a rank has failed.
    pub(crate) fn check_replicas(&mut self) -> Result<()> {
        if self.team.is_solo() {
            return Ok(());
        }
        let mut digest = digest(self.network(), 0)?;
        if let Some(spectrum) = self.spectrum() {
            digest = self::digest(spectrum, digest)?;
        }
        let step = self.steps_taken();
        let heard = self.team.round(Status::Weights(digest))?;
        match heard.iter().position(|status| *status != heard[0]) {
            None => Ok(()),
            Some(rank) => {
                self.team.all_know();
                Err(Error::Drift { step, rank })
            }
        }
    }
}

impl Hello {
    fn read(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|e| Error::config("ranks", "rank 0 with this version of gmflow", e))
    }

    /// The configuration of rank 0, where it is what this rank was started with too.
    fn config(&self, own: Option<&Config>) -> Result<Config> {
        let version = env!("CARGO_PKG_VERSION");
        if self.version != version {
            return Err(Error::config("gmflow", format!("version {}, as rank 0", self.version), version));
        }
        let config = Config::parse(&self.config, "rank 0".as_ref(), &[])?;
        config.validate()?;
        if let Some(own) = own {
            let mut own = own.clone();
            own.fit_like(&config);
            own.train.from.clone_from(&config.train.from);
            own.data.source.clone_from(&config.data.source);
            let names = config.differences(&own)?;
            if !names.is_empty() {
                return Err(Error::config(
                    "configuration",
                    "that of rank 0",
                    format!("another {}", names.join(", ")),
                ));
            }
        }
        Ok(config)
    }
}

/// Gives all ranks a module of rank 0, with or without the state of its optimiser; of the state each takes its own part, or all.
fn give<M: TorchNames + Module>(
    world: &dyn World,
    trainable: &mut Trainable<M>,
    (has_state, sharded): (bool, bool),
    device: &Device,
) -> Result<()> {
    let sizes = trainable.sizes();
    let own = trainable.owners(world.size()).into_iter().nth(world.rank()).filter(|_| sharded);
    let own = own.unwrap_or(0..sizes.len());
    if world.rank() == 0 {
        for values in params::shared(trainable.module()?)? {
            let mut data = params::into_data(values)?;
            world.broadcast_into(bytemuck::cast_slice_mut(params::numbers(&mut data)?))?;
        }
    } else {
        trainable.in_place(|_| true, |_, numbers| Ok(world.broadcast_into(bytemuck::cast_slice_mut(numbers))?))?;
        trainable.begin_state(own.clone())?;
    }
    if !has_state {
        return Ok(());
    }
    for list in trainable.state_mut() {
        let values = given(world, list, (&sizes, &own), device)?;
        if world.rank() > 0 {
            *list = values;
        }
    }
    Ok(())
}

/// Tensors of rank 0, one at a time, of which those in `kept` are kept; on rank 0 nothing, as it has them.
fn given(
    world: &dyn World,
    own: &Values,
    (sizes, kept): (&[usize], &Range<usize>),
    device: &Device,
) -> Result<Values> {
    let mut received = Vec::new();
    for (place, (values, size)) in own.iter().zip(sizes).enumerate() {
        if world.rank() == 0 {
            let mut values = params::on_host(values)?;
            world.broadcast_into(bytemuck::cast_slice_mut(&mut values))?;
        } else {
            let mut values = vec![0.0f32; *size];
            world.broadcast_into(bytemuck::cast_slice_mut(&mut values))?;
            received.push(params::on_device(if kept.contains(&place) { values } else { Vec::new() }, device));
        }
    }
    Ok(received)
}

/// The CRC-32C of a module's weights, after `before`.
fn digest<M: TorchNames + Module>(trainable: &Trainable<M>, before: u32) -> Result<u32> {
    let mut digest = before;
    for values in params::shared(trainable.module()?)? {
        let mut data = params::into_data(values)?;
        digest = crc32c::crc32c_append(digest, bytemuck::cast_slice(params::numbers(&mut data)?));
    }
    Ok(digest)
}
