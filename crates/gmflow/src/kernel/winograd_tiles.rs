//! Tiles of Winograd's algorithm: the transforms of a row of them, in the lanes of vector registers.

use super::arch::Loop;
use super::dense::{Matrix, Target};
use super::memory::par_items;

/// Tiles that are transformed at once.
const LANES: usize = 8;
/// Positions of a transformed tile.
pub(super) const POSITIONS: usize = 16;

/// The tiles of an image plane of the output and, beside it, of the input.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// Rows and columns of tiles.
    pub(super) tiles: [usize; 2],
    /// Height and width of the source plane.
    pub(super) source: [usize; 2],
    /// Rows above and columns left of the source.
    pub(super) offset: [usize; 2],
}

impl Grid {
    /// Tiles over an output of height and width `out`, of which output (0, 0) sees the source from minus `offset`.
    pub(super) fn new(out: [usize; 2], source: [usize; 2], offset: [usize; 2]) -> Self {
        Self { tiles: out.map(|n| n.div_ceil(2)), source, offset }
    }
}

/// Transformed tiles: `[16 channels stride]` with gaps between the positions.
pub(super) struct Transformed {
    pub(super) values: Vec<f32>,
    pub(super) channels: usize,
    pub(super) stride: usize,
    /// From one position to the next.
    pub(super) distance: usize,
}

impl Transformed {
    pub(super) fn new(channels: usize, tiles: usize) -> Self {
        /// Bytes between places that share a place in the first-level cache, in values.
        const PAGE: usize = 1024;
        // Neither rows nor positions stand a power of two apart: they would drive each other from the cache. A row ends with
        // room for the lanes that the last tiles leave empty.
        let stride = tiles + 2 * LANES;
        let distance = (channels * stride).next_multiple_of(PAGE) + 5 * LANES;
        Self { values: vec![0.0; POSITIONS * distance], channels, stride, distance }
    }

    pub(super) fn matrix(&self, position: usize) -> Matrix {
        Matrix::rows(&self.values[position * self.distance..], self.stride)
    }

    /// Runs `f(channel, first element of the channel at position 0)`, in parallel.
    pub(super) fn for_channels(&mut self, f: impl Fn(usize, *mut f32) + Sync) {
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
pub(super) enum Side {
    /// Input: 4x4 overlapping windows, B^T d B.
    Input,
    /// Gradient of the output: 2x2 windows, A g A^T.
    Gradient,
}

/// The transform of one row of tiles of one plane.
pub(super) struct Forward<'a> {
    pub(super) side: Side,
    pub(super) plane: &'a [f32],
    pub(super) grid: Grid,
    pub(super) row: usize,
    /// Even, then odd columns of four source rows, and one whole row.
    pub(super) scratch: &'a mut [f32],
    /// The place of the row's first tile at position 0; tiles of position p stand `p * distance` further on. Writing goes on
    /// to a multiple of [`LANES`] tiles.
    pub(super) out: *mut f32,
    pub(super) distance: usize,
}

impl Forward<'_> {
    /// Even columns of a source row, with the one behind the last tile.
    fn half(grid: Grid) -> usize {
        grid.tiles[1].next_multiple_of(LANES) + LANES
    }

    pub(super) fn scratch(grid: Grid) -> Vec<f32> {
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
pub(super) struct Inverse<'a> {
    /// The place of the row's first tile at position 0, as in [`Forward`].
    pub(super) tiles: *const f32,
    pub(super) distance: usize,
    pub(super) count: usize,
    pub(super) bias: f32,
    /// One or two rows of the plane.
    pub(super) out: &'a mut [f32],
    pub(super) width: usize,
    pub(super) scratch: &'a mut [f32],
}

impl Inverse<'_> {
    pub(super) fn scratch(count: usize) -> Vec<f32> {
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
