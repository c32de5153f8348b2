//! The one-dimensional maps of F(4x4, 3x3), as in [`crate::kernel::nn::conv::winograd::tiles`], on vectors of AVX-512.

use std::arch::x86_64::*;
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

/// # Safety
/// The processor must have AVX-512; so for all functions of this file.
#[inline(always)]
unsafe fn times(x: __m512, factor: f32, plus: __m512) -> __m512 {
    // SAFETY: the caller vouches for the instructions.
    unsafe { _mm512_fmadd_ps(x, _mm512_set1_ps(factor), plus) }
}

/// B^T d.
///
/// # Safety
/// As [`times`].
#[inline(always)]
pub(super) unsafe fn input([a, b, c, d, e, f]: [__m512; 6]) -> [__m512; 6] {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let (even, odd) = (times(c, -2.0, e), times(b, -2.0, d));
        let (even_2, odd_2) = (times(c, -0.5, e), times(b, -0.5, d));
        [
            _mm512_add_ps(times(c, -2.5, a), e),
            times(odd, FRAC_1_SQRT_2, even),
            times(odd, -FRAC_1_SQRT_2, even),
            times(odd_2, SQRT_2, even_2),
            times(odd_2, -SQRT_2, even_2),
            _mm512_add_ps(times(d, -2.5, b), f),
        ]
    }
}

/// A g.
///
/// # Safety
/// As [`times`].
#[inline(always)]
pub(super) unsafe fn spread([a, b, c, d]: [__m512; 4]) -> [__m512; 6] {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let (even, odd) = (times(c, 0.5, a), times(d, 0.5, b));
        let (even_2, odd_2) = (times(c, 2.0, a), times(d, 2.0, b));
        [
            a,
            times(odd, FRAC_1_SQRT_2, even),
            times(odd, -FRAC_1_SQRT_2, even),
            times(odd_2, SQRT_2, even_2),
            times(odd_2, -SQRT_2, even_2),
            d,
        ]
    }
}

/// A^T m.
///
/// # Safety
/// As [`times`].
#[inline(always)]
pub(super) unsafe fn gather([a, b, c, d, e, f]: [__m512; 6]) -> [__m512; 4] {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let (even, odd) = (_mm512_add_ps(b, c), _mm512_sub_ps(b, c));
        let (even_2, odd_2) = (_mm512_add_ps(d, e), _mm512_sub_ps(d, e));
        let zero = _mm512_setzero_ps();
        [
            _mm512_add_ps(_mm512_add_ps(a, even), even_2),
            times(odd, FRAC_1_SQRT_2, times(odd_2, SQRT_2, zero)),
            times(even, 0.5, times(even_2, 2.0, zero)),
            times(odd, 0.5 * FRAC_1_SQRT_2, times(odd_2, 2.0 * SQRT_2, f)),
        ]
    }
}

/// G g.
///
/// # Safety
/// As [`times`].
#[inline(always)]
pub(super) unsafe fn expand([a, b, c]: [__m512; 3]) -> [__m512; 6] {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let even = _mm512_mul_ps(times(c, 0.5, a), _mm512_set1_ps(-2.0 / 3.0));
        let even_2 = _mm512_mul_ps(times(c, 2.0, a), _mm512_set1_ps(1.0 / 6.0));
        [
            a,
            times(b, FRAC_1_SQRT_2 * -2.0 / 3.0, even),
            times(b, FRAC_1_SQRT_2 * 2.0 / 3.0, even),
            times(b, SQRT_2 / 6.0, even_2),
            times(b, -SQRT_2 / 6.0, even_2),
            c,
        ]
    }
}
