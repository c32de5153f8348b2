//! Several processes that work on one task: who they are, what they tell each other, and sums that have the same bits on all of them.
//!
//! | | what it is |
//! |---|---|
//! | [`World`] | the ranks of a job, and what they do together |
//! | [`Solo`] | one process alone |
//! | [`threads`] | ranks that are threads of one process, for tests without MPI |
//! | [`Apart`] | ranks that do not talk: what they would send is kept and joined later |
//! | `Mpi` | ranks that are processes on one or several machines (feature `mpi`) |
//! | [`Sums`] | sums of gradients in the order of the ranks |
//! | [`share`], [`share_of_batches`] | which part of a range a rank works on |
//! | [`connect`], [`Launched`] | the world that a launcher (`mpirun`, `srun`) has started this process in |
//!
//! # Sums in the order of the ranks
//! `MPI_Allreduce` may add in any order, so its result depends on the library, on the number of hosts and on the length of the message.
//! Here every rank sends each other rank its block (all-to-all), adds the blocks that it received in the order of the ranks, and sends the
//! sum to all (all-gather). These are the bytes of a ring all-reduce, and the result is `((x0 + x1) + x2) + ...` on every rank.
//!
//! ```
//! use gmflow_world::{Sums, World, threads};
//!
//! let worlds = threads(3, None);
//! std::thread::scope(|scope| {
//!     for world in worlds {
//!         scope.spawn(move || {
//!             let mut values = vec![world.rank() as f32 + 1.0; 5];
//!             Sums::default().sum(&world, &mut values).expect("all ranks take part");
//!             assert_eq!(values, [6.0; 5]);
//!         });
//!     }
//! });
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod apart;
mod error;
mod exit;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
mod share;
mod solo;
mod sums;
mod threads;
mod watchdog;
mod world;

pub use apart::Apart;
pub use error::{Error, Result};
pub use exit::end_on_panic;
pub use launcher::{Launched, connect, launched};
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use share::{Shard, share, share_of_batches};
pub use solo::Solo;
pub use sums::{BUCKET, Exchange, Sums};
pub use threads::{Threads, threads};
pub use world::{Counts, Place, World};
