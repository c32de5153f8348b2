//! The Knothe-Rosenblatt transport between standard normals and a mixture, pixel by pixel, on the host in f64.
//!
//! In the basis of the mixture's covariance, eigenvalues descending, each coordinate is mapped by the one-dimensional
//! mixture that is left once the earlier coordinates are fixed. The result depends on the signs of a shared basis, so
//! they are fixed: the entry of an eigenvector with the largest magnitude, the first of equals, is positive.

use crate::kernel::mixture::transport::types::Axes;
use crate::kernel::mixture::transport::univariate::Univariate;
use nalgebra::{DMatrix, SymmetricEigen};

/// One pixel's mixture of K isotropic Gaussians in C dimensions.
#[derive(Clone, Copy, Debug)]
pub struct PixelMixture<'a> {
    /// Means `[k c]`, row after row.
    pub means: &'a [f64],
    /// Log weights `[k]`, normalised.
    pub log_weights: &'a [f64],
    /// The components' one standard deviation, above 0.
    pub std: f64,
}

impl PixelMixture<'_> {
    /// The number of channels C.
    fn channels(&self) -> usize {
        self.means.len() / self.log_weights.len().max(1)
    }

    /// The covariance `[c c]`.
    pub fn covariance(&self) -> DMatrix<f64> {
        let mut sum = DMatrix::zeros(self.channels(), self.channels());
        self.add_covariance(&mut sum);
        sum
    }

    /// Adds the covariance to `sum` `[c c]`.
    pub(crate) fn add_covariance(&self, sum: &mut DMatrix<f64>) {
        let c = self.channels();
        let weighted = || self.means.chunks_exact(c).zip(self.log_weights.iter().map(|weight| weight.exp()));
        let mut mean = vec![0.0; c];
        for (row, weight) in weighted() {
            for (mean, x) in mean.iter_mut().zip(row) {
                *mean += weight * x;
            }
        }
        for (row, weight) in weighted() {
            for (i, mut column) in sum.column_iter_mut().enumerate() {
                let scaled = weight * (row[i] - mean[i]);
                for (entry, (x, mean)) in column.iter_mut().zip(row.iter().zip(&mean)) {
                    *entry += scaled * (x - mean);
                }
            }
        }
        for i in 0..c {
            sum[(i, i)] += self.std * self.std;
        }
    }

    /// Standard normals `[c]` to a draw from the mixture `[c]`, in a basis `[c c]` with one vector per column.
    pub fn at_normals(&self, normals: &[f64], basis: &DMatrix<f64>, axes: Axes) -> Vec<f64> {
        self.at_leading_normals(normals, basis, axes, &[], |_| 0)
    }

    /// A point `[c]` to the standard normals `[c]` it comes from: the inverse of [`Self::at_normals`].
    pub fn to_normals(&self, point: &[f64], basis: &DMatrix<f64>, axes: Axes) -> Vec<f64> {
        self.to_leading_normals(point, basis, axes, &[])
    }

    /// As [`Self::at_normals`] along the first c - n axes of the basis only. For the other axes, which vary least,
    /// `choose` draws a component from the log weights `[k]` that are left after the first ones, and the standard
    /// normals `rest` `[n]` are taken within it: still a draw from the mixture, without n root searches.
    pub fn at_leading_normals(
        &self,
        normals: &[f64],
        basis: &DMatrix<f64>,
        axes: Axes,
        rest: &[f64],
        choose: impl Fn(&[f64]) -> usize,
    ) -> Vec<f64> {
        let normals = match axes {
            Axes::Basis => normals.to_vec(),
            Axes::Channels => along(basis, normals),
        };
        let leading = self.channels() - rest.len();
        let mut chosen = None;
        let drawn = self.through(basis, |axis, left| {
            let x = match rest.get(axis.wrapping_sub(leading)) {
                None => left.at_normal(normals[axis]),
                Some(normal) => {
                    let component: usize = *chosen.get_or_insert_with(|| choose(left.log_weights));
                    left.means[component] + left.std * normal
                }
            };
            (x, x)
        });
        across(basis, &drawn)
    }

    /// As [`Self::to_normals`] along the first c - n axes of the basis only; the coordinates along the others are lost,
    /// and the fresh standard normals `rest` `[n]` stand in their place.
    pub fn to_leading_normals(&self, point: &[f64], basis: &DMatrix<f64>, axes: Axes, rest: &[f64]) -> Vec<f64> {
        let point = along(basis, point);
        let leading = self.channels() - rest.len();
        let normals = self.through(basis, |axis, left| {
            let normal = rest.get(axis.wrapping_sub(leading)).copied();
            (point[axis], normal.unwrap_or_else(|| left.to_normal(point[axis])))
        });
        match axes {
            Axes::Basis => normals,
            Axes::Channels => across(basis, &normals),
        }
    }

    /// Goes along the basis. `map` gets an axis and the conditional mixture there; it returns the coordinate, which the
    /// later axes are conditioned on, and the result for that axis.
    fn through(&self, basis: &DMatrix<f64>, mut map: impl FnMut(usize, Univariate) -> (f64, f64)) -> Vec<f64> {
        let c = self.channels();
        let mut log_weights = self.log_weights.to_vec();
        (0..c)
            .map(|axis| {
                let project = |mean: &[f64]| mean.iter().zip(basis.column(axis).iter()).map(|(m, v)| m * v).sum();
                let means: Vec<f64> = self.means.chunks_exact(c).map(project).collect(); // [k]
                let left = Univariate { means: &means, log_weights: &log_weights, std: self.std };
                let (x, result) = map(axis, left);
                for (weight, mean) in log_weights.iter_mut().zip(&means) {
                    *weight -= 0.5 * ((x - mean) / self.std).powi(2);
                }
                let peak = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let norm = peak + log_weights.iter().map(|weight| (weight - peak).exp()).sum::<f64>().ln();
                log_weights.iter_mut().for_each(|weight| *weight -= norm);
                result
            })
            .collect()
    }
}

/// The coordinates of `vector` in the basis.
fn along(basis: &DMatrix<f64>, vector: &[f64]) -> Vec<f64> {
    basis.column_iter().map(|column| column.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

/// The vector with these `coordinates` in the basis.
fn across(basis: &DMatrix<f64>, coordinates: &[f64]) -> Vec<f64> {
    basis.row_iter().map(|row| row.iter().zip(coordinates).map(|(a, b)| a * b).sum()).collect()
}

/// The eigenvectors of a covariance `[c c]`, one per column, by descending eigenvalue and with fixed signs.
pub fn eigenbasis(covariance: DMatrix<f64>) -> DMatrix<f64> {
    let c = covariance.nrows();
    let eigen = SymmetricEigen::new(covariance);
    let mut order: Vec<usize> = (0..c).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let mut basis = DMatrix::zeros(c, c);
    for (to, from) in order.into_iter().enumerate() {
        let vector = eigen.eigenvectors.column(from);
        let largest = vector.iter().fold(0.0, |best: f64, v| if v.abs() > best.abs() { *v } else { best });
        basis.set_column(to, &(vector * largest.signum()));
    }
    basis
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, normal_batch};

    const MEANS: [f64; 9] = [-1.0, 0.5, 2.0, 3.0, -2.0, 0.0, 0.4, 1.0, -1.5];

    fn mixture<'a>(means: &'a [f64], log_weights: &'a [f64]) -> PixelMixture<'a> {
        PixelMixture { means, log_weights, std: 0.3 }
    }

    fn log_weights() -> [f64; 3] {
        [0.5f64.ln(), 0.2f64.ln(), 0.3f64.ln()]
    }

    #[test]
    fn there_and_back_at_any_separation() {
        let log_weights = log_weights();
        for scale in [0.0, 1.0, 20.0] {
            let means = MEANS.map(|mean| mean * scale);
            let mixture = mixture(&means, &log_weights);
            let basis = eigenbasis(mixture.covariance());
            for axes in [Axes::Basis, Axes::Channels] {
                for normals in [[0.3, -1.2, 2.0], [-4.5, 4.0, 0.01], [1.0, 1.0, -1.0]] {
                    let point = mixture.at_normals(&normals, &basis, axes);
                    let back = mixture.to_normals(&point, &basis, axes);
                    let error = back.iter().zip(normals).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(error < 1e-7, "scale {scale}, {axes:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn signs_of_the_basis_do_not_matter_along_channels() {
        let log_weights = log_weights();
        let mixture = mixture(&MEANS, &log_weights);
        let basis = eigenbasis(mixture.covariance());
        let normals = [0.7, -0.2, 1.1];
        let point = mixture.at_normals(&normals, &basis, Axes::Channels);
        let flipped = mixture.at_normals(&normals, &(-&basis), Axes::Channels);
        assert!(point.iter().zip(&flipped).all(|(a, b)| (a - b).abs() < 1e-10));
        let shared = mixture.at_normals(&normals, &(-&basis), Axes::Basis);
        let straight = mixture.at_normals(&normals, &basis, Axes::Basis);
        assert!(shared.iter().zip(&straight).any(|(a, b)| (a - b).abs() > 1e-3));
    }

    #[test]
    fn without_the_transport_along_the_last_axes_draws_keep_the_covariance() {
        let log_weights = log_weights();
        let mixture = mixture(&MEANS, &log_weights);
        let expected = mixture.covariance();
        let basis = eigenbasis(expected.clone());
        let seeds: Vec<u64> = (0..20_000).collect();
        let device = burn::tensor::Device::flex();
        let normals = |count| {
            let drawn = normal_batch(&seeds, Purpose::Spectral, count, [1, 1, 3], &device).into_data();
            drawn.iter::<f64>().collect::<Vec<_>>()
        };
        let (first, others) = (normals(0), normals(1));
        for rest in 1..=3 {
            let mut points = DMatrix::zeros(3, seeds.len());
            for (i, (first, others)) in first.chunks(3).zip(others.chunks(3)).enumerate() {
                // The component whose share of the cumulated weights holds a rank.
                let rank = (i as f64 + 0.5) / seeds.len() as f64 * 977.0 % 1.0;
                let choose = |left: &[f64]| {
                    let mut sum = 0.0;
                    left.iter().position(|weight| {
                        sum += weight.exp();
                        sum >= rank
                    })
                };
                let point = mixture.at_leading_normals(first, &basis, Axes::Basis, &others[..rest], |left| {
                    choose(left).unwrap_or(left.len() - 1)
                });
                points.set_column(i, &nalgebra::DVector::from_vec(point));
            }
            let mean = points.column_mean();
            points.column_iter_mut().for_each(|mut point| point -= &mean);
            let got = &points * points.transpose() / seeds.len() as f64;
            assert!((got - &expected).abs().max() < 0.1, "{rest} axes without");
        }
    }

    #[test]
    fn the_basis_diagonalises_the_covariance_in_order() {
        let log_weights = log_weights();
        let covariance = mixture(&MEANS, &log_weights).covariance();
        let basis = eigenbasis(covariance.clone());
        let diagonal = basis.transpose() * covariance * &basis;
        for i in 0..3 {
            assert!(basis.column(i).iter().fold(0.0, |m: f64, v| if v.abs() > m.abs() { *v } else { m }) > 0.0);
            assert!(i == 0 || diagonal[(i, i)] <= diagonal[(i - 1, i - 1)]);
            assert!((0..3).all(|j| i == j || diagonal[(i, j)].abs() < 1e-10));
        }
    }
}
