//! Improved precision and recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797): which
//! samples of one set lie within the neighbourhoods of the other set, and which are copies.

use crate::{Error, Matrix, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use gmflow::pipeline::Progress;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::{ControlFlow, Range};

/// Rows of a tile of distances.
const TILE: usize = 1024;
/// Squared distances below this share of the vectors' squares are taken from differences. It is far above the rounding of products.
const CANCELLED: f64 = 1e-9;

/// Which neighbour's distance is the radius of a sample's neighbourhood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Neighbours {
    /// Of precision and recall.
    pub precision: usize,
    /// Of density and coverage.
    pub density: usize,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self { precision: 3, density: 5 }
    }
}

/// How two sets of samples cover each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifolds {
    /// The share of fake samples within the neighbourhood of a real one.
    pub precision: f64,
    /// The share of real samples within the neighbourhood of a fake one.
    pub recall: f64,
    /// In how many neighbourhoods of real samples a fake one lies, over k.
    pub density: f64,
    /// The share of real samples with a fake one in their neighbourhood.
    pub coverage: f64,
    /// The share of fake samples that are as near to a real one as hardly any real sample is to another: at most the 0.1 % quantile of the
    /// distances from a real sample to the nearest other one. Copies of the training data are among them, if that is the real set. Figures of
    /// earlier versions have none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub copies: Option<f64>,
}

/// The share of real samples that may be as near to another one as a copy is.
const COPIES: f64 = 1e-3;

/// Compares two sets of feature vectors; `progress` is told (tiles done, of), and answers whether to go on.
///
/// Distances are products of tiles in f64, of vectors from which the real mean is taken away, and differences where vectors nearly
/// agree: copies are at distance 0, and a pair has one distance wherever it occurs in the sets. Otherwise a decision differs from one
/// made with exact distances where those agree to about 15 digits. Memory beside the features: a tile of distances and the f64 copies
/// of its rows, 1024 (1024 + 2 d) numbers.
///
/// ```
/// use gmflow::pipeline::keep_going;
/// use gmflow_eval::{Matrix, Neighbours, manifolds};
///
/// let vectors = |shift: f32| Matrix::new((0..60).map(|i| (i * 7 % 11) as f32 + shift).collect(), 2);
/// let same = manifolds(&vectors(0.0)?, &vectors(0.0)?, Neighbours::default(), &mut keep_going)?;
/// assert_eq!((same.precision, same.recall), (1.0, 1.0));
/// let apart = manifolds(&vectors(0.0)?, &vectors(100.0)?, Neighbours::default(), &mut keep_going)?;
/// assert_eq!((apart.precision, apart.recall), (0.0, 0.0));
/// # Ok::<(), gmflow_eval::Error>(())
/// ```
///
/// # Errors
/// Vectors of different length, or sets that have no k neighbours; [`gmflow::Error::Cancelled`] where `progress` says so.
pub fn manifolds(real: &Matrix, fake: &Matrix, neighbours: Neighbours, progress: &mut Progress) -> Result<Manifolds> {
    let Neighbours { precision: near, density: far } = neighbours;
    if real.columns() != fake.columns() {
        return Err(Error::config("features", format!("{} columns in both sets", real.columns()), fake.columns()));
    }
    let most = real.rows().min(fake.rows()).saturating_sub(1);
    if near == 0 || far == 0 {
        return Err(Error::config("neighbours", "at least 1", 0));
    }
    let k = near.max(far);
    if k > most {
        let which = if real.rows() <= fake.rows() { "real" } else { "generated" };
        let figures = if far >= near { "density and coverage" } else { "precision and recall" };
        let expected =
            format!("at least {} {which} ones, for the {k} neighbours of {figures} (moments_only needs none)", k + 1);
        return Err(Error::config("samples", expected, most + 1));
    }
    let centre = centre(real);
    let blocks = |matrix: &Matrix| matrix.rows().div_ceil(TILE);
    let total = blocks(real).pow(2) + blocks(fake).pow(2) + blocks(real) * blocks(fake);
    let mut done = 0;
    let mut tick = || {
        done += 1;
        match progress(done, total) {
            ControlFlow::Break(()) if done < total => Err(gmflow::Error::Cancelled.into()),
            _ => Ok(()),
        }
    };
    let mut of_real = radii(real, &centre, &[near, far, 1], &mut tick)?;
    let of_fake = radii(fake, &centre, &[near], &mut tick)?;
    let found = Crossed::between((fake, real), &centre, (&of_fake[0], &of_real[0], &of_real[1]), &mut tick)?;
    let copied = quantile(&mut of_real[2], COPIES);
    let copies: Vec<bool> = found.fake_nearest.iter().map(|distance| *distance <= copied).collect();
    let share = |hits: &[bool]| hits.iter().filter(|&&hit| hit).count() as f64 / hits.len() as f64;
    let covered: Vec<bool> =
        found.nearest.iter().zip(&of_real[1]).map(|(nearest, radius)| nearest < radius).collect();
    Ok(Manifolds {
        precision: share(&found.fake_within),
        recall: share(&found.real_within),
        density: found.balls as f64 / (far * fake.rows()) as f64,
        coverage: share(&covered),
        copies: Some(share(&copies)),
    })
}

/// The smallest value that at least this share of the values does not exceed. The order of the values changes.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    let last = values.len().saturating_sub(1);
    let index = ((share * values.len() as f64).ceil() as usize).saturating_sub(1).min(last);
    *values.select_nth_unstable_by(index, f64::total_cmp).1
}

fn centre(matrix: &Matrix) -> Vec<f64> {
    let mut sum = vec![0.0; matrix.columns()];
    for row in 0..matrix.rows() {
        sum.iter_mut().zip(matrix.row(row)).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    sum.iter().map(|sum| sum / matrix.rows().max(1) as f64).collect()
}

/// Is called after each tile of distances.
type Tick<'a> = dyn FnMut() -> Result<()> + 'a;

/// Squared distances from every sample to its k-th neighbour within the set, for each k. `[ks][n]`
fn radii(set: &Matrix, centre: &[f64], ks: &[usize], tick: &mut Tick) -> Result<Vec<Vec<f64>>> {
    let most = ks.iter().copied().max().unwrap_or(0);
    // The smallest distances of every row so far, in ascending order.
    let mut nearest = vec![Vec::with_capacity(most + 1); set.rows()];
    tiles((set, set), centre, |rows, columns, tile| {
        let width = columns.len();
        nearest[rows.clone()].par_iter_mut().zip(tile.par_chunks_exact(width)).enumerate().for_each(
            |(offset, (nearest, distances))| {
                let own = rows.start + offset;
                for (&distance, column) in distances.iter().zip(columns.clone()) {
                    if column != own {
                        keep(nearest, most, distance);
                    }
                }
            },
        );
        tick()
    })?;
    let of = |k: usize| nearest.iter().map(|nearest| nearest.get(k - 1).copied().unwrap_or(0.0)).collect();
    Ok(ks.iter().map(|&k| of(k)).collect())
}

fn keep(nearest: &mut Vec<f64>, most: usize, distance: f64) {
    if nearest.len() == most && nearest.last().is_some_and(|&last| distance >= last) {
        return;
    }
    let place = nearest.partition_point(|&kept| kept <= distance);
    nearest.insert(place, distance);
    nearest.truncate(most);
}

/// What the distances between two sets tell.
struct Crossed {
    fake_within: Vec<bool>,
    real_within: Vec<bool>,
    /// Pairs of a fake sample and a real neighbourhood that holds it.
    balls: u64,
    /// The squared distance from every real sample to the nearest fake one.
    nearest: Vec<f64>,
    /// The squared distance from every fake sample to the nearest real one.
    fake_nearest: Vec<f64>,
}

impl Crossed {
    /// `radii` are squared: those of the fake samples, and the near and far ones of the real samples.
    fn between(
        (fake, real): (&Matrix, &Matrix),
        centre: &[f64],
        (of_fake, near_real, far_real): (&[f64], &[f64], &[f64]),
        tick: &mut Tick,
    ) -> Result<Self> {
        let mut found = Self {
            fake_within: vec![false; fake.rows()],
            real_within: vec![false; real.rows()],
            balls: 0,
            nearest: vec![f64::INFINITY; real.rows()],
            fake_nearest: vec![f64::INFINITY; fake.rows()],
        };
        tiles((fake, real), centre, |rows, columns, tile| {
            let width = columns.len();
            let (near, far) = (&near_real[columns.clone()], &far_real[columns.clone()]);
            let of_fake_rows =
                found.fake_within[rows.clone()].par_iter_mut().zip(&mut found.fake_nearest[rows.clone()]);
            found.balls += of_fake_rows
                .zip(tile.par_chunks_exact(width))
                .map(|((within, nearest), distances)| {
                    *within |= distances.iter().zip(near).any(|(distance, radius)| distance <= radius);
                    *nearest = distances.iter().fold(*nearest, |nearest, distance| nearest.min(*distance));
                    distances.iter().zip(far).filter(|(distance, radius)| distance < radius).count() as u64
                })
                .sum::<u64>();
            let real = found.real_within[columns.clone()].par_iter_mut().zip(&mut found.nearest[columns]);
            real.enumerate().for_each(|(column, (within, nearest))| {
                for (distances, radius) in tile.chunks_exact(width).zip(&of_fake[rows.clone()]) {
                    let distance = distances[column];
                    *within |= distance <= *radius;
                    *nearest = nearest.min(distance);
                }
            });
            tick()
        })?;
        Ok(found)
    }
}

/// All squared distances between the rows of two matrices, tile by tile: the rows, the columns and the distances `[rows columns]`.
fn tiles(
    (left, right): (&Matrix, &Matrix),
    centre: &[f64],
    mut visit: impl FnMut(Range<usize>, Range<usize>, &[f64]) -> Result<()>,
) -> Result<()> {
    let d = centre.len();
    let mut products = vec![0.0; TILE * TILE];
    for rows in blocks(left.rows()) {
        let (a, a_squares) = centred(left, rows.clone(), centre);
        for columns in blocks(right.rows()) {
            let (b, b_squares) = centred(right, columns.clone(), centre);
            let (m, n) = (rows.len(), columns.len());
            let tile = &mut products[..m * n];
            let (a, b) = (MatRef::from_row_major_slice(&a, m, d), MatRef::from_row_major_slice(&b, n, d));
            let target = MatMut::from_row_major_slice_mut(tile, m, n);
            matmul(target, Accum::Replace, a, b.transpose(), -2.0, Par::rayon(0));
            tile.par_chunks_exact_mut(n).zip(&a_squares).enumerate().for_each(|(i, (row, a_square))| {
                for (j, (value, b_square)) in row.iter_mut().zip(&b_squares).enumerate() {
                    // The squares first: a sum that does not depend on which vector is left and which is right.
                    let squares = a_square + b_square;
                    *value += squares;
                    if *value <= CANCELLED * squares {
                        *value = difference(left.row(rows.start + i), right.row(columns.start + j));
                    }
                }
            });
            visit(rows.clone(), columns, tile)?;
        }
    }
    Ok(())
}

/// |a - b|^2
fn difference(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

fn blocks(n: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(TILE).map(move |start| start..(start + TILE).min(n))
}

/// Rows in f64 with the centre taken away, `[rows d]`, and their squares `[rows]`.
fn centred(matrix: &Matrix, rows: Range<usize>, centre: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let values: Vec<f64> = rows
        .clone()
        .flat_map(|row| matrix.row(row).iter().zip(centre).map(|(&value, centre)| f64::from(value) - centre))
        .collect();
    let squares = values.chunks_exact(centre.len().max(1)).map(|row| row.iter().map(|value| value * value).sum());
    let squares = squares.collect();
    (values, squares)
}
