//! Distances between sets of points in the plane, and between points and a density.
//!
//! ```
//! use gmflow_data::Density;
//! use gmflow_eval::points::{PointsConfig, PointsDistance};
//!
//! let density = Density::CHECKERBOARD;
//! let good = PointsDistance::of(&density.sample(1, 0, 2000), &density, PointsConfig::default())?;
//! let bad = PointsDistance::of(&vec![[3.0, 3.0]; 2000], &density, PointsConfig::default())?;
//! assert!(good.total_variation < 2.0 * good.chance && bad.total_variation > 0.9);
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

use crate::{Error, Result};
use gmflow_data::Density;
use gmflow_data::density::{histogram, total_variation};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How points are compared with a density.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PointsConfig {
    /// Bins along one side of the histogram.
    pub bins: usize,
    /// Half the side of the square that it covers.
    pub range: f32,
    /// Directions of the sliced Wasserstein distance, at equal angles.
    pub directions: usize,
    /// The seed of the points that are drawn from the density for it.
    pub seed: u64,
}

impl Default for PointsConfig {
    fn default() -> Self {
        Self { bins: 32, range: 4.0, directions: 64, seed: 2020 }
    }
}

/// How far points are from a density.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointsDistance {
    /// How many points.
    pub count: u64,
    /// Total variation distance of the histograms, in [0, 1]; what lies outside the square is one more bin.
    pub total_variation: f64,
    /// Total variation of as many points of the density itself: chance alone.
    pub chance: f64,
    /// Sliced Wasserstein distance of order 2 to as many points of the density.
    pub sliced_wasserstein: f64,
    /// The share of points where the density is 0; none where it is positive everywhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outside: Option<f64>,
}

impl PointsDistance {
    /// Measures `points` against `density`. Where the density has no closed form for bins, they are counted from a hundred times as many
    /// points.
    ///
    /// # Errors
    /// No points, no bins, no directions, or a density with a setting out of range.
    pub fn of(points: &[[f32; 2]], density: &Density, config: PointsConfig) -> Result<Self> {
        let PointsConfig { bins, range, directions, seed } = config;
        if points.is_empty() || bins == 0 {
            return Err(Error::config("points, bins", "at least one of each", format!("{}, {bins}", points.len())));
        }
        density.validate()?;
        let square = [-range, range];
        let masses = match density.bin_masses(bins, square) {
            Some(masses) => masses,
            None => {
                let counted = histogram(&density.sample(seed, 2, 100 * points.len()), bins, square);
                counted.counts.iter().map(|&count| count as f64 / counted.total() as f64).collect()
            }
        };
        let distance = |points: &[[f32; 2]]| total_variation(&histogram(points, bins, square), &masses);
        Ok(Self {
            count: points.len() as u64,
            total_variation: distance(points)?,
            chance: distance(&density.sample(seed, 0, points.len()))?,
            sliced_wasserstein: sliced_wasserstein(points, &density.sample(seed, 1, points.len()), directions)?,
            outside: density.outside_fraction(points),
        })
    }
}

/// The sliced Wasserstein distance of order 2: the root of the mean over directions of the squared transport cost between the sorted
/// projections. Directions are `directions` equal steps of a half turn. Sets of different size are compared at the quantiles of
/// the larger one.
///
/// # Errors
/// No directions, no points, or a point that is not finite.
pub fn sliced_wasserstein(a: &[[f32; 2]], b: &[[f32; 2]], directions: usize) -> Result<f64> {
    if directions == 0 || a.is_empty() || b.is_empty() {
        let got = format!("{directions}, {}, {}", a.len(), b.len());
        return Err(Error::config("directions, points", "at least one of each", got));
    }
    if let Some(point) = a.iter().chain(b).find(|point| !point.iter().all(|x| x.is_finite())) {
        return Err(Error::config("points", "finite coordinates", format!("{point:?}")));
    }
    let cost = |direction: usize| {
        let (sin, cos) = (PI * direction as f64 / directions as f64).sin_cos();
        let sorted = |points: &[[f32; 2]]| {
            let mut along: Vec<f64> = points.iter().map(|&[x, y]| f64::from(x) * cos + f64::from(y) * sin).collect();
            along.sort_unstable_by(f64::total_cmp);
            along
        };
        let (a, b) = (sorted(a), sorted(b));
        let n = a.len().max(b.len());
        let quantile =
            |sorted: &[f64], i: usize| sorted[((i as f64 + 0.5) / n as f64 * sorted.len() as f64) as usize];
        (0..n).map(|i| (quantile(&a, i) - quantile(&b, i)).powi(2)).sum::<f64>() / n as f64
    };
    let costs: Vec<f64> = (0..directions).into_par_iter().map(cost).collect();
    Ok((costs.iter().sum::<f64>() / directions as f64).sqrt())
}
