//! The optimiser's state and the averages, each parameter's on one rank.
//!
//! Every rank has all weights and computes gradients of all. A parameter belongs to one rank: that one alone has its moments and averages,
//! gets the sum of its gradient, updates it and sends it to the others. The bytes that travel are those of a sum for all ranks. Parameters
//! are not divided, so the files of a checkpoint are the same.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use gmflow::network::TorchNames;
use gmflow_world::{BUCKET, World};

use super::Team;
use crate::params::{self, Values};
use crate::trainable::Trainable;
use crate::{Error, Result};

/// The parameters of each rank, by their places: neighbouring ones, of about as many numbers on every rank.
pub(crate) fn owners(sizes: &[usize], ranks: usize) -> Vec<Range<usize>> {
    let total: u128 = sizes.iter().map(|size| *size as u128).sum();
    let mut owners = vec![0..0; ranks.max(1)];
    let (mut before, mut place) = (0u128, 0);
    for (rank, owned) in owners.iter_mut().enumerate() {
        let start = place;
        let end = total * (rank as u128 + 1) / ranks.max(1) as u128;
        // A parameter is the rank's in whose share its middle lies.
        while let Some(size) = sizes.get(place).filter(|size| before * 2 + **size as u128 <= end * 2) {
            before += *size as u128;
            place += 1;
        }
        if rank + 1 == ranks {
            place = sizes.len();
        }
        *owned = start..place;
    }
    owners
}

/// Replaces the numbers of this rank's own lists by their sums over all ranks, and empties the others.
pub(super) fn sum_own(team: &mut Team, lists: &mut [Vec<f32>], owners: &[Range<usize>]) -> Result<()> {
    let starts: Vec<usize> = running(lists.iter().map(Vec::len)).collect();
    let at = |place: usize| starts.get(place).copied().unwrap_or_default();
    // The numbers of each rank, one rank behind the other.
    let spans: Vec<Range<usize>> = owners.iter().map(|owned| at(owned.start)..at(owned.end)).collect();
    let (rank, size) = (team.world.rank(), team.world.size());
    let step = (BUCKET / size).max(1);
    let longest = spans.iter().map(Range::len).max().unwrap_or(0);
    let mut bucket = std::mem::take(&mut team.bucket);
    for from in (0..longest).step_by(step) {
        bucket.clear();
        let mut blocks = Vec::with_capacity(size);
        for span in &spans {
            let part = (span.start + from).min(span.end)..(span.start + from + step).min(span.end);
            let start = bucket.len();
            within(lists, part, |part| bucket.extend_from_slice(part));
            blocks.push(start..bucket.len());
        }
        // The sums take the place of this rank's own numbers, so that they need no memory beside them.
        let mut rest = team.sums.own(team.world.as_ref(), &bucket, &blocks)?;
        let span = spans.get(rank).cloned().unwrap_or_default();
        let part = (span.start + from).min(span.end)..(span.start + from + step).min(span.end);
        within(lists, part, |part| {
            let (sums, behind) = rest.split_at(part.len().min(rest.len()));
            part.copy_from_slice(sums);
            rest = behind;
        });
    }
    team.bucket = bucket;
    let owned = owners.get(rank).cloned().unwrap_or_default();
    let others = lists.iter_mut().enumerate().filter(|(place, _)| !owned.contains(place));
    others.for_each(|(_, list)| *list = Vec::new());
    Ok(())
}

/// Hands over the parts of lists that lie in a range of all their numbers, one list behind the other.
pub(super) fn within(lists: &mut [Vec<f32>], range: Range<usize>, mut take: impl FnMut(&mut [f32])) {
    let mut start = 0;
    for list in lists {
        let end = start + list.len();
        if end > range.start && start < range.end {
            let part = range.start.max(start) - start..range.end.min(end) - start;
            if let Some(part) = list.get_mut(part) {
                take(part);
            }
        }
        start = end;
    }
}

/// 0 and the sums of the numbers so far.
fn running(sizes: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
    let mut sum = 0;
    std::iter::once(0).chain(sizes.map(move |size| {
        sum += size;
        sum
    }))
}

/// The norms of the gradients of all parameters, of which every rank has its own: in the order of the parameters, so that the sum has the
/// bits of one process.
pub(crate) fn norms(world: &dyn World, own: &[f64], owners: &[Range<usize>]) -> Result<(f64, Vec<f64>)> {
    let owned = owners.get(world.rank()).cloned().unwrap_or_default();
    let squares = own.get(owned).unwrap_or_default();
    let all = world.gather(bytemuck::cast_slice(squares))?;
    let squares: Vec<f64> = all
        .iter()
        .flat_map(|bytes| bytes.as_chunks::<8>().0.iter().map(|value| f64::from_le_bytes(*value)))
        .collect();
    Ok((squares.iter().sum::<f64>().sqrt(), squares.into_iter().map(f64::sqrt).collect()))
}

impl<M: TorchNames + Module> Trainable<M> {
    /// Which parameters are whose.
    pub(crate) fn owners(&self, ranks: usize) -> Vec<Range<usize>> {
        owners(&self.sizes(), ranks)
    }

    /// Lets go of the state of the parameters of other ranks.
    pub(crate) fn keep_own_state(&mut self, world: &dyn World, device: &Device) {
        let owned = self.owners(world.size()).into_iter().nth(world.rank()).unwrap_or_default();
        let lists = self.state_mut();
        for list in lists {
            for (place, values) in list.iter_mut().enumerate() {
                if !owned.contains(&place) {
                    *values = Tensor::zeros([0], &device.clone().inner());
                }
            }
        }
    }

    /// Sends the weights that this rank has updated to the others, and takes theirs.
    ///
    /// # Errors
    /// Those of [`World`].
    pub(crate) fn share_weights(&mut self, world: &dyn World, device: &Device) -> Result<()> {
        let (sizes, owners) = (self.sizes(), self.owners(world.size()));
        let spans: Vec<usize> =
            owners.iter().map(|owned| sizes.get(owned.clone()).unwrap_or_default().iter().sum()).collect();
        let owned = owners.get(world.rank()).cloned().unwrap_or_default();
        let own: Values = params::shared(self.module()?)?.drain(..).skip(owned.start).take(owned.len()).collect();
        // The numbers of all ranks, in the order of the parameters.
        let mut all: Vec<Vec<f32>> = sizes.iter().map(|size| vec![0.0; *size]).collect();
        let starts: Vec<usize> = running(spans.iter().copied()).collect();
        let step = (BUCKET / world.size()).max(1);
        let longest = spans.iter().copied().max().unwrap_or(0);
        let mut bucket = Vec::new();
        for from in (0..longest).step_by(step) {
            let counts: Vec<usize> = spans.iter().map(|span| (from + step).min(*span).saturating_sub(from)).collect();
            let part = numbers_of(&own, from..from + step)?;
            bucket.resize(counts.iter().sum(), 0.0f32);
            let bytes: Vec<usize> = counts.iter().map(|count| count * size_of::<f32>()).collect();
            world.all_gather(bytemuck::cast_slice(&part), &bytes, bytemuck::cast_slice_mut(&mut bucket))?;
            let mut rest = bucket.as_slice();
            for (start, count) in starts.iter().zip(&counts) {
                within(&mut all, start + from..start + from + count, |part| {
                    let (values, behind) = rest.split_at(part.len());
                    part.copy_from_slice(values);
                    rest = behind;
                });
            }
        }
        let all: Values = all.into_iter().map(|values| params::on_device(values, device)).collect();
        self.replace(&all)
    }

    /// The whole state on rank 0, which writes it; [`Self::keep_own_state`] follows. With `averages_only`, the averages alone.
    ///
    /// # Errors
    /// Those of [`World`].
    pub(crate) fn collect_state(&mut self, world: &dyn World, device: &Device, averages_only: bool) -> Result<()> {
        let sizes = self.sizes();
        let owned = self.owners(world.size()).into_iter().nth(world.rank()).unwrap_or_default();
        let moments = if averages_only { 2 } else { 0 };
        for list in self.state_mut().into_iter().skip(moments) {
            let mut own: Vec<f32> = Vec::new();
            for values in list.get(owned.clone()).unwrap_or_default() {
                own.extend(params::on_host(values)?);
            }
            let Some(parts) = world.collect(bytemuck::cast_slice(&own))? else { continue };
            let mut numbers = parts.iter().flat_map(|bytes| bytes.as_chunks::<4>().0).map(|b| f32::from_le_bytes(*b));
            for (values, size) in list.iter_mut().zip(&sizes) {
                let whole: Vec<f32> = numbers.by_ref().take(*size).collect();
                if whole.len() != *size {
                    return Err(Error::config("ranks", format!("a state of {size} numbers"), whole.len()));
                }
                *values = params::on_device(whole, device);
            }
        }
        Ok(())
    }
}

/// The numbers of tensors that lie in a range of all their numbers, one tensor behind the other: copied a tensor at a time.
fn numbers_of(tensors: &Values, range: Range<usize>) -> Result<Vec<f32>> {
    let (mut numbers, mut start) = (Vec::new(), 0);
    for tensor in tensors {
        let end = start + tensor.dims()[0];
        if end > range.start && start < range.end {
            let values = params::on_host(tensor)?;
            let part = range.start.max(start) - start..range.end.min(end) - start;
            numbers.extend_from_slice(values.get(part).unwrap_or_default());
        }
        start = end;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_have_neighbouring_parameters_of_about_equal_size() {
        let sizes = [10, 1, 1, 30, 5, 5, 8, 40, 2, 2];
        for ranks in 1..6 {
            let owners = owners(&sizes, ranks);
            assert_eq!((owners[0].start, owners[ranks - 1].end), (0, sizes.len()));
            assert!(owners.windows(2).all(|pair| pair[0].end == pair[1].start), "{owners:?}");
            let most = owners.iter().map(|owned| sizes[owned.clone()].iter().sum::<usize>()).max().unwrap();
            assert!(most <= 104 / ranks + 40, "{owners:?}");
        }
        assert_eq!(owners(&[5], 3).iter().map(Range::len).sum::<usize>(), 1, "more ranks than parameters");
        assert_eq!(owners(&[], 2), [0..0, 0..0]);
    }
}
