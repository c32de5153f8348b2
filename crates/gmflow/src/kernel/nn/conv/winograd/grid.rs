//! Tiles of an image, and where the transformed ones stand.

use crate::kernel::matmul::layout::{COLUMNS, LINES, Line};
use crate::kernel::matmul::matrix::{Matrix, Target};
use std::ops::Range;

/// Lanes of the widest vectors.
pub(crate) const LANES: usize = 16;

/// Height and width of the outputs of a tile.
pub(crate) const OUT: usize = 4;

/// Height and width of the inputs of a tile.
pub(crate) const IN: usize = 6;

/// Positions of a transformed tile.
pub(crate) const POSITIONS: usize = IN * IN;

/// Words of a line.
const WORDS: usize = COLUMNS / LINES;

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
    pub(crate) fn together(self) -> usize {
        /// Tiles whose windows stay in the first-level cache.
        const MOST: usize = 128;
        let across = self.tiles[1].max(1);
        let full = LANES >> across.trailing_zeros().min(LANES.trailing_zeros());
        full.min(MOST / across).max(1)
    }

    /// Tiles that are transformed together, whole lanes of them.
    pub(crate) fn width(self) -> usize {
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
    pub(crate) values: Target,
    pub(crate) channels: usize,
    pub(crate) width: usize,
    pub(crate) distance: usize,
}

impl Places {
    /// The first element of a tile at position 0.
    #[inline(always)]
    pub(crate) fn of(&self, channel: usize, tile: usize) -> *mut f32 {
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

/// Values from one position to the next of `n` values each: whole lines, and no power of two, so that positions do not share places of
/// the cache.
pub(crate) fn apart(n: usize) -> usize {
    /// Values between places that share a place in the first-level cache.
    const PAGE: usize = 1024;
    n.next_multiple_of(PAGE) + 3 * WORDS
}
