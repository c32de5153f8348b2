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

/// Tiles that are transformed at once.
const LANES: usize = 8;
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

/// Transformed tiles: `[16 channels stride]` with gaps between the positions.
struct Transformed {
    values: Vec<f32>,
    channels: usize,
    stride: usize,
    /// From one position to the next.
    distance: usize,
}

impl Transformed {
    fn new(channels: usize, tiles: usize) -> Self {
        /// Bytes between places that share a place in the first-level cache, in values.
        const PAGE: usize = 1024;
        // Neither rows nor positions stand a power of two apart: they would drive each other from the cache. A row ends with
        // room for the lanes that the last tiles leave empty.
        let stride = tiles + 2 * LANES;
        let distance = (channels * stride).next_multiple_of(PAGE) + 5 * LANES;
        Self { values: vec![0.0; POSITIONS * distance], channels, stride, distance }
    }

    fn matrix(&self, position: usize) -> Matrix {
        Matrix::rows(&self.values[position * self.distance..], self.stride)
    }

    /// Runs `f(channel, first element of the channel at position 0)`, in parallel.
    fn for_channels(&mut self, f: impl Fn(usize, *mut f32) + Sync) {
        let (channels, stride, work) = (self.channels, self.stride, self.values.len());
        let values = Target(self.values.as_mut_ptr());
        par_items((0..channels).collect(), work, |channel| f(channel, values.at(channel * stride)));
    }
}

/// Neighbouring tiles, computed at once.
type Lanes = [f32; LANES];

#[inline(always)]
fn add(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(
        #[inline(always)]
        |i| a[i] + b[i],
    )
}

#[inline(always)]
fn sub(a: Lanes, b: Lanes) -> Lanes {
    std::array::from_fn(
        #[inline(always)]
        |i| a[i] - b[i],
    )
}

/// The lanes of x from j on.
#[inline(always)]
fn lanes(x: &[f32], j: usize) -> Lanes {
    let mut out = [0.0; LANES];
    out.copy_from_slice(&x[j..j + LANES]);
    out
}

/// Row by row, the lanes from j on.
#[inline(always)]
fn column(x: [&[f32]; 4], j: usize) -> [Lanes; 4] {
    [lanes(x[0], j), lanes(x[1], j), lanes(x[2], j), lanes(x[3], j)]
}

/// B^T d.
#[inline(always)]
fn input([a, b, c, d]: [Lanes; 4]) -> [Lanes; 4] {
    [sub(a, c), add(b, c), sub(c, b), sub(b, d)]
}

/// A g.
#[inline(always)]
fn spread([a, b]: [Lanes; 2]) -> [Lanes; 4] {
    [a, add(a, b), sub(a, b), sub([0.0; LANES], b)]
}

/// A^T m.
#[inline(always)]
fn gather([a, b, c, d]: [Lanes; 4]) -> [Lanes; 2] {
    [add(add(a, b), c), sub(sub(b, c), d)]
}

/// The rows of a 4x4 matrix as its columns.
#[inline(always)]
fn turn(m: [[Lanes; 4]; 4]) -> [[Lanes; 4]; 4] {
    [0, 1, 2, 3].map(
        #[inline(always)]
        |i| [m[0][i], m[1][i], m[2][i], m[3][i]],
    )
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
    /// The place of the row's first tile at position 0; tiles of position p stand `p * distance` further on. Writing goes on
    /// to a multiple of [`LANES`] tiles.
    out: *mut f32,
    distance: usize,
}

impl Forward<'_> {
    /// Even columns of a source row, with the one behind the last tile.
    fn half(grid: Grid) -> usize {
        grid.tiles[1].next_multiple_of(LANES) + LANES
    }

    fn scratch(grid: Grid) -> Vec<f32> {
        vec![0.0; 10 * Self::half(grid)]
    }
}

impl Loop for Forward<'_> {
    #[inline(always)]
    fn run(self) {
        let ([h, w], [top, left]) = (self.grid.source, self.grid.offset);
        let half = Self::half(self.grid);
        let (split, line) = self.scratch.split_at_mut(8 * half);
        let count = if self.side == Side::Input { 4 } else { 2 };
        for (i, parts) in split.chunks_exact_mut(2 * half).take(count).enumerate() {
            let y = 2 * self.row + i;
            if y < top || y - top >= h {
                parts.fill(0.0);
                continue;
            }
            // What stands beside the row in `line` stays zero.
            let len = w.min(line.len() - left);
            line[left..left + len].copy_from_slice(&self.plane[(y - top) * w..][..len]);
            let (even, odd) = parts.split_at_mut(half);
            for ((pair, even), odd) in line.as_chunks::<2>().0.iter().zip(even).zip(odd) {
                (*even, *odd) = (pair[0], pair[1]);
            }
        }
        let part = |i: usize| &split[i * half..(i + 1) * half];
        let (e, o) = ([part(0), part(2), part(4), part(6)], [part(1), part(3), part(5), part(7)]);
        for j in (0..self.grid.tiles[1]).step_by(LANES) {
            let tile = match self.side {
                Side::Input => {
                    let columns =
                        [input(column(e, j)), input(column(o, j)), input(column(e, j + 1)), input(column(o, j + 1))];
                    let [a, b, c, d] = turn(columns);
                    [input(a), input(b), input(c), input(d)]
                }
                Side::Gradient => {
                    let (a, b) = (spread([lanes(e[0], j), lanes(e[1], j)]), spread([lanes(o[0], j), lanes(o[1], j)]));
                    [spread([a[0], b[0]]), spread([a[1], b[1]]), spread([a[2], b[2]]), spread([a[3], b[3]])]
                }
            };
            for (position, values) in tile.as_flattened().iter().enumerate() {
                // SAFETY: the rows of `Transformed` have room for this many tiles, which only this task writes.
                unsafe {
                    self.out.wrapping_add(position * self.distance + j).cast::<Lanes>().write_unaligned(*values)
                };
            }
        }
    }
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

impl Inverse<'_> {
    fn scratch(count: usize) -> Vec<f32> {
        vec![0.0; 4 * count.next_multiple_of(LANES)]
    }

    /// A^T m of column q of the tiles from j on.
    #[inline(always)]
    fn column(&self, q: usize, j: usize) -> [Lanes; 2] {
        gather([self.at(q, j), self.at(4 + q, j), self.at(8 + q, j), self.at(12 + q, j)])
    }

    #[inline(always)]
    fn at(&self, position: usize, j: usize) -> Lanes {
        // SAFETY: the rows of `Transformed` hold this many tiles.
        unsafe { self.tiles.wrapping_add(position * self.distance + j).cast::<Lanes>().read_unaligned() }
    }
}

impl Loop for Inverse<'_> {
    #[inline(always)]
    fn run(self) {
        let width = self.scratch.len() / 2;
        for j in (0..self.count).step_by(LANES) {
            let (a, b, c, d) = (self.column(0, j), self.column(1, j), self.column(2, j), self.column(3, j));
            let (first, second) = self.scratch.split_at_mut(width);
            for (line, i) in [(first, 0), (second, 1)] {
                let [even, odd] = gather([a[i], b[i], c[i], d[i]]);
                let (even, odd) = (add(even, [self.bias; LANES]), add(odd, [self.bias; LANES]));
                let pairs = line[2 * j..2 * (j + LANES)].as_chunks_mut::<2>().0;
                for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
                    *pair = [even, odd];
                }
            }
        }
        for (out, line) in self.out.chunks_mut(self.width).zip(self.scratch.chunks(width)) {
            out.copy_from_slice(&line[..self.width]);
        }
    }
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
            let (size, out) = ([ROWS.min(o - first), c, tiles], out.at((position * o + first) * c));
            let (a, b) = (grads.matrix(position).skip_rows(first), inputs.matrix(position).t());
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
