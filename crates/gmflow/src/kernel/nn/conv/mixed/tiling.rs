//! The tiles of a batch of images, and the room that a thread transforms them in.

use super::planes::Padded;
use super::vectors::LANES;
use std::ops::Range;

/// Tiles of a panel.
pub(super) const PANEL: usize = 64;

/// Height and width of the outputs of a tile.
pub(super) const OUT: usize = 4;

/// Height and width of the inputs of a tile.
pub(super) const IN: usize = 6;

/// Positions of a transformed tile.
pub(super) const POSITIONS: usize = IN * IN;

/// Blocks of 16 tiles of a panel.
pub(super) const BLOCKS: usize = PANEL / LANES;

/// The tiles of a batch, and the panels that they come in.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    /// Rows and columns of tiles of a plane.
    pub(super) tiles: [usize; 2],
    /// Zeros above and left of the source.
    pub(super) offset: [usize; 2],
    /// Height and width of the output.
    pub(super) out: [usize; 2],
}

impl Tiling {
    /// Tiles over an output of that size; a row of them must fit into a panel.
    pub(super) fn new(out: [usize; 2], offset: [usize; 2]) -> Self {
        Self { tiles: out.map(|n| n.div_ceil(OUT)), offset, out }
    }

    /// Whether a row of tiles fits into a panel.
    pub(super) fn fits(out: [usize; 2]) -> bool {
        (1..=PANEL * OUT).contains(&out[1])
    }

    /// Rows of tiles of a panel.
    pub(super) fn rows(&self) -> usize {
        (PANEL / self.tiles[1]).max(1)
    }

    /// Samples that are worked on together: a panel of them, or one.
    pub(super) fn samples(&self) -> usize {
        (PANEL / (self.tiles[0] * self.tiles[1])).max(1)
    }

    /// The panels of some samples, as rows of tiles of the batch.
    pub(super) fn panels(&self, samples: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (first, end, step) = (samples.start * self.tiles[0], samples.end * self.tiles[0], self.rows());
        (first..end).step_by(step).map(move |row| row..(row + step).min(end))
    }

    /// Tiles of some rows, and lanes that are left empty.
    pub(super) fn columns(&self, rows: &Range<usize>) -> usize {
        (rows.len() * self.tiles[1]).next_multiple_of(LANES)
    }

    /// Values from one transformed row to the next.
    pub(super) fn pitch(&self) -> usize {
        (OUT * self.tiles[1] + 4).next_multiple_of(LANES)
    }

    /// The parts of rows of tiles that belong to one sample each: sample, its first row of tiles, their number, and where they begin
    /// among all.
    pub(super) fn parts(&self, rows: Range<usize>) -> impl Iterator<Item = [usize; 4]> {
        let (down, begin) = (self.tiles[0], rows.start);
        let mut row = rows.start;
        std::iter::from_fn(move || {
            (row < rows.end).then(|| {
                let (sample, first) = (row / down, row % down);
                let count = (down - first).min(rows.end - row);
                let part = [sample, first, count, row - begin];
                row += count;
                part
            })
        })
    }
}

/// What tiles are transformed from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Input: 6x6 overlapping windows, B^T d B.
    Input,
    /// Gradient of the output: 4x4 windows, A g A^T.
    Gradient,
}

/// Room for the transforms of a thread.
pub(super) struct Room {
    /// Rows of a plane with zeros around them.
    pub(super) padded: Padded,
    /// `[2 IN strip]`: the transformed rows of two channels.
    pub(super) strips: Vec<f32>,
    /// Values of a strip.
    pub(super) strip: usize,
    /// Where each tile of a panel begins in a strip.
    pub(super) places: [usize; PANEL],
    /// The same in rows of outputs, for the way back.
    pub(super) out_places: [usize; PANEL],
    /// Neighbouring tiles that are read at once.
    pub(super) together: usize,
}

impl Room {
    pub(super) fn new(tiling: &Tiling) -> Self {
        let (rows, pitch, across) = (tiling.rows(), tiling.pitch(), tiling.tiles[1]);
        // Not a multiple of a page, so that rows do not share places of the cache.
        let strip = rows * pitch + 5 * LANES;
        let samples = rows.div_ceil(tiling.tiles[0].max(1)) + 1;
        let place = |pitch: usize, step: usize, tile: usize| {
            if tile < rows * across { tile / across * pitch * step + OUT * (tile % across) } else { 0 }
        };
        Self {
            padded: Padded::new((OUT * rows + 2 * samples) * pitch),
            strips: vec![0.0; (2 * IN * strip).max(rows * OUT * OUT * across + LANES)],
            strip,
            places: std::array::from_fn(|tile| place(pitch, 1, tile)),
            out_places: std::array::from_fn(|tile| place(OUT * across, OUT, tile)),
            together: [4, 2, 1].into_iter().find(|n| across.is_multiple_of(*n)).unwrap_or(1),
        }
    }
}
