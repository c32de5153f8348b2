//! Ranks that are processes, on one or several machines, over MPI.
//!
//! The library's own sums are not used (see the crate's words on the order of sums). Its return codes are dropped by the crate `mpi`, so its
//! default stays, by which an error ends the whole job.

use crate::exit::{self, FAILED};
use crate::watchdog::Watchdog;
use crate::world::{Counts, Place, World, check};
use crate::{Error, Result};
use mpi::collective::SystemOperation;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::{self, Universe};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use mpi::{Count, Threading};
use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

/// Bytes of one broadcast.
const BROADCAST: usize = 1 << 26;

/// The ranks of an MPI job.
pub struct Mpi {
    rank: usize,
    size: usize,
    place: Place,
    connection: Mutex<Connection>,
    watchdog: Watchdog,
}

/// What MPI is called through. Dropping it ends MPI, which waits for all ranks.
struct Connection {
    // Dropped first.
    world: SimpleCommunicator,
    _universe: Universe,
}

// SAFETY: MPI is started with MPI_THREAD_SERIALIZED, by which any thread may call it, one at a time; the mutex around this sees to that. It
// is ended by the thread that holds the last reference to the world, the main thread of the program.
unsafe impl Send for Connection {}

impl std::fmt::Debug for Mpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank).field("size", &self.size).finish_non_exhaustive()
    }
}

/// The MPI library, by the first line of its own words.
pub(crate) fn library() -> String {
    let version = environment::library_version().unwrap_or_default();
    version.split(['\n', ',']).next().unwrap_or_default().trim_end_matches('\0').trim().to_owned()
}

impl Mpi {
    /// Starts MPI. A start or an operation that no other rank has answered within `timeout` ends the process.
    ///
    /// # Errors
    /// [`Error::Config`] where MPI has been started before, or cannot be called from several threads in turn.
    pub fn start(timeout: Duration) -> Result<Self> {
        let known = Arc::new(OnceLock::new());
        let own = Arc::clone(&known);
        let bite = move || {
            let rank = own.get().map_or_else(String::new, |rank: &usize| format!("[rank {rank}] "));
            let text = format!(
                "error: {rank}no answer of all ranks within {} s: a rank or the network between them hangs; this rank ends\n",
                timeout.as_secs()
            );
            // Nobody is left to be told that stderr is gone.
            let _ = std::io::stderr().write_all(text.as_bytes());
            exit::now(FAILED)
        };
        let watchdog = Watchdog::start(timeout, bite);
        // The start waits for all ranks too.
        let started = watchdog.watch(|| mpi::initialize_with_threading(Threading::Serialized));
        let (universe, threading) =
            started.ok_or_else(|| Error::config("MPI", "to be started once", "a second start"))?;
        if threading < Threading::Serialized {
            return Err(Error::config(
                "MPI",
                "an MPI library that threads may call in turn",
                format!("{threading:?}"),
            ));
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        // It is set once, here.
        let _ = known.set(rank);
        let host = environment::processor_name().unwrap_or_default();
        let host = host.trim_end_matches('\0').to_owned();
        let mut started = Self {
            rank,
            size,
            place: Place { host, local_rank: 0, local_ranks: 1, hosts: 1 },
            connection: Mutex::new(Connection { world, _universe: universe }),
            watchdog,
        };
        let hosts = started.gather(started.place.host.as_bytes())?;
        let own = started.place.host.as_bytes();
        started.place.local_rank = hosts.iter().take(rank).filter(|host| *host == own).count();
        started.place.local_ranks = hosts.iter().filter(|host| *host == own).count();
        started.place.hosts = hosts.iter().collect::<std::collections::BTreeSet<_>>().len();
        Ok(started)
    }

    /// Runs an operation of all ranks.
    fn together<T>(&self, operation: impl FnOnce(&SimpleCommunicator) -> T) -> T {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        self.watchdog.watch(|| operation(&connection.world))
    }
}

/// Counts and starts of blocks as MPI takes them.
fn placed(what: &'static str, counts: &[usize]) -> Result<(Vec<Count>, Vec<Count>)> {
    let mut start = 0usize;
    let (mut sizes, mut starts) = (Vec::new(), Vec::new());
    for count in counts {
        let fits = |number: usize| {
            let most = Count::MAX;
            Count::try_from(number).map_err(|_| Error::config(what, format!("at most {most} bytes"), number))
        };
        sizes.push(fits(*count)?);
        starts.push(fits(start)?);
        start = start.saturating_add(*count);
    }
    Ok((sizes, starts))
}

/// A slice of no bytes may point to any address, 1 for example, which is OpenMPI's MPI_IN_PLACE. This one has a place of its own.
fn somewhere(bytes: &[u8]) -> &[u8] {
    if bytes.is_empty() { &[0; 1][..0] } else { bytes }
}

/// [`somewhere`] for bytes that are written.
fn somewhere_mut<'a>(bytes: &'a mut [u8], nothing: &'a mut [u8; 1]) -> &'a mut [u8] {
    if bytes.is_empty() { &mut nothing[..0] } else { bytes }
}

impl World for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn all_to_all(&self, send: &[u8], counts: Counts, receive: &mut [u8]) -> Result<()> {
        check("all-to-all", counts.send, send.len(), self.size)?;
        check("all-to-all", counts.receive, receive.len(), self.size)?;
        let (sizes, starts) = placed("all-to-all", counts.send)?;
        let (sizes_in, starts_in) = placed("all-to-all", counts.receive)?;
        let send = Partition::new(somewhere(send), sizes, starts);
        let mut nothing = [0];
        let mut receive = PartitionMut::new(somewhere_mut(receive, &mut nothing), sizes_in, starts_in);
        self.together(|world| world.all_to_all_varcount_into(&send, &mut receive));
        Ok(())
    }

    fn all_gather(&self, own: &[u8], counts: &[usize], all: &mut [u8]) -> Result<()> {
        check("all-gather", counts, all.len(), self.size)?;
        if counts.get(self.rank) != Some(&own.len()) {
            return Err(Error::config("all-gather", format!("counts with {} of this rank", own.len()), "others"));
        }
        let (sizes, starts) = placed("all-gather", counts)?;
        let mut nothing = [0];
        let mut all = PartitionMut::new(somewhere_mut(all, &mut nothing), sizes, starts);
        self.together(|world| world.all_gather_varcount_into(somewhere(own), &mut all));
        Ok(())
    }

    fn broadcast_into(&self, bytes: &mut [u8]) -> Result<()> {
        for part in bytes.chunks_mut(BROADCAST) {
            self.together(|world| world.process_at_rank(0).broadcast_into(part));
        }
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.together(CommunicatorCollectives::barrier);
        Ok(())
    }

    fn has_library(&self) -> bool {
        true
    }

    fn sum_of_library(&self, values: &[f32], sum: &mut [f32]) -> Result<()> {
        check("sum", &[values.len()], sum.len(), 1)?;
        self.together(|world| world.all_reduce_into(values, sum, SystemOperation::sum()));
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        // A thread that is in an operation waits for the others; MPI must not be called beside it, and the launcher ends the job when this
        // process is gone.
        match self.connection.try_lock() {
            Ok(connection) => connection.world.abort(code),
            Err(TryLockError::Poisoned(connection)) => connection.into_inner().world.abort(code),
            Err(TryLockError::WouldBlock) => exit::now(code),
        }
    }
}
