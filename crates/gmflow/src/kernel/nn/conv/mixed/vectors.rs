//! Vectors of AVX-512: rounding to bf16, transposition, SiLU.
//!
//! The functions are compiled into those that call them, which enable the instructions.

use std::arch::x86_64::*;

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// The instructions that this folder is written for.
macro_rules! with_instructions {
    ($(#[$meta:meta])* $vis:vis unsafe fn $($rest:tt)*) => {
        $(#[$meta])*
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")]
        $vis unsafe fn $($rest)*
    };
}
pub(super) use with_instructions;

/// The first `count` lanes.
#[inline(always)]
pub(super) fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// Words of `a` and `b` rounded to bf16 in pairs: that of `a` below that of `b`.
///
/// # Safety
/// The processor must have AVX512-BF16; so for all functions of this file.
#[inline(always)]
pub(super) unsafe fn pairs(a: __m512, b: __m512) -> __m512i {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
            17, 1, 16, 0,
        );
        _mm512_permutexvar_epi16(order, in_line(a, b))
    }
}

/// 32 numbers rounded to bf16, those of `a` before those of `b`.
///
/// # Safety
/// As [`pairs`].
#[inline(always)]
pub(super) unsafe fn in_line(a: __m512, b: __m512) -> __m512i {
    // SAFETY: the caller vouches for the instructions; vectors of 32 bf16 have no other form than 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a)) }
}

/// 4x4 numbers transposed in each quarter of the vectors.
///
/// # Safety
/// As [`pairs`].
#[inline(always)]
pub(super) unsafe fn transpose4([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let (ab, ab_2) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd, cd_2) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        [
            _mm512_shuffle_ps::<0x44>(ab, cd),
            _mm512_shuffle_ps::<0xee>(ab, cd),
            _mm512_shuffle_ps::<0x44>(ab_2, cd_2),
            _mm512_shuffle_ps::<0xee>(ab_2, cd_2),
        ]
    }
}

/// The first two rows of [`transpose4`].
///
/// # Safety
/// As [`pairs`].
#[inline(always)]
pub(super) unsafe fn transpose2([a, b, c, d]: [__m512; 4]) -> [__m512; 2] {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
        [_mm512_shuffle_ps::<0x44>(ab, cd), _mm512_shuffle_ps::<0xee>(ab, cd)]
    }
}

/// Transposes 16x16 words: row i is read `from` + i * `pitch` words on, column j is written to + j * `out_pitch`.
///
/// # Safety
/// As [`pairs`], and all rows and columns must exist.
#[inline(always)]
pub(super) unsafe fn transpose16(from: *const u32, pitch: usize, to: *mut u32, out_pitch: usize) {
    // SAFETY: the caller vouches for all.
    unsafe {
        let mut quarters = [[_mm512_setzero_si512(); 4]; 4];
        for (i, quarter) in quarters.iter_mut().enumerate() {
            let row = from.wrapping_add(4 * i * pitch);
            let a = _mm512_loadu_si512(row.cast());
            let b = _mm512_loadu_si512(row.wrapping_add(pitch).cast());
            let c = _mm512_loadu_si512(row.wrapping_add(2 * pitch).cast());
            let d = _mm512_loadu_si512(row.wrapping_add(3 * pitch).cast());
            let (ab, ab_2) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd, cd_2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            *quarter = [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_2, cd_2),
                _mm512_unpackhi_epi64(ab_2, cd_2),
            ];
        }
        let [first, second, third, fourth] = quarters;
        for (k, (((a, b), c), d)) in first.into_iter().zip(second).zip(third).zip(fourth).enumerate() {
            let (ab, ab_2) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let (cd, cd_2) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
            let to = to.wrapping_add(k * out_pitch);
            _mm512_storeu_si512(to.cast(), _mm512_shuffle_i32x4::<0x88>(ab, cd));
            _mm512_storeu_si512(to.wrapping_add(4 * out_pitch).cast(), _mm512_shuffle_i32x4::<0x88>(ab_2, cd_2));
            _mm512_storeu_si512(to.wrapping_add(8 * out_pitch).cast(), _mm512_shuffle_i32x4::<0xdd>(ab, cd));
            _mm512_storeu_si512(to.wrapping_add(12 * out_pitch).cast(), _mm512_shuffle_i32x4::<0xdd>(ab_2, cd_2));
        }
    }
}

/// 1/(1 + e^-x), off by less than 1e-6.
///
/// # Safety
/// As [`pairs`].
#[inline(always)]
pub(super) unsafe fn sigmoid(x: __m512) -> __m512 {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        // 2^y with y = -x log2(e); beyond 2^126 the result is as good as 0 already.
        let y = _mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(-std::f32::consts::LOG2_E)), _mm512_set1_ps(126.0));
        let whole = _mm512_roundscale_ps::<0x08>(y);
        let r = _mm512_sub_ps(y, whole);
        let mut p = _mm512_set1_ps(1.327_652_5e-3);
        for coefficient in [9.675_561e-3, 5.550_713_3e-2, 2.402_212e-1, 6.931_469_7e-1, 1.0] {
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(coefficient));
        }
        let power = _mm512_scalef_ps(p, whole);
        let sum = _mm512_add_ps(power, _mm512_set1_ps(1.0));
        // An estimate of 14 bits and one step of Newton's.
        let guess = _mm512_rcp14_ps(sum);
        _mm512_mul_ps(guess, _mm512_fnmadd_ps(sum, guess, _mm512_set1_ps(2.0)))
    }
}

/// x sigmoid(x).
///
/// # Safety
/// As [`pairs`].
#[inline(always)]
pub(super) unsafe fn silu(x: __m512) -> __m512 {
    // SAFETY: the caller vouches for the instructions.
    unsafe { _mm512_mul_ps(x, sigmoid(x)) }
}

/// The slope of [`silu`].
///
/// # Safety
/// As [`pairs`].
#[inline(always)]
pub(super) unsafe fn silu_slope(x: __m512) -> __m512 {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        let (s, one) = (sigmoid(x), _mm512_set1_ps(1.0));
        _mm512_mul_ps(s, _mm512_fmadd_ps(x, _mm512_sub_ps(one, s), one))
    }
}

/// What is set to 0 in training, and what the rest is multiplied by.
#[derive(Clone, Debug)]
pub(crate) struct Dropout {
    /// The keys of each sample's hash.
    pub(crate) keys: Vec<[u32; 2]>,
    /// Values with a hash below this are dropped.
    pub(crate) threshold: u32,
    pub(crate) scale: f32,
}

/// [`Dropout`] of a plane.
#[derive(Clone, Copy)]
pub(super) struct Drop {
    keys: [u32; 2],
    threshold: u32,
    scale: f32,
}

impl Dropout {
    /// Of a plane of a sample that begins at value `start` of the sample.
    pub(super) fn of_plane(&self, sample: usize, start: usize) -> Drop {
        let [first, second] = self.keys.get(sample).copied().unwrap_or_default();
        let keys = [first.wrapping_add(start as u32), second];
        Drop { keys, threshold: self.threshold, scale: self.scale }
    }
}

impl Drop {
    /// Nothing is dropped.
    pub(super) const NONE: Self = Self { keys: [0; 2], threshold: 0, scale: 1.0 };

    /// The values from number `at` of the plane on: the same hash as [`crate::kernel::nn::dropout`]'s.
    ///
    /// # Safety
    /// As [`pairs`].
    #[inline(always)]
    pub(super) unsafe fn apply(self, values: __m512, at: usize) -> __m512 {
        // SAFETY: the caller vouches for the instructions.
        unsafe {
            let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let start = self.keys[0].wrapping_add(at as u32) as i32;
            let hash = _mm512_add_epi32(lanes, _mm512_set1_epi32(start));
            let hash = _mm512_xor_si512(hash, _mm512_srli_epi32::<16>(hash));
            let hash = _mm512_mullo_epi32(hash, _mm512_set1_epi32(0x21f0_aaad));
            let second = _mm512_set1_epi32(self.keys[1] as i32);
            let hash = _mm512_xor_si512(_mm512_xor_si512(hash, _mm512_srli_epi32::<15>(hash)), second);
            let hash = _mm512_mullo_epi32(hash, _mm512_set1_epi32(0x735a_2d97));
            let hash = _mm512_xor_si512(hash, _mm512_srli_epi32::<15>(hash));
            let kept = _mm512_cmpge_epu32_mask(hash, _mm512_set1_epi32(self.threshold as i32));
            _mm512_maskz_mul_ps(kept, values, _mm512_set1_ps(self.scale))
        }
    }
}
