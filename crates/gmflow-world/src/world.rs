//! What the ranks of a job do together.

use crate::{Error, Result};
use std::fmt::Debug;
use std::ops::Range;

/// Bytes that go with every rank's part of a [`World::gather`]: short messages take one round.
const SHORT: usize = 120;
/// What tells in such a part how long the message is.
const LENGTH: usize = 8;
/// Bytes of all ranks that one operation moves at the most.
const MOST_AT_ONCE: usize = 1 << 28;

/// Where a rank runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The name of its host.
    pub host: String,
    /// Its number among the ranks on this host.
    pub local_rank: usize,
    /// How many ranks are on this host.
    pub local_ranks: usize,
    /// How many hosts there are.
    pub hosts: usize,
}

/// How many bytes a rank sends to each rank, and how many it receives from each.
#[derive(Clone, Copy, Debug)]
pub struct Counts<'a> {
    /// For each rank, in order; the blocks stand one behind the other.
    pub send: &'a [usize],
    /// From each rank, in order.
    pub receive: &'a [usize],
}

/// The ranks of a job. Every method but those that only tell something is called by all ranks at the same point of the program, by one
/// thread at a time.
///
/// # Errors
/// In-process worlds return [`Error::Gone`], [`Error::OutOfStep`] and [`Error::Timeout`]. MPI ends the whole job in these cases.
pub trait World: Send + Sync + Debug {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Whether the ranks hear each other. Where they do not, [`collect`](Self::collect) alone can be called.
    fn talks(&self) -> bool {
        true
    }

    /// Whether this process does all of the work, and nothing has to be joined.
    fn is_alone(&self) -> bool {
        self.size() == 1 && self.talks()
    }

    /// Where this rank runs.
    fn place(&self) -> &Place;

    /// Sends a block of `send` to every rank, and receives one from each into `receive`.
    ///
    /// # Errors
    /// Those of the trait; counts that do not fit the buffers.
    fn all_to_all(&self, send: &[u8], counts: Counts, receive: &mut [u8]) -> Result<()>;

    /// Joins the blocks of all ranks, of `counts` bytes each, in the order of the ranks.
    ///
    /// # Errors
    /// Those of the trait; counts that do not fit the buffers.
    fn all_gather(&self, own: &[u8], counts: &[usize], all: &mut [u8]) -> Result<()>;

    /// Gives the bytes of rank 0 to all ranks. They all know the length.
    ///
    /// # Errors
    /// Those of the trait.
    fn broadcast_into(&self, bytes: &mut [u8]) -> Result<()>;

    /// Waits for all ranks.
    ///
    /// # Errors
    /// Those of the trait.
    fn barrier(&self) -> Result<()>;

    /// Ends all ranks at once, with this exit code.
    fn abort(&self, code: i32) -> !;

    /// Whether there is a library with a sum of its own.
    fn has_library(&self) -> bool {
        false
    }

    /// The sum of the library below, in `sum`, for comparisons: other bits than those of [`Sums`](crate::Sums). Without a library nothing.
    ///
    /// # Errors
    /// Those of the trait.
    fn sum_of_library(&self, values: &[f32], sum: &mut [f32]) -> Result<()> {
        let _ = (values, sum);
        Ok(())
    }

    /// The messages of all ranks, in their order.
    ///
    /// # Errors
    /// Those of the trait.
    fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let size = self.size();
        let part = LENGTH + SHORT;
        let mut own = [0; LENGTH + SHORT];
        own[..LENGTH].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        let short = bytes.len().min(SHORT);
        own[LENGTH..LENGTH + short].copy_from_slice(&bytes[..short]);
        let mut all = vec![0; size * part];
        self.all_gather(&own, &vec![part; size], &mut all)?;
        let lengths: Vec<usize> = all.chunks_exact(part).map(|part| read_length(part) as usize).collect();
        if lengths.iter().all(|length| *length <= SHORT) {
            let parts = all.chunks_exact(part).zip(&lengths);
            return Ok(parts.map(|(part, length)| part[LENGTH..LENGTH + length].to_vec()).collect());
        }
        let mut parts = vec![Vec::new(); size];
        for round in rounds(&lengths, size) {
            let own = part_of(bytes, &round);
            let counts: Vec<usize> = lengths.iter().map(|length| clipped(*length, &round)).collect();
            let mut all = vec![0; counts.iter().sum()];
            self.all_gather(own, &counts, &mut all)?;
            append(&mut parts, &all, &counts);
        }
        Ok(parts)
    }

    /// The messages of all ranks, in their order, on rank 0; nothing on the others.
    ///
    /// # Errors
    /// Those of the trait.
    fn collect(&self, bytes: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        let size = self.size();
        let lengths = self.gather(&(bytes.len() as u64).to_le_bytes())?;
        let lengths: Vec<usize> = lengths.iter().map(|length| read_length(length) as usize).collect();
        let is_first = self.rank() == 0;
        let mut parts = vec![Vec::new(); size];
        for round in rounds(&lengths, size) {
            let own = part_of(bytes, &round);
            let mut send = vec![0; size];
            if let Some(first) = send.first_mut() {
                *first = own.len();
            }
            let receive: Vec<usize> =
                lengths.iter().map(|length| if is_first { clipped(*length, &round) } else { 0 }).collect();
            let mut received = vec![0; receive.iter().sum()];
            self.all_to_all(own, Counts { send: &send, receive: &receive }, &mut received)?;
            append(&mut parts, &received, &receive);
        }
        Ok(is_first.then_some(parts))
    }

    /// Gives the bytes of rank 0 to all ranks.
    ///
    /// # Errors
    /// Those of the trait.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let mut length = (bytes.len() as u64).to_le_bytes();
        self.broadcast_into(&mut length)?;
        bytes.resize(u64::from_le_bytes(length) as usize, 0);
        self.broadcast_into(bytes)
    }

    /// Whether the flag is set on any rank.
    ///
    /// # Errors
    /// Those of the trait.
    fn any(&self, flag: bool) -> Result<bool> {
        let mut all = vec![0; self.size()];
        self.all_gather(&[u8::from(flag)], &vec![1; self.size()], &mut all)?;
        Ok(all.contains(&1))
    }
}

/// The bytes of messages that travel at once: all messages together stay below what MPI can count.
fn rounds(lengths: &[usize], size: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let most = lengths.iter().copied().max().unwrap_or(0);
    let step = (MOST_AT_ONCE / size.max(1)).max(1);
    (0..most).step_by(step).map(move |start| start..(start + step).min(most))
}

/// How many bytes of a message of this length lie in a round.
fn clipped(length: usize, round: &Range<usize>) -> usize {
    length.min(round.end).saturating_sub(round.start)
}

fn part_of<'a>(bytes: &'a [u8], round: &Range<usize>) -> &'a [u8] {
    bytes.get(round.start.min(bytes.len())..round.end.min(bytes.len())).unwrap_or_default()
}

/// Appends what each rank sent in a round to its message.
fn append(parts: &mut [Vec<u8>], mut received: &[u8], counts: &[usize]) {
    for (part, count) in parts.iter_mut().zip(counts) {
        let (new, rest) = received.split_at((*count).min(received.len()));
        part.extend_from_slice(new);
        received = rest;
    }
}

fn read_length(part: &[u8]) -> u64 {
    part.first_chunk().map_or(0, |length| u64::from_le_bytes(*length))
}

/// Checks the counts of a collective operation against its buffers and the number of ranks.
pub(crate) fn check(what: &'static str, counts: &[usize], length: usize, size: usize) -> Result<()> {
    if counts.len() != size {
        return Err(Error::config(what, format!("{size} counts, one for each rank"), counts.len()));
    }
    let total = counts.iter().try_fold(0usize, |total, count| total.checked_add(*count));
    match total == Some(length) {
        true => Ok(()),
        false => Err(Error::config(what, format!("counts that add up to {length}"), format!("{counts:?}"))),
    }
}
