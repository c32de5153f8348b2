//! The maps of Winograd's algorithm, in the lanes of vector registers.
//!
//! The polynomials behind F(4x4, 3x3) are taken at 0, infinity, and plus and minus 1/sqrt(2) and sqrt(2). At the usual 1 and 2 the
//! result would be off by four times as much as the plain sum; here it is twice as much.

use crate::kernel::nn::conv::winograd::grid::{IN, OUT};
use crate::kernel::simd::vector::V;
use pulp::Simd;
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

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
pub(crate) fn input<S: Simd>(simd: S, [a, b, c, d, e, f]: [V<S>; IN]) -> [V<S>; IN] {
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
pub(crate) fn spread<S: Simd>(simd: S, [a, b, c, d]: [V<S>; OUT]) -> [V<S>; IN] {
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
pub(crate) fn gather<S: Simd>(simd: S, [a, b, c, d, e, f]: [V<S>; IN]) -> [V<S>; OUT] {
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
pub(crate) fn expand<S: Simd>(simd: S, [a, b, c]: [V<S>; 3]) -> [V<S>; IN] {
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
pub(crate) fn contract<S: Simd>(simd: S, [a, b, c, d, e, f]: [V<S>; IN]) -> [V<S>; 3] {
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
pub(crate) use column;

/// The vector that starts at an element.
#[inline(always)]
pub(crate) fn load<S: Simd>(simd: S, x: &[f32], at: usize) -> V<S> {
    V::new(simd, S::as_simd_f32s(&x[at..at + S::F32_LANES]).0[0])
}

/// Stores a vector in the first elements.
#[inline(always)]
pub(crate) fn store<S: Simd>(values: V<S>, x: &mut [f32]) {
    S::as_mut_simd_f32s(&mut x[..S::F32_LANES]).0[0] = values.bare();
}
