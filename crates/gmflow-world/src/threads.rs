//! Ranks that are threads of one process: the same operations without MPI, for tests.

use crate::exit;
use crate::world::{Counts, Place, World, check};
use crate::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a rank waits for the others where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(600);

/// One rank of a world of threads. Dropping it tells the others that it has ended.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    place: Place,
    timeout: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a rank brings to an operation.
#[derive(Debug)]
struct Message {
    operation: &'static str,
    bytes: Vec<u8>,
    /// The lengths of its blocks.
    counts: Vec<usize>,
}

#[derive(Debug)]
struct State {
    round: u64,
    arrived: Vec<Option<Message>>,
    /// The messages of the round before.
    last: Arc<Vec<Message>>,
    gone: Vec<bool>,
}

/// The ranks of a new world, each for a thread of its own. An operation that waits longer than `timeout` fails.
pub fn threads(size: usize, timeout: Option<Duration>) -> Vec<Threads> {
    let size = size.max(1);
    let state =
        State { round: 0, arrived: (0..size).map(|_| None).collect(), last: Arc::default(), gone: vec![false; size] };
    let shared = Arc::new(Shared { size, state: Mutex::new(state), changed: Condvar::new() });
    let place = |rank| Place { host: "threads".into(), local_rank: rank, local_ranks: size, hosts: 1 };
    let timeout = timeout.unwrap_or(TIMEOUT);
    (0..size).map(|rank| Threads { rank, place: place(rank), timeout, shared: Arc::clone(&shared) }).collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Threads {
    /// Waits until every rank has brought its message, and returns all of them.
    fn exchange(&self, message: Message) -> Result<Arc<Vec<Message>>> {
        let operation = message.operation;
        let mut state = self.shared.lock();
        let round = state.round;
        if let Some(place) = state.arrived.get_mut(self.rank) {
            *place = Some(message);
        }
        if state.arrived.iter().all(Option::is_some) {
            let all = state.arrived.iter_mut().filter_map(Option::take).collect();
            state.last = Arc::new(all);
            state.round += 1;
            self.shared.changed.notify_all();
        }
        let begun = Instant::now();
        while state.round == round {
            let missing = |(rank, gone): (usize, &bool)| (*gone && state.arrived[rank].is_none()).then_some(rank);
            if let Some(rank) = state.gone.iter().enumerate().find_map(missing) {
                return Err(Error::Gone { rank });
            }
            let Some(left) = self.timeout.checked_sub(begun.elapsed()) else {
                return Err(Error::Timeout { operation, seconds: self.timeout.as_secs() });
            };
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let all = Arc::clone(&state.last);
        match all.iter().position(|message| message.operation != operation) {
            Some(rank) => Err(Error::OutOfStep { got: operation, rank, other: all[rank].operation }),
            None => Ok(all),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(gone) = state.gone.get_mut(self.rank) {
            *gone = true;
        }
        self.shared.changed.notify_all();
    }
}

impl World for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn all_to_all(&self, send: &[u8], counts: Counts, receive: &mut [u8]) -> Result<()> {
        check("all-to-all", counts.send, send.len(), self.size())?;
        check("all-to-all", counts.receive, receive.len(), self.size())?;
        let (operation, bytes) = ("all-to-all", send.to_vec());
        let all = self.exchange(Message { operation, bytes, counts: counts.send.to_vec() })?;
        let mut rest = receive;
        for (message, count) in all.iter().zip(counts.receive) {
            let start: usize = message.counts.iter().take(self.rank).sum();
            let block = &message.bytes[start..start + message.counts[self.rank]];
            let (own, behind) = rest.split_at_mut(*count);
            if block.len() != *count {
                return Err(Error::config("all-to-all", format!("a block of {count} bytes"), block.len()));
            }
            own.copy_from_slice(block);
            rest = behind;
        }
        Ok(())
    }

    fn all_gather(&self, own: &[u8], counts: &[usize], all: &mut [u8]) -> Result<()> {
        check("all-gather", counts, all.len(), self.size())?;
        let messages = self.exchange(Message { operation: "all-gather", bytes: own.to_vec(), counts: Vec::new() })?;
        let mut rest = all;
        for (message, count) in messages.iter().zip(counts) {
            let (part, behind) = rest.split_at_mut(*count);
            if message.bytes.len() != *count {
                return Err(Error::config("all-gather", format!("a block of {count} bytes"), message.bytes.len()));
            }
            part.copy_from_slice(&message.bytes);
            rest = behind;
        }
        Ok(())
    }

    fn broadcast_into(&self, bytes: &mut [u8]) -> Result<()> {
        let own = if self.rank == 0 { bytes.to_vec() } else { Vec::new() };
        let all = self.exchange(Message { operation: "broadcast", bytes: own, counts: Vec::new() })?;
        let first = all.first().map_or(&[][..], |message| message.bytes.as_slice());
        if first.len() != bytes.len() {
            return Err(Error::config("broadcast", format!("{} bytes", bytes.len()), first.len()));
        }
        bytes.copy_from_slice(first);
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        let nothing = Message { operation: "barrier", bytes: Vec::new(), counts: Vec::new() };
        self.exchange(nothing).map(|_| ())
    }

    fn abort(&self, code: i32) -> ! {
        exit::now(code)
    }
}
