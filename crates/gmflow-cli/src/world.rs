//! The processes that work on one command together: those that `mpirun` or `srun` has started, or one alone.

use crate::args::WorldArgs;
use crate::failure::usage;
use crate::{device, rank, terminal};
use anyhow::{Result, anyhow};
use burn::tensor::Device;
use gmflow::kernel::PrecisionChoice;
use gmflow_world::{Shard, World};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The variable by which a user says how many threads there are.
const THREADS: &str = "RAYON_NUM_THREADS";

/// This process and those that it works with.
pub struct Job {
    world: Arc<dyn World>,
    /// All ranks know how the command ends, so that each may end by itself.
    settled: AtomicBool,
}

impl Job {
    /// One process.
    pub fn alone() -> Self {
        Self { world: Arc::new(gmflow_world::Solo::default()), settled: AtomicBool::new(true) }
    }

    /// The processes that a launcher has started for a command with these arguments; with a part of the work as `--shard` has it, each works
    /// alone.
    pub fn start(arguments: &WorldArgs, shard: Option<Shard>) -> Result<Self> {
        if shard.is_some() {
            return Ok(Self::alone());
        }
        let launched = gmflow_world::launched(|name| std::env::var(name).ok());
        let world = gmflow_world::connect(launched, Duration::from_secs(arguments.timeout));
        let world = world.map_err(|error| match error {
            gmflow_world::Error::Config { field, expected, got } => usage(&field, expected, got),
            other => other.into(),
        })?;
        if world.size() > 1 {
            rank::set(world.rank());
            gmflow_world::end_on_panic(Arc::downgrade(&world));
        }
        Ok(Self { world, settled: AtomicBool::new(false) })
    }

    /// The ranks.
    pub fn world(&self) -> &Arc<dyn World> {
        &self.world
    }

    /// Whether this is the only process, or rank 0.
    pub fn is_first(&self) -> bool {
        self.world.rank() == 0
    }

    /// The part of the work that is this process's: that of `--shard`, or of the rank.
    pub fn shard(&self, asked: Option<Shard>) -> Shard {
        asked.unwrap_or_else(|| Shard::of(self.world.rank(), self.world.size()))
    }

    /// From now on every rank knows how the command ends.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// What all ranks have done, or the error of one of them, which all know then.
    pub fn agree<T>(&self, done: Result<T>) -> Result<T> {
        let agreed = gmflow_train::agree(self.world.as_ref(), done.map_err(Said));
        agreed.map_err(|error| {
            self.settle();
            error.0
        })
    }

    /// What the first rank has chosen, on all ranks: they may run on processors that differ.
    pub fn of_first(&self, choice: PrecisionChoice) -> Result<PrecisionChoice> {
        let mut name = serde_json::to_vec(&choice)?;
        self.world.broadcast(&mut name)?;
        Ok(serde_json::from_slice(&name)?)
    }

    /// Waits for all ranks.
    pub fn wait(&self) -> Result<()> {
        Ok(self.world.barrier()?)
    }

    /// Ends the command with an exit code. A rank that has failed by itself ends all the others with it.
    pub fn end(self, code: u8) -> u8 {
        if code != 0 && self.world.size() > 1 && !self.settled.load(Ordering::Relaxed) {
            self.world.abort(i32::from(code));
        }
        code
    }

    /// Starts the threads of this process: the share of its host's cores that it has, unless the user says how many.
    pub fn start_threads(&self) -> Result<()> {
        let asked = std::env::var_os(THREADS).is_some();
        if self.world.size() > 1 && !asked {
            let threads = threads(self.world.as_ref())?;
            // Where they cannot be started, the call below says so.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
        Ok(gmflow::kernel::start_threads()?)
    }

    /// The device with this name. Of several on a machine, ranks take one each, where no number is given.
    pub fn device(&self, name: &str) -> Result<Device> {
        let place = self.world.place();
        match name {
            "cpu" => device::device(name),
            name if place.local_ranks > 1 && !name.contains(':') => {
                device::device(&format!("{name}:{}", place.local_rank))
            }
            name => device::device(name),
        }
    }
}

/// An error with its causes in one text, as the other ranks hear it.
struct Said(anyhow::Error);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::failure::one_line(&self.0))
    }
}

impl From<gmflow_train::Error> for Said {
    fn from(error: gmflow_train::Error) -> Self {
        Self(error.into())
    }
}

/// The threads of this rank: of every core that it may run on, its share among the ranks of this host that may run there too.
fn threads(world: &dyn World) -> Result<usize> {
    let own = cores();
    let mut message = world.place().host.clone().into_bytes();
    message.push(0);
    message.extend(own.iter().flat_map(|core| core.to_le_bytes()));
    let of_host = |bytes: &Vec<u8>| -> Option<Vec<u32>> {
        let cores = bytes.strip_prefix(world.place().host.as_bytes())?.strip_prefix(&[0])?;
        Some(cores.as_chunks::<4>().0.iter().map(|core| u32::from_le_bytes(*core)).collect())
    };
    let all = world.gather(&message)?;
    let ranks: Vec<Vec<u32>> = all.iter().filter_map(of_host).collect();
    let most = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = share_of_cores(&own, &ranks).unwrap_or(most / world.place().local_ranks.max(1));
    let threads = threads.clamp(1, most.max(1));
    let on_host = std::fs::read_to_string("/proc/cpuinfo").map_or(most, |text| text.matches("processor\t").count());
    let could = on_host / world.place().local_ranks.max(1);
    if rank::speaks() && !own.is_empty() && threads < could {
        log::warn!(
            "the launcher has bound each process to {} of {on_host} cores, so that it has {threads} thread{} where {could} are possible; \
             mpirun --bind-to none leaves the choice to gmflow, and {THREADS} says how many",
            own.len(),
            if threads == 1 { "" } else { "s" }
        );
    }
    Ok(threads)
}

/// A rank's share of its cores, each divided among the ranks of the host that may run on it; `None` where no core is known.
fn share_of_cores(own: &[u32], ranks: &[Vec<u32>]) -> Option<usize> {
    let share = |core: &u32| 1.0 / ranks.iter().filter(|cores| cores.contains(core)).count().max(1) as f64;
    // A third of a core three times is a whole one.
    (!own.is_empty()).then(|| (own.iter().map(share).sum::<f64>() + 1e-9) as usize)
}

/// The cores that this process may run on; none where the system does not tell.
#[cfg(target_os = "linux")]
fn cores() -> Vec<u32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    core_list(list)
}

#[cfg(not(target_os = "linux"))]
fn cores() -> Vec<u32> {
    Vec::new()
}

/// A list of the kernel's, such as `0-3,8`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn core_list(list: &str) -> Vec<u32> {
    /// More than any machine has.
    const MOST: u32 = 1 << 16;
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u32>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first.trim().parse().ok()?..=last.trim().parse().ok()?;
        (*range.end() < MOST).then_some(range)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Says on stderr how the processes are placed, once.
pub fn say_ranks(world: &dyn World, work: &str) {
    if world.size() > 1 {
        let place = world.place();
        let hosts = if place.hosts == 1 { "this host".to_owned() } else { format!("{} hosts", place.hosts) };
        let threads = rayon::current_num_threads();
        terminal::say(&format!("processes {} on {hosts}, threads {threads} each on rank 0; {work}", world.size()));
    }
}

/// A message of another rank that cannot be read.
pub fn unreadable() -> anyhow::Error {
    anyhow!("a rank sent something that this version of gmflow cannot read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_with_the_ranks_that_run_there_too() {
        assert_eq!(core_list("\t0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(core_list("0-99999999999,x"), [0u32; 0]);
        let free = vec![vec![0, 1, 2, 3]; 2];
        assert_eq!(share_of_cores(&free[0], &free), Some(2));
        let bound = [vec![0, 1], vec![2, 3]];
        assert_eq!(share_of_cores(&bound[1], &bound), Some(2));
        let crowded = vec![vec![0, 1]; 4];
        assert_eq!(share_of_cores(&crowded[0], &crowded), Some(0), "one thread at the least is the caller's matter");
        let thirds = vec![vec![0, 1, 2]; 3];
        assert_eq!(share_of_cores(&thirds[0], &thirds), Some(1));
        assert_eq!(share_of_cores(&[], &bound), None);
    }
}
