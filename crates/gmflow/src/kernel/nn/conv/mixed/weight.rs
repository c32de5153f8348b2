//! The gradient of a weight by F(4x4, 3x3) with tiles rounded to bf16: at each of the 36 positions the product of the gradient's tiles with those
//! of the input, over all tiles of the batch, in chunks whose sums are added up in order.

use super::conv::{Words, outputs, with_lines};
use super::planes::PlaneReader;
use super::tiles::{Pairs, WORDS, to_words};
use super::tiling::{PANEL, POSITIONS, Room, Side, Tiling};
use super::vectors::{LANES, transpose16, with_instructions};
use crate::kernel::matmul::layout::{Line, ROWS};
use crate::kernel::matmul::matrix::Target;
use crate::kernel::matmul::multiply::multiply;
use crate::kernel::matmul::panel_tiles::{Ahead, Rows, Start, Tile};
use crate::kernel::matmul::rates::bf16_kind;
use crate::kernel::nn::conv::sizes::Sizes;
use crate::kernel::nn::conv::winograd::{apart, contract};
use rayon::prelude::*;
use std::ops::Range;

/// Values of transformed tiles that all threads work on at a time, unless one panel has more.
const CHUNK: usize = 3 * 1024 * 1024;
/// Panels of a chunk at the most.
const MOST: usize = 16;

/// The transformed tiles of a chunk.
struct Chunk<'a> {
    tiling: &'a Tiling,
    panels: &'a [Range<usize>],
    /// Panels that there is room for.
    room: usize,
}

impl Chunk<'_> {
    /// The tiles of the gradient, the left operand: `[36 o room*WORDS]`.
    fn gradient(&self, grad: &PlaneReader, out: &Words, distance: usize) {
        let (channels, count) = (grad.images.channels(), self.panels.len());
        let tiling = Tiling { offset: [0, 0], ..*self.tiling };
        (0..channels * count).into_par_iter().for_each_init(
            || Room::new(&tiling),
            |room, task| {
                let (panel, channel) = (task / channels, task % channels);
                let words = out.at((channel * self.room + panel) * WORDS);
                let (rows, out) = (self.panels[panel].clone(), Pairs { words, distance });
                // SAFETY: the instructions were looked for, and only this task writes these words.
                unsafe { to_words(grad, Side::Gradient, &tiling, (channel, rows), room, out) };
            },
        );
    }

    /// The tiles of the input, the right operand: `[36 panels of channels room*WORDS PANEL]`.
    fn input(&self, source: &PlaneReader, out: &Words, distance: usize) {
        /// Words from one position to the next.
        const DISTANCE: usize = LANES * WORDS + LANES;
        let (channels, count) = (source.images.channels(), self.panels.len());
        let groups = channels.div_ceil(LANES);
        (0..groups * count).into_par_iter().for_each_init(
            || (Room::new(self.tiling), vec![0u32; POSITIONS * DISTANCE]),
            |(room, words), task| {
                let (panel, group) = (task / groups, task % groups);
                let first = group * LANES;
                let some = LANES.min(channels - first);
                if some < LANES {
                    words.fill(0);
                }
                for channel in 0..some {
                    let out = Pairs { words: words[channel * WORDS..].as_mut_ptr(), distance: DISTANCE };
                    let rows = self.panels[panel].clone();
                    // SAFETY: the instructions were looked for, and the words are this task's.
                    unsafe { to_words(source, Side::Input, self.tiling, (first + channel, rows), room, out) };
                }
                let (columns, column) = (first / PANEL, first % PANEL);
                let to = out.at((columns * self.room + panel) * WORDS * PANEL + column);
                // SAFETY: as above; only this task writes these columns of these steps.
                unsafe { turn([words.as_ptr(), to], [DISTANCE, distance]) };
            },
        );
    }
}

with_instructions! {
    /// Writes words `[36 LANES WORDS]` of 16 channels as columns of a panel, `[36 WORDS PANEL]`; `distances` are those of positions.
    ///
    /// # Safety
    /// The processor must have the instructions, and all words must exist.
    unsafe fn turn([from, to]: [*const u32; 2], distances: [usize; 2]) {
        for position in 0..POSITIONS {
            for first in (0..WORDS).step_by(LANES) {
                let from = from.wrapping_add(position * distances[0] + first);
                let to = to.wrapping_add(position * distances[1] + first * PANEL).cast_mut();
                // SAFETY: the caller vouches for all.
                unsafe { transpose16(from, WORDS, to, PANEL) };
            }
        }
    }
}

/// The gradient with respect to the weight `[o c 3 3]` of a convolution of the source.
pub(super) fn grad_weight(grad: &[f32], source: &PlaneReader, sizes: &Sizes) -> Vec<f32> {
    let Sizes { b, c, o, .. } = *sizes;
    let tiling = outputs(sizes);
    let parts = [(grad, o)];
    let grad = PlaneReader::plain(&parts, sizes.out);
    let panels: Vec<_> = tiling.panels(0..b).collect();
    let columns = c.div_ceil(PANEL);
    let room = (CHUNK / (POSITIONS * (o + columns * PANEL) * PANEL)).clamp(1, MOST).min(panels.len().max(1));
    let (left, right) = (apart(o * room * WORDS), apart(columns * room * WORDS * PANEL));
    let distance = apart(o * c);
    let mut sums = vec![0.0; POSITIONS * distance];
    with_lines(POSITIONS * (left + right), |words| {
        let (gradients, inputs) = words.split_at_mut(POSITIONS * left);
        for panels in panels.chunks(room) {
            let chunk = Chunk { tiling: &tiling, panels, room };
            chunk.gradient(&grad, &Words(gradients.as_mut_ptr()), left);
            chunk.input(source, &Words(inputs.as_mut_ptr()), right);
            let (out, gradients, inputs) = (Target(sums.as_mut_ptr()), &*gradients, &*inputs);
            (0..POSITIONS * columns).into_par_iter().for_each(|task| {
                let (position, first) = (task / columns, task % columns * PANEL);
                let pitch = room * WORDS;
                let lines = &inputs[position * right + first * pitch..][..panels.len() * WORDS * PANEL];
                let lines: &[Line] = bytemuck::cast_slice(lines);
                let words = gradients[position * left..].as_ptr();
                let rows = Rows { words, row_stride: pitch, step_stride: 1, tile_stride: ROWS * pitch };
                let tile = Tile {
                    rows,
                    lines,
                    columns: PANEL.min(c - first),
                    start: Start::Result,
                    stride: c,
                    ahead: Ahead::NONE,
                };
                // SAFETY: the rows hold all steps of the lines, and only this task writes these columns of the sums.
                unsafe { multiply(tile, out.at(position * distance + first), o, bf16_kind()) };
            });
        }
    });
    contract(&sums, [o, c])
}
