//! 3x3 convolutions by the minimal filtering algorithm F(2x2, 3x3) of Winograd (Lavin and Gray, arXiv:1509.09308).
//!
//! Four outputs take 16 products where the definition takes 36: tiles of 4x4 inputs and the weights are transformed by
//! B^T d B and G g G^T, multiplied position by position (16 matrix products), and transformed back by A^T m A. The
//! constants are 0, 1 and 1/2, so that the result is about as exact as that of the plain sum. The gradients are the adjoint
//! of the same maps.

use super::arch::{Loop, vectorised};
use super::conv::Sizes;
use super::dense::{Matrix, Target, Write, product};
use super::memory::{build, par_items};
use gemm::Parallelism;
use rayon::prelude::*;
use std::ops::Range;

/// Positions of a transformed tile.
const POSITIONS: usize = 16;
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

/// The tiles of an image plane of the output and, beside it, of the input.
#[derive(Clone, Copy)]
struct Grid {
    /// Rows and columns of tiles.
    tiles: [usize; 2],
    /// Height and width of the source plane.
    source: [usize; 2],
    /// Rows above and columns left of the source.
    offset: [usize; 2],
}

impl Grid {
    /// Tiles over an output of height and width `out`, of which output (0, 0) sees the source from minus `offset`.
    fn new(out: [usize; 2], source: [usize; 2], offset: [usize; 2]) -> Self {
        Self { tiles: out.map(|n| n.div_ceil(2)), source, offset }
    }
}

/// Transformed tiles: `[16 channels stride]`, of which a row of tiles takes the columns from `column` on.
struct Transformed {
    values: Vec<f32>,
    channels: usize,
    stride: usize,
}

impl Transformed {
    fn new(channels: usize, tiles: usize) -> Self {
        // Not a power of two: rows would share few places of the cache.
        let stride = tiles + 16;
        Self { values: vec![0.0; POSITIONS * channels * stride], channels, stride }
    }

    fn matrix(&self, position: usize) -> Matrix {
        Matrix::rows(&self.values[position * self.channels * self.stride..], self.stride)
    }

    /// Runs `f(channel, first element of the channel at position 0)`, in parallel.
    fn for_channels(&mut self, f: impl Fn(usize, *mut f32) + Sync) {
        let (channels, stride, work) = (self.channels, self.stride, self.values.len());
        let values = Target(self.values.as_mut_ptr());
        par_items((0..channels).collect(), work, |channel| f(channel, values.at(channel * stride)));
    }
}

/// What a row of tiles is transformed from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Input: 4x4 overlapping windows, B^T d B.
    Input,
    /// Gradient of the output: 2x2 windows, A g A^T.
    Gradient,
}

/// The transform of one row of tiles of one plane.
struct Forward<'a> {
    side: Side,
    plane: &'a [f32],
    grid: Grid,
    row: usize,
    /// Even, then odd columns of four source rows, and one whole row.
    scratch: &'a mut [f32],
    /// The place of the row's first tile at position 0; tiles of position p stand `p * distance` further on.
    out: *mut f32,
    distance: usize,
}

impl Forward<'_> {
    fn scratch(grid: Grid) -> Vec<f32> {
        vec![0.0; 10 * (grid.tiles[1] + 1)]
    }
}

impl Loop for Forward<'_> {
    #[inline(always)]
    fn run(self) {
        let ([h, w], [top, left], n) = (self.grid.source, self.grid.offset, self.grid.tiles[1]);
        let half = n + 1;
        let (split, line) = self.scratch.split_at_mut(8 * half);
        let count = if self.side == Side::Input { 4 } else { 2 };
        for i in 0..count {
            let y = 2 * self.row + i;
            let parts = &mut split[2 * i * half..][..2 * half];
            if y < top || y - top >= h {
                parts.fill(0.0);
                continue;
            }
            line.fill(0.0);
            let len = w.min(line.len() - left);
            line[left..left + len].copy_from_slice(&self.plane[(y - top) * w..][..len]);
            let (even, odd) = parts.split_at_mut(half);
            for ((pair, even), odd) in line.as_chunks::<2>().0.iter().zip(even).zip(odd) {
                (*even, *odd) = (pair[0], pair[1]);
            }
        }
        // SAFETY: each position has room for a row of tiles there, which only this task writes.
        let out: [&mut [f32]; POSITIONS] = std::array::from_fn(|p| unsafe {
            std::slice::from_raw_parts_mut(self.out.wrapping_add(p * self.distance), n)
        });
        let part = |i: usize| &split[i * half..][..half];
        let (e, o) = ([part(0), part(2), part(4), part(6)], [part(1), part(3), part(5), part(7)]);
        for j in 0..n {
            let tile = match self.side {
                Side::Input => {
                    let column = |x: [&[f32]; 4], j: usize| input([x[0][j], x[1][j], x[2][j], x[3][j]]);
                    let (a, b, c, d) = (column(e, j), column(o, j), column(e, j + 1), column(o, j + 1));
                    [0, 1, 2, 3].map(|i| input([a[i], b[i], c[i], d[i]]))
                }
                Side::Gradient => {
                    let (a, b) = (spread([e[0][j], e[1][j]]), spread([o[0][j], o[1][j]]));
                    [0, 1, 2, 3].map(|i| spread([a[i], b[i]]))
                }
            };
            for p in 0..POSITIONS {
                out[p][j] = tile[p / 4][p % 4];
            }
        }
    }
}

/// B^T d.
#[inline(always)]
fn input([a, b, c, d]: [f32; 4]) -> [f32; 4] {
    [a - c, b + c, c - b, b - d]
}

/// A g.
#[inline(always)]
fn spread([a, b]: [f32; 2]) -> [f32; 4] {
    [a, a + b, a - b, -b]
}

/// A^T m.
#[inline(always)]
fn gather([a, b, c, d]: [f32; 4]) -> [f32; 2] {
    [a + b + c, b - c - d]
}

/// The outputs of one row of tiles of one plane.
struct Inverse<'a> {
    /// The place of the row's first tile at position 0, as in [`Forward`].
    tiles: *const f32,
    distance: usize,
    count: usize,
    bias: f32,
    /// One or two rows of the plane.
    out: &'a mut [f32],
    width: usize,
    scratch: &'a mut [f32],
}

impl Loop for Inverse<'_> {
    #[inline(always)]
    fn run(self) {
        let n = self.count;
        // SAFETY: the caller wrote a row of tiles at each position.
        let m: [&[f32]; POSITIONS] = std::array::from_fn(|p| unsafe {
            std::slice::from_raw_parts(self.tiles.wrapping_add(p * self.distance), n)
        });
        let (first, second) = self.scratch[..4 * n].split_at_mut(2 * n);
        let lines = first.as_chunks_mut::<2>().0.iter_mut().zip(second.as_chunks_mut::<2>().0);
        for (j, (first, second)) in lines.enumerate() {
            let column = |q: usize| gather([m[q][j], m[4 + q][j], m[8 + q][j], m[12 + q][j]]);
            let (a, b, c, d) = (column(0), column(1), column(2), column(3));
            *first = gather([a[0], b[0], c[0], d[0]]).map(
                #[inline(always)]
                |v| v + self.bias,
            );
            *second = gather([a[1], b[1], c[1], d[1]]).map(
                #[inline(always)]
                |v| v + self.bias,
            );
        }
        for (out, line) in self.out.chunks_mut(self.width).zip([first, second]) {
            out.copy_from_slice(&line[..self.width]);
        }
    }
}

/// Rows of tiles of the whole batch, in chunks that do not depend on the number of threads.
fn chunks(rows: usize, columns: usize, channels: usize) -> impl Iterator<Item = Range<usize>> {
    let height = (CHUNK / (POSITIONS * channels * columns).max(1)).max(1);
    (0..rows).step_by(height).map(move |first| first..(first + height).min(rows))
}

/// Transforms rows of tiles of the batch `x`, planes of `channels` channels.
fn transform(x: &[f32], side: Side, channels: usize, grid: Grid, rows: Range<usize>) -> Transformed {
    let ([down, across], plane) = (grid.tiles, grid.source[0] * grid.source[1]);
    let mut out = Transformed::new(channels, rows.len() * across);
    let distance = channels * out.stride;
    out.for_channels(|channel, place| {
        let mut scratch = Forward::scratch(grid);
        for (i, row) in rows.clone().enumerate() {
            let plane = &x[(row / down * channels + channel) * plane..][..plane];
            let (scratch, out) = (&mut scratch[..], place.wrapping_add(i * across));
            vectorised(Forward { side, plane, grid, row: row % down, scratch, out, distance });
        }
    });
    out
}

/// out = A^T ((weight at each position) (B^T x B)) A + bias, over the whole batch.
fn filter(x: &[f32], weights: &[Matrix], bias: &[f32], b: usize, c: usize, grid: Grid, out: [usize; 2]) -> Vec<f32> {
    let ([down, across], o, [oh, ow]) = (grid.tiles, bias.len(), out);
    build(b * o * oh * ow, |out| {
        let out = Target(out.as_mut_ptr());
        for rows in chunks(b * down, across, c + o) {
            let x = transform(x, Side::Input, c, grid, rows.clone());
            let tiles = rows.len() * across;
            let mut y = Transformed::new(o, tiles);
            multiply(weights, &x, &mut y, [o, tiles, c]);
            let distance = o * y.stride;
            y.for_channels(|channel, place| {
                let mut scratch = vec![0.0; 4 * across];
                for (i, row) in rows.clone().enumerate() {
                    let (sample, first) = (row / down, row % down * 2);
                    let height = (oh - first).min(2);
                    let at = ((sample * o + channel) * oh + first) * ow;
                    // SAFETY: rows of one plane, which no other task writes.
                    let out = unsafe { std::slice::from_raw_parts_mut(out.at(at), height * ow) };
                    let (tiles, scratch) = (place.wrapping_add(i * across), &mut scratch[..]);
                    let bias = bias[channel];
                    vectorised(Inverse { tiles, distance, count: across, bias, out, width: ow, scratch });
                }
            });
        }
    })
}

/// y = weight x at every position, for sizes [o, tiles, c].
fn multiply(weights: &[Matrix], x: &Transformed, y: &mut Transformed, [o, tiles, c]: [usize; 3]) {
    let (parts, stride) = (o.div_ceil(ROWS), y.stride);
    let out = Target(y.values.as_mut_ptr());
    let tasks = (0..POSITIONS * parts).collect();
    par_items(tasks, POSITIONS * o * tiles * c, |task: usize| {
        let (position, first) = (task / parts, task % parts * ROWS);
        let (weight, size) = (weights[position].skip_rows(first), [ROWS.min(o - first), tiles, c]);
        let out = out.at((position * o + first) * stride);
        // SAFETY: the matrices have these sizes, and no other task writes these rows.
        unsafe { product(size, out, stride, Write::Replace, weight, x.matrix(position), 1.0, Parallelism::None) };
    });
}

/// The weight `[o c 3 3]` as G g G^T, `[16 o c]`.
fn transform_weight(weight: &[f32], [o, c]: [usize; 2]) -> Vec<f32> {
    let mut out = vec![0.0; POSITIONS * o * c];
    let target = Target(out.as_mut_ptr());
    let expand = |a: f32, b: f32, c: f32| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c];
    (0..o).into_par_iter().with_min_len(8).for_each(|row| {
        for (column, g) in weight[row * c * 9..][..c * 9].as_chunks::<9>().0.iter().enumerate() {
            let columns = [0, 1, 2].map(|j| expand(g[j], g[3 + j], g[6 + j]));
            let rows = [0, 1, 2, 3].map(|i| expand(columns[0][i], columns[1][i], columns[2][i]));
            for (position, value) in rows.as_flattened().iter().enumerate() {
                // SAFETY: inside `out`; a row of the weight belongs to one task.
                unsafe { target.at((position * o + row) * c + column).write(*value) };
            }
        }
    });
    out
}

/// The convolution of x with weight, plus bias.
pub(super) fn conv(x: &[f32], weight: &[f32], bias: &[f32], sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let weight = transform_weight(weight, [o, c]);
    let weights: Vec<Matrix> = weight.chunks(o * c).map(|u| Matrix::rows(u, c)).collect();
    filter(x, &weights, bias, b, c, Grid::new(sizes.out, [h, w], [top, left]), sizes.out)
}

/// The gradient with respect to x: the convolution of the gradient with the weight turned round.
pub(super) fn conv_grad_input(grad: &[f32], weight: &[f32], sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let weight = transform_weight(weight, [o, c]);
    // Turning a filter round exchanges the first and the last row and column of its transform.
    let turned = |i: usize| [3, 1, 2, 0][i];
    let weights: Vec<Matrix> =
        (0..POSITIONS).map(|p| Matrix::rows(&weight[(turned(p / 4) * 4 + turned(p % 4)) * o * c..], c).t()).collect();
    let grid = Grid::new([h, w], sizes.out, [2 - top, 2 - left]);
    filter(grad, &weights, &vec![0.0; c], b, o, grid, [h, w])
}

/// The gradient with respect to the weight: chunks of tiles are added up in order.
pub(super) fn conv_grad_weight(grad: &[f32], x: &[f32], sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let grid = Grid::new(sizes.out, [h, w], [top, left]);
    let outputs = Grid::new(sizes.out, sizes.out, [0, 0]);
    let mut sums = vec![0.0; POSITIONS * o * c];
    for rows in chunks(b * grid.tiles[0], grid.tiles[1], c + o) {
        let tiles = rows.len() * grid.tiles[1];
        let x = transform(x, Side::Input, c, grid, rows.clone());
        let grad = transform(grad, Side::Gradient, o, outputs, rows);
        let out = Target(sums.as_mut_ptr());
        let parts = o.div_ceil(ROWS);
        par_items((0..POSITIONS * parts).collect(), POSITIONS * o * tiles * c, |task: usize| {
            let (position, first) = (task / parts, task % parts * ROWS);
            let (size, out) = ([ROWS.min(o - first), c, tiles], out.at((position * o + first) * c));
            let (a, b) = (grad.matrix(position).skip_rows(first), x.matrix(position).t());
            // SAFETY: the matrices have these sizes, and no other task writes these rows.
            unsafe { product(size, out, c, Write::Add, a, b, 1.0, Parallelism::None) };
        });
    }
    contract(&sums, o * c)
}

/// G^T u G of `[16 n]`, `[n 3 3]`.
fn contract(u: &[f32], n: usize) -> Vec<f32> {
    let fold = |[a, b, c, d]: [f32; 4]| [a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d];
    let mut out = vec![0.0; 9 * n];
    out.as_chunks_mut::<9>().0.par_iter_mut().with_min_len(1024).enumerate().for_each(|(k, out)| {
        let rows = [0, 1, 2, 3].map(|i| fold([0, 1, 2, 3].map(|j| u[(i * 4 + j) * n + k])));
        for j in 0..3 {
            for (i, value) in fold([rows[0][j], rows[1][j], rows[2][j], rows[3][j]]).into_iter().enumerate() {
                out[i * 3 + j] = value;
            }
        }
    });
    out
}
