//! How a team of threads shares a pass: the leader offers shares, members take them, and the leader waits until all are done.
//!
//! Nothing but [`super::sync`] is imported from the crate: `tests/team_model.rs` compiles this file with the types of a model checker and
//! tries the orders in which threads may run.

use super::sync::{AtomicPtr, AtomicU64, AtomicUsize, Mutex, spin_loop};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Members of a team, and shares of a pass, at the most.
pub(crate) const MOST: usize = u64::BITS as usize;

/// Works on a share of a pass, and then on the shares that its second argument returns.
pub(crate) type Run<'a> = dyn Fn(usize, &dyn Fn() -> Option<usize>) + Sync + 'a;

/// A leader and the members that share its passes.
pub(crate) struct Team {
    /// A bit for each share of the pass that no thread has taken.
    open: AtomicU64,
    /// Shares that are done.
    done: AtomicUsize,
    /// Points to the function that works on shares: a [`Run`] that lives until all shares are done.
    run: AtomicPtr<&'static Run<'static>>,
    failure: Mutex<Option<Box<dyn Any + Send>>>,
    /// A bit for each thread that has joined or was asked to; the first one is the leader.
    members: AtomicU64,
}

impl Team {
    /// Of a leader alone.
    pub fn new() -> Self {
        Self {
            open: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            run: AtomicPtr::new(ptr::null_mut()),
            failure: Mutex::new(None),
            members: AtomicU64::new(1),
        }
    }

    /// Takes the place of a member for a thread that is to follow; false where it is taken.
    pub fn join(&self, member: usize) -> bool {
        self.members.fetch_or(1 << member, AcqRel) >> member & 1 == 0
    }

    /// Gives the place of a member back.
    pub fn leave(&self, member: usize) {
        self.members.fetch_and(!(1 << member), AcqRel);
    }

    /// Calls `run` on every number below `shares`, on this thread and on those that follow. One thread leads at a time.
    ///
    /// # Panics
    /// Where `run` does, once all shares are done.
    pub fn lead(&self, shares: usize, run: &Run) {
        if shares == 0 {
            return;
        }
        // SAFETY: only the lifetime differs. `run` is not called once all shares are done, and until then this function does not return.
        let mut run: &'static Run<'static> = unsafe { std::mem::transmute(run) };
        self.done.store(0, Relaxed);
        self.run.store(&raw mut run, Relaxed);
        self.open.store(u64::MAX >> (MOST - shares), Release);
        self.help(0);
        while self.done.load(Acquire) < shares {
            spin_loop();
        }
        // The lock is free again before the failure unwinds.
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(failure) = failure {
            resume_unwind(failure);
        }
    }

    /// Works on pass after pass, until none has come for `patience` polls, or `stays` says no, which is told how many there have been.
    pub fn follow(&self, member: usize, patience: usize, stays: impl Fn(usize) -> bool) {
        let mut polls = 0;
        while polls < patience && stays(polls) {
            polls = if self.help(member) { 0 } else { polls + 1 };
            spin_loop();
        }
    }

    /// Takes a share of the pass: the member's own, as long as it is free.
    fn take(&self, member: usize) -> Option<usize> {
        let mut open = self.open.load(Acquire);
        while open != 0 {
            let own = open & 1 << member;
            let share = if own == 0 { open } else { own }.trailing_zeros();
            match self.open.compare_exchange_weak(open, open & !(1 << share), AcqRel, Acquire) {
                Ok(_) => return Some(share as usize),
                Err(now) => open = now,
            }
        }
        None
    }

    /// Works on free shares of the pass; returns whether there were any.
    fn help(&self, member: usize) -> bool {
        let mut helped = false;
        loop {
            let taken = Cell::new(0);
            let next = || self.take(member).inspect(|_| taken.set(taken.get() + 1));
            let Some(first) = next() else { return helped };
            // SAFETY: the share that was taken counts as done only after this call, and the leader waits until all are done.
            let run = unsafe { *self.run.load(Relaxed) };
            if let Err(failure) = catch_unwind(AssertUnwindSafe(|| run(first, &next))) {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
            self.done.fetch_add(taken.get(), AcqRel);
            helped = true;
        }
    }
}
