//! The order in which images are visited: one permutation per epoch.

use std::sync::{Arc, Mutex, PoisonError};

use rand::seq::SliceRandom;

use crate::rng::{Purpose, stream};
use crate::{Error, Result};

/// Permutations that are kept: neighbouring batches lie in at most two epochs, and threads may be one apart.
const KEPT: usize = 3;

/// Positions in the endless stream of epochs to indices. A pure function of (seed, position).
#[derive(Debug)]
pub(crate) struct Order {
    len: u32,
    seed: u64,
    kept: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

impl Order {
    /// The order for `len` images.
    pub fn new(len: usize, seed: u64) -> Result<Self> {
        match u32::try_from(len) {
            Ok(len) if len > 0 => Ok(Self { len, seed, kept: Mutex::default() }),
            _ => Err(Error::config("data set", "1 to 2^32 - 1 images", len)),
        }
    }

    /// The epoch of a position.
    pub fn epoch(&self, position: u64) -> u64 {
        position / u64::from(self.len)
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
        let mut permutation: Vec<u32> = (0..self.len).collect();
        permutation.shuffle(&mut stream(self.seed, Purpose::Order, epoch, 0));
        let permutation = Arc::new(permutation);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((epoch, permutation.clone()));
        permutation
    }
}
