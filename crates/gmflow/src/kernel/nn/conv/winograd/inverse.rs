//! From products of transformed tiles to images.

use crate::kernel::matmul::matrix::Target;
use crate::kernel::nn::conv::winograd::grid::{Grid, IN, OUT, Places};
use crate::kernel::nn::conv::winograd::maps::{column, gather};
use crate::kernel::nn::conv::winograd::pieces::{Piece, interleave, places_of_pieces};
use crate::kernel::simd::vector::V;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;
use std::ops::Range;

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
                // SAFETY: a row of one plane, which no other task writes; any bits may stand there.
                let out = unsafe { std::slice::from_raw_parts_mut(self.out.at(at).cast::<MaybeUninit<f32>>(), ow) };
                let (whole, rest) = out.as_chunks_mut::<OUT>();
                for (out, place) in whole.iter_mut().zip(order) {
                    *out = pieces[*place].map(MaybeUninit::new);
                }
                if let (false, Some(place)) = (rest.is_empty(), order.last()) {
                    rest.write_copy_of_slice(&pieces[*place][..rest.len()]);
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
