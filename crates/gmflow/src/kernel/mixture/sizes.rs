//! Mixtures of a batch of images as plain numbers.

use crate::kernel::simd::lanes::Block;
use crate::kernel::simd::row::{LANES, Row};
use std::ops::Range;

/// Components, channels and pixels of one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub k: usize,
    pub c: usize,
    pub n: usize,
}

/// Mixtures `[b k c n]`, `[b k n]`, `[b]`; reweighted ones may have a standard deviation for each pixel, `[b n]`.
#[derive(Clone, Copy)]
pub(crate) struct Mixture<'a> {
    pub means: &'a [f32],
    pub log_weights: &'a [f32],
    pub log_std: &'a [f32],
}

impl<'a> Mixture<'a> {
    /// Those of some samples.
    pub fn of_samples(self, sizes: Sizes, samples: Range<usize>) -> Self {
        let Sizes { k, c, n } = sizes;
        let stds = if self.log_std.len() == self.samples(sizes) { 1 } else { n };
        Self {
            means: per_sample(self.means, k * c * n, &samples),
            log_weights: per_sample(self.log_weights, k * n, &samples),
            log_std: per_sample(self.log_std, stds, &samples),
        }
    }

    /// How many there are.
    pub fn samples(&self, Sizes { k, n, .. }: Sizes) -> usize {
        self.log_weights.len() / (k * n).max(1)
    }

    /// The log standard deviation of a pixel.
    pub fn log_std_at(&self, sizes: Sizes, (sample, pixel): (usize, usize)) -> f32 {
        let per_sample = self.log_std.len() == self.samples(sizes);
        self.log_std[if per_sample { sample } else { sample * sizes.n + pixel }]
    }

    /// exp(`times` log_std) in the lanes of a block.
    pub fn stds(&self, sizes: Sizes, block: &Block, times: f32) -> Row {
        if self.log_std.len() == self.samples(sizes) {
            return block.per_sample(|sample| (times * self.log_std[sample]).exp());
        }
        let mut row = [1.0; LANES];
        for (lane, std) in row.iter_mut().enumerate() {
            if let Some(pixel) = block.pixel(lane) {
                *std = (times * self.log_std_at(sizes, pixel)).exp();
            }
        }
        row
    }
}

/// Of `[b n]` what belongs to some samples.
pub(crate) fn per_sample<'a>(values: &'a [f32], n: usize, samples: &Range<usize>) -> &'a [f32] {
    &values[samples.start * n..samples.end * n]
}
