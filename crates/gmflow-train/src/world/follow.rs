//! The loop of every rank but the first.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use gmflow_world::World;

use super::{Status, Team};
use crate::config::Config;
use crate::folder::failure_folder;
use crate::run::Outcome;
use crate::trainer::Trainer;
use crate::{Error, Result};

/// A rank that takes part in the run of rank 0. It writes nothing, unless it finds numbers that are not finite.
#[derive(Debug)]
pub struct Follower {
    trainer: Trainer,
}

impl Follower {
    /// Joins the run that rank 0 begins or continues. `own` is the configuration that this rank was started with, where it has one; it must
    /// be that of rank 0. The data must lie where rank 0 has it.
    ///
    /// # Errors
    /// This rank cannot take part: other data, another version, too little memory; [`Error::Rank`] where another rank cannot.
    pub fn join(world: Arc<dyn World>, device: &Device, own: Option<&Config>) -> Result<Self> {
        let (rank, size) = (world.rank(), world.size());
        let (mut trainer, folder): (Trainer, Option<PathBuf>) = Trainer::joining(Team::new(world), device, own)?;
        if let Some(folder) = folder {
            trainer.set_dump_folder(folder.join(failure_folder(rank, size)));
        }
        Ok(Self { trainer })
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Takes the run's steps with the other ranks, to the end or until `stop` is set on any of them.
    ///
    /// # Errors
    /// This rank's own error, or [`Error::Rank`]. All ranks end then.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<Outcome> {
        let mut outcome = self.steps(stop);
        if let Err(error) = &outcome {
            self.trainer.team.tell(error);
        }
        // Rank 0 says what remains to be done.
        loop {
            match self.trainer.team.round(Status::Ready) {
                Ok(heard) if heard.first() == Some(&Status::Save) => {
                    // What goes wrong there is known to all ranks, and the run ends anyway.
                    let saved = self.save();
                    outcome = outcome.and_then(|outcome| saved.map(|()| outcome));
                }
                Ok(heard) if heard.first() == Some(&Status::End) => return outcome,
                Ok(_) => {}
                Err(error @ Error::Rank { .. }) => outcome = outcome.and(Err(error)),
                Err(error) => return outcome.and(Err(error)),
            }
        }
    }

    fn steps(&mut self, stop: &AtomicBool) -> Result<Outcome> {
        let total = self.trainer.config().total_steps();
        while self.trainer.steps_taken() < total {
            if self.trainer.team.stops(stop) {
                return Ok(Outcome::Stopped);
            }
            let step = self.trainer.step()?.step;
            let (config, ends) = (self.trainer.config(), step == total);
            let save = step.is_multiple_of(config.checkpoint.every) || ends;
            let picture = config.sample.as_ref().is_some_and(|sample| step.is_multiple_of(sample.every) || ends);
            if save {
                self.save()?;
            }
            if picture {
                self.trainer.collect_averages()?;
            }
        }
        Ok(Outcome::Finished)
    }

    /// This rank's part of a checkpoint.
    fn save(&mut self) -> Result<()> {
        self.trainer.saved_by(|_| Ok(()))
    }
}
