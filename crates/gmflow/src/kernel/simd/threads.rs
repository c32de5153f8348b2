//! The threads that share a pass: the pool, one thread, or a team for passes of microseconds.

use crate::kernel::simd::memory::par_map;
use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The threads that a pass may use.
#[derive(Clone, Copy)]
pub(crate) enum Threads<'a> {
    /// All threads of the pool, where there is enough work.
    All,
    /// The calling thread: the others have work of their own.
    One,
    /// A team for a few short passes.
    Team(&'a ThreadTeam),
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
            Self::Team(team) => team.map(items, init, f),
        }
    }
}

/// How often an idle thread polls for the next pass before it leaves the team: a few nanoseconds each, together as long as a step.
const PATIENCE: usize = 4000;
/// How often it polls before it offers itself to the pool.
const LOOKS: usize = 100;
/// Members of a team, and shares of a pass, at the most.
const MOST: usize = u64::BITS as usize;

/// A team of threads for passes of a few microseconds. The pool takes longer than that to hand out work and to collect it, and much longer to
/// wake a thread.
///
/// The leader starts a pass and works on it at once. Other threads join, work on shares of the pass, and then poll for the next pass. They also
/// do other work of the pool. A thread that polls in vain for too long leaves the team; until then it is awake for the next step.
///
/// A member begins with the same share of every pass, so that its core's own cache holds the numbers of that share.
pub(crate) struct ThreadTeam {
    /// A bit for each share of the pass that no thread has taken.
    open: AtomicU64,
    /// Shares that are done.
    done: AtomicUsize,
    /// Points to the function that works on shares: a [`Run`] that lives until all shares are done.
    run: AtomicPtr<&'static Run<'static>>,
    failure: Mutex<Option<Box<dyn Any + Send>>>,
    /// A bit for each thread that has joined or was asked to; the first one is the leader.
    members: AtomicU64,
    /// Members that are wanted, and the most shares of a pass.
    size: AtomicUsize,
}

/// Works on a share of a pass, and then on the shares that its second argument returns.
type Run<'a> = dyn Fn(usize, &dyn Fn() -> Option<usize>) + Sync + 'a;

thread_local! {
    /// The team that this thread leads.
    static TEAM: Arc<ThreadTeam> = Arc::new(ThreadTeam::new());
    static PACE: Cell<Pace> = const { Cell::new(Pace::NEW) };
}

/// Measures whether a thread is faster alone: where cores are far apart or asleep, a team costs more than it helps. Both ways are tried in
/// turns.
#[derive(Clone, Copy)]
struct Pace {
    alone: bool,
    /// The shortest times for a value in the last trials, together and alone, in nanoseconds.
    best: [f32; 2],
    /// Steps since the trial of the other way began.
    steps: u32,
}

impl Pace {
    /// Steps from one trial to the next.
    const PERIOD: u32 = 512;
    /// Steps of a trial, of which the shortest counts: others have to wake up in the first.
    const TRIAL: u32 = 8;
    /// Together, which is not tried first.
    const NEW: Self = Self { alone: false, best: [0.0, f32::INFINITY], steps: Self::TRIAL };

    /// Whether the next step is one thread's.
    fn next_alone(&self) -> bool {
        self.alone != (self.steps < Self::TRIAL)
    }

    /// The same after a step that took `time` for a value.
    fn after(mut self, time: f32) -> Self {
        let way = usize::from(self.next_alone());
        // The first of a trial, and of as many steps at the end of a period, which it is compared with.
        if self.steps == 0 || self.steps == Self::PERIOD - Self::TRIAL {
            self.best[way] = f32::INFINITY;
        }
        self.best[way] = self.best[way].min(time);
        self.steps = (self.steps + 1) % Self::PERIOD;
        if self.steps == Self::TRIAL {
            self.alone = self.best[1] < self.best[0];
        }
        self
    }
}

impl ThreadTeam {
    fn new() -> Self {
        Self {
            open: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            run: AtomicPtr::new(ptr::null_mut()),
            failure: Mutex::new(None),
            members: AtomicU64::new(1),
            size: AtomicUsize::new(1),
        }
    }

    /// Calls `f` with a team of up to `size` idle threads of the pool, or with this thread alone where that was measured to be faster. `work` is
    /// the number of values.
    pub fn with<R>(size: usize, work: usize, f: impl FnOnce(Threads) -> R) -> R {
        let (pace, start) = (PACE.get(), Instant::now());
        let result = match pace.next_alone() {
            true => f(Threads::One),
            false => Self::together(size, |team| f(Threads::Team(team))),
        };
        PACE.set(pace.after(start.elapsed().as_nanos() as f32 / work.max(1) as f32));
        result
    }

    /// Calls `f` with a team, whichever is faster.
    fn together<R>(size: usize, f: impl FnOnce(&Self) -> R) -> R {
        let team = TEAM.with(Arc::clone);
        let leader = std::thread::current().id();
        let size = size.min(rayon::current_num_threads()).clamp(1, MOST);
        team.size.store(size, Relaxed);
        for member in 1..size {
            if team.members.fetch_or(1 << member, AcqRel) >> member & 1 == 1 {
                continue;
            }
            let team = Arc::clone(&team);
            rayon::spawn(move || {
                // The leader itself may pick up the task.
                if std::thread::current().id() != leader {
                    team.follow(member);
                }
                team.members.fetch_and(!(1 << member), AcqRel);
            });
        }
        f(&team)
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

    /// Calls `run` on every number below `shares`, on this thread and on those that have joined.
    fn lead(&self, shares: usize, run: &Run) {
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
        if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            resume_unwind(failure);
        }
    }

    /// Works on pass after pass, until none comes any more.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_works_on_every_item_once_and_keeps_their_order() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            for _ in 0..200 {
                let sums = pool.install(|| {
                    ThreadTeam::together(threads, |team| {
                        let squares = team.map((0..37).collect(), || (), |(), i: usize| i * i);
                        // The second pass needs all of the first.
                        team.map(squares.clone(), || (), |(), square| square + squares.iter().sum::<usize>())
                    })
                });
                let total: usize = (0..37).map(|i| i * i).sum();
                assert_eq!(sums, (0..37).map(|i| i * i + total).collect::<Vec<_>>());
            }
        }
        // From a thread that is none of the pool's.
        assert_eq!(ThreadTeam::together(2, |team| team.map(vec![3, 4], || 1, |one, i| i + *one)), [4, 5]);
    }

    /// How many of the last 1,000 steps are one thread's.
    fn alone(together: f32, alone: f32) -> usize {
        let mut pace = Pace::NEW;
        let steps = (0..2000).map(|i| {
            let now = pace.next_alone();
            // Now and then a step is interrupted.
            let late = if i % 97 == 0 { 50.0 } else { 0.0 };
            pace = pace.after(late + if now { alone } else { together });
            now
        });
        steps.skip(1000).filter(|&alone| alone).count()
    }

    #[test]
    fn the_faster_way_is_taken_but_for_trials() {
        let trials = 1000 / Pace::PERIOD as usize * Pace::TRIAL as usize;
        let (few, many) = (alone(1.0, 2.0), alone(2.0, 1.0));
        assert!(few <= trials + Pace::TRIAL as usize, "{few} steps alone");
        assert!(many >= 1000 - trials - Pace::TRIAL as usize, "{many} steps alone");
    }

    #[test]
    fn a_failure_of_one_item_reaches_the_caller() {
        let failure = std::panic::catch_unwind(|| {
            ThreadTeam::together(2, |team| {
                team.map(
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
