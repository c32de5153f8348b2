//! Mean and covariance of feature vectors, batch by batch: memory does not depend on how many there are.

use crate::{Error, Matrix, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// The longest vectors that are taken: their covariance has 2 GiB.
pub const MOST_COLUMNS: usize = 1 << 14;
/// Rows that are worked on at a time.
const ROWS: usize = 512;

/// Count, mean and centred sum of squares of vectors of `d` numbers, in f64. Memory: d^2 + d numbers.
///
/// ```
/// use gmflow_eval::{Matrix, Moments};
///
/// let mut moments = Moments::new(2)?;
/// moments.add(&Matrix::new(vec![0.0, 0.0, 2.0, 4.0], 2)?)?;
/// assert_eq!(moments.mean(), [1.0, 2.0]);
/// assert_eq!(moments.covariance()?, [2.0, 4.0, 4.0, 8.0]);
/// # Ok::<(), gmflow_eval::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    count: u64,
    /// `[d]`
    mean: Vec<f64>,
    /// Sum of (x - mean)(x - mean)^T. `[d d]`
    scatter: Vec<f64>,
}

impl Moments {
    /// Of no vector yet, of `d` numbers.
    ///
    /// # Errors
    /// `d` is 0 or more than [`MOST_COLUMNS`].
    pub fn new(d: usize) -> Result<Self> {
        if !(1..=MOST_COLUMNS).contains(&d) {
            return Err(Error::config("features", format!("1 to {MOST_COLUMNS} columns, for a covariance"), d));
        }
        Ok(Self { count: 0, mean: vec![0.0; d], scatter: vec![0.0; d * d] })
    }

    /// From a mean `[d]` and a covariance `[d d]` with the denominator `count` - 1.
    ///
    /// # Errors
    /// Sizes that do not fit, fewer than two vectors, or a number that is not finite.
    pub fn from_covariance(count: u64, mean: Vec<f64>, covariance: Vec<f64>) -> Result<Self> {
        let d = mean.len();
        if d == 0 || covariance.len() != d * d {
            return Err(Error::config("covariance", format!("{d} x {d} numbers"), covariance.len()));
        }
        if count < 2 {
            return Err(Error::config("count", "at least 2", count));
        }
        if let Some(wrong) = mean.iter().chain(&covariance).find(|value| !value.is_finite()) {
            return Err(Error::config("mean, covariance", "finite numbers", wrong));
        }
        let scatter = covariance.into_iter().map(|value| value * (count - 1) as f64).collect();
        Ok(Self { count, mean, scatter })
    }

    /// How many vectors went in.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean `[d]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The covariance `[d d]` with the denominator `count` - 1, as NumPy's `cov`.
    ///
    /// # Errors
    /// Fewer than two vectors.
    pub fn covariance(&self) -> Result<Vec<f64>> {
        if self.count < 2 {
            return Err(Error::config("samples", "at least 2 for a covariance", self.count));
        }
        Ok(self.scatter.iter().map(|value| value / (self.count - 1) as f64).collect())
    }

    /// Adds rows.
    ///
    /// # Errors
    /// Rows of another length.
    pub fn add(&mut self, rows: &Matrix) -> Result<()> {
        let d = self.mean.len();
        if rows.columns() != d {
            return Err(Error::config("features", format!("{d} columns"), rows.columns()));
        }
        rows.values().chunks(ROWS * d).for_each(|chunk| self.add_chunk(chunk));
        Ok(())
    }

    /// Adds the vectors of another set.
    ///
    /// # Errors
    /// Vectors of another length.
    pub fn merge(&mut self, other: &Moments) -> Result<()> {
        if other.mean.len() != self.mean.len() {
            return Err(Error::config("features", format!("{} columns", self.mean.len()), other.mean.len()));
        }
        for (sum, value) in self.scatter.iter_mut().zip(&other.scatter) {
            *sum += value;
        }
        self.shift(other.count, &other.mean);
        Ok(())
    }

    fn add_chunk(&mut self, chunk: &[f32]) {
        let d = self.mean.len();
        let rows = chunk.len() / d;
        if rows == 0 {
            return;
        }
        let mut mean = vec![0.0; d];
        for row in chunk.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        mean.iter_mut().for_each(|sum| *sum /= rows as f64);
        let centred: Vec<f64> = chunk
            .chunks_exact(d)
            .flat_map(|row| row.iter().zip(&mean).map(|(&x, mean)| f64::from(x) - mean))
            .collect();
        let centred = MatRef::from_row_major_slice(&centred, rows, d);
        let scatter = MatMut::from_row_major_slice_mut(&mut self.scatter, d, d);
        matmul(scatter, Accum::Add, centred.transpose(), centred, 1.0, Par::rayon(0));
        self.shift(rows as u64, &mean);
    }

    /// Counts `count` more vectors; their scatter about their own mean has been added already (Chan, Golub and LeVeque).
    fn shift(&mut self, count: u64, mean: &[f64]) {
        let total = (self.count + count).max(1) as f64;
        let weight = self.count as f64 * count as f64 / total;
        let difference: Vec<f64> = mean.iter().zip(&self.mean).map(|(new, old)| new - old).collect();
        for (row, &left) in self.scatter.chunks_exact_mut(difference.len().max(1)).zip(&difference) {
            row.iter_mut().zip(&difference).for_each(|(sum, &right)| *sum += weight * left * right);
        }
        let step = count as f64 / total;
        self.mean.iter_mut().zip(&difference).for_each(|(mean, difference)| *mean += step * difference);
        self.count += count;
    }
}
