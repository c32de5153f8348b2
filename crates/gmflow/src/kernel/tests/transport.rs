//! The transport in f32 lanes against the same in f64, pixel by pixel.

use super::{device, draw, values};
use crate::kernel::{Direction, covariances, transport};
use crate::mixture::transport::{Axes, PixelMixture, eigenbasis};
use burn::tensor::{Tensor, TensorData, activation};
use nalgebra::DMatrix;

/// What has one standard deviation.
#[derive(Clone, Copy, Debug)]
enum Of {
    Sample,
    Pixel,
}

/// Mixtures `[b k c 1 n]` whose means are `spread` apart, with a component standard deviation of `std`, or around it.
struct Case {
    parts: [Tensor<5>; 3],
    bases: Tensor<3>,
    sizes: [usize; 4],
    /// `[b n]`.
    stds: Vec<f64>,
}

impl Case {
    fn new([b, k, c, n]: [usize; 4], spread: f64, std: f64, of: Of) -> Self {
        let device = device();
        let log_std = match of {
            Of::Sample => Tensor::full([b, 1, 1, 1, 1], std.ln(), &device),
            Of::Pixel => draw(4, [b, 1, 1, 1, n], &device).tanh() * 0.5 + std.ln(),
        };
        let stds = values(log_std.clone().expand([b, 1, 1, 1, n])).into_iter().map(|x| f64::from(x.exp())).collect();
        let parts = [
            draw(0, [b, k, c, 1, n], &device) * spread,
            activation::log_softmax(draw(1, [b, k, 1, 1, n], &device) * 2.0, 1),
            log_std,
        ];
        let covariances = values(covariances(parts.clone()));
        let basis = |rows: &[f32]| eigenbasis(DMatrix::from_row_iterator(c, c, rows.iter().map(|&x| f64::from(x))));
        let bases: Vec<f32> =
            covariances.chunks_exact(c * c).flat_map(|rows| rows_of(&basis(rows)).collect::<Vec<_>>()).collect();
        let bases = Tensor::from_data(TensorData::new(bases, [b, c, c]), &device);
        Self { parts, bases, sizes: [b, k, c, n], stds }
    }

    fn map(&self, values: &Tensor<4>, axes: Axes, direction: Direction) -> Tensor<4> {
        transport(self.parts.clone(), values, self.bases.clone(), axes, direction)
    }

    /// Calls `f(basis, mixture, offset of a pixel's first channel)` for every pixel.
    fn for_pixels(&self, mut f: impl FnMut(&DMatrix<f64>, PixelMixture, usize)) {
        let [b, k, c, n] = self.sizes;
        let [means, log_weights, _] = self.parts.clone().map(values);
        let bases = values(self.bases.clone());
        for sample in 0..b {
            let rows = bases[sample * c * c..][..c * c].iter().map(|&x| f64::from(x));
            let basis = DMatrix::from_row_iterator(c, c, rows);
            for pixel in 0..n {
                let column = |all: &[f32], rows: usize| -> Vec<f64> {
                    (0..rows).map(|row| f64::from(all[(sample * rows + row) * n + pixel])).collect()
                };
                let (means, log_weights) = (column(&means, k * c), column(&log_weights, k));
                let mixture =
                    PixelMixture { means: &means, log_weights: &log_weights, std: self.stds[sample * n + pixel] };
                f(&basis, mixture, sample * c * n + pixel);
            }
        }
    }
}

fn rows_of(matrix: &DMatrix<f64>) -> impl Iterator<Item = f32> {
    matrix.transpose().iter().map(|&x| x as f32).collect::<Vec<_>>().into_iter()
}

/// One pixel's channels.
fn pixel(all: &[f32], first: usize, [_, _, c, n]: [usize; 4]) -> Vec<f64> {
    (0..c).map(|channel| f64::from(all[first + channel * n])).collect()
}

/// Sizes, how far apart the means are, and the components' standard deviation: gathered maps, partial and whole tiles, an odd number
/// of vectors; equal components, overlapping ones, and such that are far apart, where most of the line is empty.
const CASES: [([usize; 4], f64, f64); 8] = [
    ([1, 1, 1, 1], 1.0, 0.5),
    ([3, 8, 4, 65], 1.0, 0.3),
    ([2, 8, 4, 64], 0.0, 1.0),
    ([2, 5, 5, 48], 1.0, 0.2),
    ([5, 4, 3, 9], 1.0, 0.05),
    ([1, 16, 4, 256], 1.0, 0.02),
    ([2, 64, 2, 33], 3.0, 0.1),
    ([1, 8, 1, 784], 10.0, 0.1),
];

fn cases() -> impl Iterator<Item = (([usize; 4], f64, f64), Of)> {
    CASES.into_iter().flat_map(|case| [(case, Of::Sample), (case, Of::Pixel)])
}

#[test]
fn covariances_hold_the_mean_of_the_components_variances() {
    for ((sizes, spread, std), of) in cases() {
        let [b, _, c, n] = sizes;
        let case = Case::new(sizes, spread, std, of);
        let [means, log_weights, log_std] = case.parts.clone();
        let between = values(covariances([means, log_weights, log_std.full_like(-30.0)]));
        let all = values(covariances(case.parts.clone()));
        for (at, (all, between)) in all.iter().zip(&between).enumerate() {
            let variances = case.stds[at / (c * c) * n..][..n].iter().map(|std| std * std);
            let within = if at % (c * c) % (c + 1) == 0 { variances.sum::<f64>() / n as f64 } else { 0.0 };
            let error = (f64::from(*all) - f64::from(*between) - within).abs();
            assert!(error < 1e-5 * (1.0 + f64::from(between.abs())), "{sizes:?} {of:?}: off by {error}");
        }
        assert_eq!(all.len(), b * c * c);
    }
}

#[test]
fn draws_have_the_ranks_of_their_normals() {
    for ((sizes, spread, std), of) in cases() {
        let [b, _, c, n] = sizes;
        let case = Case::new(sizes, spread, std, of);
        for (axes, scale) in [(Axes::Basis, 1.0), (Axes::Channels, 2.5), (Axes::Basis, 5.0)] {
            let normals = draw(2, [b, c, 1, n], &device()) * scale;
            let drawn = values(case.map(&normals, axes, Direction::FromNormals));
            let normals = values(normals);
            case.for_pixels(|basis, mixture, first| {
                let back = mixture.to_normals(&pixel(&drawn, first, sizes), basis, axes);
                for (got, want) in back.iter().zip(pixel(&normals, first, sizes)) {
                    let error = (got - want).abs();
                    // Coordinates are of the size of the means, and known to f32 of that.
                    let tolerance = 2e-4 * (1.0 + want.abs()) + 4e-6 * (spread + 1.0) / std;
                    assert!(error < tolerance, "{sizes:?} {spread} {std} {of:?} {axes:?}: {want} came back as {got}");
                }
            });
        }
    }
}

#[test]
fn points_have_the_normals_of_f64() {
    for ((sizes, spread, std), of) in cases() {
        let [b, _, c, n] = sizes;
        let case = Case::new(sizes, spread, std, of);
        for axes in [Axes::Basis, Axes::Channels] {
            let normals = draw(3, [b, c, 1, n], &device()) * 2.0;
            let points = case.map(&normals, axes, Direction::FromNormals);
            let got = values(case.map(&points, axes, Direction::ToNormals));
            let points = values(points);
            case.for_pixels(|basis, mixture, first| {
                let want = mixture.to_normals(&pixel(&points, first, sizes), basis, axes);
                for (got, want) in pixel(&got, first, sizes).iter().zip(want) {
                    let tolerance = 2e-4 * (1.0 + want.abs()) + 4e-6 * (spread + 1.0) / std;
                    assert!(
                        (got - want).abs() < tolerance,
                        "{sizes:?} {spread} {std} {of:?} {axes:?}: {got}, not {want}"
                    );
                }
            });
        }
    }
}

#[test]
fn what_f32_does_not_reach_is_mapped_in_f64() {
    let sizes = [1, 4, 2, 70];
    let case = Case::new(sizes, 1.0, 0.2, Of::Pixel);
    let far = Tensor::<4>::full([1, 2, 1, 70], -20.0, &device());
    let drawn = values(case.map(&far, Axes::Basis, Direction::FromNormals));
    case.for_pixels(|basis, mixture, first| {
        let want = mixture.at_normals(&[-20.0, -20.0], basis, Axes::Basis);
        for (got, want) in pixel(&drawn, first, sizes).iter().zip(want) {
            assert!((got - want).abs() < 1e-5 * (1.0 + want.abs()), "{got}, not {want}");
        }
    });
}
