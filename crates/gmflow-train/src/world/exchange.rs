//! The sum of the gradients of all ranks.

use burn::tensor::{Device, Tensor, TensorData};
use gmflow_world::BUCKET;

use super::Team;
use super::shard::{self, within};
use super::status::Status;
use crate::params::{self, Values};
use crate::{Error, Result};

/// What a rank has computed of a batch.
pub(crate) struct Computed {
    /// The mean loss over the batch, this rank's part of it.
    pub(crate) loss: f64,
    /// The gradient of the network.
    pub(crate) network: Values,
    /// The spectral loss and its gradient.
    pub(crate) spectral: Option<(f64, Values)>,
    /// The largest loss of a sample, in distillation.
    pub(crate) largest: Option<f64>,
}

/// How the gradients of all ranks are joined.
pub(crate) struct Joined<'a> {
    /// The numbers of each parameter of the network.
    pub(crate) network: &'a [usize],
    /// The same of the spectrum network, where one is trained.
    pub(crate) spectrum: Option<&'a [usize]>,
    /// Whether each rank needs the sum of its own parameters alone.
    pub(crate) sharded: bool,
    /// Where the gradients are.
    pub(crate) device: &'a Device,
}

impl Team {
    /// The losses and gradients of the whole batch, the same bits on all ranks. A loss that is not finite comes back without a sum of
    /// gradients: nothing will be done with them.
    ///
    /// # Errors
    /// [`Error::Rank`] where another rank has failed.
    pub(crate) fn join(&mut self, mut own: Computed, how: &Joined) -> Result<Computed> {
        let stop = self.wishes_to_stop;
        let spectral = own.spectral.as_ref().map(|(loss, _)| *loss);
        let lists = || [Some(&own.network), own.spectral.as_ref().map(|(_, gradients)| gradients)];
        let mask: Vec<u8> =
            lists().into_iter().flatten().flatten().map(|tensor| u8::from(tensor.dims() != [0])).collect();
        let present = crc32c::crc32c(&mask);
        let (loss, largest) = (own.loss, own.largest);
        let heard = self.round(Status::Step { loss, spectral, largest, present, stop })?;
        own.largest = heard.iter().filter_map(largest_loss).reduce(largest_of);
        let steps: Vec<(f64, Option<f64>, u32)> = heard.iter().filter_map(step).collect();
        if steps.len() != heard.len() || steps.iter().any(|(_, other, _)| other.is_some() != spectral.is_some()) {
            return Err(Error::config("ranks", "all of them at the same step of one configuration", "others"));
        }
        // In the order of the ranks, as one process adds up the parts of a batch.
        own.loss = steps.iter().fold(0.0, |sum, (loss, ..)| sum + loss);
        if let Some((loss, _)) = &mut own.spectral {
            *loss = steps.iter().fold(0.0, |sum, (_, loss, _)| sum + loss.unwrap_or_default());
        }
        let losses = [own.loss, own.spectral.as_ref().map_or(0.0, |(loss, _)| *loss)];
        if losses.iter().any(|loss| !loss.is_finite()) {
            return Ok(own);
        }
        if steps.iter().any(|(.., other)| *other != present) {
            self.fill(&mut own, &mask, how)?;
        }
        self.sum(&mut own.network, how.network, how)?;
        if let (Some((_, gradients)), Some(sizes)) = (&mut own.spectral, how.spectrum) {
            self.sum(gradients, sizes, how)?;
        }
        Ok(own)
    }

    /// Gives a parameter that has no gradient on this rank and one on another a gradient that adds nothing: -0 keeps every number as it is,
    /// the sign of a zero included.
    fn fill(&mut self, own: &mut Computed, mask: &[u8], how: &Joined) -> Result<()> {
        let masks = self.world.gather(mask)?;
        let mut needed = (0..mask.len()).map(|index| masks.iter().any(|mask| mask.get(index) == Some(&1)));
        let device = how.device.clone().inner();
        let spectral = own.spectral.as_mut().map(|(_, gradients)| gradients).zip(how.spectrum);
        for (gradients, sizes) in [(&mut own.network, how.network)].into_iter().chain(spectral) {
            for (gradient, size) in gradients.iter_mut().zip(sizes) {
                if needed.next() == Some(true) && gradient.dims() == [0] {
                    *gradient = Tensor::full([*size], -0.0, &device);
                }
            }
        }
        Ok(())
    }

    fn sum(&mut self, gradients: &mut Values, sizes: &[usize], how: &Joined) -> Result<()> {
        // Parameters without a gradient on any rank take no part.
        let taken: Vec<usize> = gradients.iter().map(|gradient| gradient.dims()[0]).collect();
        // In their own memory: a second copy of all gradients would be as large as the weights.
        let mut host = Vec::with_capacity(gradients.len());
        for gradient in std::mem::take(gradients) {
            host.push(params::into_data(gradient)?);
        }
        if how.sharded {
            // By the sizes of the parameters, so that gradients and state have the same owners.
            let owners = shard::owners(sizes, self.world.size());
            shard::sum_own(self, &mut host, &owners)?;
        } else {
            self.sum_all(&mut host, taken.iter().sum())?;
        }
        gradients.extend(host.into_iter().map(|values| params::from_data(values, how.device)));
        Ok(())
    }

    /// Replaces the numbers of all lists by their sums over all ranks, some at a time.
    fn sum_all(&mut self, lists: &mut [TensorData], total: usize) -> Result<()> {
        let mut bucket = std::mem::take(&mut self.bucket);
        bucket.reserve_exact(total.min(BUCKET).saturating_sub(bucket.len()));
        let mut done = 0;
        while done < total {
            let range = done..(done + BUCKET).min(total);
            bucket.clear();
            within(lists, range.clone(), |part| bucket.extend_from_slice(part))?;
            self.sums.sum(self.world.as_ref(), &mut bucket)?;
            let mut rest = bucket.as_slice();
            within(lists, range.clone(), |part| {
                let (sums, behind) = rest.split_at(part.len());
                part.copy_from_slice(sums);
                rest = behind;
            })?;
            done = range.end;
        }
        self.bucket = bucket;
        Ok(())
    }
}

fn step(status: &Status) -> Option<(f64, Option<f64>, u32)> {
    match status {
        Status::Step { loss, spectral, present, .. } => Some((*loss, *spectral, *present)),
        _ => None,
    }
}

fn largest_loss(status: &Status) -> Option<f64> {
    match status {
        Status::Step { largest, .. } => *largest,
        _ => None,
    }
}

/// The larger of two losses; one that is no number is larger than all.
pub(crate) fn largest_of(a: f64, b: f64) -> f64 {
    if a.is_nan() || b <= a { a } else { b }
}
