//! Four neighbours of an image at a time, as lanes of vectors.

use crate::kernel::nn::conv::winograd::grid::{LANES, OUT};
use crate::kernel::nn::conv::winograd::maps::{load, store};
use crate::kernel::simd::vector::V;
use pulp::Simd;

/// Four numbers side by side in an image.
pub(crate) type Piece = [f32; OUT];

/// Element i of so many pieces as a vector has lanes, for i from 0 to 3.
#[inline(always)]
pub(crate) fn deinterleave<S: Simd>(simd: S, pieces: &[Piece], at: usize) -> [V<S>; OUT] {
    let x = pieces[at..at + S::F32_LANES].as_flattened();
    let n = S::F32_LANES;
    let x =
        [load(simd, x, 0).bare(), load(simd, x, n).bare(), load(simd, x, 2 * n).bare(), load(simd, x, 3 * n).bare()];
    let x = simd.deinterleave_shfl_f32s(x);
    [V::new(simd, x[0]), V::new(simd, x[1]), V::new(simd, x[2]), V::new(simd, x[3])]
}

/// The reverse of [`deinterleave`].
#[inline(always)]
pub(crate) fn interleave<S: Simd>(simd: S, [a, b, c, d]: [V<S>; OUT], pieces: &mut [Piece], at: usize) {
    let x = pieces[at..at + S::F32_LANES].as_flattened_mut();
    let values = simd.interleave_shfl_f32s([a.bare(), b.bare(), c.bare(), d.bare()]);
    for (x, value) in x.chunks_exact_mut(S::F32_LANES).zip(values) {
        store(V::new(simd, value), x);
    }
}

/// Where the pieces of `width` tiles must stand for [`deinterleave`] to give the tiles in order: it takes the elements of pieces apart in
/// whatever order is the fastest.
#[inline(always)]
pub(crate) fn places_of_pieces<S: Simd>(simd: S, width: usize) -> Vec<usize> {
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
