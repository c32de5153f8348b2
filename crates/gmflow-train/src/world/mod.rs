//! Training by several processes: each computes the gradient of its part of a batch, and all take the same step.
//!
//! | | what it does |
//! |---|---|
//! | `status` | what the ranks tell each other between the parts of a step |
//! | `exchange` | the sum of the gradients, in the order of the ranks |
//! | `step` | what a trainer does with the other ranks in a step and in a checkpoint |
//! | `join` | how a rank gets the configuration, the weights and its part of the data |
//! | `follow` | the loop of every rank but the first, which alone has the folder |
//! | `timing` | how long a step takes, and what of it the exchange |
//! | `shard` | the optimiser's state, each parameter's on one rank |
//!
//! Every rank is at one of a few points at any time: in a step, in a checkpoint, in a picture, or after its loop. All of them begin with
//! one gather of a few bytes, in which a rank that has failed says so. Therefore no rank waits for one that has failed.

mod exchange;
mod follow;
mod join;
mod shard;
mod status;
mod step;
mod timing;

pub use follow::Follower;
pub use status::agree;
pub use timing::{StepTime, time_steps};

pub(crate) use exchange::{Computed, largest_of};
pub(crate) use status::Status;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gmflow_world::{Exchange, Solo, Sums, World, share};

use crate::config::Config;
use crate::{Error, Result};

/// The ranks that a trainer works with, and what it knows of them.
#[derive(Debug)]
pub(crate) struct Team {
    world: Arc<dyn World>,
    sums: Sums,
    /// Numbers on their way to a sum.
    bucket: Vec<f32>,
    /// This rank was told to stop.
    wishes_to_stop: bool,
    /// Some rank was, and all know it.
    stops: bool,
    /// All ranks know that one of them has failed.
    told: bool,
    /// The time that the exchange of gradients has taken.
    exchanged: Duration,
}

impl Team {
    /// One process alone.
    pub(crate) fn solo() -> Self {
        Self::new(Arc::new(Solo::default()))
    }

    /// The ranks of a world.
    pub(crate) fn new(world: Arc<dyn World>) -> Self {
        let (sums, bucket) = (Sums::default(), Vec::new());
        Self { world, sums, bucket, wishes_to_stop: false, stops: false, told: false, exchanged: Duration::ZERO }
    }

    /// Gradients travel as the configuration says.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.sums = Sums::new(if config.train.exchange_bf16 { Exchange::Bf16 } else { Exchange::F32 });
    }

    /// Whether there are no other ranks.
    pub(crate) fn is_solo(&self) -> bool {
        self.world.size() == 1
    }

    pub(crate) fn world(&self) -> &dyn World {
        self.world.as_ref()
    }

    /// The samples of every batch that this rank computes.
    ///
    /// # Errors
    /// A batch with fewer samples than there are ranks.
    pub(crate) fn part(&self, batch_size: usize) -> Result<Range<usize>> {
        let (rank, size) = (self.world.rank(), self.world.size());
        if batch_size < size {
            let expected = format!("at least {size}, a sample for each of the {size} processes");
            return Err(Error::config("train.batch_size", expected, batch_size));
        }
        Ok(share(batch_size, rank, size))
    }

    /// Whether the run stops before the next step: where one process is alone as soon as it is told, otherwise after the step in which some
    /// rank has told the others.
    pub(crate) fn stops(&mut self, stop: &AtomicBool) -> bool {
        let told = stop.load(Ordering::Relaxed);
        self.wishes_to_stop |= told;
        if self.is_solo() { told } else { self.stops }
    }

    /// Tells all ranks what this one is about to do, and hears the same of them.
    ///
    /// # Errors
    /// [`Error::Rank`] where a rank says that it has failed.
    pub(crate) fn round(&mut self, status: Status) -> Result<Vec<Status>> {
        let heard = status::round(self.world.as_ref(), status);
        self.told |= matches!(heard, Err(Error::Rank { .. }));
        let heard = heard?;
        self.stops |= heard.iter().any(Status::stops);
        Ok(heard)
    }

    /// What this rank has done, or the error of a rank that has failed at it.
    ///
    /// # Errors
    /// This rank's own error, or else [`Error::Rank`].
    pub(crate) fn agree<T>(&mut self, done: Result<T>) -> Result<T> {
        if self.is_solo() {
            return done;
        }
        let agreed = status::agree(self.world.as_ref(), done);
        self.told |= agreed.is_err();
        agreed
    }

    /// Tells all ranks that this one has failed, unless they know that some rank has.
    pub(crate) fn tell(&mut self, error: &Error) {
        if !self.is_solo() && !self.told {
            let told = self.round(Status::Failed(error.to_string()));
            debug_assert!(told.is_err(), "its own failure is among them");
        }
    }

    /// All ranks know of a failure that each of them sees by itself.
    pub(crate) fn all_know(&mut self) {
        self.told = true;
    }

    /// Rank 0 says what the ranks do that wait for the end of the run: save, or end.
    ///
    /// # Errors
    /// As [`Team::round`].
    pub(crate) fn command(&mut self, command: Status) -> Result<()> {
        if self.is_solo() { Ok(()) } else { self.round(command).map(|_| ()) }
    }
}
