//! 3x3 convolutions of stride 1 by F(4x4, 3x3), with transformed tiles and weights rounded to bf16 and sums in f32.
//!
//! A task takes a panel of 64 tiles through all steps: their transform into the panel, the products at the 36 positions for some outputs at a
//! time, and the transform back, so that what lies between stays in its core's own cache.

use super::maps::expand;
use super::planes::PlaneReader;
use super::tiles::{Output, Pairs, Products, from_products, to_pairs};
use super::tiling::{PANEL, POSITIONS, Room, Tiling};
use super::vectors::{LANES, first, with_instructions};
use crate::kernel::matmul::layout::{LINES, Line, ROWS};
use crate::kernel::matmul::multiply::multiply;
use crate::kernel::matmul::panel_tiles::{Ahead, Rows, Start, Tile};
use crate::kernel::matmul::rates::bf16_kind;
use crate::kernel::nn::conv::sizes::Sizes;
use crate::kernel::nn::conv::winograd::apart;
use crate::kernel::simd::memory::{UninitVec, fill, par_items};
use rayon::prelude::*;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

/// Output channels between the transforms: a multiple of the rows of the matrix kernel's tile, so many that their products stay in a core's own
/// cache.
const OUTPUTS: usize = 48;

/// Transformed weights, the left operand: `[36 o steps]` pairs of input channels, with gaps between the positions.
pub(super) struct Weights {
    words: Vec<u32>,
    outputs: usize,
    steps: usize,
    distance: usize,
}

impl Weights {
    /// Of a weight `[o c 3 3]`; `turned` for the way back, in which outputs and inputs change places and filters are turned round.
    pub(super) fn new(weight: &[f32], [o, c]: [usize; 2], turned: bool) -> Self {
        let [outputs, inputs] = if turned { [c, o] } else { [o, c] };
        let steps = inputs.div_ceil(2);
        let distance = apart(outputs * steps);
        let mut words = UninitVec::new(POSITIONS * distance);
        words.room().chunks_exact_mut(distance).for_each(|position| fill(&mut position[outputs * steps..], 0));
        let target = Words(words.room().as_mut_ptr().cast());
        par_items((0..outputs).collect(), weight.len(), |output| {
            let at = |input: usize| if turned { (input * c + output) * 9 } else { (output * c + input) * 9 };
            let out = Pairs { words: target.at(output * steps), distance };
            // SAFETY: the instructions were looked for, and only this task writes the row.
            unsafe { expand_row(weight, inputs, at, turned, out) };
        });
        // SAFETY: the row of each output was written at all positions, and so were the gaps between these.
        Self { words: unsafe { words.assume_init() }, outputs, steps, distance }
    }

    fn rows(&self, position: usize, first: usize) -> Rows {
        let words = self.words[position * self.distance + first * self.steps..].as_ptr();
        Rows { words, row_stride: self.steps, step_stride: 1, tile_stride: ROWS * self.steps }
    }
}

/// Words that tasks write, each its own.
pub(super) struct Words(pub(super) *mut u32);

// SAFETY: tasks write disjoint words.
unsafe impl Sync for Words {}

impl Words {
    pub(super) fn at(&self, offset: usize) -> *mut u32 {
        self.0.wrapping_add(offset)
    }
}

with_instructions! {
    /// G g G^T of the filters of one output, in pairs of inputs.
    ///
    /// # Safety
    /// The processor must have the instructions, and there must be room for the words.
    unsafe fn expand_row(
        weight: &[f32], inputs: usize, at: impl Fn(usize) -> usize, turned: bool, out: Pairs,
    ) {
        for start in (0..inputs).step_by(LANES) {
            let count = LANES.min(inputs - start);
            let mut taps = [[0.0f32; LANES]; 9];
            for lane in 0..count {
                let filter = &weight[at(start + lane)..][..9];
                for (tap, value) in filter.iter().enumerate() {
                    taps[if turned { 8 - tap } else { tap }][lane] = *value;
                }
            }
            // SAFETY: the caller vouches for all.
            unsafe {
                let mut columns = [[_mm512_setzero_ps(); 6]; 3];
                for (i, column) in columns.iter_mut().enumerate() {
                    *column = expand([
                        _mm512_loadu_ps(taps[i].as_ptr()),
                        _mm512_loadu_ps(taps[i + 3].as_ptr()),
                        _mm512_loadu_ps(taps[i + 6].as_ptr()),
                    ]);
                }
                // Words that are there: an odd last channel has zero beside it.
                let mask = first(count.div_ceil(2)) as __mmask8;
                let [a, b, c] = columns;
                for (p, ((a, b), c)) in a.into_iter().zip(b).zip(c).enumerate() {
                    let row = expand([a, b, c]);
                    for (q, values) in row.into_iter().enumerate() {
                        let words = out.words.wrapping_add((p * 6 + q) * out.distance + start / 2);
                        let pairs = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
                        _mm256_mask_storeu_epi32(words.cast(), mask, pairs);
                    }
                }
            }
        }
    }
}

thread_local! {
    static ROOMS: [Cell<Vec<Line>>; 2] = const { [Cell::new(Vec::new()), Cell::new(Vec::new())] };
}

/// Lines that a thread keeps.
const KEPT: usize = 8 * 1024 * 1024 / size_of::<Line>();

/// Calls `f` with room for `words` words, in which anything may stand; a thread gets the same room again, which its core's own cache then still
/// holds.
pub(super) fn with_lines<R>(words: usize, f: impl FnOnce(&mut [u32]) -> R) -> R {
    with_room(0, words, f)
}

/// [`with_lines`] of a room of its own, for gradients of some samples.
fn with_values<R>(values: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    with_room(1, values, |words| f(bytemuck::cast_slice_mut(words)))
}

fn with_room<R>(which: usize, words: usize, f: impl FnOnce(&mut [u32]) -> R) -> R {
    let mut room = ROOMS.with(|rooms| rooms[which].take());
    let lines = words.div_ceil(LANES);
    if room.len() < lines {
        room = vec![Line::default(); lines];
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut room)[..words]);
    if room.len() <= KEPT {
        ROOMS.with(|rooms| rooms[which].set(room));
    }
    result
}

/// The convolution of the source with weights into `out`, for some samples, on this thread.
pub(super) fn filter(
    source: &PlaneReader,
    weights: &Weights,
    tiling: &Tiling,
    samples: Range<usize>,
    room: &mut Room,
    out: &Output,
) {
    let distance = apart(weights.steps * PANEL);
    let outputs = OUTPUTS.min(weights.outputs);
    let products_distance = apart(outputs * PANEL);
    with_lines(POSITIONS * (distance + products_distance), |words| {
        let (panel, products) = words.split_at_mut(POSITIONS * distance);
        for rows in tiling.panels(samples) {
            let pairs = Pairs { words: panel.as_mut_ptr(), distance };
            // SAFETY: the instructions were looked for, and there is room for the panel.
            unsafe { to_pairs(source, tiling, rows.clone(), room, pairs) };
            let columns = tiling.columns(&rows);
            for first in (0..weights.outputs).step_by(outputs) {
                let m = outputs.min(weights.outputs - first);
                for position in 0..POSITIONS {
                    let lines: &[Line] = bytemuck::cast_slice(&panel[position * distance..][..weights.steps * PANEL]);
                    let rows = weights.rows(position, first);
                    let tile = Tile { rows, lines, columns, start: Start::Zero, stride: PANEL, ahead: Ahead::NONE };
                    let to = products[position * products_distance..][..m * PANEL].as_mut_ptr();
                    // SAFETY: the rows hold all steps of the lines, and there is room for the products.
                    unsafe { multiply(tile, to.cast(), m, bf16_kind()) };
                }
                for channel in 0..m {
                    let values = products[channel * PANEL..].as_ptr().cast();
                    let products = Products { values, distance: products_distance };
                    // SAFETY: as above; the samples are this task's.
                    unsafe { from_products(products, tiling, first + channel, rows.clone(), room, out) };
                }
            }
        }
    });
    const { assert!(PANEL == LINES * LANES) };
}

/// Groups of samples that are worked on together.
pub(super) fn groups(b: usize, tiling: &Tiling) -> Vec<Range<usize>> {
    (0..b).step_by(tiling.samples()).map(|first| first..(first + tiling.samples()).min(b)).collect()
}

/// The tiles of a convolution's output.
pub(super) fn outputs(sizes: &Sizes) -> Tiling {
    let [top, _, left, _] = sizes.padding;
    Tiling::new(sizes.out, [top, left])
}

/// The tiles of its input, which the way back gives.
pub(super) fn inputs(sizes: &Sizes) -> Tiling {
    let [top, _, left, _] = sizes.padding;
    Tiling::new([sizes.h, sizes.w], [2 - top, 2 - left])
}

/// The convolution of the source with `weight`, plus `shift` `[b o]` and `residual` `[b o h w]`.
pub(super) fn conv(
    source: &PlaneReader,
    weight: &[f32],
    shift: Option<&[f32]>,
    residual: Option<&[f32]>,
    sizes: &Sizes,
) -> Vec<f32> {
    let weights = Weights::new(weight, [sizes.o, sizes.c], false);
    let tiling = outputs(sizes);
    let mut values = UninitVec::new(sizes.b * sizes.o * sizes.pixels());
    let out = Output { values: values.room().as_mut_ptr().cast(), channels: sizes.o, shift, residual };
    let out = &out;
    groups(sizes.b, &tiling)
        .into_par_iter()
        .for_each_init(|| Room::new(&tiling), |room, samples| filter(source, &weights, &tiling, samples, room, out));
    // SAFETY: the groups are all samples, and every plane of theirs was written.
    unsafe { values.assume_init() }
}

/// The gradient with respect to what the convolution read.
pub(super) fn grad_input(grad: &[f32], weight: &[f32], sizes: &Sizes) -> Vec<f32> {
    let weights = Weights::new(weight, [sizes.o, sizes.c], true);
    let tiling = inputs(sizes);
    let parts = [(grad, sizes.o)];
    let source = PlaneReader::plain(&parts, sizes.out);
    let mut values = UninitVec::new(sizes.b * sizes.c * sizes.h * sizes.w);
    let out = Output { values: values.room().as_mut_ptr().cast(), channels: sizes.c, shift: None, residual: None };
    let out = &out;
    groups(sizes.b, &tiling)
        .into_par_iter()
        .for_each_init(|| Room::new(&tiling), |room, samples| filter(&source, &weights, &tiling, samples, room, out));
    // SAFETY: the groups are all samples, and every plane of theirs was written.
    unsafe { values.assume_init() }
}

/// The same, a few samples at a time: `then` is called with them and their gradients, which it may change.
pub(super) fn each_grad_input(
    grad: &[f32],
    weight: &[f32],
    sizes: &Sizes,
    then: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let weights = Weights::new(weight, [sizes.o, sizes.c], true);
    let tiling = inputs(sizes);
    let parts = [(grad, sizes.o)];
    let source = PlaneReader::plain(&parts, sizes.out);
    let sample = sizes.c * sizes.h * sizes.w;
    groups(sizes.b, &tiling).into_par_iter().for_each_init(
        || Room::new(&tiling),
        |room, samples| {
            with_values(samples.len() * sample, |values| {
                // Where the first sample of the batch would stand.
                let start = values.as_mut_ptr().wrapping_sub(samples.start * sample);
                let out = Output { values: start, channels: sizes.c, shift: None, residual: None };
                filter(&source, &weights, &tiling, samples.clone(), room, &out);
                then(samples, values);
            });
        },
    );
}
