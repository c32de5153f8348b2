//! The optimiser's state and the averages, each parameter's on one rank.
//!
//! Every rank has all weights and computes gradients of all. A parameter belongs to one rank: that one alone has its moments and averages,
//! gets the sum of its gradient, updates it and sends it to the others. The bytes that travel are those of a sum for all ranks. Parameters
//! are not divided, so the files of a checkpoint are the same.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::network::TorchNames;
use gmflow_world::{BUCKET, Counts, World};

use super::Team;
use crate::Result;
use crate::params;
use crate::trainable::Trainable;

/// The parameters of each rank, by their places: neighbouring ones, so that the rank with the most numbers has as few as can be.
pub(crate) fn owners(sizes: &[usize], ranks: usize) -> Vec<Range<usize>> {
    let ranks = ranks.max(1);
    // The smallest number that all parameters fit into, found by halving.
    let (mut low, mut high) = (0u128, sizes.iter().map(|size| *size as u128).sum());
    while low < high {
        let middle = low + (high - low) / 2;
        match filled(sizes, ranks, middle).last().is_some_and(|last| last.end == sizes.len()) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    filled(sizes, ranks, high)
}

/// The parameters of each rank where every one takes as many as do not exceed `most` numbers.
fn filled(sizes: &[usize], ranks: usize, most: u128) -> Vec<Range<usize>> {
    let mut place = 0;
    let fill = |_| {
        let (start, mut own) = (place, 0u128);
        while let Some(size) = sizes.get(place).filter(|size| own + **size as u128 <= most) {
            own += *size as u128;
            place += 1;
        }
        start..place
    };
    (0..ranks).map(fill).collect()
}

/// Replaces the numbers of this rank's own lists by their sums over all ranks, and empties the others.
pub(super) fn sum_own(team: &mut Team, lists: &mut [TensorData], owners: &[Range<usize>]) -> Result<()> {
    let starts: Vec<usize> = running(lists.iter().map(TensorData::num_elements)).collect();
    let at = |place: usize| starts.get(place).copied().unwrap_or_default();
    // The numbers of each rank, one rank behind the other.
    let spans: Vec<Range<usize>> = owners.iter().map(|owned| at(owned.start)..at(owned.end)).collect();
    let (rank, size) = (team.world.rank(), team.world.size());
    let step = (BUCKET / size).max(1);
    let longest = spans.iter().map(Range::len).max().unwrap_or(0);
    let mut bucket = std::mem::take(&mut team.bucket);
    bucket.reserve_exact(spans.iter().map(Range::len).sum::<usize>().min(BUCKET).saturating_sub(bucket.len()));
    for from in (0..longest).step_by(step) {
        bucket.clear();
        let mut blocks = Vec::with_capacity(size);
        for span in &spans {
            let part = (span.start + from).min(span.end)..(span.start + from + step).min(span.end);
            let start = bucket.len();
            within(lists, part, |part| bucket.extend_from_slice(part))?;
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
        })?;
    }
    team.bucket = bucket;
    let owned = owners.get(rank).cloned().unwrap_or_default();
    let others = lists.iter_mut().enumerate().filter(|(place, _)| !owned.contains(place));
    others.for_each(|(_, list)| *list = TensorData::new(Vec::<f32>::new(), [0]));
    Ok(())
}

/// Hands over the parts of lists that lie in a range of all their numbers, one list behind the other.
pub(super) fn within(lists: &mut [TensorData], range: Range<usize>, mut take: impl FnMut(&mut [f32])) -> Result<()> {
    let mut start = 0;
    for list in lists {
        let own = start..start + list.num_elements();
        start = own.end;
        let both = common(&own, &range);
        if !both.is_empty()
            && let Some(part) = params::numbers(list)?.get_mut(both.start - own.start..both.end - own.start)
        {
            take(part);
        }
    }
    Ok(())
}

/// What two ranges have in common.
fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
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

    /// Sends the weights that this rank has updated to the others, and takes theirs, in the memory that they have. They travel in `bucket`.
    ///
    /// # Errors
    /// Those of [`World`].
    pub(crate) fn share_weights(&mut self, world: &dyn World, bucket: &mut Vec<f32>) -> Result<()> {
        let (sizes, owners) = (self.sizes(), self.owners(world.size()));
        let starts: Vec<usize> = running(sizes.iter().copied()).collect();
        let at = |place: usize| starts.get(place).copied().unwrap_or_default();
        // The numbers of each rank, one rank behind the other.
        let spans: Vec<Range<usize>> = owners.iter().map(|owned| at(owned.start)..at(owned.end)).collect();
        let step = (BUCKET / world.size()).max(1);
        let longest = spans.iter().map(Range::len).max().unwrap_or(0);
        let mut own = Vec::new();
        for from in (0..longest).step_by(step) {
            let parts: Vec<Range<usize>> = spans
                .iter()
                .map(|span| (span.start + from).min(span.end)..(span.start + from + step).min(span.end))
                .collect();
            own.clear();
            let of_rank = parts.get(world.rank()).into_iter().cloned().collect::<Vec<_>>();
            self.weights_within(&starts, &of_rank, |part| own.extend_from_slice(part))?;
            bucket.resize(parts.iter().map(Range::len).sum(), 0.0f32);
            let bytes: Vec<usize> = parts.iter().map(|part| part.len() * size_of::<f32>()).collect();
            world.all_gather(bytemuck::cast_slice(&own), &bytes, bytemuck::cast_slice_mut(bucket))?;
            let mut rest = bucket.as_slice();
            self.weights_within(&starts, &parts, |part| {
                let (values, behind) = rest.split_at(part.len().min(rest.len()));
                part.copy_from_slice(values);
                rest = behind;
            })?;
        }
        Ok(())
    }

    /// Hands over the weights that lie in these ranges of all numbers, which stand one behind the other. `starts` says where each parameter
    /// starts.
    fn weights_within(
        &mut self,
        starts: &[usize],
        ranges: &[Range<usize>],
        mut take: impl FnMut(&mut [f32]),
    ) -> Result<()> {
        let own = |place: usize| match starts.get(place..place + 2) {
            Some([start, end]) => *start..*end,
            _ => 0..0,
        };
        let has = |place: usize| ranges.iter().any(|range| !common(&own(place), range).is_empty());
        self.in_place(has, |place, numbers| {
            for range in ranges {
                let both = common(&own(place), range);
                let start = own(place).start;
                if !both.is_empty()
                    && let Some(part) = numbers.get_mut(both.start - start..both.end - start)
                {
                    take(part);
                }
            }
            Ok(())
        })
    }

    /// The whole state on rank 0, which writes it; [`Self::keep_own_state`] follows. With `averages_only`, the averages alone. One tensor
    /// travels at a time, so that the other ranks need no memory for it.
    ///
    /// # Errors
    /// Those of [`World`].
    pub(crate) fn collect_state(&mut self, world: &dyn World, device: &Device, averages_only: bool) -> Result<()> {
        let (sizes, owners) = (self.sizes(), self.owners(world.size()));
        let moments = if averages_only { 2 } else { 0 };
        for list in self.state_mut().into_iter().skip(moments) {
            for (owner, owned) in owners.iter().enumerate().skip(1) {
                for place in owned.clone() {
                    let (Some(values), Some(size)) = (list.get_mut(place), sizes.get(place)) else { continue };
                    if world.rank() == 0 {
                        let mut whole = vec![0.0f32; *size];
                        whole.chunks_mut(BUCKET).try_for_each(|part| to_first(world, owner, part))?;
                        *values = params::on_device(whole, device);
                    } else if world.rank() == owner {
                        let mut data = params::into_data(values.clone())?;
                        params::numbers(&mut data)?
                            .chunks_mut(BUCKET)
                            .try_for_each(|part| to_first(world, owner, part))?;
                    } else {
                        (0..size.div_ceil(BUCKET)).try_for_each(|_| to_first(world, owner, &mut []))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Sends the numbers of a rank to rank 0, which takes them in the place of its own.
fn to_first(world: &dyn World, owner: usize, numbers: &mut [f32]) -> Result<()> {
    let none = vec![0; world.size()];
    let one = |rank: usize| {
        let mut counts = none.clone();
        if let Some(count) = counts.get_mut(rank) {
            *count = size_of_val(numbers);
        }
        counts
    };
    let done = if world.rank() == 0 {
        world.all_to_all(&[], Counts { send: &none, receive: &one(owner) }, bytemuck::cast_slice_mut(numbers))
    } else if world.rank() == owner {
        world.all_to_all(bytemuck::cast_slice(numbers), Counts { send: &one(0), receive: &none }, &mut [])
    } else {
        world.all_to_all(&[], Counts { send: &none, receive: &none }, &mut [])
    };
    Ok(done?)
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
            assert!(
                (0..most).all(|less| filled(&sizes, ranks, less as u128)[ranks - 1].end < sizes.len()),
                "{owners:?}"
            );
        }
        assert_eq!(owners(&[5], 3).iter().map(Range::len).sum::<usize>(), 1, "more ranks than parameters");
        assert_eq!(owners(&[], 2), [0..0, 0..0]);
    }
}
