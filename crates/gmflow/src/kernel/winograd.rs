//! 3x3 convolutions by the minimal filtering algorithm F(2x2, 3x3) of Winograd (Lavin and Gray, arXiv:1509.09308).
//!
//! Four outputs take 16 products where the definition takes 36: tiles of 4x4 inputs and the weights are transformed by
//! B^T d B and G g G^T, multiplied position by position (16 matrix products), and transformed back by A^T m A. The
//! constants are 0, 1 and 1/2, so that the result is about as exact as that of the plain sum. The gradients are the adjoint
//! of the same maps.

use super::arch::vectorised;
use super::conv::Sizes;
use super::dense::{Matrix, Target, Write, product};
use super::memory::{build, par_items};
use super::winograd_tiles::{Contract, Expand, Forward, Grid, Inverse, POSITIONS, Side, Transformed, apart};
use gemm::Parallelism;
use std::ops::Range;

/// Values of the transformed tiles that are worked on at a time.
const CHUNK: usize = 2 * 1024 * 1024;
/// Rows of a product in one task.
const ROWS: usize = 128;

/// Whether this way is open and pays.
pub(super) fn applies(sizes: &Sizes) -> bool {
    const LEAST: usize = 16;
    sizes.kernel == [3, 3]
        && sizes.stride == 1
        && sizes.padding.iter().all(|p| *p <= 2)
        && sizes.c >= LEAST
        && sizes.o >= LEAST
}

/// Rows of tiles of the whole batch, in chunks that do not depend on the number of threads.
struct Chunks {
    rows: usize,
    height: usize,
    columns: usize,
}

impl Chunks {
    fn new(b: usize, grid: Grid, channels: usize) -> Self {
        let [down, columns] = grid.tiles;
        let rows = b * down;
        let height = (CHUNK / (POSITIONS * channels * columns).max(1)).clamp(1, rows.max(1));
        Self { rows, height, columns }
    }

    /// Tiles of the largest chunk.
    fn tiles(&self) -> usize {
        self.height * self.columns
    }

    fn iter(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.rows).step_by(self.height).map(|first| first..(first + self.height).min(self.rows))
    }
}

/// Transforms rows of tiles of the batch `x`, planes of as many channels as `out` has.
fn transform(x: &[f32], side: Side, grid: Grid, rows: Range<usize>, out: &mut Transformed) {
    let ([down, across], plane) = (grid.tiles, grid.source[0] * grid.source[1]);
    let (channels, distance) = (out.channels, out.distance);
    out.for_channels(|channel, place| {
        let mut scratch = Forward::scratch(grid);
        // In this order: the lanes that a row leaves empty are written again by the next.
        for (i, row) in rows.clone().enumerate() {
            let plane = &x[(row / down * channels + channel) * plane..][..plane];
            let (scratch, out) = (&mut scratch[..], place.wrapping_add(i * across));
            vectorised(Forward { side, plane, grid, row: row % down, scratch, out, distance });
        }
    });
}

/// out = A^T ((weight at each position) (B^T x B)) A + bias, over the whole batch.
fn filter(x: &[f32], weights: &[Matrix], bias: &[f32], b: usize, c: usize, grid: Grid, out: [usize; 2]) -> Vec<f32> {
    let ([down, across], o, [oh, ow]) = (grid.tiles, bias.len(), out);
    let chunks = Chunks::new(b, grid, c + o);
    let (mut tiles, mut products) = (Transformed::new(c, chunks.tiles()), Transformed::new(o, chunks.tiles()));
    build(b * o * oh * ow, |out| {
        let out = Target(out.as_mut_ptr());
        for rows in chunks.iter() {
            transform(x, Side::Input, grid, rows.clone(), &mut tiles);
            multiply(weights, &tiles, &mut products, [o, rows.len() * across, c]);
            let distance = products.distance;
            products.for_channels(|channel, place| {
                let (mut scratch, bias) = (Inverse::scratch(across), bias[channel]);
                for (i, row) in rows.clone().enumerate() {
                    let (sample, first) = (row / down, row % down * 2);
                    let height = (oh - first).min(2);
                    let at = ((sample * o + channel) * oh + first) * ow;
                    // SAFETY: rows of one plane, which no other task writes.
                    let out = unsafe { std::slice::from_raw_parts_mut(out.at(at), height * ow) };
                    let (tiles, scratch) = (place.wrapping_add(i * across), &mut scratch[..]);
                    vectorised(Inverse { tiles, distance, count: across, bias, out, width: ow, scratch });
                }
            });
        }
    })
}

/// y = weight x at every position, for sizes [o, tiles, c].
fn multiply(weights: &[Matrix], x: &Transformed, y: &mut Transformed, [o, tiles, c]: [usize; 3]) {
    let (parts, stride, distance) = (o.div_ceil(ROWS), y.stride, y.distance);
    let out = Target(y.values.as_mut_ptr());
    let tasks = (0..POSITIONS * parts).collect();
    par_items(tasks, POSITIONS * o * tiles * c, |task: usize| {
        let (position, first) = (task / parts, task % parts * ROWS);
        let (weight, size) = (weights[position].skip_rows(first), [ROWS.min(o - first), tiles, c]);
        let out = out.at(position * distance + first * stride);
        // SAFETY: the matrices have these sizes, and no other task writes these rows.
        unsafe { product(size, out, stride, Write::Replace, weight, x.matrix(position), 1.0, Parallelism::None) };
    });
}

/// The weight `[o c 3 3]` as G g G^T: `[16 o c]`, with gaps between the positions.
fn transform_weight(weight: &[f32], [o, c]: [usize; 2]) -> Vec<f32> {
    let distance = apart(o * c);
    let mut values = vec![0.0; POSITIONS * distance];
    let target = Target(values.as_mut_ptr());
    par_items(weight.chunks(9 * c).enumerate().collect(), weight.len(), |(row, weight)| {
        vectorised(Expand { weight, out: target.at(row * c), distance });
    });
    values
}

/// The convolution of x with weight, plus bias.
pub(super) fn conv(x: &[f32], weight: &[f32], bias: &[f32], sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let weight = transform_weight(weight, [o, c]);
    let weights: Vec<Matrix> = weight.chunks(apart(o * c)).map(|u| Matrix::rows(u, c)).collect();
    filter(x, &weights, bias, b, c, Grid::new(sizes.out, [h, w], [top, left]), sizes.out)
}

/// The gradient with respect to x: the convolution of the gradient with the weight turned round.
pub(super) fn conv_grad_input(grad: &[f32], weight: &[f32], sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let weight = transform_weight(weight, [o, c]);
    // Turning a filter round exchanges the first and the last row and column of its transform.
    let turned = |i: usize| [3, 1, 2, 0][i];
    let weights: Vec<Matrix> = (0..POSITIONS)
        .map(|p| Matrix::rows(&weight[(turned(p / 4) * 4 + turned(p % 4)) * apart(o * c)..], c).t())
        .collect();
    let grid = Grid::new([h, w], sizes.out, [2 - top, 2 - left]);
    filter(grad, &weights, &vec![0.0; c], b, o, grid, [h, w])
}

/// The gradient with respect to the weight: chunks of tiles are added up in order.
pub(super) fn conv_grad_weight(grad: &[f32], x: &[f32], sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let grid = Grid::new(sizes.out, [h, w], [top, left]);
    let outputs = Grid::new(sizes.out, sizes.out, [0, 0]);
    let distance = apart(o * c);
    let mut sums = vec![0.0; POSITIONS * distance];
    let chunks = Chunks::new(b, grid, c + o);
    let (mut inputs, mut grads) = (Transformed::new(c, chunks.tiles()), Transformed::new(o, chunks.tiles()));
    for rows in chunks.iter() {
        let tiles = rows.len() * grid.tiles[1];
        transform(x, Side::Input, grid, rows.clone(), &mut inputs);
        transform(grad, Side::Gradient, outputs, rows, &mut grads);
        let out = Target(sums.as_mut_ptr());
        let parts = o.div_ceil(ROWS);
        par_items((0..POSITIONS * parts).collect(), POSITIONS * o * tiles * c, |task: usize| {
            let (position, first) = (task / parts, task % parts * ROWS);
            let (size, out) = ([ROWS.min(o - first), c, tiles], out.at(position * distance + first * c));
            let (a, b) = (grads.matrix(position).skip_rows(first), inputs.matrix(position).t());
            // SAFETY: the matrices have these sizes, and no other task writes these rows.
            unsafe { product(size, out, c, Write::Add, a, b, 1.0, Parallelism::None) };
        });
    }
    let mut dw = vec![0.0; 9 * o * c];
    par_items(dw.chunks_mut(9 * c).enumerate().collect(), sums.len(), |(row, out): (usize, &mut [f32])| {
        vectorised(Contract { out, tiles: &sums[row * c..], distance });
    });
    dw
}
