//! How long network calls take, measured while the server works.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Seconds of calls after which earlier measurements count for a third.
const MEMORY: f64 = 2.0;
/// Seconds of calls that the measurements after loading count as.
const FIRST: f64 = 1.0;
/// Rows of a small call at the most, of images and of points.
const SMALL: [usize; 2] = [4, 1024];
/// Rows of the small and of the large call that are measured after loading, of images and of points.
const MEASURED: [[usize; 2]; 2] = [[1, 8], [64, 2048]];
/// Small calls that are measured after loading.
const TIMES: usize = 3;
/// A large call that would take longer is not measured after loading.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a network call costs: a part of it for each call, and a part for each row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// Seconds of a call, whatever its rows.
    pub call: f64,
    /// Seconds of a row.
    pub row: f64,
}

impl Cost {
    /// Seconds of a call of so many rows.
    pub fn of(self, rows: usize) -> f64 {
        self.call + self.row * rows as f64
    }
}

/// Calls of about one size: sums in which earlier ones count less.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    count: f64,
    rows: f64,
    seconds: f64,
}

impl Calls {
    /// Rows and seconds of a call.
    fn mean(self) -> Option<(f64, f64)> {
        (self.count > 0.0).then(|| (self.rows / self.count, self.seconds / self.count))
    }
}

/// How long network calls of a model take. Calls of few rows and of many are measured apart, because a row costs more in a small call.
#[derive(Debug)]
pub(crate) struct Pace {
    points: bool,
    sizes: Mutex<[Calls; 2]>,
}

impl Pace {
    /// Nothing is known yet.
    pub fn new(points: bool) -> Self {
        Self { points, sizes: Mutex::default() }
    }

    fn of_size(&self, rows: usize, change: impl FnOnce(&mut Calls)) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let size = usize::from(rows > SMALL[usize::from(self.points)]);
        change(&mut sizes[size]);
    }

    /// Adds a call of so many rows that took so long.
    pub fn add(&self, rows: usize, time: Duration) {
        let seconds = time.as_secs_f64();
        let kept = (-seconds / MEMORY).exp();
        self.of_size(rows, |Calls { count, rows: all, seconds: sum }| {
            *count = *count * kept + 1.0;
            *all = *all * kept + rows as f64;
            *sum = *sum * kept + seconds;
        });
    }

    /// Measures a model that was loaded; `call` computes so many rows and says how long it took. The first call of each size finds
    /// nothing in its place and does not count.
    pub fn measure(&self, mut call: impl FnMut(usize) -> Duration) {
        let [small, large] = MEASURED[usize::from(self.points)];
        call(small);
        let time = (0..TIMES).map(|_| call(small)).min().unwrap_or_default();
        self.set(small, time);
        if time.saturating_mul((large / small) as u32) <= PATIENCE {
            call(large);
            self.set(large, call(large));
        }
    }

    fn set(&self, rows: usize, time: Duration) {
        let seconds = time.as_secs_f64().max(1e-9);
        let count = (FIRST / seconds).max(1.0);
        self.of_size(rows, |calls| *calls = Calls { count, rows: count * rows as f64, seconds: count * seconds });
    }

    /// What calls cost from now on, whatever they take.
    #[cfg(test)]
    pub fn fix(&self, cost: Cost) {
        let of = |rows: usize| {
            let count = 1e12;
            Calls { count, rows: count * rows as f64, seconds: count * cost.of(rows) }
        };
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        *sizes = MEASURED[usize::from(self.points)].map(of);
    }

    /// What a call costs; none before the first measurement. The line through the two sizes, or through nothing and the one that there is.
    pub fn cost(&self) -> Option<Cost> {
        let sizes = *self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        match sizes.map(Calls::mean) {
            [None, None] => None,
            [Some((rows, seconds)), None] => Some(Cost { call: 0.0, row: seconds / rows.max(1.0) }),
            [None, Some((rows, seconds))] => Some(Cost { call: 0.0, row: seconds / rows.max(1.0) }),
            [Some((few, short)), Some((many, long))] => {
                let row = ((long - short) / (many - few).max(1.0)).clamp(0.0, long / many.max(1.0));
                Some(Cost { call: long - row * many, row })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_pace_follows_the_last_seconds() {
        let pace = Pace::new(false);
        assert_eq!(pace.cost(), None);
        pace.add(2, 100 * MS);
        assert_eq!(pace.cost(), Some(Cost { call: 0.0, row: 0.05 }));
        for _ in 0..200 {
            pace.add(2, 200 * MS);
        }
        assert!((pace.cost().unwrap().of(2) - 0.2).abs() < 1e-6, "{pace:?}");
        pace.add(2, 1000 * MS);
        assert!(pace.cost().unwrap().of(2) < 0.4, "one call that was held up changes little: {pace:?}");
    }

    #[test]
    fn a_row_of_a_small_call_costs_more() {
        let pace = Pace::new(false);
        for _ in 0..10 {
            // 2 ms for the call and 1 ms for a row.
            pace.add(1, 3 * MS);
            pace.add(32, 34 * MS);
        }
        let Cost { call, row } = pace.cost().unwrap();
        assert!((call - 2e-3).abs() < 1e-9 && (row - 1e-3).abs() < 1e-9, "{call} {row}");
        let slower = Pace::new(false);
        slower.add(1, MS);
        slower.add(10, 100 * MS);
        assert_eq!(slower.cost().unwrap().call, 0.0, "no call costs less than nothing");
    }

    #[test]
    fn the_first_call_of_a_model_does_not_count() {
        let pace = Pace::new(false);
        let mut seen = Vec::new();
        pace.measure(|rows| {
            let cold = !seen.contains(&rows);
            seen.push(rows);
            if cold { 500 * MS } else { MS * (1 + rows as u32) }
        });
        assert_eq!(seen, [1, 1, 1, 1, 8, 8]);
        let Cost { call, row } = pace.cost().unwrap();
        assert!((call - 1e-3).abs() < 1e-9 && (row - 1e-3).abs() < 1e-9, "{call} {row}");
        // A slow model is not held up by a large call.
        let (pace, mut seen) = (Pace::new(false), Vec::new());
        pace.measure(|rows| {
            seen.push(rows);
            500 * MS
        });
        assert_eq!(seen, [1; 4]);
        assert_eq!(pace.cost(), Some(Cost { call: 0.0, row: 0.5 }));
    }
}
