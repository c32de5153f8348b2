//! The threads that share a pass: the pool, one thread, or a team for passes of microseconds.

use crate::kernel::simd::memory::{TASK, par_map};
use crate::kernel::simd::team::{MOST, Team};
use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The threads that a pass may use.
#[derive(Clone, Copy)]
pub(crate) enum Threads<'a> {
    /// All threads of the pool, where there is enough work; also the calling thread, where it is none of the pool's.
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
            // A thread that is none of the pool's would wait until one of it wakes up. It leads a team instead, and begins at once.
            Self::All if work > TASK && rayon::current_thread_index().is_none() => {
                ThreadTeam::together(MOST, |team| team.map(items, PIECES, init, f))
            }
            Self::All => par_map(items, work, init, f),
            Self::One => par_map(items, 0, init, f),
            Self::Team(team) => team.map(items, 1, init, f),
        }
    }
}

/// How often an idle thread polls for the next pass before it leaves the team: a few nanoseconds each, together as long as a step.
const PATIENCE: usize = 4000;
/// How often it polls before it offers itself to the pool.
const LOOKS: usize = 100;
/// A thread that is away for longer between two looks shares its core, perhaps with the leader. It leaves the team and falls asleep: a system may
/// leave a thread that never sleeps on its core.
const ABSENCE: Duration = Duration::from_micros(20);
/// The pieces of a pass for each thread where some come late, and cores keep nothing for the next pass.
const PIECES: usize = 8;

/// A team of threads for passes of a few microseconds. The pool takes longer than that to hand out work and to collect it, and much longer to
/// wake a thread.
///
/// The leader starts a pass and works on it at once. Other threads join, work on shares of the pass, and then poll for the next pass. They also
/// do other work of the pool. A thread that polls in vain for too long leaves the team; until then it is awake for the next step.
///
/// A member begins with the same share of every pass, so that its core's own cache holds the numbers of that share.
pub(crate) struct ThreadTeam {
    /// How they share a pass.
    team: Team,
    /// Members that are wanted, and the most shares of a pass.
    size: AtomicUsize,
}

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
        Self { team: Team::new(), size: AtomicUsize::new(1) }
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
            if !team.team.join(member) {
                continue;
            }
            let team = Arc::clone(&team);
            rayon::spawn(move || {
                // The leader itself may pick up the task.
                if std::thread::current().id() != leader {
                    let last = Cell::new(Instant::now());
                    team.team.follow(member, PATIENCE, |polls| {
                        if polls % LOOKS != LOOKS - 1 {
                            return true;
                        }
                        let away = if polls < LOOKS { Duration::ZERO } else { last.get().elapsed() };
                        rayon::yield_now();
                        last.set(Instant::now());
                        away < ABSENCE
                    });
                }
                team.team.leave(member);
            });
        }
        f(&team)
    }

    /// The results of `f` on every item, in order; every thread makes what `init` does once. The items are handed out in so many `pieces` for
    /// each thread.
    ///
    /// # Panics
    /// Where `f` does.
    fn map<T: Send, S, R: Send>(
        &self,
        items: Vec<T>,
        pieces: usize,
        init: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, T) -> R + Sync,
    ) -> Vec<R> {
        let count = items.len();
        let shares = count.min(pieces * self.size.load(Relaxed)).min(MOST);
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
        self.team.lead(shares, &run);
        slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner).1).collect()
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
                        let squares = team.map((0..37).collect(), 1, || (), |(), i: usize| i * i);
                        // The second pass needs all of the first.
                        team.map(squares.clone(), 3, || (), |(), square| square + squares.iter().sum::<usize>())
                    })
                });
                let total: usize = (0..37).map(|i| i * i).sum();
                assert_eq!(sums, (0..37).map(|i| i * i + total).collect::<Vec<_>>());
            }
        }
        // From a thread that is none of the pool's.
        assert_eq!(ThreadTeam::together(2, |team| team.map(vec![3, 4], 1, || 1, |one, i| i + *one)), [4, 5]);
    }

    #[test]
    fn a_thread_outside_the_pool_gets_the_same() {
        let items: Vec<usize> = (0..100).collect();
        let expected: Vec<usize> = items.iter().map(|i| i * i).collect();
        for work in [1, TASK + 1] {
            let squares =
                std::thread::spawn(move || Threads::All.map((0..100).collect(), work, || (), |(), i: usize| i * i));
            assert_eq!(squares.join().expect("no panic"), expected);
        }
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
                    1,
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
