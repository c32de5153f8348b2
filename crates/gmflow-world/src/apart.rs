//! A rank of a job whose ranks do not talk to each other.

use crate::exit;
use crate::share::Shard;
use crate::world::{Counts, Place, World};
use crate::{Error, Result};
use std::sync::{Mutex, PoisonError};

/// A rank that works without the others, as in a job array: what it would send to rank 0 is kept, in the order in which it was sent. Who has
/// the messages of all ranks joins them.
///
/// ```
/// use gmflow_world::{Apart, World};
///
/// let second = Apart::new("2/3".parse()?);
/// assert_eq!((second.rank(), second.size()), (1, 3));
/// assert_eq!(second.collect(b"for rank 0")?, None);
/// assert_eq!(second.take(), [b"for rank 0"]);
/// # Ok::<(), gmflow_world::Error>(())
/// ```
#[derive(Debug)]
pub struct Apart {
    shard: Shard,
    place: Place,
    kept: Mutex<Vec<Vec<u8>>>,
}

impl Apart {
    /// The rank that does this part of the work.
    pub fn new(shard: Shard) -> Self {
        let place = Place { host: String::new(), local_rank: 0, local_ranks: 1, hosts: 1 };
        Self { shard, place, kept: Mutex::default() }
    }

    /// The messages to rank 0 since this was asked last.
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn alone<T>(&self, operation: &'static str) -> Result<T> {
        let expected = "processes that talk to each other";
        Err(Error::config(operation, expected, format!("part {}, which works alone", self.shard)))
    }
}

impl World for Apart {
    fn rank(&self) -> usize {
        self.shard.index()
    }

    fn size(&self) -> usize {
        self.shard.count()
    }

    fn talks(&self) -> bool {
        false
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn all_to_all(&self, _send: &[u8], _counts: Counts, _receive: &mut [u8]) -> Result<()> {
        self.alone("all-to-all")
    }

    fn all_gather(&self, _own: &[u8], _counts: &[usize], _all: &mut [u8]) -> Result<()> {
        self.alone("all-gather")
    }

    fn broadcast_into(&self, _bytes: &mut [u8]) -> Result<()> {
        self.alone("broadcast")
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        exit::now(code)
    }

    /// Keeps the message.
    fn collect(&self, bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(bytes.to_vec());
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_to_rank_0_are_taken() {
        let apart = Apart::new(Shard::WHOLE);
        assert!(!apart.is_alone() && apart.barrier().is_ok());
        assert_eq!(apart.collect(b"a").unwrap(), None);
        assert_eq!(apart.collect(b"").unwrap(), None);
        assert_eq!(apart.take(), [b"a".to_vec(), Vec::new()]);
        assert!(apart.take().is_empty());
        let error = apart.gather(b"a").unwrap_err().to_string();
        assert_eq!(error, "all-gather: expected processes that talk to each other, got part 1/1, which works alone");
        assert!(apart.any(true).is_err() && apart.broadcast(&mut vec![1]).is_err());
    }
}
