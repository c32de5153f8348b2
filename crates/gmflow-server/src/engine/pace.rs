//! How fast a model is computed, measured while it works.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Seconds of work after which earlier measurements count for a third.
const MEMORY: f64 = 2.0;

/// Rows times pixels in a second, averaged over the last seconds of work.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<f64>>);

impl Pace {
    /// Adds so much work that took so long.
    pub fn add(&self, work: f64, time: Duration) {
        let seconds = time.as_secs_f64().max(1e-6);
        let new = work / seconds;
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let share = 1.0 - (-seconds / MEMORY).exp();
        *pace = Some(pace.map_or(new, |old| old + (new - old) * share));
    }

    /// Work in a second; nothing before the first measurement.
    pub fn get(&self) -> Option<f64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that so much work takes; none before the first measurement.
    pub fn seconds(&self, work: f64) -> f64 {
        self.get().map_or(0.0, |pace| work / pace.max(1e-9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_the_last_seconds() {
        let pace = Pace::default();
        assert_eq!((pace.get(), pace.seconds(10.0)), (None, 0.0));
        pace.add(100.0, Duration::from_secs(1));
        assert_eq!(pace.seconds(200.0), 2.0);
        for _ in 0..20 {
            pace.add(1000.0, Duration::from_secs(1));
        }
        assert!((pace.get().unwrap() - 1000.0).abs() < 1.0, "{pace:?}");
        let short = Duration::from_millis(1);
        pace.add(0.0, short);
        assert!(pace.get().unwrap() > 990.0, "a short call changes little");
    }
}
