//! 2-D densities to learn, and how far a set of points is from them.
//!
//! ```
//! use gmflow_data::Density;
//!
//! let points = Density::CHECKERBOARD.sample(1, 0, 1000);
//! assert_eq!(Density::CHECKERBOARD.outside_fraction(&points), Some(0.0));
//! ```

mod histogram;

use std::f32::consts::PI;

use rand::{Rng, RngExt};
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

pub use histogram::{Histogram, histogram, total_variation};

use crate::rng::{Purpose, stream};
use crate::{Error, Result};

/// A 2-D density; every one lies (all but a tail of Gaussian noise) within [-4, 4] in both coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Density {
    /// Uniform over half the squares of a board that covers [-scale, scale] in both coordinates: square (column, row),
    /// counted from the lower left corner, is filled when column + row is even. So the lower left and the upper right
    /// square are filled, and with the published settings (scale 4, 4x4) they are eight squares of side 2.
    Checkerboard {
        /// Half the width of the board.
        #[serde(default = "four")]
        scale: f32,
        /// Squares per side.
        #[serde(default = "four_squares")]
        squares: u32,
    },
    /// Two interleaved half circles of radius 2 with Gaussian noise.
    Moons {
        /// Standard deviation of the noise.
        #[serde(default = "tenth")]
        noise: f32,
    },
    /// Two spiral arms of one and a half turns, out to radius 3.5, with Gaussian noise.
    Spirals {
        /// Standard deviation of the noise.
        #[serde(default = "tenth")]
        noise: f32,
    },
    /// Concentric circles, the outermost of radius 3.5, with equal mass each and Gaussian noise.
    Rings {
        /// The number of circles.
        #[serde(default = "three")]
        rings: u32,
        /// Standard deviation of the noise.
        #[serde(default = "tenth")]
        noise: f32,
    },
    /// Equal Gaussians centred on the nodes of a square grid that spans [-3, 3] in both coordinates.
    GaussianGrid {
        /// Gaussians per side.
        #[serde(default = "five")]
        side: u32,
        /// Standard deviation of each Gaussian.
        #[serde(default = "tenth")]
        std: f32,
    },
}

fn tenth() -> f32 {
    0.1
}
fn four() -> f32 {
    4.0
}
fn four_squares() -> u32 {
    4
}
fn three() -> u32 {
    3
}
fn five() -> u32 {
    5
}

/// Largest number of squares, rings or grid nodes per side.
const MAX_PARTS: u32 = 64;

impl Density {
    /// The published checkerboard: eight filled squares of side 2 on [-4, 4] in both coordinates.
    pub const CHECKERBOARD: Self = Self::Checkerboard { scale: 4.0, squares: 4 };

    /// Checks every setting.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] naming the first setting outside its domain.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Checkerboard { scale, squares } => {
                if !(scale.is_finite() && scale > 0.0) {
                    return Err(Error::config("scale", "a finite number above 0", scale));
                }
                parts("squares", 2, squares)
            }
            Self::Moons { noise } | Self::Spirals { noise } => deviation("noise", noise),
            Self::Rings { rings, noise } => parts("rings", 1, rings).and_then(|()| deviation("noise", noise)),
            Self::GaussianGrid { side, std } => parts("side", 1, side).and_then(|()| deviation("std", std)),
        }
    }

    /// `n` points, a pure function of (`seed`, `step`).
    pub fn sample(&self, seed: u64, step: u64, n: usize) -> Vec<[f32; 2]> {
        self.sample_with(&mut stream(seed, Purpose::Points, 0, step), n)
    }

    /// `n` points drawn with `rng`.
    pub fn sample_with(&self, rng: &mut impl Rng, n: usize) -> Vec<[f32; 2]> {
        (0..n).map(|_| self.point(rng)).collect()
    }

    fn point(&self, rng: &mut impl Rng) -> [f32; 2] {
        match *self {
            Self::Checkerboard { scale, squares } => checkerboard_point(rng, scale, squares),
            Self::Moons { noise } => {
                let angle = PI * rng.random::<f32>();
                let (sin, cos) = angle.sin_cos();
                let [x, y] = if rng.random::<bool>() { [cos - 0.5, sin - 0.25] } else { [0.5 - cos, 0.25 - sin] };
                noisy(rng, [2.0 * x, 2.0 * y], noise)
            }
            Self::Spirals { noise } => {
                // The square root spreads the points evenly along the arm, whose radius grows with the angle.
                let turn = rng.random::<f32>().sqrt();
                let sign = if rng.random::<bool>() { 1.0 } else { -1.0 };
                let (sin, cos) = (3.0 * PI * turn).sin_cos();
                noisy(rng, [-sign * 3.5 * turn * cos, sign * 3.5 * turn * sin], noise)
            }
            Self::Rings { rings, noise } => {
                let ring = rng.random_range(0..rings.max(1)) + 1;
                let radius = 3.5 * ring as f32 / rings.max(1) as f32;
                let (sin, cos) = (2.0 * PI * rng.random::<f32>()).sin_cos();
                noisy(rng, [radius * cos, radius * sin], noise)
            }
            Self::GaussianGrid { side, std } => {
                let mut node = || grid_node(rng.random_range(0..side.max(1)), side);
                let centre = [node(), node()];
                noisy(rng, centre, std)
            }
        }
    }

    /// Whether the density is above 0 at `point`; `None` where the support is the whole plane.
    pub fn contains(&self, point: [f32; 2]) -> Option<bool> {
        let Self::Checkerboard { scale, squares } = *self else { return None };
        let [column, row] = point.map(|x| f64::from(x) / f64::from(scale)).map(|x| cell(x, squares));
        Some(matches!((column, row), (Some(column), Some(row)) if (column + row) % 2 == 0))
    }

    /// The fraction of `points` where the density is 0, points that are not finite included; `None` where the support
    /// is the whole plane or there are no points.
    pub fn outside_fraction(&self, points: &[[f32; 2]]) -> Option<f64> {
        let Self::Checkerboard { .. } = self else { return None };
        let outside = points.iter().filter(|&&point| self.contains(point) != Some(true)).count();
        (!points.is_empty()).then(|| outside as f64 / points.len() as f64)
    }

    /// The exact probability of every bin of a [`histogram`] with the same arguments, row by row from the lowest y;
    /// `None` where it has no closed form here (all but the checkerboard).
    pub fn bin_masses(&self, bins: usize, [low, high]: [f32; 2]) -> Option<Vec<f64>> {
        let Self::Checkerboard { scale, squares } = *self else { return None };
        let (scale, low, high) = (f64::from(scale), f64::from(low), f64::from(high));
        let side = 2.0 * scale / f64::from(squares);
        let width = (high - low) / bins as f64;
        // Length of the overlap of a bin with the even ([0]) and with the odd ([1]) columns; rows are the same.
        let overlaps: Vec<[f64; 2]> = (0..bins)
            .map(|bin| {
                let start = low + bin as f64 * width;
                let mut overlap = [0.0; 2];
                for column in 0..squares {
                    let left = -scale + f64::from(column) * side;
                    let length = (start + width).min(left + side) - start.max(left);
                    overlap[(column % 2) as usize] += length.max(0.0);
                }
                overlap
            })
            .collect();
        let area = f64::from((squares * squares).div_ceil(2)) * side * side;
        let mass = |x: &[f64; 2], y: &[f64; 2]| (x[0] * y[0] + x[1] * y[1]) / area;
        Some(overlaps.iter().flat_map(|y| overlaps.iter().map(move |x| mass(x, y))).collect())
    }
}

/// The column of a board on [-1, 1] that holds `x`.
fn cell(x: f64, squares: u32) -> Option<u32> {
    let position = (x + 1.0) / 2.0 * f64::from(squares);
    (position >= 0.0 && position < f64::from(squares)).then_some(position as u32)
}

fn checkerboard_point(rng: &mut impl Rng, scale: f32, squares: u32) -> [f32; 2] {
    let filled = (squares * squares).div_ceil(2);
    // Every second square in reading order is filled on a board of odd width; on one of even width the rows alternate.
    let square = 2 * rng.random_range(0..filled.max(1));
    let row = square / squares.max(1);
    let shift = if squares.is_multiple_of(2) { row % 2 } else { 0 };
    let column = square % squares.max(1) + shift;
    [column, row].map(|cell| {
        let edge = |cell: u32| (cell as f32 / squares as f32 * 2.0 - 1.0) * scale;
        let (low, high) = (edge(cell), edge(cell + 1));
        // Rounding may land on the upper edge, which belongs to the next square.
        (low + (high - low) * rng.random::<f32>()).min(high.next_down())
    })
}

fn grid_node(index: u32, side: u32) -> f32 {
    if side < 2 { 0.0 } else { 6.0 * index as f32 / (side - 1) as f32 - 3.0 }
}

fn noisy(rng: &mut impl Rng, [x, y]: [f32; 2], std: f32) -> [f32; 2] {
    [x, y].map(|centre| centre + std * rng.sample::<f32, _>(StandardNormal))
}

fn parts(field: &str, least: u32, value: u32) -> Result<()> {
    match (least..=MAX_PARTS).contains(&value) {
        true => Ok(()),
        false => Err(Error::config(field, format!("{least} to {MAX_PARTS}"), value)),
    }
}

fn deviation(field: &str, value: f32) -> Result<()> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(Error::config(field, "a finite number of at least 0", value)),
    }
}
