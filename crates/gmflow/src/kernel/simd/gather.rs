//! Pixels of several samples side by side in lanes, and back.

use std::ops::Range;

/// Copies some pixels of samples `[samples rows n]` into rows of lanes, sample after sample; the lanes behind them are 0.
#[inline(always)]
pub(crate) fn gather<const LANES: usize>(
    values: &[f32],
    [samples, n]: [usize; 2],
    pixels: Range<usize>,
    into: &mut [[f32; LANES]],
) {
    let (rows, width) = (into.len(), pixels.len());
    for (row, into) in into.iter_mut().enumerate() {
        into[samples * width..].fill(0.0);
        for sample in 0..samples {
            let from = &values[(sample * rows + row) * n + pixels.start..][..width];
            into[sample * width..][..width].copy_from_slice(from);
        }
    }
}

/// The inverse of [`gather`], from lanes to `out` `[samples rows n]`.
///
/// # Safety
/// No other thread uses these pixels at the same time, and they must lie within `out`.
#[inline(always)]
pub(crate) unsafe fn scatter<const LANES: usize>(
    rows: &[[f32; LANES]],
    [samples, n]: [usize; 2],
    pixels: Range<usize>,
    out: *mut f32,
) {
    let width = pixels.len();
    for sample in 0..samples {
        for (row, lanes) in rows.iter().enumerate() {
            let lanes = &lanes[sample * width..][..width];
            let to = out.wrapping_add((sample * rows.len() + row) * n + pixels.start);
            // SAFETY: the caller vouches for the pixels.
            unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, width) };
        }
    }
}
