//! Background threads that keep a bounded queue of batches ready, in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::dataset::{Batch, Batches, Dataset};
use crate::{Error, Result};

/// How batches are formed and prepared ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Samples per batch.
    pub batch_size: usize,
    /// Seed of the order, the flips and the points.
    pub seed: u64,
    /// The step of the first batch: a resumed run continues exactly where it stopped.
    pub first_step: u64,
    /// Threads that decode; at least 1. Their number does not change the batches.
    pub workers: usize,
    /// Most batches that are ready or in work ahead of the consumer; at least 1.
    pub queue: usize,
}

/// An endless iterator over the batches of a data set, from a given step on, prepared by background threads. Dropping it
/// stops the threads within the time of decoding one image.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    batches: Batches,
    queue: u64,
    state: Mutex<State>,
    /// Told when a batch is ready.
    ready: Condvar,
    /// Told when the queue has room, and when the loader stops.
    room: Condvar,
    stop: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// The next step that a thread will take on.
    next_in: u64,
    /// The next step that the consumer will get.
    next_out: u64,
    done: BTreeMap<u64, Result<Batch>>,
}

impl Loader {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] for an option outside its domain or an empty data set; [`Error::Loader`] when a thread cannot
    /// be started.
    pub fn start(dataset: Dataset, options: LoaderOptions) -> Result<Self> {
        Self::start_part(dataset, options, 0..options.batch_size)
    }

    /// [`Loader::start`] with these samples of every batch alone: those of one process of several.
    ///
    /// # Errors
    /// As [`Loader::start`] and [`Batches::part`].
    pub fn start_part(dataset: Dataset, options: LoaderOptions, part: Range<usize>) -> Result<Self> {
        let LoaderOptions { batch_size, seed, first_step, workers, queue } = options;
        for (field, value) in [("workers", workers), ("queue", queue)] {
            if !(1..=1024).contains(&value) {
                return Err(Error::config(field, "1 to 1024", value));
            }
        }
        let batches = Batches::new(dataset, batch_size, seed)?.part(part)?;
        // Half of the range is left to run on.
        let last = u64::MAX / 2 / batch_size as u64;
        if first_step > last {
            return Err(Error::config("first_step", format!("at most {last}"), first_step));
        }
        let shared = Arc::new(Shared {
            batches,
            queue: queue as u64,
            state: Mutex::new(State { next_in: first_step, next_out: first_step, done: BTreeMap::new() }),
            ready: Condvar::new(),
            room: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let mut loader = Self { shared, threads: Vec::new() };
        for number in 0..workers.min(queue) {
            let shared = loader.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("data-{number}"))
                .spawn(move || shared.work())
                .map_err(|error| Error::loader("a new thread", error))?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }

    /// The data set.
    pub fn dataset(&self) -> &Dataset {
        self.shared.batches.dataset()
    }

    /// Waits for the next batch.
    ///
    /// # Errors
    /// Those of [`Batches::batch`]; the batch after a failed one is that of the next step.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let shared = &self.shared;
        let mut state = shared.lock();
        loop {
            let step = state.next_out;
            if let Some(batch) = state.done.remove(&step) {
                state.next_out = step.saturating_add(1);
                shared.room.notify_one();
                return batch;
            }
            state = shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_batch())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Set under the lock: a thread between its check and its wait would miss the call.
        let state = self.shared.lock();
        self.shared.stop.store(true, Ordering::Relaxed);
        drop(state);
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // Its panics were caught and handed over as errors.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The life of one thread: take a step, form its batch, hand it over.
    fn work(&self) {
        while let Some(step) = self.take() {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.batches.batch_unless(step, || self.stopped())));
            let batch = match outcome {
                Ok(Ok(Some(batch))) => Ok(batch),
                Ok(Ok(None)) => return,
                Ok(Err(error)) => Err(error),
                Err(_) => Err(Error::loader(format!("the batch of step {step}"), "a failed thread")),
            };
            self.lock().done.insert(step, batch);
            self.ready.notify_all();
        }
    }

    /// Waits for room in the queue and takes on the next step; `None` when the loader stops.
    fn take(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if self.stopped() {
                return None;
            }
            if state.next_in - state.next_out < self.queue {
                let step = state.next_in;
                state.next_in = step.checked_add(1)?;
                return Some(step);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
