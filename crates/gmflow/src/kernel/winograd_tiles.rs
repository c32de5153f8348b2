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
        // Neither rows nor positions stand a power of two apart: they would drive each other from the cache. A row ends with
        // room for the lanes that the last tiles leave empty.
        let stride = tiles + 2 * LANES;
        let distance = apart(channels * stride);
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

// Loops and not `from_fn` or `map`, whose closures may be compiled apart and then for the oldest processor.
#[inline(always)]
fn add(mut a: Lanes, b: Lanes) -> Lanes {
    for (a, b) in a.iter_mut().zip(&b) {
        *a += b;
    }
    a
}

#[inline(always)]
fn sub(mut a: Lanes, b: Lanes) -> Lanes {
    for (a, b) in a.iter_mut().zip(&b) {
        *a -= b;
    }
    a
}

#[inline(always)]
fn half(mut a: Lanes) -> Lanes {
    for a in &mut a {
        *a *= 0.5;
    }
    a
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

/// G g.
#[inline(always)]
fn expand([a, b, c]: [Lanes; 3]) -> [Lanes; 4] {
    let ends = add(a, c);
    [a, half(add(ends, b)), half(sub(ends, b)), c]
}

/// G^T u.
#[inline(always)]
fn contract([a, b, c, d]: [Lanes; 4]) -> [Lanes; 3] {
    let middle = half(add(b, c));
    [add(a, middle), half(sub(b, c)), add(middle, d)]
}

/// Column i of a matrix.
#[inline(always)]
fn across<const N: usize>(m: [[Lanes; N]; 4], i: usize) -> [Lanes; 4] {
    [m[0][i], m[1][i], m[2][i], m[3][i]]
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
                    let row = [across(columns, 0), across(columns, 1), across(columns, 2), across(columns, 3)];
                    [input(row[0]), input(row[1]), input(row[2]), input(row[3])]
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

/// Values from one position to the next of `n` values each: no power of two, so that positions do not share places of the cache.
pub(super) fn apart(n: usize) -> usize {
    /// Values between places that share a place in the first-level cache.
    const PAGE: usize = 1024;
    n.next_multiple_of(PAGE) + 5 * LANES
}

/// The transform G g G^T of the weights of one output.
pub(super) struct Expand<'a> {
    /// `[c 3 3]`.
    pub(super) weight: &'a [f32],
    /// The place of the first channel at position 0; those of position p stand `p * distance` further on.
    pub(super) out: *mut f32,
    pub(super) distance: usize,
}

impl Loop for Expand<'_> {
    #[inline(always)]
    fn run(self) {
        for (block, weight) in self.weight.chunks(9 * LANES).enumerate() {
            let mut g = [[0.0; LANES]; 9];
            for (lane, weight) in weight.as_chunks::<9>().0.iter().enumerate() {
                for (g, weight) in g.iter_mut().zip(weight) {
                    g[lane] = *weight;
                }
            }
            let columns = [expand([g[0], g[3], g[6]]), expand([g[1], g[4], g[7]]), expand([g[2], g[5], g[8]])];
            let (count, [a, b, c]) = (weight.len() / 9, columns);
            let row = |i: usize| expand([a[i], b[i], c[i]]);
            let tile = [row(0), row(1), row(2), row(3)];
            for (position, values) in tile.as_flattened().iter().enumerate() {
                let place = self.out.wrapping_add(position * self.distance + block * LANES);
                // SAFETY: every position has room for the channels of this output, which only this task writes.
                unsafe { std::slice::from_raw_parts_mut(place, count) }.copy_from_slice(&values[..count]);
            }
        }
    }
}

/// The adjoint of [`Expand`]: G^T u G.
pub(super) struct Contract<'a> {
    /// `[c 3 3]`.
    pub(super) out: &'a mut [f32],
    /// The first channel at position 0; those of position p stand `p * distance` further on.
    pub(super) tiles: &'a [f32],
    pub(super) distance: usize,
}

impl Loop for Contract<'_> {
    #[inline(always)]
    fn run(self) {
        for (block, out) in self.out.chunks_mut(9 * LANES).enumerate() {
            let count = out.len() / 9;
            let mut rows = [[[0.0; LANES]; 3]; 4];
            for (i, row) in rows.iter_mut().enumerate() {
                let mut u = [[0.0; LANES]; 4];
                for (j, u) in u.iter_mut().enumerate() {
                    let at = (i * 4 + j) * self.distance + block * LANES;
                    u[..count].copy_from_slice(&self.tiles[at..at + count]);
                }
                *row = contract(u);
            }
            let columns = [contract(across(rows, 0)), contract(across(rows, 1)), contract(across(rows, 2))];
            for (lane, out) in out.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                for (k, out) in out.iter_mut().enumerate() {
                    *out = columns[k % 3][k / 3][lane];
                }
            }
        }
    }
}
