//! A team of real threads that share thousands of passes: `scripts/sanitize.sh` compiles this file alone, under ThreadSanitizer.
#![allow(dead_code)]

#[path = "../../src/kernel/simd/sync.rs"]
mod sync;
#[path = "../../src/kernel/simd/team.rs"]
mod team;

use std::cell::UnsafeCell;
use std::sync::Arc;
use team::Team;

/// Numbers that threads may write at the same time, if the team lets them: the sanitizer sees it.
struct Numbers(Vec<UnsafeCell<usize>>);

// SAFETY: the sanitizer ends the program where two threads use one number without an order between them.
unsafe impl Sync for Numbers {}

impl Numbers {
    fn new(count: usize, value: usize) -> Self {
        Self((0..count).map(|_| UnsafeCell::new(value)).collect())
    }

    fn get(&self, at: usize) -> usize {
        // SAFETY: as above.
        unsafe { *self.0[at].get() }
    }

    fn add(&self, at: usize, more: usize) {
        // SAFETY: as above.
        unsafe { *self.0[at].get() += more };
    }
}

fn main() {
    const ROUNDS: usize = 500;
    const PASSES: usize = 20;
    let team = Arc::new(Team::new());
    for round in 0..ROUNDS {
        let follow = |member: usize| {
            let team = Arc::clone(&team);
            std::thread::spawn(move || {
                team.follow(member, 2000, |_| ());
                team.leave(member);
            })
        };
        let members: Vec<_> = (1..3).filter(|member| team.join(*member)).map(follow).collect();
        for pass in 1..=PASSES {
            let shares = 1 + (pass + round) % 7;
            let (input, outputs) = (Numbers::new(1, pass), Numbers::new(shares, 0));
            team.lead(shares, &|first, next| {
                let mut share = Some(first);
                while let Some(at) = share {
                    outputs.add(at, input.get(0));
                    share = next();
                }
            });
            assert!((0..shares).all(|share| outputs.get(share) == pass), "pass {pass} of round {round}");
        }
        for member in members {
            member.join().expect("a member that ends");
        }
    }
    println!("{} passes of a team of 3 threads", ROUNDS * PASSES);
}
