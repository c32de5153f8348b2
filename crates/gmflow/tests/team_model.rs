//! The protocol of a thread team under the model checker loom: every order in which the threads may run, and every value that
//! an atomic may have in it, up to the number of preemptions below.
#![allow(missing_docs, dead_code)]

/// What the protocol synchronises with, under control of the model checker.
mod sync {
    pub use loom::sync::Mutex;
    pub use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
    pub use loom::thread::yield_now as spin_loop;
}

#[path = "../src/kernel/simd/team.rs"]
mod team;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::{sync::Arc, thread};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use team::Team;

/// Polls in vain after which a member leaves: it may do so before a pass, during one, and after.
const PATIENCE: usize = 2;

/// Runs the model with so many switches between threads that are able to go on.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Memory that loom watches: an access while another thread writes, or that no order of atomics has put behind a write, is an error.
struct Watched(Vec<UnsafeCell<usize>>);

// SAFETY: loom refuses what would be a race.
unsafe impl Sync for Watched {}

impl Watched {
    fn new(count: usize, value: usize) -> Self {
        Self((0..count).map(|_| UnsafeCell::new(value)).collect())
    }

    fn get(&self, at: usize) -> usize {
        // SAFETY: loom refuses what would be a race.
        self.0[at].with(|value| unsafe { *value })
    }

    fn add(&self, at: usize, more: usize) {
        // SAFETY: loom refuses what would be a race.
        self.0[at].with_mut(|value| unsafe { *value += more });
    }
}

/// Leads pass number `number`, which is checked: each share is worked on once, from the input of this pass, before the leader goes on.
fn lead(team: &Team, shares: usize, number: usize, now: &AtomicUsize) {
    let (input, outputs) = (Watched::new(1, 0), Watched::new(shares, 0));
    input.add(0, number);
    now.store(number, Relaxed);
    team.lead(shares, &|first, next| {
        let mut share = Some(first);
        while let Some(at) = share {
            assert_eq!(now.load(Relaxed), number, "a pass that is over is worked on");
            outputs.add(at, input.get(0));
            share = next();
        }
    });
    for share in 0..shares {
        assert_eq!(outputs.get(share), number, "share {share}");
    }
    now.store(0, Relaxed);
}

/// A thread that follows as a member, if the place is free.
fn member(team: &Arc<Team>, member: usize) -> Option<thread::JoinHandle<()>> {
    team.join(member).then(|| {
        let team = Arc::clone(team);
        thread::spawn(move || {
            team.follow(member, PATIENCE, |_| true);
            team.leave(member);
        })
    })
}

#[test]
fn two_threads_share_pass_after_pass() {
    check(3, || {
        let (team, now) = (Arc::new(Team::new()), AtomicUsize::new(0));
        let follower = member(&team, 1).expect("the place is free");
        lead(&team, 2, 1, &now);
        lead(&team, 3, 2, &now);
        follower.join().expect("the member ends");
    });
}

#[test]
fn three_threads_share_a_pass() {
    check(2, || {
        let (team, now) = (Arc::new(Team::new()), AtomicUsize::new(0));
        let followers = [1, 2].map(|i| member(&team, i).expect("the place is free"));
        lead(&team, 3, 1, &now);
        for follower in followers {
            follower.join().expect("the member ends");
        }
    });
}

#[test]
fn a_place_is_one_threads_at_a_time() {
    check(3, || {
        let (team, now) = (Arc::new(Team::new()), AtomicUsize::new(0));
        let first = member(&team, 1).expect("the place is free");
        lead(&team, 2, 1, &now);
        // As the next step does: it asks for a member where the last one has left.
        let second = member(&team, 1);
        lead(&team, 2, 2, &now);
        for follower in [Some(first), second].into_iter().flatten() {
            follower.join().expect("the member ends");
        }
        assert!(team.join(1), "a member that has left keeps its place");
    });
}

#[test]
fn a_failure_in_any_thread_reaches_the_leader_when_all_are_done() {
    check(3, || {
        let (team, now) = (Arc::new(Team::new()), AtomicUsize::new(0));
        let follower = member(&team, 1).expect("the place is free");
        let worked = Watched::new(2, 0);
        let run = |share: usize, _: &dyn Fn() -> Option<usize>| {
            worked.add(share, 1);
            if share == 1 {
                resume_unwind(Box::new("the second share"));
            }
        };
        let failure = catch_unwind(AssertUnwindSafe(|| team.lead(2, &run))).expect_err("the failure");
        assert_eq!(failure.downcast_ref(), Some(&"the second share"));
        assert_eq!([worked.get(0), worked.get(1)], [1, 1]);
        // The team goes on.
        lead(&team, 2, 1, &now);
        follower.join().expect("the member ends");
    });
}
