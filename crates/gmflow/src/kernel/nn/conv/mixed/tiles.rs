//! Tiles of F(4x4, 3x3) between planes of images and panels of bf16.
//!
//! Rows are transformed first, where they lie; then four neighbouring tiles at a time are transposed, so that 16 tiles stand in the lanes of
//! a vector. In every block of 16 tiles lane 4 l + g holds tile 4 g + l.

use super::maps::{gather, input, spread};
use super::planes::{PlaneReader, Rows};
use super::tiling::{BLOCKS, IN, OUT, PANEL, Room, Side, Tiling};
use super::vectors::{LANES, first, in_line, pairs, transpose2, transpose4, with_instructions};
use std::arch::x86_64::*;
use std::ops::Range;

/// A channel, and rows of tiles of the batch.
type Planes = (usize, Range<usize>);

with_instructions! {
    /// Transforms rows of tiles along their columns, into strip `which`.
    ///
    /// # Safety
    /// The processor must have the instructions; so for all functions of this file.
    unsafe fn vertical(
        source: &PlaneReader, side: Side, tiling: &Tiling, (channel, rows): Planes, room: &mut Room, which: usize,
    ) {
        let (pitch, size) = (tiling.pitch(), room.strip);
        let [top, left] = tiling.offset;
        let more = if side == Side::Input { 2 } else { 0 };
        for [sample, row, count, begin] in tiling.parts(rows) {
            let lines = Rows { first: (OUT * row) as isize - top as isize, count: OUT * count + more, left, pitch };
            // SAFETY: the room was made for this tiling.
            unsafe {
                room.padded.read(source, [sample, channel], lines);
                for k in 0..count {
                    let from = room.padded.row(OUT * k, pitch);
                    let to = room.strips[which * IN * size + (begin + k) * pitch..].as_mut_ptr();
                    for j in (0..pitch).step_by(LANES) {
                        let from = from.wrapping_add(j);
                        let a = _mm512_loadu_ps(from);
                        let b = _mm512_loadu_ps(from.wrapping_add(pitch));
                        let c = _mm512_loadu_ps(from.wrapping_add(2 * pitch));
                        let d = _mm512_loadu_ps(from.wrapping_add(3 * pitch));
                        let rows = if side == Side::Input {
                            let e = _mm512_loadu_ps(from.wrapping_add(4 * pitch));
                            let f = _mm512_loadu_ps(from.wrapping_add(5 * pitch));
                            input([a, b, c, d, e, f])
                        } else {
                            spread([a, b, c, d])
                        };
                        for (i, row) in rows.into_iter().enumerate() {
                            _mm512_storeu_ps(to.wrapping_add(i * size + j), row);
                        }
                    }
                }
            }
        }
    }
}

/// Four values of each of 16 tiles, which stand `together` in twos or fours.
///
/// # Safety
/// As [`vertical`].
#[inline(always)]
unsafe fn quads<const TOGETHER: usize>(from: *const f32, places: &[usize]) -> [__m512; 4] {
    // SAFETY: the caller vouches for the places.
    unsafe {
        let mut quads = [_mm512_setzero_ps(); 4];
        for (g, quad) in quads.iter_mut().enumerate() {
            let places = &places[4 * g..4 * g + 4];
            *quad = match TOGETHER {
                4 => _mm512_loadu_ps(from.wrapping_add(places[0])),
                2 => {
                    let low = _mm256_loadu_ps(from.wrapping_add(places[0]));
                    _mm512_insertf32x8::<1>(
                        _mm512_castps256_ps512(low),
                        _mm256_loadu_ps(from.wrapping_add(places[2])),
                    )
                }
                _ => {
                    let x = _mm512_castps128_ps512(_mm_loadu_ps(from.wrapping_add(places[0])));
                    let x = _mm512_insertf32x4::<1>(x, _mm_loadu_ps(from.wrapping_add(places[1])));
                    let x = _mm512_insertf32x4::<2>(x, _mm_loadu_ps(from.wrapping_add(places[2])));
                    _mm512_insertf32x4::<3>(x, _mm_loadu_ps(from.wrapping_add(places[3])))
                }
            };
        }
        quads
    }
}

/// Transforms a row of 16 tiles of a strip along itself.
///
/// # Safety
/// As [`vertical`].
#[inline(always)]
unsafe fn horizontal<const TOGETHER: usize>(side: Side, strip: *const f32, places: &[usize]) -> [__m512; IN] {
    // SAFETY: the caller vouches for the strip.
    unsafe {
        let [a, b, c, d] = transpose4(quads::<TOGETHER>(strip, places));
        if side == Side::Gradient {
            return spread([a, b, c, d]);
        }
        let [e, f] = transpose2(quads::<TOGETHER>(strip.wrapping_add(OUT), places));
        input([a, b, c, d, e, f])
    }
}

/// The transformed tiles of a panel, as the right operand of a product over channels: `[36 steps PANEL]` pairs of channels.
#[derive(Clone, Copy)]
pub(super) struct Pairs {
    pub(super) words: *mut u32,
    /// From one position to the next.
    pub(super) distance: usize,
}

with_instructions! {
    /// Writes the tiles of rows of a panel, all channels.
    ///
    /// # Safety
    /// As [`vertical`], and there must be room for the words.
    pub(super) unsafe fn to_pairs(source: &PlaneReader, tiling: &Tiling, rows: Range<usize>, room: &mut Room, out: Pairs) {
        let (channels, blocks) = (source.images.channels(), tiling.columns(&rows) / LANES);
        for first in (0..channels).step_by(2) {
            let both = first + 1 < channels;
            // SAFETY: the caller vouches for all.
            unsafe {
                vertical(source, Side::Input, tiling, (first, rows.clone()), room, 0);
                if both {
                    vertical(source, Side::Input, tiling, (first + 1, rows.clone()), room, 1);
                }
                let out = Pairs { words: out.words.wrapping_add(first / 2 * PANEL), ..out };
                match room.together {
                    4 => pack_pairs::<4>(room, blocks, both, out),
                    2 => pack_pairs::<2>(room, blocks, both, out),
                    _ => pack_pairs::<1>(room, blocks, both, out),
                }
            }
        }
    }
}

with_instructions! {
    /// # Safety
    /// As [`to_pairs`].
    unsafe fn pack_pairs<const TOGETHER: usize>(room: &Room, blocks: usize, both: bool, out: Pairs) {
        for block in 0..blocks {
            let places = &room.places[block * LANES..][..LANES];
            for i in 0..IN {
                // SAFETY: the caller vouches for all.
                unsafe {
                    let strip = room.strips[i * room.strip..].as_ptr();
                    let a = horizontal::<TOGETHER>(Side::Input, strip, places);
                    let mut b = [_mm512_setzero_ps(); IN];
                    if both {
                        let strip = room.strips[(IN + i) * room.strip..].as_ptr();
                        b = horizontal::<TOGETHER>(Side::Input, strip, places);
                    }
                    let words = out.words.wrapping_add(i * IN * out.distance + block * LANES);
                    for j in 0..IN {
                        _mm512_storeu_si512(words.wrapping_add(j * out.distance).cast(), pairs(a[j], b[j]));
                    }
                }
            }
        }
    }
}

/// Words of a panel's tiles of one channel and position, two tiles each.
pub(super) const WORDS: usize = PANEL / 2;

with_instructions! {
    /// Writes the tiles of a panel of one channel, neighbours in pairs: `[36 WORDS]`, position p beginning `p * distance` words on. Tiles
    /// that do not exist are zero.
    ///
    /// # Safety
    /// As [`vertical`], and there must be room for the words.
    pub(super) unsafe fn to_words(
        source: &PlaneReader, side: Side, tiling: &Tiling, (channel, rows): Planes, room: &mut Room, out: Pairs,
    ) {
        let count = rows.len() * tiling.tiles[1];
        // SAFETY: the caller vouches for all.
        unsafe {
            vertical(source, side, tiling, (channel, rows), room, 0);
            match room.together {
                4 => pack_words::<4>(room, side, count, out),
                2 => pack_words::<2>(room, side, count, out),
                _ => pack_words::<1>(room, side, count, out),
            }
        }
    }
}

/// The lanes of a block of which tiles exist.
fn lanes(block: usize, count: usize) -> __mmask16 {
    let mut mask = 0;
    for lane in 0..LANES {
        if block * LANES + 4 * (lane % 4) + lane / 4 < count {
            mask |= 1 << lane;
        }
    }
    mask
}

with_instructions! {
    /// # Safety
    /// As [`to_words`].
    unsafe fn pack_words<const TOGETHER: usize>(room: &Room, side: Side, count: usize, out: Pairs) {
        for half in 0..BLOCKS / 2 {
            let block = 2 * half;
            let masks = [lanes(block, count), lanes(block + 1, count)];
            for i in 0..IN {
                // SAFETY: the caller vouches for all.
                unsafe {
                    let strip = room.strips[i * room.strip..].as_ptr();
                    let words = out.words.wrapping_add(i * IN * out.distance + half * LANES);
                    let (mut a, mut b) = ([_mm512_setzero_ps(); IN], [_mm512_setzero_ps(); IN]);
                    if masks[0] != 0 {
                        a = horizontal::<TOGETHER>(side, strip, &room.places[block * LANES..][..LANES]);
                    }
                    if masks[1] != 0 {
                        b = horizontal::<TOGETHER>(side, strip, &room.places[(block + 1) * LANES..][..LANES]);
                    }
                    for j in 0..IN {
                        let (a, b) = (_mm512_maskz_mov_ps(masks[0], a[j]), _mm512_maskz_mov_ps(masks[1], b[j]));
                        _mm512_storeu_si512(words.wrapping_add(j * out.distance).cast(), in_line(a, b));
                    }
                }
            }
        }
    }
}

/// Where outputs go.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    /// `[b o h w]`.
    pub(super) values: *mut f32,
    pub(super) channels: usize,
    /// Added to each channel of each sample, `[b o]`.
    pub(super) shift: Option<&'a [f32]>,
    /// Added to every value, `[b o h w]`.
    pub(super) residual: Option<&'a [f32]>,
}

// SAFETY: tasks write to planes of their own.
unsafe impl Sync for Output<'_> {}

/// Products at all positions: rows of [`PANEL`] tiles of one output channel.
#[derive(Clone, Copy)]
pub(super) struct Products {
    pub(super) values: *const f32,
    /// From one position to the next.
    pub(super) distance: usize,
}

with_instructions! {
    /// Transforms the products of one output channel back, and writes them.
    ///
    /// # Safety
    /// As [`vertical`]; nobody else may use the rows of the output's plane.
    pub(super) unsafe fn from_products(
        products: Products, tiling: &Tiling, channel: usize, rows: Range<usize>, room: &mut Room, out: &Output,
    ) {
        let blocks = tiling.columns(&rows) / LANES;
        // SAFETY: the caller vouches for all.
        unsafe {
            match room.together {
                4 => unpack::<4>(products, tiling, blocks, room),
                2 => unpack::<2>(products, tiling, blocks, room),
                _ => unpack::<1>(products, tiling, blocks, room),
            }
        }
        let (pitch, [oh, ow]) = (OUT * tiling.tiles[1], tiling.out);
        for [sample, row, count, begin] in tiling.parts(rows) {
            let plane = sample * out.channels + channel;
            let height = (OUT * count).min(oh - OUT * row);
            let at = plane * oh * ow + OUT * row * ow;
            let from = room.strips[OUT * begin * pitch..].as_ptr();
            let shift = out.shift.and_then(|shift| shift.get(plane)).copied().unwrap_or(0.0);
            let residual = out.residual.map(|residual| residual[at..][..height * ow].as_ptr());
            // Without a gap between rows they are one.
            let (lines, width) = if pitch == ow { (1, height * ow) } else { (height, ow) };
            for y in 0..lines {
                // SAFETY: the rows lie within the plane, which is this task's.
                unsafe {
                    let (from, to) = (from.wrapping_add(y * pitch), out.values.wrapping_add(at + y * ow));
                    for j in (0..width).step_by(LANES) {
                        let mask = first(width - j);
                        let mut value = _mm512_add_ps(
                            _mm512_maskz_loadu_ps(mask, from.wrapping_add(j)), _mm512_set1_ps(shift),
                        );
                        if let Some(residual) = residual {
                            let residual = residual.wrapping_add(y * ow + j);
                            _mm_prefetch::<_MM_HINT_T0>(residual.wrapping_add(oh * ow).cast());
                            value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, residual));
                        }
                        // The next plane, which processors do not look for beyond a page of memory.
                        _mm_prefetch::<_MM_HINT_ET0>(to.wrapping_add(j + oh * ow).cast());
                        _mm512_mask_storeu_ps(to.wrapping_add(j), mask, value);
                    }
                }
            }
        }
    }
}

with_instructions! {
    /// Writes the outputs of a panel in rows of `OUT * across` pixels.
    ///
    /// # Safety
    /// As [`from_products`].
    unsafe fn unpack<const TOGETHER: usize>(products: Products, tiling: &Tiling, blocks: usize, room: &mut Room) {
        let pitch = OUT * tiling.tiles[1];
        let existing = tiling.rows() * tiling.tiles[1];
        for block in 0..blocks {
            // SAFETY: the caller vouches for all.
            unsafe {
                let from = products.values.wrapping_add(block * LANES);
                let mut columns = [[_mm512_setzero_ps(); OUT]; IN];
                for (j, column) in columns.iter_mut().enumerate() {
                    let from = from.wrapping_add(j * products.distance);
                    let step = IN * products.distance;
                    *column = gather([
                        _mm512_loadu_ps(from),
                        _mm512_loadu_ps(from.wrapping_add(step)),
                        _mm512_loadu_ps(from.wrapping_add(2 * step)),
                        _mm512_loadu_ps(from.wrapping_add(3 * step)),
                        _mm512_loadu_ps(from.wrapping_add(4 * step)),
                        _mm512_loadu_ps(from.wrapping_add(5 * step)),
                    ]);
                }
                let places = &room.out_places[block * LANES..][..LANES];
                let tiles = existing.saturating_sub(block * LANES);
                let [a, b, c, d, e, f] = columns;
                let rows = a.into_iter().zip(b).zip(c).zip(d).zip(e).zip(f);
                for (p, (((((a, b), c), d), e), f)) in rows.enumerate() {
                    let quads = transpose4(gather([a, b, c, d, e, f]));
                    let to = room.strips[p * pitch..].as_mut_ptr();
                    for (g, quad) in quads.into_iter().enumerate() {
                        put::<TOGETHER>(quad, to, &places[4 * g..4 * g + 4], tiles.saturating_sub(4 * g));
                    }
                }
            }
        }
    }
}

/// Writes four values of each of four tiles, of which `tiles` exist.
///
/// # Safety
/// As [`vertical`].
#[inline(always)]
unsafe fn put<const TOGETHER: usize>(quad: __m512, to: *mut f32, places: &[usize], tiles: usize) {
    // SAFETY: the caller vouches for the places.
    unsafe {
        match TOGETHER {
            4 => {
                if tiles > 0 {
                    _mm512_storeu_ps(to.wrapping_add(places[0]), quad);
                }
            }
            2 => {
                if tiles > 0 {
                    _mm256_storeu_ps(to.wrapping_add(places[0]), _mm512_castps512_ps256(quad));
                }
                if tiles > 2 {
                    _mm256_storeu_ps(to.wrapping_add(places[2]), _mm512_extractf32x8_ps::<1>(quad));
                }
            }
            _ => {
                let quarters = [
                    _mm512_castps512_ps128(quad),
                    _mm512_extractf32x4_ps::<1>(quad),
                    _mm512_extractf32x4_ps::<2>(quad),
                    _mm512_extractf32x4_ps::<3>(quad),
                ];
                for (place, quarter) in places.iter().zip(quarters).take(tiles) {
                    _mm_storeu_ps(to.wrapping_add(*place), quarter);
                }
            }
        }
    }
}
