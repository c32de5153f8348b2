//! One-dimensional mixtures on the host, in f64: density, distribution function and quantile, exact in both tails.
//!
//! ```
//! use gmflow::mixture::univariate::Univariate;
//!
//! let one = Univariate { means: &[1.0], log_weights: &[0.0], std: 2.0 };
//! assert!((one.at_normal(1.5) - 4.0).abs() < 1e-9);
//! assert!((one.to_normal(4.0) - 1.5).abs() < 1e-9);
//! ```

use std::f64::consts::{LN_2, PI, SQRT_2};

/// Below this, ln Phi is taken from its asymptotic series: erfc is about to underflow.
const SERIES_BELOW: f64 = -30.0;

/// More than bisection needs to exhaust the bits of any bracket.
const MAX_ITERATIONS: usize = 256;

/// ln Phi(z) of the standard normal, without underflow for any finite z.
pub fn ln_normal_cdf(z: f64) -> f64 {
    if z > SERIES_BELOW {
        return (0.5 * libm::erfc(-z / SQRT_2)).ln();
    }
    let r = 1.0 / (z * z);
    let series = 1.0 - r * (1.0 - 3.0 * r * (1.0 - 5.0 * r * (1.0 - 7.0 * r)));
    -0.5 * z * z - (-z).ln() - 0.5 * (2.0 * PI).ln() + series.ln()
}

/// z <= 0 with ln Phi(z) = `ln_p`, for `ln_p` <= ln 1/2.
fn lower_normal_quantile(ln_p: f64) -> f64 {
    // ln Phi is concave and this start lies left of the root, so Newton's steps only ever go right.
    let mut z = -(-2.0 * ln_p).sqrt();
    for _ in 0..MAX_ITERATIONS {
        let ln_cdf = ln_normal_cdf(z);
        let slope = (-0.5 * (z * z + (2.0 * PI).ln()) - ln_cdf).exp();
        let step = (ln_p - ln_cdf) / slope;
        z += step;
        if step.abs() <= 1e-14 * z.abs().max(1.0) {
            break;
        }
    }
    z
}

/// A mixture on the line whose components share one standard deviation.
#[derive(Clone, Copy, Debug)]
pub struct Univariate<'a> {
    /// The components' means `[k]`.
    pub means: &'a [f64],
    /// Log weights `[k]`, normalised: log-sum-exp is 0.
    pub log_weights: &'a [f64],
    /// The standard deviation, above 0.
    pub std: f64,
}

impl Univariate<'_> {
    /// The log of the weighted sum of exp(`term`(z_k)) with z_k = (x - m_k)/s or its negative.
    fn log_sum(&self, x: f64, term: impl Fn(f64) -> f64) -> f64 {
        let terms =
            || self.means.iter().zip(self.log_weights).map(|(mean, weight)| weight + term((x - mean) / self.std));
        let peak = terms().fold(f64::NEG_INFINITY, f64::max);
        if peak == f64::NEG_INFINITY { peak } else { peak + terms().map(|v| (v - peak).exp()).sum::<f64>().ln() }
    }

    /// The log density at x.
    pub fn ln_pdf(&self, x: f64) -> f64 {
        self.log_sum(x, |z| -0.5 * z * z) - self.std.ln() - 0.5 * (2.0 * PI).ln()
    }

    /// The log of the probability of at most x.
    pub fn ln_cdf(&self, x: f64) -> f64 {
        self.log_sum(x, ln_normal_cdf)
    }

    /// The log of the probability of more than x.
    pub fn ln_survival(&self, x: f64) -> f64 {
        self.log_sum(x, |z| ln_normal_cdf(-z))
    }

    /// The standard normal number with the same rank as x: increasing in x.
    pub fn to_normal(&self, x: f64) -> f64 {
        let (below, above) = (self.ln_cdf(x), self.ln_survival(x));
        if below <= above {
            lower_normal_quantile(below.min(-LN_2))
        } else {
            -lower_normal_quantile(above.min(-LN_2))
        }
    }

    /// The quantile at Phi(z): the inverse of [`Self::to_normal`].
    ///
    /// The root is bracketed from the start, between the smallest and the largest m_k + s z, and every Newton step that
    /// leaves the bracket or does not halve it is replaced by a bisection, so that this converges for any separation.
    pub fn at_normal(&self, z: f64) -> f64 {
        // Each tail is solved with its own probability, which is the smaller one: 1 - p has no digits left out there.
        let lower = z <= 0.0;
        let target = ln_normal_cdf(-z.abs());
        let (mut lo, mut hi) = self.means.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), mean| {
            let x = mean + self.std * z;
            (lo.min(x), hi.max(x))
        });
        let mut x = 0.5 * (lo + hi);
        for _ in 0..MAX_ITERATIONS {
            let ln_p = if lower { self.ln_cdf(x) } else { self.ln_survival(x) };
            let residual = if lower { ln_p - target } else { target - ln_p }; // increasing in x
            let width = hi - lo;
            if residual > 0.0 {
                hi = hi.min(x);
            } else {
                lo = lo.max(x);
            }
            let newton = x - residual / (self.ln_pdf(x) - ln_p).exp();
            let useful = newton > lo && newton < hi && (newton - x).abs() < 0.5 * width;
            let next = if useful { newton } else { 0.5 * (lo + hi) };
            let done = (next - x).abs() <= 1e-13 * (self.std + next.abs());
            x = next;
            if done {
                break;
            }
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} and {b} differ by {}", (a - b).abs());
    }

    #[test]
    fn one_component_is_affine() {
        let one = Univariate { means: &[3.0], log_weights: &[0.0], std: 0.2 };
        for z in [-40.0, -7.5, -1.0, 0.0, 0.3, 6.0, 38.0] {
            close(one.at_normal(z), 3.0 + 0.2 * z, 1e-10);
            close(one.to_normal(3.0 + 0.2 * z), z, 1e-9);
        }
    }

    #[test]
    fn the_log_cdf_joins_its_series() {
        let (left, right) = (ln_normal_cdf(SERIES_BELOW - 1e-9), ln_normal_cdf(SERIES_BELOW + 1e-9));
        close(left, right, 1e-6);
        close(ln_normal_cdf(0.0), -LN_2, 1e-15);
        close(ln_normal_cdf(-1.0).exp(), 0.158_655_253_931_457_05, 1e-15);
    }

    #[test]
    fn quantiles_return_at_any_separation() {
        let log_weights = [0.2f64.ln(), 0.5f64.ln(), 0.3f64.ln()];
        for gap in [0.0, 1.0, 5.0, 20.0, 50.0, 1000.0] {
            let means = [-gap, 0.0, gap];
            let mixture = Univariate { means: &means, log_weights: &log_weights, std: 1.0 };
            let mut last = f64::NEG_INFINITY;
            for i in -60..=60 {
                let z = f64::from(i) * 0.1 + 0.003;
                let x = mixture.at_normal(z);
                assert!(x > last, "the transport increases");
                last = x;
                close(mixture.to_normal(x), z, 1e-9);
            }
        }
    }

    #[test]
    fn the_density_is_the_slope_of_the_distribution() {
        let mixture = Univariate { means: &[-1.0, 2.0], log_weights: &[0.4f64.ln(), 0.6f64.ln()], std: 0.7 };
        for x in [-2.0, -0.5, 0.4, 1.9, 3.0] {
            let h = 1e-5;
            let slope = (mixture.ln_cdf(x + h).exp() - mixture.ln_cdf(x - h).exp()) / (2.0 * h);
            close(slope, mixture.ln_pdf(x).exp(), 1e-8);
            close(mixture.ln_cdf(x).exp() + mixture.ln_survival(x).exp(), 1.0, 1e-14);
        }
    }
}
