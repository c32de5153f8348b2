//! The steps of a sampler as segments of raw time, and noise between them.

use super::substep_grid::{raw_time, time};
use crate::{Error, Result, limits};

/// The smallest share of a full step that the last one may be.
const SHORTEST_LAST: f64 = 1e-4;

/// The earliest raw time that a segment is chosen by.
const EARLIEST_RAW: f64 = 1e-4;

/// n segments from r = 1 to r = 0 that are equally long in raw time, but for the last, which is shorter by a factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segments {
    /// Their number n.
    pub steps: usize,
    /// The length of the last one as a share f of the others', in (0, 1].
    pub final_step_scale: f64,
    /// The shift m of the time grid.
    pub shift: f64,
}

impl Segments {
    /// Checks every field, naming the first that is out of range.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`].
    pub fn validate(&self) -> Result<()> {
        limits::count("steps", self.steps, limits::MOST_STEPS)?;
        if !(SHORTEST_LAST..=1.0).contains(&self.final_step_scale) {
            let expected = format!("a number from {SHORTEST_LAST} to 1");
            return Err(Error::config("final_step_scale", expected, self.final_step_scale));
        }
        match self.shift.is_finite() && self.shift > 0.0 {
            true => Ok(()),
            false => Err(Error::config("shift", "a positive number", self.shift)),
        }
    }

    /// The length in raw time of every segment but the last: 1/(n - 1 + f).
    pub fn base(&self) -> f64 {
        1.0 / (self.steps as f64 - 1.0 + self.final_step_scale)
    }

    /// The raw time (i - 1 + f)/(n - 1 + f) at which segment `i` begins. They are counted from n, the first that a sampler takes, to 1.
    pub fn begin(&self, i: usize) -> f64 {
        (i as f64 - 1.0 + self.final_step_scale) * self.base()
    }

    /// The length of segment `i` in raw time.
    pub fn length(&self, i: usize) -> f64 {
        if i <= 1 { self.begin(1) } else { self.base() }
    }

    /// The segment that holds the raw time 1 - `uniform`, for a uniform draw in [0, 1).
    pub fn holding(&self, uniform: f64) -> usize {
        let raw = (1.0 - uniform).max(EARLIEST_RAW);
        let i = (raw / self.base() + 1.0 - self.final_step_scale).ceil();
        (i as usize).clamp(1, self.steps)
    }

    /// The times at which a sampler's steps begin, and 0.
    pub fn times(&self) -> Vec<f64> {
        (1..=self.steps).rev().map(|i| time(self.begin(i), self.shift)).chain([0.0]).collect()
    }
}

/// A step that goes beyond its end and comes back to it with fresh noise, by the strength h: the share of its own noise that a sample keeps
/// is m = (t'(1 - t)/(t (1 - t')))^(h^2) for a step from t to t'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Renoising {
    /// Where the policy is followed to: t' m/(1 - t' + t' m).
    pub to: f64,
    /// m; 1 without fresh noise.
    pub kept: f64,
    /// What multiplies the sample there: 1 - t' + t' m.
    pub scale: f64,
    /// What multiplies the fresh noise: t' sqrt(1 - m^2).
    pub noise: f64,
}

impl Renoising {
    /// Of the step from t down to `to`; h = 0 is none, and at t = 1 any other goes down to 0.
    pub fn new((t, to): (f64, f64), h: f64) -> Self {
        let ratio = if to < 1.0 { (to * (1.0 - t) / (t * (1.0 - to))).clamp(0.0, 1.0) } else { 1.0 };
        let kept = if h == 0.0 { 1.0 } else { ratio.powf(h * h) };
        let scale = 1.0 - to + to * kept;
        Self { to: to * kept / scale, kept, scale, noise: to * (1.0 - kept * kept).max(0.0).sqrt() }
    }

    /// The length in raw time of the way from t to where the policy is followed to.
    pub fn raw_length(&self, t: f64, shift: f64) -> f64 {
        raw_time(t, shift) - raw_time(self.to, shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_fill_the_way_and_the_last_is_shorter() {
        let segments = Segments { steps: 4, final_step_scale: 0.5, shift: 3.2 };
        segments.validate().unwrap();
        let lengths: Vec<f64> = (1..=4).map(|i| segments.length(i)).collect();
        assert!((lengths.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((lengths[0] / lengths[1] - 0.5).abs() < 1e-12);
        assert_eq!((segments.begin(4), segments.times()[0], segments.times()[4]), (1.0, 1.0, 0.0));
        assert_eq!((segments.holding(0.0), segments.holding(1.0 - 1e-7)), (4, 1));
        for i in 1..=4 {
            let middle = segments.begin(i) - 0.5 * segments.length(i);
            assert_eq!(segments.holding(1.0 - middle), i);
        }
        assert!(Segments { final_step_scale: 0.0, ..segments }.validate().is_err());
        assert!(Segments { steps: 0, ..segments }.validate().is_err());
    }

    #[test]
    fn renoising_keeps_the_noise_of_its_time() {
        assert_eq!(Renoising::new((0.8, 0.4), 0.0), Renoising { to: 0.4, kept: 1.0, scale: 1.0, noise: 0.0 });
        for h in [0.5, 1.0, f64::INFINITY] {
            let renoising = Renoising::new((0.8, 0.4), h);
            // The share of noise after it is that of t': (scale to)^2 + noise^2 = t'^2.
            let total = (renoising.scale * renoising.to).powi(2) + renoising.noise.powi(2);
            assert!((total.sqrt() - 0.4).abs() < 1e-12, "{h}");
            assert!((renoising.scale * (1.0 - renoising.to) - 0.6).abs() < 1e-12, "and of the data 1 - t'");
        }
        assert_eq!(Renoising::new((1.0, 0.5), 1.0).to, 0.0);
        assert_eq!(Renoising::new((0.5, 0.0), 1.0).noise, 0.0);
    }
}
