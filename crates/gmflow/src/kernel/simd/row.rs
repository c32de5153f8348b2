//! One number for every pixel that is worked on at a time.

/// Pixels that are worked on at a time; the lanes of every vector divide it.
pub(crate) const LANES: usize = 256;

/// The lanes of the widest vector, and the numbers of a line of the cache.
pub(crate) const VECTOR: usize = 16;

/// One number for every lane.
pub(crate) type Row = [f32; LANES];

/// The sum of all, in f64, by halves.
#[inline(always)]
pub(crate) fn tree(values: [f32; VECTOR]) -> f64 {
    let mut sums = values.map(f64::from);
    for half in [8, 4, 2, 1] {
        let (left, right) = sums.split_at_mut(half);
        left.iter_mut().zip(right).for_each(|(left, right)| *left += *right);
    }
    sums[0]
}
