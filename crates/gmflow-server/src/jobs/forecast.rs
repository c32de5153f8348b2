//! When jobs will end: the queue and the engine, counted out in advance.
//!
//! The forecast counts in rounds, as the engine works. It takes parts from the line by the rule of the queue. In each round every part at
//! work makes one network call. The costs of the calls add up to the time.

use crate::engine::Cost;
use std::collections::VecDeque;

/// Parts that are worked on at once, each on a thread of its own. Every thread keeps some megabytes of freed memory.
pub(crate) const MOST_PARTS: usize = 32;
/// Parts of a job that are counted one by one. More of them are counted as so many longer ones.
const MOST_COUNTED: usize = 64;

/// What the choice of the next part goes by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AtWork {
    /// Parts that are worked on.
    pub parts: usize,
    /// How much of network calls they fill.
    pub filled: u64,
}

/// A job in the line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// How much of a network call one of its parts fills.
    pub size: u64,
    /// Whether a part of it is worked on already.
    pub begun: bool,
}

impl AtWork {
    /// The place in the line of the job that a part is taken of next; `full` is how much fills one network call.
    ///
    /// Parts fill two network calls: while one is computed, the solvers of the other do their steps. A job without a part at work may
    /// fill a third one, so that a small request need not wait for the end of a large one's part. Nobody overtakes such a job.
    pub fn next(self, line: impl IntoIterator<Item = Turn>, full: u64) -> Option<usize> {
        if self.parts >= MOST_PARTS {
            return None;
        }
        for (place, Turn { size, begun }) in line.into_iter().enumerate() {
            let most = if begun { 2 * full } else { 3 * full };
            if self.parts == 0 || self.filled + size <= most {
                return Some(place);
            }
            if !begun {
                return None;
            }
        }
        None
    }

    pub fn add(&mut self, size: u64) {
        self.parts += 1;
        self.filled += size;
    }

    pub fn remove(&mut self, size: u64) {
        self.parts = self.parts.saturating_sub(1);
        self.filled = self.filled.saturating_sub(size);
    }
}

/// A job, as the forecast sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// A number for its model.
    pub model: usize,
    /// Whether its calls are joined with those of others, in calls of at most so many rows.
    pub joined: Option<usize>,
    pub cost: Cost,
    /// How much of a network call a part fills.
    pub size: u64,
    /// Rows of a call of a part.
    pub rows: usize,
    /// Calls of a part.
    pub calls: f64,
    /// Parts at work.
    pub open: usize,
    /// Calls that each of these has left.
    pub calls_left: f64,
    /// Parts that nobody works on.
    pub parts: usize,
}

impl Load {
    fn turn(&self) -> Turn {
        Turn { size: self.size, begun: self.open > 0 }
    }

    /// With few enough parts to count.
    fn counted(self) -> Self {
        let merged = self.parts.div_ceil(MOST_COUNTED).max(1);
        Self { parts: self.parts.div_ceil(merged), calls: self.calls * merged as f64, ..self }
    }
}

/// A part at work.
struct Part {
    job: usize,
    calls_left: f64,
}

/// The seconds until each job ends. `line` has the places of jobs with parts that nobody works on, in the order of their turns.
pub(crate) fn ends(jobs: &[Load], line: impl IntoIterator<Item = usize>, full: u64) -> Vec<f64> {
    let mut jobs: Vec<Load> = jobs.iter().map(|job| job.counted()).collect();
    let mut line: VecDeque<usize> = line.into_iter().collect();
    let mut ends = vec![0.0; jobs.len()];
    let (mut at_work, mut running, mut now) = (AtWork::default(), Vec::new(), 0.0);
    for (index, job) in jobs.iter().enumerate() {
        for _ in 0..job.open {
            at_work.add(job.size);
            running.push(Part { job: index, calls_left: job.calls_left });
        }
    }
    loop {
        loop {
            let turns = line.iter().filter_map(|index| jobs.get(*index).map(Load::turn));
            let Some(index) = at_work.next(turns, full).and_then(|place| line.remove(place)) else { break };
            let Some(job) = jobs.get_mut(index).filter(|job| job.parts > 0) else { continue };
            at_work.add(job.size);
            running.push(Part { job: index, calls_left: job.calls });
            (job.open, job.parts) = (job.open + 1, job.parts - 1);
            if job.parts > 0 {
                line.push_back(index);
            }
        }
        let Some(calls) = running.iter().map(|part| part.calls_left).reduce(f64::min) else { return ends };
        now += calls * round(&jobs, &running);
        running.iter_mut().for_each(|part| part.calls_left -= calls);
        running.retain(|part| {
            let ended = part.calls_left < 1e-9;
            if ended && let (Some(job), Some(end)) = (jobs.get_mut(part.job), ends.get_mut(part.job)) {
                at_work.remove(job.size);
                job.open = job.open.saturating_sub(1);
                *end = now;
            }
            !ended
        });
    }
}

/// Seconds in which every part at work makes one call.
fn round(jobs: &[Load], running: &[Part]) -> f64 {
    let mut seconds = 0.0;
    // The rows of each model whose calls are joined.
    let mut joined: Vec<(Load, usize)> = Vec::new();
    for job in running.iter().filter_map(|part| jobs.get(part.job)) {
        match (job.joined, joined.iter_mut().find(|(other, _)| other.model == job.model)) {
            (None, _) => seconds += job.cost.of(job.rows),
            (Some(_), Some((_, rows))) => *rows += job.rows,
            (Some(_), None) => joined.push((*job, job.rows)),
        }
    }
    for (job, rows) in joined {
        let calls = rows.div_ceil(job.joined.unwrap_or(rows).max(1));
        seconds += calls as f64 * job.cost.call + rows as f64 * job.cost.row;
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job of so many parts, each with 10 calls of `rows` rows; a row costs a second and a network call holds 16 rows.
    fn job(rows: usize, parts: usize) -> Load {
        Load {
            model: 0,
            joined: Some(32),
            cost: Cost { call: 0.0, row: 1.0 },
            size: rows as u64,
            rows,
            calls: 10.0,
            open: 0,
            calls_left: 0.0,
            parts,
        }
    }

    #[test]
    fn work_alone_takes_its_own_time() {
        assert_eq!(ends(&[], [], 16), Vec::<f64>::new());
        assert_eq!(ends(&[job(1, 1)], [0], 16), [10.0]);
        assert_eq!(ends(&[job(16, 5)], [0], 16), [800.0]);
        let begun = Load { open: 2, calls_left: 4.0, ..job(16, 3) };
        assert_eq!(ends(&[begun], [0], 16), [2.0 * 4.0 * 16.0 + 3.0 * 160.0]);
        let many = ends(&[job(16, 1000)], [0], 16)[0];
        assert!((many / 160_000.0 - 1.0).abs() < 0.03, "{many}");
    }

    #[test]
    fn a_small_job_shares_the_engine_with_a_large_one() {
        let large = Load { open: 2, calls_left: 10.0, ..job(16, 62) };
        let small = job(1, 1);
        let told = ends(&[large, small], [0, 1], 16);
        // 10 rounds of 33 rows, and the large one in all its time.
        assert_eq!(told[1], 330.0);
        assert!((told[0] - (64.0 * 160.0 + 10.0)).abs() < 200.0, "{told:?}");
        let equal = ends(&[job(16, 8), job(16, 8)], [0, 1], 16);
        assert!(equal.iter().all(|end| (2000.0..2570.0).contains(end)), "in turns: {equal:?}");
    }

    #[test]
    fn those_in_front_end_first() {
        let jobs = [job(16, 1); 9];
        let told = ends(&jobs, 0..9, 16);
        assert!(told.is_sorted() && told[0] < told[8] / 2.0, "{told:?}");
        assert_eq!(told[8], 9.0 * 160.0);
        let behind = ends(&jobs, (0..9).rev(), 16);
        assert_eq!(behind[0], 9.0 * 160.0);
    }

    #[test]
    fn joined_calls_pay_once() {
        let cost = Cost { call: 5.0, row: 1.0 };
        let [first, second] = [Load { cost, ..job(1, 1) }, Load { cost, ..job(1, 1) }];
        assert_eq!(ends(&[first, second], [0, 1], 16), [70.0, 70.0]);
        assert_eq!(ends(&[first, Load { model: 1, ..second }], [0, 1], 16), [120.0, 120.0]);
        let apart = |job: Load| Load { joined: None, ..job };
        assert_eq!(ends(&[apart(first), apart(second)], [0, 1], 16), [120.0, 120.0]);
    }

    #[test]
    fn a_third_call_is_for_jobs_that_have_not_begun() {
        let full = AtWork { parts: 2, filled: 32 };
        let turn = |size, begun| Turn { size, begun };
        assert_eq!(full.next([turn(16, true)], 16), None);
        assert_eq!(full.next([turn(16, true), turn(1, false)], 16), Some(1));
        assert_eq!(full.next([turn(16, false)], 16), Some(0));
        let more = AtWork { parts: 3, filled: 40 };
        assert_eq!(more.next([turn(16, false), turn(1, false)], 16), None, "nobody overtakes");
        assert_eq!(AtWork::default().next([turn(100, false)], 16), Some(0), "something always begins");
        assert_eq!(AtWork { parts: MOST_PARTS, filled: 0 }.next([turn(0, false)], 16), None);
    }
}
