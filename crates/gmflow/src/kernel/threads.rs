//! Who works on a pass.

use super::memory::par_map;
use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

/// The threads that a pass may use.
#[derive(Clone, Copy)]
pub(super) enum Threads<'a> {
    /// Those of the pool, where there is enough to do.
    All,
    /// The one it is called from: the others have work of their own.
    One,
    /// Those that have come together for a few short passes.
    Crew(&'a Crew),
}

impl Threads<'_> {
    /// The results of `f` on every item, in order; `work` is the number of values that they have together, and `f` may use what `init`
    /// makes, which is made anew now and then.
    pub fn map<T: Send, S, R: Send>(
        self,
        items: Vec<T>,
        work: usize,
        init: impl Fn() -> S + Sync + Send,
        f: impl Fn(&mut S, T) -> R + Sync + Send,
    ) -> Vec<R> {
        match self {
            Self::All => par_map(items, work, init, f),
            Self::One => par_map(items, 0, init, f),
            Self::Crew(crew) => crew.map(items, init, f),
        }
    }
}

/// Looks for the next pass, a few nanoseconds each, before a thread leaves a crew: as long as a step takes.
const PATIENCE: usize = 4000;
/// Looks before it asks the pool for other work.
const LOOKS: usize = 100;
/// Members of a crew, and shares of a pass, at the most.
const MOST: usize = u64::BITS as usize;

/// Threads that share passes of a few microseconds each, which is less than the pool takes to hand out work and to collect it, and far less than
/// to wake a thread. One leads, and works whether others have come or not. Whoever comes works as long as there is something to do, and looks
/// for the next pass, awake, and for other work of the pool, until that has taken too long: so that it is still there in the next step.
///
/// A member begins with the same part of every pass, whose numbers its core's own cache then holds.
pub(super) struct Crew {
    /// The shares of the pass that nobody has taken, a bit each.
    open: AtomicU64,
    /// Shares that are done.
    done: AtomicUsize,
    /// Works on shares of the pass: leads to a [`Run`] that lives until all of them are done.
    run: AtomicPtr<&'static Run<'static>>,
    failure: Mutex<Option<Box<dyn Any + Send>>>,
    /// Threads that have come, or were asked to, a bit each; the first one leads.
    members: AtomicU64,
    /// How many members are wanted, and shares of the pass.
    size: AtomicUsize,
    shares: AtomicUsize,
}

/// Works on a share of a pass and on those that it is given then.
type Run<'a> = dyn Fn(usize, &dyn Fn() -> Option<usize>) + Sync + 'a;

thread_local! {
    /// The crew that this thread leads.
    static CREW: Arc<Crew> = Arc::new(Crew::new());
}

impl Crew {
    fn new() -> Self {
        Self {
            open: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            run: AtomicPtr::new(ptr::null_mut()),
            failure: Mutex::new(None),
            members: AtomicU64::new(1),
            size: AtomicUsize::new(1),
            shares: AtomicUsize::new(0),
        }
    }

    /// Calls `f` with up to `size` threads of the pool, this one among them: those that have nothing else to do.
    pub fn with<R>(size: usize, f: impl FnOnce(&Self) -> R) -> R {
        let crew = CREW.with(Arc::clone);
        let leader = std::thread::current().id();
        let size = size.min(rayon::current_num_threads()).clamp(1, MOST);
        crew.size.store(size, Relaxed);
        for member in 1..size {
            if crew.members.fetch_or(1 << member, AcqRel) >> member & 1 == 1 {
                continue;
            }
            let crew = Arc::clone(&crew);
            rayon::spawn(move || {
                // Nobody else may have come for it.
                if std::thread::current().id() != leader {
                    crew.follow(member);
                }
                crew.members.fetch_and(!(1 << member), AcqRel);
            });
        }
        f(&crew)
    }

    /// The results of `f` on every item, in order; every thread makes what `init` does once.
    ///
    /// # Panics
    /// Where `f` does.
    fn map<T: Send, S, R: Send>(
        &self,
        items: Vec<T>,
        init: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, T) -> R + Sync,
    ) -> Vec<R> {
        let (count, shares) = (items.len(), items.len().min(self.size.load(Relaxed)));
        let slots: Vec<Mutex<(Option<T>, Option<R>)>> =
            items.into_iter().map(|item| Mutex::new((Some(item), None))).collect();
        let run = |first: usize, next: &dyn Fn() -> Option<usize>| {
            let (mut scratch, mut at) = (init(), Some(first));
            while let Some(share) = at {
                for slot in &slots[share * count / shares..(share + 1) * count / shares] {
                    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                    slot.1 = slot.0.take().map(|item| f(&mut scratch, item));
                }
                at = next();
            }
        };
        self.lead(shares, &run);
        slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner).1).collect()
    }

    /// Has `run` called on every number below `shares`, here and wherever else somebody has come.
    fn lead(&self, shares: usize, run: &Run) {
        if shares == 0 {
            return;
        }
        // SAFETY: the lifetime alone differs. Nobody calls it once all shares are done, and until then this function does not return.
        let mut run: &'static Run<'static> = unsafe { std::mem::transmute(run) };
        self.done.store(0, Relaxed);
        self.run.store(&raw mut run, Relaxed);
        self.shares.store(shares, Relaxed);
        self.open.store(u64::MAX >> (MOST - shares), Release);
        self.help(0);
        while self.done.load(Acquire) < shares {
            spin_loop();
        }
        if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(failure);
        }
    }

    /// Works on one pass after the other, until none comes any more.
    fn follow(&self, member: usize) {
        let mut looks = 0;
        while looks < PATIENCE {
            looks = if self.help(member) { 0 } else { looks + 1 };
            spin_loop();
            if looks % LOOKS == LOOKS - 1 {
                rayon::yield_now();
            }
        }
    }

    /// Takes a share of the pass: one of the member's own, as long as there are some.
    fn take(&self, member: usize) -> Option<usize> {
        let mut open = self.open.load(Acquire);
        while open != 0 {
            let (size, shares) = (self.size.load(Relaxed), self.shares.load(Relaxed));
            let up_to = |n: usize| u64::MAX.checked_shr((MOST - n.min(MOST)) as u32).unwrap_or(0);
            let own = open & up_to((member + 1) * shares / size) & !up_to(member * shares / size);
            let share = if own == 0 { open } else { own }.trailing_zeros();
            match self.open.compare_exchange_weak(open, open & !(1 << share), AcqRel, Acquire) {
                Ok(_) => return Some(share as usize),
                Err(now) => open = now,
            }
        }
        None
    }

    /// Works on shares of the pass as long as there are some; whether there were.
    fn help(&self, member: usize) -> bool {
        let mut helped = false;
        loop {
            let taken = Cell::new(0);
            let next = || self.take(member).inspect(|_| taken.set(taken.get() + 1));
            let Some(first) = next() else { return helped };
            // SAFETY: a share was taken that counts as done only after this call, and whoever leads waits until all are.
            let run = unsafe { *self.run.load(Relaxed) };
            if let Err(failure) = catch_unwind(AssertUnwindSafe(|| run(first, &next))) {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
            self.done.fetch_add(taken.get(), AcqRel);
            helped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crew_works_on_every_item_once_and_keeps_their_order() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            for _ in 0..200 {
                let sums = pool.install(|| {
                    Crew::with(threads, |crew| {
                        let squares = crew.map((0..37).collect(), || (), |(), i: usize| i * i);
                        // The second pass needs all of the first.
                        crew.map(squares.clone(), || (), |(), square| square + squares.iter().sum::<usize>())
                    })
                });
                let total: usize = (0..37).map(|i| i * i).sum();
                assert_eq!(sums, (0..37).map(|i| i * i + total).collect::<Vec<_>>());
            }
        }
        // From a thread that is none of the pool's.
        assert_eq!(Crew::with(2, |crew| crew.map(vec![3, 4], || 1, |one, i| i + *one)), [4, 5]);
    }

    #[test]
    fn a_failure_of_one_item_reaches_the_caller() {
        let failure = std::panic::catch_unwind(|| {
            Crew::with(2, |crew| {
                crew.map(
                    (0..16).collect(),
                    || (),
                    |(), i: usize| {
                        assert_ne!(i, 7, "the seventh");
                        i
                    },
                )
            })
        });
        assert!(failure.is_err());
    }
}
