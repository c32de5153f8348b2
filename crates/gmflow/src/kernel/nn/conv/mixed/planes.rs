//! Image planes as convolutions read them: as they are, or normalised and activated on the way.

use super::vectors::{Drop, Dropout, LANES, first, silu, with_instructions};
use std::arch::x86_64::*;
use std::ops::Range;

/// A batch of images `[b c h w]`, of which each tensor holds some of the channels.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    /// Values and channels of each tensor.
    pub(crate) parts: &'a [(&'a [f32], usize)],
    /// Height and width.
    pub(crate) size: [usize; 2],
}

impl<'a> Images<'a> {
    /// Channels of all tensors.
    pub(crate) fn channels(&self) -> usize {
        self.parts.iter().map(|(_, channels)| channels).sum()
    }

    /// Pixels of a plane.
    pub(crate) fn pixels(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// One channel of one sample.
    pub(super) fn plane(&self, sample: usize, mut channel: usize) -> &'a [f32] {
        let pixels = self.pixels();
        for (values, channels) in self.parts {
            if channel < *channels {
                return &values[(sample * channels + channel) * pixels..][..pixels];
            }
            channel -= channels;
        }
        &[]
    }
}

/// What a convolution reads.
#[derive(Clone, Copy)]
pub(super) struct PlaneReader<'a> {
    pub(super) images: Images<'a>,
    /// Scale and shift of every channel of every sample, before SiLU; without them planes are read as they are.
    pub(super) norm: Option<&'a [[f32; 2]]>,
    /// What is dropped behind SiLU.
    pub(super) dropout: Option<&'a Dropout>,
}

impl<'a> PlaneReader<'a> {
    /// Planes as they are.
    pub(super) fn plain(parts: &'a [(&'a [f32], usize)], size: [usize; 2]) -> Self {
        Self { images: Images { parts, size }, norm: None, dropout: None }
    }

    /// Scale and shift of a plane.
    fn norm_of(&self, sample: usize, channel: usize) -> Option<[f32; 2]> {
        self.norm.and_then(|norm| norm.get(sample * self.images.channels() + channel).copied())
    }
}

/// Rows of a plane with zeros around them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    /// The first row, which may lie above the plane.
    pub(super) first: isize,
    pub(super) count: usize,
    /// Zeros on the left.
    pub(super) left: usize,
    /// Values from one row to the next: a multiple of [`LANES`].
    pub(super) pitch: usize,
}

impl Rows {
    /// Those that lie within a plane of height h.
    fn inside(&self, h: usize) -> Range<usize> {
        let place = |y: isize| (y - self.first).clamp(0, self.count as isize) as usize;
        place(0)..place(h as isize)
    }
}

/// Room for rows of a plane.
pub(super) struct Padded {
    values: Vec<f32>,
    /// What it holds: around the same rows of a plane of the same size there are zeros already.
    holds: Option<(Rows, [usize; 2])>,
}

impl Padded {
    /// For so many values.
    pub(super) fn new(values: usize) -> Self {
        Self { values: vec![0.0; values + LANES], holds: None }
    }

    /// The values from row `row` of `pitch` on.
    pub(super) fn row(&self, row: usize, pitch: usize) -> *const f32 {
        self.values[row * pitch..].as_ptr()
    }

    /// Copies rows of a plane.
    ///
    /// # Safety
    /// The processor must have the instructions.
    pub(super) unsafe fn read(&mut self, source: &PlaneReader, [sample, channel]: [usize; 2], rows: Rows) {
        let ([h, w], inside) = (source.images.size, rows.inside(source.images.size[0]));
        let room = self.values.len();
        assert!(room >= rows.count * rows.pitch + LANES && rows.left + w <= rows.pitch, "planes: room for rows");
        if self.holds != Some((rows, [h, w])) {
            self.values.fill(0.0);
            self.holds = Some((rows, [h, w]));
        }
        let first = (rows.first + inside.start as isize) as usize;
        let x = &source.images.plane(sample, channel)[first * w..][..inside.len() * w];
        let out = &mut self.values[inside.start * rows.pitch + rows.left..];
        // SAFETY: the caller vouches for the instructions; the rows lie within both.
        unsafe {
            let (out, sizes) = (out.as_mut_ptr(), [w, h * w, rows.pitch]);
            match (source.norm_of(sample, channel), source.dropout) {
                (Some(norm), Some(dropout)) => {
                    let drop = dropout.of_plane(sample, channel * h * w + first * w);
                    copy::<true, true>(x, norm, drop, out, sizes);
                }
                (Some(norm), None) => copy::<true, false>(x, norm, Drop::NONE, out, sizes),
                (None, _) => copy::<false, false>(x, [1.0, 0.0], Drop::NONE, out, sizes),
            }
        }
    }
}

with_instructions! {
    /// Copies rows of w, of a plane of so many pixels, to where rows are `pitch` apart; with `NORM` normalised and activated, with `DROP` some
    /// of them dropped then.
    ///
    /// # Safety
    /// The processor must have the instructions, and `out` room for the rows.
    unsafe fn copy<const NORM: bool, const DROP: bool>(
        x: &[f32], norm: [f32; 2], drop: Drop, out: *mut f32, [w, pixels, pitch]: [usize; 3],
    ) {
        let (whole, mask) = (w / LANES * LANES, first(w % LANES));
        for (i, x) in x.chunks_exact(w).enumerate() {
            let (x, out) = (x.as_ptr(), out.wrapping_add(i * pitch));
            // SAFETY: the caller vouches for the rows.
            unsafe {
                for j in (0..whole).step_by(LANES) {
                    // The next plane mostly lies behind this one; processors do not look beyond a page of memory by themselves.
                    _mm_prefetch::<_MM_HINT_T0>(x.wrapping_add(j + pixels).cast());
                    let values = _mm512_loadu_ps(x.wrapping_add(j));
                    _mm512_storeu_ps(out.wrapping_add(j), activated::<NORM, DROP>(values, norm, drop, i * w + j));
                }
                if whole < w {
                    _mm_prefetch::<_MM_HINT_T0>(x.wrapping_add(whole + pixels).cast());
                    let values = _mm512_maskz_loadu_ps(mask, x.wrapping_add(whole));
                    let values = activated::<NORM, DROP>(values, norm, drop, i * w + whole);
                    _mm512_mask_storeu_ps(out.wrapping_add(whole), mask, values);
                }
            }
        }
    }
}

/// What a convolution reads in place of the values from number `at` of the rows on.
///
/// # Safety
/// The processor must have the instructions.
#[inline(always)]
unsafe fn activated<const NORM: bool, const DROP: bool>(
    values: __m512,
    [scale, shift]: [f32; 2],
    drop: Drop,
    at: usize,
) -> __m512 {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        if !NORM {
            return values;
        }
        let values = silu(_mm512_fmadd_ps(values, _mm512_set1_ps(scale), _mm512_set1_ps(shift)));
        if DROP { drop.apply(values, at) } else { values }
    }
}
