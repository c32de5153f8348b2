//! Two vectors side by side, which passes over pixels work on.

use crate::kernel::simd::lanes::{BlockReader, BlockRows, Packed, PerSample};
use crate::kernel::simd::row::Row;
use crate::kernel::simd::vector::V;
use pulp::Simd;
use std::ops::{Add, Div, Mul, Sub};

/// Two vectors side by side: while one waits for what it needs, the other goes on.
pub(crate) struct Pair<S: Simd>(V<S>, V<S>);

impl<S: Simd> Clone for Pair<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Simd> Copy for Pair<S> {}

/// Methods of both.
macro_rules! both {
    ($($name:ident($($other:ident),*);)*) => {
        $(
            #[inline(always)]
            pub fn $name(self, $($other: Self),*) -> Self {
                Self(self.0.$name($($other.0),*), self.1.$name($($other.1),*))
            }
        )*
    };
}

impl<S: Simd> Pair<S> {
    both! {
        max(other);
        min(other);
        mul_add(a, b);
        abs();
        sqrt();
        ln();
        exp2();
        exp2_or_less();
    }

    /// Of bare vectors; by reference, because arrays that are passed by value go through the stack.
    #[inline(always)]
    pub fn new(simd: S, from: &[S::f32s; 2]) -> Self {
        Self(V::new(simd, from[0]), V::new(simd, from[1]))
    }

    /// To bare vectors.
    #[inline(always)]
    pub fn keep(self, into: &mut [S::f32s; 2]) {
        into[0] = self.0.bare();
        into[1] = self.1.bare();
    }

    #[inline(always)]
    pub fn splat(simd: S, x: f32) -> Self {
        Self(V::splat(simd, x), V::splat(simd, x))
    }

    /// The two.
    #[inline(always)]
    pub fn both(self) -> [V<S>; 2] {
        [self.0, self.1]
    }

    /// Vectors of numbers per sample.
    #[inline(always)]
    pub fn per_sample(numbers: &PerSample, simd: S, [v, w]: [usize; 2]) -> Self {
        Self(numbers.at(simd, v), numbers.at(simd, w))
    }

    /// Vectors of a row.
    #[inline(always)]
    pub fn load(simd: S, row: &Row, [v, w]: [usize; 2]) -> Self {
        Self(V::load(simd, row, v), V::load(simd, row, w))
    }

    #[inline(always)]
    pub fn store(self, row: &mut Row, [v, w]: [usize; 2]) {
        self.0.store(row, v);
        self.1.store(row, w);
    }

    /// Sets vectors of an output's row.
    #[inline(always)]
    pub fn set(self, target: &mut BlockRows, row: usize, [v, w]: [usize; 2]) {
        target.set(row, v, self.0);
        target.set(row, w, self.1);
    }

    /// Vectors of a row of packed numbers.
    #[inline(always)]
    pub fn packed(packed: &Packed, simd: S, row: usize, [v, w]: [usize; 2]) -> Self {
        Self(packed.at(simd, row, v), packed.at(simd, row, w))
    }

    /// Vectors of a source's row.
    #[inline(always)]
    pub fn of(source: &BlockReader, simd: S, row: usize, [v, w]: [usize; 2]) -> Self {
        Self(source.at(simd, row, v), source.at(simd, row, w))
    }

    /// The lanes where self < other.
    #[inline(always)]
    pub fn less(self, other: Self) -> Mask<S> {
        Mask { simd: self.0.simd, lanes: [self.0.less(other.0), self.1.less(other.1)] }
    }

    /// self where `mask` holds, otherwise `other`.
    #[inline(always)]
    pub fn only(self, mask: Mask<S>, other: Self) -> Self {
        Self(self.0.only(mask.lanes[0], other.0), self.1.only(mask.lanes[1], other.1))
    }
}

/// What holds in lanes of a pair.
pub(crate) struct Mask<S: Simd> {
    simd: S,
    lanes: [S::m32s; 2],
}

impl<S: Simd> Clone for Mask<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Simd> Copy for Mask<S> {}

impl<S: Simd> Mask<S> {
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.lanes, other.lanes);
        Self { lanes: [self.simd.and_m32s(a, c), self.simd.and_m32s(b, d)], ..self }
    }

    #[inline(always)]
    pub fn or(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.lanes, other.lanes);
        Self { lanes: [self.simd.or_m32s(a, c), self.simd.or_m32s(b, d)], ..self }
    }

    /// Whether it holds in all lanes.
    #[inline(always)]
    pub fn all(self) -> bool {
        let simd = self.simd;
        let both = simd.and_m32s(self.lanes[0], self.lanes[1]);
        let everywhere = V::splat(simd, 0.0).less(V::splat(simd, 1.0));
        simd.first_true_m32s(simd.xor_m32s(both, everywhere)) >= S::F32_LANES
    }
}

macro_rules! pair_operator {
    ($trait:ident, $name:ident) => {
        impl<S: Simd> $trait for Pair<S> {
            type Output = Self;
            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Self(self.0.$name(other.0), self.1.$name(other.1))
            }
        }
    };
}

pair_operator!(Add, add);
pair_operator!(Sub, sub);
pair_operator!(Mul, mul);
pair_operator!(Div, div);
