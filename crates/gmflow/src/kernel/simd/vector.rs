//! Vectors of the width that the processor has, chosen at run time, with the operators that formulas are written in.
//!
//! Multiplications and additions are fused where the processor can, so last bits may differ between processors; they do not depend on the
//! batch or the number of threads.
#![allow(clippy::excessive_precision)]

use crate::kernel::simd::row::{Row, VECTOR, tree};
use pulp::{Arch, Simd, WithSimd};
use std::ops::{Add, Div, Mul, Sub};

/// Runs a pass with the widest vectors. Not inlined: every place that it is inlined into would have all widths once more.
#[inline(never)]
pub(crate) fn widest<W: WithSimd>(pass: W) -> W::Output {
    Arch::new().dispatch(pass)
}

/// A vector of f32.
pub(crate) struct V<S: Simd> {
    pub(crate) simd: S,
    x: S::f32s,
}

impl<S: Simd> Clone for V<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Simd> Copy for V<S> {}

impl<S: Simd> V<S> {
    #[inline(always)]
    pub fn new(simd: S, x: S::f32s) -> Self {
        Self { simd, x }
    }

    /// The bare vector.
    #[inline(always)]
    pub fn bare(self) -> S::f32s {
        self.x
    }

    #[inline(always)]
    pub fn splat(simd: S, x: f32) -> Self {
        Self { simd, x: simd.splat_f32s(x) }
    }

    /// Vector `v` of a row.
    #[inline(always)]
    pub fn load(simd: S, row: &Row, v: usize) -> Self {
        Self { simd, x: S::as_simd_f32s(row).0[v] }
    }

    #[inline(always)]
    pub fn store(self, row: &mut Row, v: usize) {
        S::as_mut_simd_f32s(row).0[v] = self.x;
    }

    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self { x: self.simd.max_f32s(self.x, other.x), ..self }
    }

    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        Self { x: self.simd.min_f32s(self.x, other.x), ..self }
    }

    /// self * a + b.
    #[inline(always)]
    pub fn mul_add(self, a: Self, b: Self) -> Self {
        Self { x: self.simd.mul_add_e_f32s(self.x, a.x, b.x), ..self }
    }

    #[inline(always)]
    pub fn abs(self) -> Self {
        Self { x: self.simd.abs_f32s(self.x), ..self }
    }

    /// The sum of the lanes.
    #[inline(always)]
    pub fn sum(self) -> f64 {
        let mut lanes = [0.0; VECTOR];
        S::as_mut_simd_f32s(&mut lanes).0[0] = self.x;
        tree(lanes)
    }

    #[inline(always)]
    pub fn sqrt(self) -> Self {
        Self { x: self.simd.sqrt_f32s(self.x), ..self }
    }

    /// The lanes where self < other.
    #[inline(always)]
    pub fn less(self, other: Self) -> S::m32s {
        self.simd.less_than_f32s(self.x, other.x)
    }

    /// self where `mask` holds, otherwise `other`.
    #[inline(always)]
    pub fn only(self, mask: S::m32s, other: Self) -> Self {
        Self { x: self.simd.select_f32s(mask, self.x, other.x), ..self }
    }

    /// The natural logarithm of a normal number above 0; a few units in the last place, by the polynomial of the Cephes library. NaN and
    /// infinity give NaN.
    #[inline(always)]
    pub fn ln(self) -> Self {
        // Or'ed with a small integer this is the float 2^23 + the integer.
        const FLOAT: f32 = 8_388_608.0;
        let simd = self.simd;
        let c = |x: f32| Self::splat(simd, x);
        let bits = simd.transmute_u32s_f32s(self.x);
        let whole = simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(23));
        let whole = simd.or_u32s(whole, simd.splat_u32s(FLOAT.to_bits()));
        let part = simd.and_u32s(bits, simd.splat_u32s(0x007f_ffff));
        let part = simd.or_u32s(part, simd.splat_u32s(0.5f32.to_bits()));
        let whole = Self { simd, x: simd.transmute_f32s_u32s(whole) } - c(FLOAT + 126.0);
        let part = Self { simd, x: simd.transmute_f32s_u32s(part) };
        let low = part.less(c(std::f32::consts::FRAC_1_SQRT_2));
        let whole = (whole - c(1.0)).only(low, whole);
        let x = (part + part).only(low, part) - c(1.0);
        let mut p = c(7.037_683_6e-2);
        for coefficient in [
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_7e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333_1e-1,
        ] {
            p = p.mul_add(x, c(coefficient));
        }
        let square = x * x;
        let rest = whole.mul_add(c(-2.121_944_40e-4), p * x * square);
        let rest = square.mul_add(c(-0.5), rest) + x;
        let rest = self.mul_add(c(0.0), rest);
        whole.mul_add(c(0.693_359_375), rest)
    }

    /// 2^x for x up to 127, which is not checked, and 2^-126 for what is below -126. NaN stays NaN.
    #[inline(always)]
    pub fn exp2_or_less(self) -> Self {
        let least = Self::splat(self.simd, -126.0);
        // A maximum may drop NaN.
        least.only(self.less(least), self).exp2()
    }

    /// 2^x for x from -126 to 127, which is not checked; a few units in the last place, by a polynomial fitted on [-1/2, 1/2]. NaN stays NaN.
    #[inline(always)]
    pub fn exp2(self) -> Self {
        // Adding it rounds to an integer, which then stands in the low bits with the bias of the exponent.
        const ROUND: f32 = 12_582_912.0 + 127.0;
        let simd = self.simd;
        let c = |x: f32| Self::splat(simd, x);
        let shifted = self + c(ROUND);
        let r = self - (shifted - c(ROUND));
        let mut p = c(1.327_652_52e-3);
        for coefficient in [9.675_560_58e-3, 5.550_713_3e-2, 2.402_211_94e-1, 6.931_469_67e-1, 1.0] {
            p = p.mul_add(r, c(coefficient));
        }
        // A shift by 23 leaves nothing else of it.
        let power = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted.x), simd.splat_u32s(23));
        p * Self { x: simd.transmute_f32s_u32s(power), ..self }
    }
}

macro_rules! operator {
    ($trait:ident, $name:ident, $op:ident) => {
        impl<S: Simd> $trait for V<S> {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Self { x: self.simd.$op(self.x, other.x), ..self }
            }
        }
    };
}

operator!(Add, add, add_f32s);
operator!(Sub, sub, sub_f32s);
operator!(Mul, mul, mul_f32s);
operator!(Div, div, div_f32s);
