//! The order in which images are visited: one permutation per epoch.
//!
//! A set in files of its own, such as tar shards, may be visited file by file, mixed by a shuffle buffer ([`Nearby`]). That order is a
//! permutation too, and a pure function of seed, epoch, lengths of the files, buffer and batch size. So is the image at every position of
//! every batch, whoever reads it: a process that reads only a part of each batch reads only a part of the files.

use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;
use rand::seq::SliceRandom;

use crate::rng::{Purpose, stream};
use crate::{Error, Result};

/// Permutations that are kept: neighbouring batches lie in at most two epochs, and threads may be one apart.
const KEPT: usize = 3;

/// A set that is visited file by file rather than at random.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearby {
    /// The number of images of each file, in the order of the set.
    pub files: Vec<usize>,
    /// Images in the shuffle buffers of all lanes together; at least 1.
    pub buffer: usize,
    /// Files that are read at the same time; at least 1.
    pub lanes: usize,
}

/// Positions in the endless stream of epochs to indices. A pure function of (seed, position).
#[derive(Debug)]
pub(crate) struct Order {
    len: u32,
    seed: u64,
    batch: u64,
    nearby: Option<Nearby>,
    kept: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

impl Order {
    /// The order for `len` images in batches of `batch`; `nearby` of files with `len` images in all.
    pub fn new(len: usize, seed: u64, batch: usize, nearby: Option<Nearby>) -> Result<Self> {
        if let Some(Nearby { files, .. }) = &nearby
            && files.iter().sum::<usize>() != len
        {
            return Err(Error::config("data set", format!("{len} images in its files"), files.iter().sum::<usize>()));
        }
        match u32::try_from(len) {
            Ok(len) if len > 0 => Ok(Self { len, seed, batch: batch.max(1) as u64, nearby, kept: Mutex::default() }),
            _ => Err(Error::config("data set", "1 to 2^32 - 1 images", len)),
        }
    }

    /// The epoch of a position.
    pub fn epoch(&self, position: u64) -> u64 {
        position / u64::from(self.len)
    }

    /// Whether neighbours in the order are neighbours in their files.
    pub fn is_nearby(&self) -> bool {
        self.nearby.is_some()
    }

    /// The index at a position.
    pub fn index(&self, position: u64) -> Result<usize> {
        let within = (position % u64::from(self.len)) as usize;
        let permutation = self.permutation(self.epoch(position));
        let index = permutation.get(within).ok_or_else(|| Error::loader("a position in the epoch", within))?;
        Ok(*index as usize)
    }

    fn permutation(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, permutation)) = kept.iter().find(|(known, _)| *known == epoch) {
            return permutation.clone();
        }
        let permutation = match &self.nearby {
            None => {
                let mut permutation: Vec<u32> = (0..self.len).collect();
                permutation.shuffle(&mut stream(self.seed, Purpose::Order, epoch, 0));
                permutation
            }
            Some(nearby) => nearby.permutation(self.seed, epoch, self.batch),
        };
        let permutation = Arc::new(permutation);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((epoch, permutation.clone()));
        permutation
    }
}

impl Nearby {
    /// The order of an epoch. The files, in an order of their own, are laid end to end and cut into lanes. Each lane is mixed by its
    /// buffer. Place i of a batch of B takes its images from lane `floor(i lanes / B)`: a share of the places of all batches needs
    /// the files of its lanes only. Lanes are as long as their places ask for, so that all of them end together.
    fn permutation(&self, seed: u64, epoch: u64, batch: u64) -> Vec<u32> {
        let sequence = self.sequence(seed, epoch);
        let len = sequence.len() as u64;
        let lanes = (self.lanes.max(1) as u64).min(batch).min(len.max(1));
        let buffer = self.buffer.div_ceil(lanes as usize).max(1);
        // The first place of a lane, and with it the share of the epoch that lies before the lane.
        let place = |lane: u64| (lane * batch).div_ceil(lanes);
        let start = |lane: u64| (u128::from(len) * u128::from(place(lane)) / u128::from(batch)) as usize;
        let mut mixed: Vec<_> = (0..lanes)
            .map(|lane| {
                let part = sequence.get(start(lane)..start(lane + 1)).unwrap_or_default();
                mix(part, buffer, &mut stream(seed, Purpose::Order, epoch, 1 + lane)).into_iter()
            })
            .collect();
        // An epoch may begin within a batch.
        let first = (u128::from(epoch) * u128::from(len) % u128::from(batch)) as u64;
        let next = |at: u64| {
            let lane = ((first + at) % batch * lanes / batch) as usize;
            // Where the epoch is no whole number of batches, one lane is done a little before the others.
            let (before, from) = mixed.split_at_mut(lane);
            from.iter_mut().chain(before).find_map(Iterator::next)
        };
        (0..len).map_while(next).collect()
    }

    /// The images file by file, the files in a random order.
    fn sequence(&self, seed: u64, epoch: u64) -> Vec<u32> {
        let mut next = 0u32;
        let mut files: Vec<_> = (self.files.iter())
            .map(|&len| {
                let start = next;
                next = next.saturating_add(len as u32);
                start..next
            })
            .collect();
        files.shuffle(&mut stream(seed, Purpose::Order, epoch, 0));
        files.into_iter().flatten().collect()
    }
}

/// Mixes a sequence with a shuffle buffer: each image that comes takes the place of a random one, which goes.
fn mix(sequence: &[u32], buffer: usize, rng: &mut impl rand::Rng) -> Vec<u32> {
    let (held, coming) = sequence.split_at(buffer.min(sequence.len()));
    let mut held = held.to_vec();
    let mut mixed = Vec::with_capacity(sequence.len());
    for &image in coming {
        let at = rng.random_range(0..held.len());
        if let Some(place) = held.get_mut(at) {
            mixed.push(std::mem::replace(place, image));
        }
    }
    held.shuffle(rng);
    mixed.extend(held);
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn order(files: &[usize], buffer: usize, lanes: usize, batch: usize) -> Order {
        let nearby = Nearby { files: files.to_vec(), buffer, lanes };
        Order::new(files.iter().sum(), 7, batch, Some(nearby)).unwrap()
    }

    #[test]
    fn every_epoch_visits_every_image_once() {
        let files: [&[usize]; 5] = [&[1], &[5, 0, 3], &[100, 37, 64], &[2; 50], &[1000]];
        for (files, buffer, lanes, batch) in files
            .iter()
            .flat_map(|files| [(1, 1, 1), (10, 3, 7), (1000, 8, 16), (5, 64, 3)].map(|(b, l, s)| (*files, b, l, s)))
        {
            let order = order(files, buffer, lanes, batch);
            let len = files.iter().sum::<usize>() as u64;
            for epoch in 0..3 {
                let seen: BTreeSet<usize> =
                    (epoch * len..(epoch + 1) * len).map(|position| order.index(position).unwrap()).collect();
                assert_eq!(seen.len() as u64, len, "{files:?} {buffer} {lanes} {batch}");
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_a_new_order_is_the_same() {
        let files = [100, 100, 100];
        let all = |order: &Order, epoch: u64| -> Vec<usize> {
            (0..300).map(|within| order.index(epoch * 300 + within).unwrap()).collect()
        };
        let first = order(&files, 50, 2, 8);
        assert_eq!(all(&first, 0), all(&order(&files, 50, 2, 8), 0));
        assert_ne!(all(&first, 0), all(&first, 1));
        // The last epoch first: nothing depends on what was asked before.
        let again = order(&files, 50, 2, 8);
        assert_eq!(all(&again, 5), all(&first, 5));
        assert_eq!(all(&again, 0), all(&first, 0));
    }

    /// The files that places `from..to` of all batches of an epoch read.
    fn files_of(order: &Order, per_file: usize, len: u64, places: std::ops::Range<u64>) -> BTreeSet<usize> {
        let own = |position: &u64| places.contains(&(position % order.batch));
        (0..len).filter(own).map(|position| order.index(position).unwrap() / per_file).collect()
    }

    #[test]
    fn a_share_of_the_places_reads_a_share_of_the_files() {
        let order = order(&[50; 32], 100, 8, 16);
        for ranks in [1, 2, 4, 8] {
            for rank in 0..ranks {
                let read = files_of(&order, 50, 1600, 16 * rank / ranks..16 * (rank + 1) / ranks);
                // The file at either end of the share may be another rank's too.
                assert!(read.len() as u64 <= 32 / ranks + 1, "{ranks} {rank}: {}", read.len());
            }
        }
    }

    #[test]
    fn few_files_are_read_at_a_time() {
        let order = order(&[50; 32], 64, 4, 16);
        for start in (0..1600 - 64).step_by(64) {
            let read: BTreeSet<usize> =
                (start..start + 64).map(|position| order.index(position).unwrap() / 50).collect();
            // In a random order as many images come from nearly all 32 files.
            assert!(read.len() <= 14, "{start}: {}", read.len());
        }
    }

    #[test]
    fn a_buffer_of_one_reads_in_order_and_a_large_one_mixes() {
        let in_order = order(&[100], 1, 1, 10);
        assert!((0..100).all(|position| in_order.index(position).unwrap() as u64 == position));
        let mixed = order(&[1000], 1000, 1, 10);
        let forward = (1..1000).filter(|at| mixed.index(*at).unwrap() > mixed.index(at - 1).unwrap()).count();
        assert!((400..600).contains(&forward), "{forward}");
    }

    #[test]
    fn files_must_hold_the_images() {
        let nearby = Nearby { files: vec![1, 2], buffer: 1, lanes: 1 };
        assert!(Order::new(4, 0, 1, Some(nearby)).is_err());
    }
}
