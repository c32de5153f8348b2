//! Patches of images as matrices, and back.

use crate::kernel::matmul::matrix::Matrix;
use crate::kernel::nn::conv::sizes::Sizes;
use crate::kernel::simd::arch::{Loop, vectorised};
use std::ops::Range;

/// Copies the patches of some channels into a tile.
struct Unfold<'a> {
    tile: &'a mut [f32],
    /// The planes of the channels.
    x: &'a [f32],
    channels: usize,
    rows: Range<usize>,
    sizes: &'a Sizes,
}

impl Loop for Unfold<'_> {
    #[inline(always)]
    fn run(self) {
        let (tile, x, stride, ow) = (self.tile, self.x, self.sizes.stride, self.sizes.out[1]);
        self.sizes.spans(
            self.channels,
            self.rows,
            #[inline(always)]
            |at, inside, source| {
                let row = &mut tile[at..at + ow];
                row[..inside.start].fill(0.0);
                row[inside.end..].fill(0.0);
                let row = &mut row[inside];
                if stride == 1 {
                    row.copy_from_slice(&x[source..source + row.len()]);
                } else if let (2, [most @ .., last]) = (stride, &mut *row) {
                    // In pairs, which compilers vectorise; behind the last there may be none.
                    for (out, [x, _]) in most.iter_mut().zip(x[source..].as_chunks::<2>().0) {
                        *out = *x;
                    }
                    *last = x[source + 2 * most.len()];
                } else if !row.is_empty() {
                    for (out, x) in row.iter_mut().zip(x[source..].iter().step_by(stride)) {
                        *out = *x;
                    }
                }
            },
        );
    }
}

/// Adds a tile to the pixels that it was unfolded from.
pub(crate) struct Fold<'a> {
    pub(crate) tile: &'a [f32],
    pub(crate) dx: &'a mut [f32],
    pub(crate) channels: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) sizes: &'a Sizes,
}

impl Loop for Fold<'_> {
    #[inline(always)]
    fn run(self) {
        let (tile, dx, stride, ow) = (self.tile, self.dx, self.sizes.stride, self.sizes.out[1]);
        self.sizes.spans(
            self.channels,
            self.rows,
            #[inline(always)]
            |at, inside, source| {
                let row = &tile[at..at + ow][inside];
                if let (2, [most @ .., last]) = (stride, row) {
                    for (pair, x) in dx[source..].as_chunks_mut::<2>().0.iter_mut().zip(most) {
                        *pair = [pair[0] + *x, pair[1]];
                    }
                    dx[source + 2 * most.len()] += *last;
                } else if !row.is_empty() {
                    for (out, x) in dx[source..].iter_mut().step_by(stride).zip(row) {
                        *out += *x;
                    }
                }
            },
        );
    }
}

/// The patches of some channels of a sample as a matrix: the image itself where it can be, else unfolded into `buffer`.
pub(crate) fn patches(
    buffer: &mut Vec<f32>,
    x: &[f32],
    channels: usize,
    rows: Range<usize>,
    sizes: &Sizes,
) -> Matrix {
    let pixels = rows.len() * sizes.out[1];
    if sizes.pointwise() {
        return Matrix::rows(x, pixels);
    }
    buffer.resize(channels * sizes.taps() * pixels, 0.0);
    vectorised(Unfold { tile: buffer, x, channels, rows, sizes });
    Matrix::rows(buffer, pixels)
}
