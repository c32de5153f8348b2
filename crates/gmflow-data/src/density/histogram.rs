//! Histograms of points and their distance to a density.

use crate::{Error, Result};

/// How many points fell into each bin of a square grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Bins per side.
    pub bins: usize,
    /// Points per bin, row by row from the lowest y, each row from the lowest x. `[y x]`
    pub counts: Vec<u64>,
    /// Points outside the range or not finite.
    pub outside: u64,
}

impl Histogram {
    /// All points, those outside included.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.outside
    }
}

/// Counts `points` on `bins` x `bins` bins over `[low, high)` in both coordinates. A range that is empty or not finite
/// holds no point.
pub fn histogram(points: &[[f32; 2]], bins: usize, [low, high]: [f32; 2]) -> Histogram {
    let mut histogram = Histogram { bins, counts: vec![0; bins * bins], outside: 0 };
    let (low, width) = (f64::from(low), (f64::from(high) - f64::from(low)) / bins as f64);
    let bin = |x: f32| {
        let position = (f64::from(x) - low) / width;
        (width > 0.0 && position >= 0.0 && position < bins as f64).then_some(position as usize)
    };
    for &[x, y] in points {
        let counted = bin(x).zip(bin(y)).and_then(|(column, row)| histogram.counts.get_mut(row * bins + column));
        match counted {
            Some(count) => *count += 1,
            None => histogram.outside += 1,
        }
    }
    histogram
}

/// Total variation distance in [0, 1] between the points of a histogram and a density with these bin `masses`:
/// half the sum of absolute differences of probability. Everything outside the range is one more bin, so samples that
/// fell outside count in full: they are missing within the range and too many outside it.
///
/// # Errors
/// [`crate::FilesError::Config`] when the histogram is empty or the numbers of bins differ.
pub fn total_variation(histogram: &Histogram, masses: &[f64]) -> Result<f64> {
    if masses.len() != histogram.counts.len() {
        return Err(Error::config("masses", format!("{} bins", histogram.counts.len()), masses.len()));
    }
    let total = histogram.total();
    if total == 0 {
        return Err(Error::config("histogram", "at least one point", 0));
    }
    let share = |count: u64| count as f64 / total as f64;
    let within: f64 = histogram.counts.iter().zip(masses).map(|(&count, mass)| (share(count) - mass).abs()).sum();
    let mass_outside = (1.0 - masses.iter().sum::<f64>()).max(0.0);
    Ok((within + (share(histogram.outside) - mass_outside).abs()) / 2.0)
}
