//! Raw times, and how many sub-steps a roll-out takes.

/// t = m r/(1 + (m - 1) r) of a raw time r, with the shift m.
pub fn time(raw: f64, shift: f64) -> f64 {
    shift * raw / (1.0 + (shift - 1.0) * raw)
}

/// The raw time r = t/(m + (1 - m) t), the inverse of [`time`].
pub fn raw_time(t: f64, shift: f64) -> f64 {
    t / (shift + (1.0 - shift) * t)
}

/// By how much a number of sub-steps may be above an integer and still be it: raw times that went through [`time`] and back in f32 are off
/// in the last place.
const SLACK: f64 = 1e-3;

/// How roll-outs are divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SubstepGrid {
    /// The shift m of the time grid.
    pub shift: f64,
    /// Sub-steps in a raw time of 1.
    pub substeps: f64,
}

impl SubstepGrid {
    /// Euler sub-steps from the raw time `from` down to `to`: at least one.
    pub fn count(&self, from: f64, to: f64) -> usize {
        // A conversion of a number that is not finite, or too large, ends at the bounds.
        ((from - to) * self.substeps - SLACK).ceil().max(1.0) as usize
    }

    /// The times at which they begin, and the end of the last one; they are even in raw time.
    pub fn times(&self, from: f64, to: f64) -> Vec<f64> {
        let n = self.count(from, to);
        (0..=n)
            .map(|i| time(if i == n { to } else { from + (to - from) * i as f64 / n as f64 }, self.shift))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_times_go_through_the_shift_and_back() {
        for shift in [0.5, 1.0, 3.2] {
            for raw in [0.0, 0.1, 0.5, 1.0] {
                assert!((raw_time(time(raw, shift), shift) - raw).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn substeps_are_even_in_raw_time_and_an_ulp_makes_none() {
        let substep_grid = SubstepGrid { shift: 3.2, substeps: 128.0 };
        assert_eq!(substep_grid.count(1.0, 1.0 - 2.0 / 7.0), 37);
        assert_eq!(substep_grid.count(1.0 / 7.0, 0.0), 19);
        let half = f64::from(raw_time(time(0.5, 3.2), 3.2) as f32 + f32::EPSILON);
        assert_eq!((substep_grid.count(half, 0.25), substep_grid.count(0.5, 0.5)), (32, 1));
        let times = substep_grid.times(0.5, 0.25);
        assert_eq!((times.len(), times[0], times[32]), (33, time(0.5, 3.2), time(0.25, 3.2)));
    }
}
