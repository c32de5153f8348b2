//! From images to transformed tiles.

use crate::kernel::nn::conv::winograd::grid::{Grid, IN, LANES, OUT, Places};
use crate::kernel::nn::conv::winograd::maps::{column, input, spread, store};
use crate::kernel::nn::conv::winograd::pieces::{Piece, deinterleave, places_of_pieces};
use crate::kernel::simd::vector::V;
use pulp::{Simd, WithSimd};
use std::ops::Range;

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
