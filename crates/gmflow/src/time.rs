//! Time t in [0, 1]: alpha = 1 - t, sigma = t; sampling grids and training-time distributions.
//!
//! ```
//! use gmflow::time::{TimeSampling, grid};
//!
//! assert_eq!(grid(4, 1.0)?, [1.0, 0.75, 0.5, 0.25, 0.0]);
//! assert_eq!(TimeSampling::default().time(0.25), 0.75);
//! # Ok::<(), gmflow::Error>(())
//! ```

use crate::{Error, Result, limits};
use serde::{Deserialize, Serialize};

/// The grid of a sampler with `steps` network calls: `steps + 1` falling times from 1 to 0.
///
/// u_i = 1 - i/n and t_i = s u_i / (1 + (s - 1) u_i) with the shift s, applied exactly once. In f32, because that is the
/// precision in which published schedules are tabulated.
pub fn grid(steps: usize, shift: f32) -> Result<Vec<f32>> {
    limits::count("steps", steps, limits::MOST_STEPS)?;
    if !(shift.is_finite() && shift > 0.0) {
        return Err(Error::config("shift", "a positive number", shift));
    }
    let mut times: Vec<f32> = (0..steps).map(|i| shifted(1.0 - i as f32 / steps as f32, shift)).collect();
    times.push(0.0);
    Ok(times)
}

/// t = s u / (1 + (s - 1) u).
pub fn shifted(u: f32, shift: f32) -> f32 {
    shift * u / (1.0 + (shift - 1.0) * u)
}

/// The distribution of training times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "sampling", rename_all = "kebab-case", deny_unknown_fields)]
pub enum TimeSampling {
    /// Uniform on (0, 1], then shifted.
    Uniform {
        /// The shift s; 1 changes nothing.
        #[serde(default = "unit")]
        shift: f32,
    },
    /// The logistic function of a normal variable, then shifted.
    LogitNormal {
        /// Mean of the normal variable.
        #[serde(default)]
        mean: f32,
        /// Standard deviation of the normal variable.
        #[serde(default = "unit")]
        std: f32,
        /// The shift s; 1 changes nothing.
        #[serde(default = "unit")]
        shift: f32,
    },
}

fn unit() -> f32 {
    1.0
}

impl Default for TimeSampling {
    fn default() -> Self {
        Self::Uniform { shift: 1.0 }
    }
}

impl TimeSampling {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        let (Self::Uniform { shift } | Self::LogitNormal { shift, .. }) = self;
        if !(shift.is_finite() && *shift > 0.0) {
            return Err(Error::config("shift", "a positive number", shift));
        }
        match self {
            Self::LogitNormal { mean, .. } if !mean.is_finite() => {
                Err(Error::config("mean", "a finite number", mean))
            }
            Self::LogitNormal { std, .. } if !(std.is_finite() && *std > 0.0) => {
                Err(Error::config("std", "a positive number", std))
            }
            _ => Ok(()),
        }
    }

    /// Whether [`Self::time`] takes a standard normal; otherwise it takes a uniform in [0, 1).
    pub fn draws_normals(&self) -> bool {
        matches!(self, Self::LogitNormal { .. })
    }

    /// The time that one random draw stands for: a uniform r gives 1 - r, so that t = 0 never occurs.
    pub fn time(&self, draw: f32) -> f32 {
        match *self {
            Self::Uniform { shift } => shifted(1.0 - draw, shift),
            Self::LogitNormal { mean, std, shift } => shifted(1.0 / (1.0 + (-(mean + std * draw)).exp()), shift),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_falls_from_one_to_zero_and_the_shift_keeps_its_ends() {
        for shift in [0.5, 1.0, 3.0] {
            let times = grid(7, shift).unwrap();
            assert_eq!((times.len(), times[0], times[7]), (8, 1.0, 0.0));
            assert!(times.windows(2).all(|pair| pair[0] > pair[1]));
        }
        assert_eq!(grid(4, 1.0).unwrap(), [1.0, 0.75, 0.5, 0.25, 0.0]);
        assert!(grid(0, 1.0).is_err() && grid(4, 0.0).is_err() && grid(4, f32::NAN).is_err());
    }

    #[test]
    fn training_times_follow_their_distribution() {
        assert_eq!(TimeSampling::default().time(0.0), 1.0);
        assert_eq!(TimeSampling::Uniform { shift: 3.0 }.time(0.5), 0.75);
        let logit = TimeSampling::LogitNormal { mean: 0.0, std: 1.0, shift: 1.0 };
        assert!((logit.time(0.0) - 0.5).abs() < 1e-7 && logit.time(9.0) <= 1.0 && logit.time(-9.0) > 0.0);
    }
}
