//! The kernel distance (KID of Inception features, arXiv:1801.01401): squared maximum mean discrepancy under a cubic kernel.

use crate::numpy_rng::RandomState;
use crate::{Error, Matrix, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use serde::{Deserialize, Serialize};

/// The subsets that the distance is averaged over. The defaults are those of torch-fidelity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelDistanceConfig {
    /// How many subsets.
    pub subsets: usize,
    /// Vectors of each set in one subset.
    pub subset_size: usize,
    /// The seed of `numpy.random.RandomState`.
    pub seed: u32,
}

impl Default for KernelDistanceConfig {
    fn default() -> Self {
        Self { subsets: 100, subset_size: 1000, seed: 2020 }
    }
}

/// Mean and standard deviation over subsets or splits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation with the denominator n, as NumPy's `std`.
    pub std: f64,
}

impl Spread {
    /// Of some numbers.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        Self { mean, std: (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt() }
    }
}

/// The unbiased squared discrepancy with the kernel (x.y/d + 1)^3, over subsets drawn without replacement, first of `first`, then
/// of `second`.
///
/// ```
/// use gmflow_eval::{KernelDistanceConfig, Matrix, kernel_distance};
///
/// let vectors = |shift: f32| Matrix::new((0..60).map(|i| (i * 7 % 11) as f32 + shift).collect(), 2);
/// let config = KernelDistanceConfig { subsets: 10, subset_size: 20, ..KernelDistanceConfig::default() };
/// let near = kernel_distance(&vectors(0.0)?, &vectors(0.1)?, config)?;
/// let far = kernel_distance(&vectors(0.0)?, &vectors(5.0)?, config)?;
/// assert!(near.mean < far.mean);
/// # Ok::<(), gmflow_eval::Error>(())
/// ```
///
/// # Errors
/// Vectors of different length, no subset, or a subset that is larger than a set or smaller than 2.
pub fn kernel_distance(first: &Matrix, second: &Matrix, config: KernelDistanceConfig) -> Result<Spread> {
    let KernelDistanceConfig { subsets, subset_size, seed } = config;
    if first.columns() != second.columns() {
        return Err(Error::config("features", format!("{} columns in both sets", first.columns()), second.columns()));
    }
    if subsets == 0 {
        return Err(Error::config("subsets", "at least 1", subsets));
    }
    let most = first.rows().min(second.rows());
    if !(2..=most).contains(&subset_size) {
        return Err(Error::config(
            "subset_size",
            format!("2 to {most}, the samples of the smaller set"),
            subset_size,
        ));
    }
    let mut rng = RandomState::new(seed);
    let distances: Vec<f64> = (0..subsets)
        .map(|_| {
            let x = gathered(first, &rng.choice(first.rows(), subset_size));
            let y = gathered(second, &rng.choice(second.rows(), subset_size));
            discrepancy(&x, &y, subset_size, first.columns())
        })
        .collect();
    Ok(Spread::of(&distances))
}

fn gathered(matrix: &Matrix, rows: &[usize]) -> Vec<f64> {
    rows.iter().flat_map(|&row| matrix.row(row).iter().map(|&value| f64::from(value))).collect()
}

fn discrepancy(x: &[f64], y: &[f64], m: usize, d: usize) -> f64 {
    let mut products = vec![0.0; m * m];
    // The weights of all terms add up to 0, so that a constant may be taken from the kernel: without it the sums would cancel to
    // few digits where the vectors are far from the origin.
    let dot: f64 = x.iter().zip(y).take(d).map(|(a, b)| a * b).sum();
    let typical = (dot / d as f64 + 1.0).powi(3);
    // The sum of the kernel over all pairs and over the diagonal.
    let mut sums = |left: &[f64], right: &[f64]| {
        let target = MatMut::from_row_major_slice_mut(&mut products, m, m);
        let (left, right) = (MatRef::from_row_major_slice(left, m, d), MatRef::from_row_major_slice(right, m, d));
        matmul(target, Accum::Replace, left, right.transpose(), 1.0 / d as f64, Par::rayon(0));
        let kernel = |product: &f64| (product + 1.0).powi(3) - typical;
        (products.iter().map(kernel).sum::<f64>(), products.iter().step_by(m + 1).map(kernel).sum::<f64>())
    };
    let ((xx, xx_diagonal), (yy, yy_diagonal), (xy, _)) = (sums(x, x), sums(y, y), sums(x, y));
    let m = m as f64;
    (xx - xx_diagonal + yy - yy_diagonal) / (m * (m - 1.0)) - 2.0 * xy / (m * m)
}
