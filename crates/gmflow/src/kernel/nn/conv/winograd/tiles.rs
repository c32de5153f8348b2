//! Tiles of Winograd's algorithm: their transforms, in the lanes of vector registers.
//!
//! The polynomials behind F(4x4, 3x3) are taken at 0, infinity, and plus and minus 1/sqrt(2) and sqrt(2). At the usual 1 and 2 the
//! result would be off by four times as much as the plain sum; here it is twice as much.

use crate::kernel::matmul::dense::{Matrix, Target};
use crate::kernel::matmul::panel_tiles::{COLUMNS, LINES, Line};
use crate::kernel::simd::vector::V;
use pulp::{Simd, WithSimd};
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::ops::Range;

/// Lanes of the widest vectors.
const LANES: usize = 16;
/// Height and width of the outputs of a tile.
pub(crate) const OUT: usize = 4;
/// Height and width of the inputs of a tile.
const IN: usize = 6;
/// Positions of a transformed tile.
pub(crate) const POSITIONS: usize = IN * IN;

/// The tiles of an image plane of the output and, beside it, of the input.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    /// Rows and columns of tiles.
    pub(crate) tiles: [usize; 2],
    /// Height and width of the source plane.
    pub(crate) source: [usize; 2],
    /// Rows above and columns left of the source.
    pub(crate) offset: [usize; 2],
}

impl Grid {
    /// Tiles over an output of height and width `out`, of which output (0, 0) sees the source from minus `offset`.
    pub(crate) fn new(out: [usize; 2], source: [usize; 2], offset: [usize; 2]) -> Self {
        Self { tiles: out.map(|n| n.div_ceil(OUT)), source, offset }
    }

    /// Rows of tiles that are transformed together: where a row is short, so many that lanes are not left empty.
    fn together(self) -> usize {
        /// Tiles whose windows stay in the first-level cache.
        const MOST: usize = 128;
        let across = self.tiles[1].max(1);
        let full = LANES >> across.trailing_zeros().min(LANES.trailing_zeros());
        full.min(MOST / across).max(1)
    }

    /// Tiles that are transformed together, whole lanes of them.
    fn width(self) -> usize {
        (self.together() * self.tiles[1]).next_multiple_of(LANES)
    }

    /// Rows of tiles in parts that are transformed together, each with the number of its first tile.
    pub(crate) fn parts(self, rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> {
        let (first, end, step) = (rows.start, rows.end, self.together());
        rows.step_by(step).map(move |row| (row..(row + step).min(end), (row - first) * self.tiles[1]))
    }
}

/// Transformed tiles: `[36 panels channels width]` with gaps between the positions.
///
/// For products with panels a panel is as wide as theirs, so that the transforms write what those products read; otherwise there is a
/// single one with all tiles.
pub(crate) struct Transformed {
    lines: Vec<Line>,
    channels: usize,
    width: usize,
    /// From one position to the next.
    distance: usize,
}

impl Transformed {
    /// Room for so many tiles; in panels of the matrix kernel if `panels`, else in one.
    pub(crate) fn new(channels: usize, tiles: usize, panels: bool) -> Self {
        // A row ends with room for the lanes that the last tiles leave empty.
        let width = if panels { COLUMNS } else { tiles + LANES };
        let distance = apart(channels * tiles.div_ceil(width) * width);
        let lines = vec![Line::default(); (POSITIONS * distance).div_ceil(WORDS)];
        Self { lines, channels, width, distance }
    }

    /// The matrix `[channels tiles]` of a position, where there is a single panel.
    pub(crate) fn matrix(&self, position: usize) -> Matrix {
        Matrix::rows(&bytemuck::cast_slice(&self.lines)[position * self.distance..], self.width)
    }

    /// A panel of a position for the matrix kernel.
    pub(crate) fn panel(&self, position: usize, panel: usize) -> &[Line] {
        &self.lines[position * self.distance / WORDS..][panel * self.channels * LINES..][..self.channels * LINES]
    }

    /// The places of the channels; each channel may be written by a task of its own.
    pub(crate) fn places(&mut self) -> Places {
        let values: &mut [f32] = bytemuck::cast_slice_mut(&mut self.lines);
        Places {
            values: Target(values.as_mut_ptr()),
            channels: self.channels,
            width: self.width,
            distance: self.distance,
        }
    }
}

/// Where transformed tiles stand.
pub(crate) struct Places {
    values: Target,
    pub(crate) channels: usize,
    width: usize,
    distance: usize,
}

impl Places {
    /// The first element of a tile at position 0.
    #[inline(always)]
    fn of(&self, channel: usize, tile: usize) -> *mut f32 {
        let (panel, column) = (tile / self.width, tile % self.width);
        self.values.at((panel * self.channels + channel) * self.width + column)
    }

    /// The first element of a row of a position, where there is a single panel.
    pub(crate) fn row(&self, position: usize, channel: usize) -> *mut f32 {
        self.values.at(position * self.distance + channel * self.width)
    }

    /// From one channel to the next.
    pub(crate) fn stride(&self) -> usize {
        self.width
    }
}

/// Words of a line.
const WORDS: usize = COLUMNS / LINES;

/// A number in every lane.
struct Numbers<S: Simd>(S);

impl<S: Simd> Numbers<S> {
    #[inline(always)]
    fn of(&self, x: f32) -> V<S> {
        V::splat(self.0, x)
    }
}

/// B^T d.
#[inline(always)]
fn input<S: Simd>(simd: S, [a, b, c, d, e, f]: [V<S>; IN]) -> [V<S>; IN] {
    let n = Numbers(simd);
    let (even, odd) = (c.mul_add(n.of(-2.0), e), b.mul_add(n.of(-2.0), d));
    let (even_2, odd_2) = (c.mul_add(n.of(-0.5), e), b.mul_add(n.of(-0.5), d));
    [
        c.mul_add(n.of(-2.5), a) + e,
        odd.mul_add(n.of(FRAC_1_SQRT_2), even),
        odd.mul_add(n.of(-FRAC_1_SQRT_2), even),
        odd_2.mul_add(n.of(SQRT_2), even_2),
        odd_2.mul_add(n.of(-SQRT_2), even_2),
        d.mul_add(n.of(-2.5), b) + f,
    ]
}

/// A g.
#[inline(always)]
fn spread<S: Simd>(simd: S, [a, b, c, d]: [V<S>; OUT]) -> [V<S>; IN] {
    let n = Numbers(simd);
    let (even, odd) = (c.mul_add(n.of(0.5), a), d.mul_add(n.of(0.5), b));
    let (even_2, odd_2) = (c.mul_add(n.of(2.0), a), d.mul_add(n.of(2.0), b));
    [
        a,
        odd.mul_add(n.of(FRAC_1_SQRT_2), even),
        odd.mul_add(n.of(-FRAC_1_SQRT_2), even),
        odd_2.mul_add(n.of(SQRT_2), even_2),
        odd_2.mul_add(n.of(-SQRT_2), even_2),
        d,
    ]
}

/// A^T m.
#[inline(always)]
fn gather<S: Simd>(simd: S, [a, b, c, d, e, f]: [V<S>; IN]) -> [V<S>; OUT] {
    let n = Numbers(simd);
    let (even, odd, even_2, odd_2) = (b + c, b - c, d + e, d - e);
    [
        a + even + even_2,
        odd.mul_add(n.of(FRAC_1_SQRT_2), odd_2 * n.of(SQRT_2)),
        even.mul_add(n.of(0.5), even_2 * n.of(2.0)),
        odd.mul_add(n.of(0.5 * FRAC_1_SQRT_2), odd_2.mul_add(n.of(2.0 * SQRT_2), f)),
    ]
}

/// G g.
#[inline(always)]
fn expand<S: Simd>(simd: S, [a, b, c]: [V<S>; 3]) -> [V<S>; IN] {
    let n = Numbers(simd);
    let even = c.mul_add(n.of(0.5), a) * n.of(-2.0 / 3.0);
    let even_2 = c.mul_add(n.of(2.0), a) * n.of(1.0 / 6.0);
    [
        a,
        b.mul_add(n.of(FRAC_1_SQRT_2 * -2.0 / 3.0), even),
        b.mul_add(n.of(FRAC_1_SQRT_2 * 2.0 / 3.0), even),
        b.mul_add(n.of(SQRT_2 / 6.0), even_2),
        b.mul_add(n.of(-SQRT_2 / 6.0), even_2),
        c,
    ]
}

/// G^T u.
#[inline(always)]
fn contract<S: Simd>(simd: S, [a, b, c, d, e, f]: [V<S>; IN]) -> [V<S>; 3] {
    let n = Numbers(simd);
    let (even, odd) = ((b + c) * n.of(-1.0 / 3.0), b - c);
    let (even_2, odd_2) = ((d + e) * n.of(1.0 / 6.0), d - e);
    [
        even.mul_add(n.of(2.0), a) + even_2,
        odd.mul_add(n.of(FRAC_1_SQRT_2 * -2.0 / 3.0), odd_2 * n.of(SQRT_2 / 6.0)),
        even_2.mul_add(n.of(2.0), even) + f,
    ]
}

/// Element i of every row. A macro, because functions on arrays of vectors may be compiled apart, without the vector instructions.
macro_rules! column {
    (@ $rows:ident, $i:expr; $($row:literal),*) => {
        [$($rows[$row][$i]),*]
    };
    ($rows:ident, $i:expr, 4) => {
        column!(@ $rows, $i; 0, 1, 2, 3)
    };
    ($rows:ident, $i:expr, 6) => {
        column!(@ $rows, $i; 0, 1, 2, 3, 4, 5)
    };
}

/// The vector that starts at an element.
#[inline(always)]
fn load<S: Simd>(simd: S, x: &[f32], at: usize) -> V<S> {
    V::new(simd, S::as_simd_f32s(&x[at..at + S::F32_LANES]).0[0])
}

/// Stores a vector in the first elements.
#[inline(always)]
fn store<S: Simd>(values: V<S>, x: &mut [f32]) {
    S::as_mut_simd_f32s(&mut x[..S::F32_LANES]).0[0] = values.bare();
}

/// Four numbers side by side in an image.
type Piece = [f32; OUT];

/// Element i of so many pieces as a vector has lanes, for i from 0 to 3.
#[inline(always)]
fn deinterleave<S: Simd>(simd: S, pieces: &[Piece], at: usize) -> [V<S>; OUT] {
    let x = pieces[at..at + S::F32_LANES].as_flattened();
    let n = S::F32_LANES;
    let x =
        [load(simd, x, 0).bare(), load(simd, x, n).bare(), load(simd, x, 2 * n).bare(), load(simd, x, 3 * n).bare()];
    let x = simd.deinterleave_shfl_f32s(x);
    [V::new(simd, x[0]), V::new(simd, x[1]), V::new(simd, x[2]), V::new(simd, x[3])]
}

/// The reverse of [`deinterleave`].
#[inline(always)]
fn interleave<S: Simd>(simd: S, [a, b, c, d]: [V<S>; OUT], pieces: &mut [Piece], at: usize) {
    let x = pieces[at..at + S::F32_LANES].as_flattened_mut();
    let values = simd.interleave_shfl_f32s([a.bare(), b.bare(), c.bare(), d.bare()]);
    for (x, value) in x.chunks_exact_mut(S::F32_LANES).zip(values) {
        store(V::new(simd, value), x);
    }
}

/// Where the pieces of `width` tiles must stand for [`deinterleave`] to give the tiles in order: it takes the elements of pieces apart in
/// whatever order is the fastest.
#[inline(always)]
fn places_of_pieces<S: Simd>(simd: S, width: usize) -> Vec<usize> {
    let mut pieces = [[0.0; OUT]; LANES];
    for (i, piece) in pieces.iter_mut().enumerate() {
        piece[0] = i as f32;
    }
    let mut order = [0.0; LANES];
    store(deinterleave(simd, &pieces, 0)[0], &mut order);
    let mut places = Vec::with_capacity(width);
    for tile in 0..width {
        places.push(tile / S::F32_LANES * S::F32_LANES + order[tile % S::F32_LANES] as usize);
    }
    places
}

/// What tiles are transformed from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Input: 6x6 overlapping windows, B^T d B.
    Input,
    /// Gradient of the output: 4x4 windows, A g A^T.
    Gradient,
}

/// The transform of rows of tiles of one channel.
pub(crate) struct Forward<'a> {
    pub(crate) side: Side,
    /// The batch.
    pub(crate) x: &'a [f32],
    pub(crate) grid: Grid,
    /// Rows of tiles of the batch.
    pub(crate) rows: Range<usize>,
    /// Where the tiles are written.
    pub(crate) places: &'a Places,
    pub(crate) channel: usize,
}

impl Forward<'_> {
    /// Copies the windows of the tiles of `rows` into pieces `[6 2 width]`: columns 0 to 3, and 4 and 5 with two that are not used; of a
    /// gradient there are only the first four rows and columns.
    #[inline(always)]
    fn windows(&self, rows: Range<usize>, line: &mut [Piece], pieces: &mut [Piece], order: &[usize]) {
        let ([h, w], [top, left], [down, across]) = (self.grid.source, self.grid.offset, self.grid.tiles);
        let width = order.len();
        let count = if self.side == Side::Input { IN } else { OUT };
        for (k, row) in rows.enumerate() {
            let plane = &self.x[(row / down * self.places.channels + self.channel) * h * w..][..h * w];
            let order = &order[k * across..(k + 1) * across];
            for (i, pieces) in pieces.chunks_exact_mut(2 * width).take(count).enumerate() {
                let (first, second) = pieces.split_at_mut(width);
                let y = OUT * (row % down) + i;
                if y < top || y - top >= h {
                    for place in order {
                        (first[*place], second[*place]) = ([0.0; OUT], [0.0; OUT]);
                    }
                    continue;
                }
                // What stands beside the row in `line` stays zero.
                let values = line.as_flattened_mut();
                let len = w.min(values.len() - left);
                values[left..left + len].copy_from_slice(&plane[(y - top) * w..][..len]);
                for (j, place) in order.iter().enumerate() {
                    first[*place] = line[j];
                    if self.side == Side::Input {
                        second[*place] = line[j + 1];
                    }
                }
            }
        }
    }

    /// Writes the transformed tiles from number `first` on, of which `count` exist.
    #[inline(always)]
    fn write<S: Simd>(&self, tile: [[V<S>; IN]; IN], first: usize, count: usize) {
        let places = self.places;
        if first % places.width + S::F32_LANES <= places.width {
            let out = places.of(self.channel, first);
            for (i, row) in tile.iter().enumerate() {
                for (j, values) in row.iter().enumerate() {
                    let out = out.wrapping_add((i * IN + j) * places.distance).cast::<S::f32s>();
                    // SAFETY: the lanes lie within a panel, of which only this task writes the channel.
                    unsafe { out.write_unaligned(values.bare()) };
                }
            }
            return;
        }
        for (i, row) in tile.iter().enumerate() {
            for (j, values) in row.iter().enumerate() {
                let mut lanes = [0.0; LANES];
                store(*values, &mut lanes);
                for (lane, value) in lanes.iter().enumerate().take(count) {
                    let out = places.of(self.channel, first + lane).wrapping_add((i * IN + j) * places.distance);
                    // SAFETY: there is room for every tile, and only this task writes the channel.
                    unsafe { out.write(*value) };
                }
            }
        }
    }
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.grid.width();
        let order = places_of_pieces(simd, width);
        let mut line = vec![[0.0; OUT]; self.grid.tiles[1] + 1];
        let mut pieces = vec![[0.0; OUT]; 2 * IN * width];
        // In this order: the lanes that a part leaves empty are written again by the next.
        for (rows, tile) in self.grid.parts(self.rows.clone()) {
            let count = rows.len() * self.grid.tiles[1];
            self.windows(rows, &mut line, &mut pieces, &order);
            for j in (0..count).step_by(S::F32_LANES) {
                let mut columns = [[V::splat(simd, 0.0); IN]; IN];
                let mut tiles = [[V::splat(simd, 0.0); IN]; IN];
                match self.side {
                    Side::Input => {
                        for (i, column) in columns.iter_mut().enumerate() {
                            let [a, b, c, d] = deinterleave(simd, &pieces, 2 * i * width + j);
                            let [e, f, ..] = deinterleave(simd, &pieces, (2 * i + 1) * width + j);
                            *column = input(simd, [a, b, c, d, e, f]);
                        }
                        for q in 0..IN {
                            let column = input(simd, column!(columns, q, 6));
                            for p in 0..IN {
                                tiles[p][q] = column[p];
                            }
                        }
                    }
                    Side::Gradient => {
                        for (i, column) in columns.iter_mut().enumerate().take(OUT) {
                            *column = spread(simd, deinterleave(simd, &pieces, 2 * i * width + j));
                        }
                        for q in 0..IN {
                            let column = spread(simd, column!(columns, q, 4));
                            for p in 0..IN {
                                tiles[p][q] = column[p];
                            }
                        }
                    }
                }
                self.write(tiles, tile + j, count - j);
            }
        }
    }
}

/// The outputs of rows of tiles of one channel.
pub(crate) struct Inverse<'a> {
    /// Where the tiles stand, in a single panel.
    pub(crate) places: &'a Places,
    pub(crate) grid: Grid,
    /// Rows of tiles of the batch.
    pub(crate) rows: Range<usize>,
    pub(crate) channel: usize,
    pub(crate) bias: f32,
    /// The batch of outputs, and their height and width.
    pub(crate) out: &'a Target,
    pub(crate) size: [usize; 2],
}

impl Inverse<'_> {
    /// The tiles from `tile` on at a position.
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, position: usize, tile: usize) -> V<S> {
        let place = self.places.row(position, self.channel).wrapping_add(tile);
        // SAFETY: the rows of `Transformed` hold this many tiles and have room for the empty lanes.
        V::new(simd, unsafe { place.cast::<S::f32s>().read_unaligned() })
    }

    /// Copies the outputs from pieces `[4 width]` to where they belong.
    #[inline(always)]
    fn outputs(&self, rows: Range<usize>, pieces: &[Piece], order: &[usize]) {
        let ([down, across], [oh, ow]) = (self.grid.tiles, self.size);
        for (k, row) in rows.enumerate() {
            let (sample, first) = (row / down, row % down * OUT);
            let order = &order[k * across..(k + 1) * across];
            for (i, pieces) in pieces.chunks_exact(pieces.len() / OUT).enumerate().take(oh - first) {
                let at = ((sample * self.places.channels + self.channel) * oh + first + i) * ow;
                // SAFETY: a row of one plane, which no other task writes.
                let out = unsafe { std::slice::from_raw_parts_mut(self.out.at(at), ow) };
                let (whole, rest) = out.as_chunks_mut::<OUT>();
                for (out, place) in whole.iter_mut().zip(order) {
                    *out = pieces[*place];
                }
                if let (false, Some(place)) = (rest.is_empty(), order.last()) {
                    rest.copy_from_slice(&pieces[*place][..rest.len()]);
                }
            }
        }
    }
}

impl WithSimd for Inverse<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.grid.width();
        let order = places_of_pieces(simd, width);
        let mut pieces = vec![[0.0; OUT]; OUT * width];
        let bias = V::splat(simd, self.bias);
        for (rows, tile) in self.grid.parts(self.rows.clone()) {
            let count = rows.len() * self.grid.tiles[1];
            for j in (0..count).step_by(S::F32_LANES) {
                let mut halves = [[V::splat(simd, 0.0); OUT]; IN];
                for (i, half) in halves.iter_mut().enumerate() {
                    let (first, tile) = (i * IN, tile + j);
                    let row = [
                        self.at(simd, first, tile),
                        self.at(simd, first + 1, tile),
                        self.at(simd, first + 2, tile),
                        self.at(simd, first + 3, tile),
                        self.at(simd, first + 4, tile),
                        self.at(simd, first + 5, tile),
                    ];
                    *half = gather(simd, row);
                }
                let mut outputs = [[bias; OUT]; OUT];
                for q in 0..OUT {
                    let column = gather(simd, column!(halves, q, 6));
                    for p in 0..OUT {
                        outputs[p][q] = column[p] + bias;
                    }
                }
                for (i, row) in outputs.into_iter().enumerate() {
                    interleave(simd, row, &mut pieces, i * width + j);
                }
            }
            self.outputs(rows, &pieces, &order);
        }
    }
}

/// Values from one position to the next of `n` values each: whole lines, and no power of two, so that positions do not share places of
/// the cache.
pub(crate) fn apart(n: usize) -> usize {
    /// Values between places that share a place in the first-level cache.
    const PAGE: usize = 1024;
    n.next_multiple_of(PAGE) + 3 * WORDS
}

/// The transform G g G^T of the weights of one output.
pub(crate) struct Expand<'a> {
    /// `[c 3 3]`.
    pub(crate) weight: &'a [f32],
    /// The place of the first channel at position 0; those of position p stand `p * distance` further on.
    pub(crate) out: *mut f32,
    pub(crate) distance: usize,
}

impl WithSimd for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        for (block, weight) in self.weight.chunks(9 * lanes).enumerate() {
            let mut g = [[0.0; LANES]; 9];
            for (lane, weight) in weight.as_chunks::<9>().0.iter().enumerate() {
                for (g, weight) in g.iter_mut().zip(weight) {
                    g[lane] = *weight;
                }
            }
            let mut columns = [[V::splat(simd, 0.0); IN]; 3];
            for (i, column) in columns.iter_mut().enumerate() {
                let [a, b, c] = [load(simd, &g[i], 0), load(simd, &g[i + 3], 0), load(simd, &g[i + 6], 0)];
                *column = expand(simd, [a, b, c]);
            }
            let count = weight.len() / 9;
            let [a, b, c] = &columns;
            for (p, ((a, b), c)) in a.iter().zip(b).zip(c).enumerate() {
                for (q, values) in expand(simd, [*a, *b, *c]).into_iter().enumerate() {
                    let place = self.out.wrapping_add((p * IN + q) * self.distance + block * lanes);
                    let mut copy = [0.0; LANES];
                    store(values, &mut copy);
                    // SAFETY: every position has room for the channels of this output, which only this task writes.
                    unsafe { std::slice::from_raw_parts_mut(place, count) }.copy_from_slice(&copy[..count]);
                }
            }
        }
    }
}

/// The adjoint of [`Expand`]: G^T u G.
pub(crate) struct Contract<'a> {
    /// `[c 3 3]`.
    pub(crate) out: &'a mut [f32],
    /// The first channel at position 0; those of position p stand `p * distance` further on.
    pub(crate) tiles: &'a [f32],
    pub(crate) distance: usize,
}

impl WithSimd for Contract<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        for (block, out) in self.out.chunks_mut(9 * lanes).enumerate() {
            let count = out.len() / 9;
            let mut rows = [[V::splat(simd, 0.0); 3]; IN];
            for (i, row) in rows.iter_mut().enumerate() {
                let mut u = [[0.0; LANES]; IN];
                for (j, u) in u.iter_mut().enumerate() {
                    let at = (i * IN + j) * self.distance + block * lanes;
                    u[..count].copy_from_slice(&self.tiles[at..at + count]);
                }
                let [a, b, c] = [load(simd, &u[0], 0), load(simd, &u[1], 0), load(simd, &u[2], 0)];
                let [d, e, f] = [load(simd, &u[3], 0), load(simd, &u[4], 0), load(simd, &u[5], 0)];
                *row = contract(simd, [a, b, c, d, e, f]);
            }
            let mut taps = [[0.0; LANES]; 9];
            for q in 0..3 {
                for (p, values) in contract(simd, column!(rows, q, 6)).into_iter().enumerate() {
                    store(values, &mut taps[3 * p + q]);
                }
            }
            for (lane, out) in out.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                for (out, taps) in out.iter_mut().zip(&taps) {
                    *out = taps[lane];
                }
            }
        }
    }
}
