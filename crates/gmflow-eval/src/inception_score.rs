//! The Inception Score (arXiv:1606.03498).

use crate::kernel_distance::Spread;
use crate::numpy_rng::RandomState;
use crate::{Error, Matrix, Result};

/// Splits of the samples.
pub const SPLITS: usize = 10;
/// The seed of the order in which samples go to the splits, as in torch-fidelity.
pub const SEED: u32 = 2020;

/// exp of the mean divergence KL(p(y|x), p(y)) over `splits` parts of the rows of `logits` `[n classes]`, shuffled by NumPy's generator.
///
/// ```
/// use gmflow_eval::{Matrix, inception_score};
///
/// // Each of four images is surely of a class of its own.
/// let logits = (0..16).map(|i| if i % 5 == 0 { 100.0 } else { 0.0 }).collect();
/// let score = inception_score(&Matrix::new(logits, 4)?, 1, 2020)?;
/// assert!((score.mean - 4.0).abs() < 1e-9);
/// # Ok::<(), gmflow_eval::Error>(())
/// ```
///
/// # Errors
/// No split, or more splits than rows.
pub fn inception_score(logits: &Matrix, splits: usize, seed: u32) -> Result<Spread> {
    let n = logits.rows();
    if !(1..=n).contains(&splits) {
        return Err(Error::config("splits", format!("1 to {n}, the number of samples"), splits));
    }
    let order = RandomState::new(seed).permutation(n);
    let scores: Vec<f64> =
        (0..splits).map(|split| score(logits, &order[split * n / splits..(split + 1) * n / splits])).collect();
    Ok(Spread::of(&scores))
}

/// E KL(p(y|x), p(y)) = E sum p log p - sum q log q with q = E p.
fn score(logits: &Matrix, rows: &[usize]) -> f64 {
    let n = rows.len() as f64;
    let mut mean = vec![0.0; logits.columns()];
    let mut entropy = 0.0;
    for &row in rows {
        let log_p = log_softmax(logits.row(row));
        for (sum, log_p) in mean.iter_mut().zip(log_p) {
            let p = log_p.exp();
            *sum += p / n;
            entropy += p * log_p / n;
        }
    }
    let marginal: f64 = mean.iter().filter(|&&q| q > 0.0).map(|q| q * q.ln()).sum();
    (entropy - marginal).exp()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = || logits.iter().map(|&value| f64::from(value) - f64::from(largest));
    let log_sum = shifted().map(f64::exp).sum::<f64>().ln();
    shifted().map(|value| value - log_sum).collect()
}
