//! What a trainer does with the other ranks.

use std::time::Instant;

use burn::module::Module;
use gmflow::network::TorchNames;

use super::exchange::{Computed, Joined};
use super::{Status, shard};
use crate::batch::HostBatch;
use crate::params::Values;
use crate::trainable::Trainable;
use crate::trainer::Trainer;
use crate::{Error, Result};

impl Trainer {
    /// Whether moments and averages are on one rank each.
    pub(super) fn is_sharded(&self) -> bool {
        self.config().train.shard_state && !self.team.is_solo()
    }

    /// What all ranks have computed of a step; one process's own. `batch` comes back as it is.
    ///
    /// # Errors
    /// This rank's own error, or [`Error::Rank`] where another one has failed.
    pub(crate) fn join(&mut self, own: Result<(Computed, HostBatch)>) -> Result<(Computed, HostBatch)> {
        if self.team.is_solo() {
            return own;
        }
        let (own, batch) = own.inspect_err(|error| self.team.tell(error))?;
        let (network, spectrum) = (self.network.sizes(), self.spectrum.as_ref().map(Trainable::sizes));
        let device = self.device().clone();
        let sharded = self.is_sharded();
        let how = Joined { network: &network, spectrum: spectrum.as_deref(), sharded, device: &device };
        let begun = Instant::now();
        let joined = self.team.join(own, &how);
        self.team.exchanged += begun.elapsed();
        Ok((joined?, batch))
    }

    /// The norm of a gradient and the norm of each parameter's, in the order of the parameters.
    ///
    /// # Errors
    /// Those of the world.
    pub(crate) fn norms<M: TorchNames + Module>(
        &self,
        trainable: &Trainable<M>,
        gradients: &mut Values,
    ) -> Result<(f64, Vec<f64>)> {
        if !self.is_sharded() {
            return Ok(trainable.norms(gradients));
        }
        let owners = trainable.owners(self.team.world().size());
        shard::norms(self.team.world(), &trainable.squares(gradients), &owners)
    }

    /// The error of a step that is not finite. Of several ranks, each that has found it in its own part of the batch keeps that part, and
    /// all name these ranks.
    pub(crate) fn not_finite_on_a_rank(&mut self, batch: &HostBatch, loss: f64, norms: Vec<f64>) -> Error {
        if self.team.is_solo() {
            return self.not_finite(batch, loss, &norms);
        }
        // What has been added up does not tell where it comes from.
        let own = self.gradients(batch).map(|mut own| {
            let norms = self.network.norms(&mut own.network).1;
            let spectral = own.spectral.as_ref().is_none_or(|(loss, _)| loss.is_finite());
            let finite = own.loss.is_finite() && spectral && norms.iter().all(|norm| norm.is_finite());
            (!finite).then(|| self.not_finite(batch, own.loss, &norms))
        });
        let own = match own {
            Ok(own) => own,
            Err(error) => {
                self.team.tell(&error);
                return error;
            }
        };
        let words = own.as_ref().map(|error| match error {
            Error::NonFinite { what, .. } => what.clone(),
            other => other.to_string(),
        });
        let heard = match self.team.round(Status::NotFinite(words)) {
            Ok(heard) => heard,
            Err(error) => return error,
        };
        self.team.all_know();
        let found = |(rank, status): (usize, &Status)| match status {
            Status::NotFinite(Some(what)) => Some(format!("{what} on rank {rank}")),
            _ => None,
        };
        let found: Vec<String> = heard.iter().enumerate().filter_map(found).collect();
        let what = if found.is_empty() { "the sum of the ranks' gradients".to_owned() } else { found.join(", ") };
        let dump = match own {
            Some(Error::NonFinite { dump, .. }) => dump,
            _ => None,
        };
        Error::NonFinite { step: self.steps_taken() + 1, what, dump }
    }

    /// Where each rank has updated its own parameters, all get the new ones.
    ///
    /// # Errors
    /// Those of the world.
    pub(crate) fn share_weights(&mut self) -> Result<()> {
        if !self.is_sharded() {
            return Ok(());
        }
        let mut bucket = std::mem::take(&mut self.team.bucket);
        self.network.share_weights(self.team.world(), &mut bucket)?;
        let spectrum = self.spectrum.as_mut();
        let shared = spectrum.map_or(Ok(()), |spectrum| spectrum.share_weights(self.team.world(), &mut bucket));
        self.team.bucket = bucket;
        shared
    }

    /// A checkpoint, which rank 0 alone writes, of weights that are the same on all ranks and with the state of all.
    ///
    /// # Errors
    /// [`Error::Drift`]; what rank 0's `write` fails with, on the other ranks as [`Error::Rank`].
    pub(crate) fn saved_by<T>(&mut self, write: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.check_replicas()?;
        self.collect(false)?;
        let written = write(self);
        self.keep_own_state();
        self.team.agree(written)
    }

    /// The averages on rank 0, for a picture.
    ///
    /// # Errors
    /// Those of the world.
    pub(crate) fn collect_averages(&mut self) -> Result<()> {
        self.collect(true)
    }

    fn collect(&mut self, averages_only: bool) -> Result<()> {
        if !self.is_sharded() {
            return Ok(());
        }
        let device = self.device().clone();
        let world = self.team.world();
        self.network.collect_state(world, &device, averages_only)?;
        self.spectrum.as_mut().map_or(Ok(()), |spectrum| spectrum.collect_state(world, &device, averages_only))
    }

    /// Lets go of the moments and averages of other ranks' parameters.
    pub(crate) fn keep_own_state(&mut self) {
        if self.is_sharded() {
            let device = self.device().clone();
            self.network.keep_own_state(self.team.world(), &device);
            if let Some(spectrum) = &mut self.spectrum {
                spectrum.keep_own_state(self.team.world(), &device);
            }
        }
    }
}
