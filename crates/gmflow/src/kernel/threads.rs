//! Who works on a pass.

use super::memory::par_map;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Mutex, OnceLock, PoisonError};

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
            Self::Crew(crew) => crew.map(items, |item| f(&mut init(), item)),
        }
    }
}

/// How many passes a crew may be asked for.
const PASSES: usize = 4;
/// What stands for the number of passes once there are no more.
const OVER: usize = usize::MAX;
/// Looks for the next pass before a thread offers its place to others.
const PATIENCE: usize = 2000;

/// Threads that stay together for some passes of a few microseconds each, which is less than the pool takes to hand out work and to
/// collect it. One leads, and works whether others have come or not; whoever comes takes items as long as there are some, and waits, awake, for
/// the next pass.
pub(super) struct Crew {
    passes: [OnceLock<Pass>; PASSES],
    /// Passes that were begun, or [`OVER`].
    begun: AtomicUsize,
    failure: Mutex<Option<Box<dyn std::any::Any + Send>>>,
}

/// Items to be worked on.
struct Pass {
    count: usize,
    /// Items that were taken, and more where nobody found one.
    taken: AtomicUsize,
    done: AtomicUsize,
    /// Works on an item.
    run: *const (dyn Fn(usize) + Sync),
}

// SAFETY: what the pointer leads to may be shared among threads, and lives until all items are done: see `Crew::lead`.
unsafe impl Send for Pass {}
// SAFETY: the same.
unsafe impl Sync for Pass {}

impl Crew {
    /// Calls `f` with the threads of the pool that have nothing else to do.
    pub fn with<R>(f: impl FnOnce(&Self) -> R) -> R {
        let crew = Self {
            passes: [const { OnceLock::new() }; PASSES],
            begun: AtomicUsize::new(0),
            failure: Mutex::new(None),
        };
        rayon::in_place_scope(|scope| {
            /// Sends everybody home, whatever has happened.
            struct Over<'a>(&'a Crew);
            impl Drop for Over<'_> {
                fn drop(&mut self) {
                    self.0.begun.store(OVER, Release);
                }
            }
            let over = Over(&crew);
            for _ in 1..rayon::current_num_threads() {
                scope.spawn(|_| crew.follow());
            }
            let result = f(&crew);
            drop(over);
            result
        })
    }

    /// The results of `f` on every item, in order.
    ///
    /// # Panics
    /// Where `f` does, and where it is called more than [`PASSES`] times.
    fn map<T: Send, R: Send>(&self, items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
        let slots: Vec<Mutex<(Option<T>, Option<R>)>> =
            items.into_iter().map(|item| Mutex::new((Some(item), None))).collect();
        let run = |i: usize| {
            let mut slot = slots[i].lock().unwrap_or_else(PoisonError::into_inner);
            slot.1 = slot.0.take().map(&f);
        };
        self.lead(slots.len(), &run);
        slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner).1).collect()
    }

    /// Calls `run` with every number below `count`, here and wherever else somebody has come.
    fn lead(&self, count: usize, run: &(dyn Fn(usize) + Sync)) {
        let run: *const (dyn Fn(usize) + Sync + '_) = run;
        // SAFETY: the lifetime alone differs. Nobody calls it once all items are done, and until then this function does not return.
        let run: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(run) };
        let index = self.begun.load(Acquire);
        let pass = Pass { count, taken: AtomicUsize::new(0), done: AtomicUsize::new(0), run };
        let pass = self.passes[index].get_or_init(|| pass);
        self.begun.store(index + 1, Release);
        self.help(pass);
        while pass.done.load(Acquire) < count {
            spin_loop();
        }
        if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(failure);
        }
    }

    /// Works on one pass after the other until there are no more.
    fn follow(&self) {
        for (index, pass) in self.passes.iter().enumerate() {
            let mut looks = 0;
            loop {
                match self.begun.load(Acquire) {
                    OVER => return,
                    begun if begun > index => break,
                    _ if looks < PATIENCE => spin_loop(),
                    _ => std::thread::yield_now(),
                }
                looks += 1;
            }
            if let Some(pass) = pass.get() {
                self.help(pass);
            }
        }
    }

    /// Works on items of a pass as long as there are some.
    fn help(&self, pass: &Pass) {
        loop {
            let item = pass.taken.fetch_add(1, AcqRel);
            if item >= pass.count {
                return;
            }
            // SAFETY: an item was left, so that not all are done, and whoever leads waits until they are.
            let run = unsafe { &*pass.run };
            if let Err(failure) = catch_unwind(AssertUnwindSafe(|| run(item))) {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            }
            pass.done.fetch_add(1, AcqRel);
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
                    Crew::with(|crew| {
                        let squares = crew.map((0..37).collect(), |i: usize| i * i);
                        // The second pass needs all of the first.
                        crew.map(squares.clone(), |square| square + squares.iter().sum::<usize>())
                    })
                });
                let total: usize = (0..37).map(|i| i * i).sum();
                assert_eq!(sums, (0..37).map(|i| i * i + total).collect::<Vec<_>>());
            }
        }
        // From a thread that is none of the pool's.
        assert_eq!(Crew::with(|crew| crew.map(vec![3, 4], |i| i + 1)), [4, 5]);
    }

    #[test]
    fn a_failure_of_one_item_reaches_the_caller() {
        let failure = std::panic::catch_unwind(|| {
            Crew::with(|crew| {
                crew.map((0..16).collect(), |i: usize| {
                    assert_ne!(i, 7, "the seventh");
                    i
                })
            })
        });
        assert!(failure.is_err());
    }
}
