//! The transform of weights, and its adjoint.

use crate::kernel::nn::conv::winograd::grid::{IN, LANES};
use crate::kernel::nn::conv::winograd::maps::{column, contract, expand, load, store};
use crate::kernel::simd::vector::V;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

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
                    unsafe { std::ptr::copy_nonoverlapping(copy.as_ptr(), place, count) };
                }
            }
        }
    }
}

/// The adjoint of [`Expand`]: G^T u G.
pub(crate) struct Contract<'a> {
    /// `[c 3 3]`.
    pub(crate) out: &'a mut [MaybeUninit<f32>],
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
                    out.write(taps[lane]);
                }
            }
        }
    }
}
