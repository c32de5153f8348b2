//! The Fréchet distance of two Gaussians; of Inception features it is the FID (arXiv:1706.08500).

use crate::{Error, Moments, Result};
use faer::{Mat, MatRef, Side};
use gmflow::limits::Need;

/// Refuses vectors of so many numbers that their covariances, and what a distance of them is computed in, do not fit in memory.
///
/// # Errors
/// [`gmflow::Error::Memory`].
pub fn check_covariances(columns: usize) -> Result<()> {
    /// Matrices in f64 that exist at once: two sets' sums, two covariances, eigenvectors, two products, and room to work in.
    const MATRICES: u128 = 8;
    const F64: u128 = 8;
    let need = Need::new().bytes("covariances", (columns as u128).pow(2) * MATRICES * F64);
    let advice = "compare by features of fewer numbers (--features classifier=FILE), or smaller images";
    Ok(need.check("numbers in a feature vector", columns, advice)?)
}

/// |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of the moments' means and covariances.
///
/// With C1 = U L U^T and S = U L^(1/2), the trace of the root is the sum of the roots of the eigenvalues of the symmetric matrix
/// S^T C2 S: nothing is complex, and covariances of fewer samples than dimensions need no offset. Time: O(d^3).
///
/// ```
/// use gmflow_eval::{Moments, frechet_distance};
///
/// // Means 3 apart, standard deviations 1 and 2: 3^2 + (1 - 2)^2.
/// let near = Moments::from_covariance(100, vec![0.0], vec![1.0])?;
/// let far = Moments::from_covariance(100, vec![3.0], vec![4.0])?;
/// assert!((frechet_distance(&near, &far)? - 10.0).abs() < 1e-12);
/// # Ok::<(), gmflow_eval::Error>(())
/// ```
///
/// # Errors
/// Vectors of different length, fewer than two samples, or an eigen-decomposition that fails.
pub fn frechet_distance(a: &Moments, b: &Moments) -> Result<f64> {
    let d = a.mean().len();
    if b.mean().len() != d {
        return Err(Error::config("features", format!("{d} columns in both sets"), b.mean().len()));
    }
    check_covariances(d)?;
    let (covariance_a, covariance_b) = (a.covariance()?, b.covariance()?);
    let trace = |covariance: &[f64]| covariance.iter().step_by(d + 1).sum::<f64>();
    let means: f64 = a.mean().iter().zip(b.mean()).map(|(x, y)| (x - y) * (x - y)).sum();
    let traces = trace(&covariance_a) + trace(&covariance_b);
    let root = root_trace(
        MatRef::from_row_major_slice(&covariance_a, d, d),
        MatRef::from_row_major_slice(&covariance_b, d, d),
    )?;
    Ok(means + traces - 2.0 * root)
}

/// tr (A B)^(1/2) of positive semi-definite matrices.
fn root_trace(a: MatRef<f64>, b: MatRef<f64>) -> Result<f64> {
    let failed = |_| Error::config("covariance", "a matrix that can be decomposed", "one that cannot");
    let eigen = a.self_adjoint_eigen(Side::Lower).map_err(failed)?;
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    let scaled = Mat::from_fn(vectors.nrows(), vectors.ncols(), |i, j| vectors[(i, j)] * values[j].max(0.0).sqrt());
    let product = scaled.transpose() * b * &scaled;
    let eigenvalues = product.self_adjoint_eigenvalues(Side::Lower).map_err(failed)?;
    Ok(eigenvalues.into_iter().map(|value| value.max(0.0).sqrt()).sum())
}
