//! Pixels as vector lanes: blocks of an image, or all pixels of several small maps, and their parts of inputs and outputs.

/// Pixels that are worked on at a time; the lanes of every vector divide it.
pub(super) const LANES: usize = 64;
/// Maps with fewer pixels share lanes.
const FEW: usize = 16;

/// One number for every lane.
pub(super) type Row = [f32; LANES];

/// The lanes of one block: `len` pixels from `start` on of one sample, or all pixels of `samples` samples.
#[derive(Clone, Copy)]
pub(super) struct Block {
    first: usize,
    samples: usize,
    start: usize,
    len: usize,
}

impl Block {
    /// The blocks of `b` maps of `n` pixels.
    pub fn all(b: usize, n: usize) -> Vec<Self> {
        if n < FEW {
            let per_block = LANES / n.max(1);
            let block = |first| {
                let samples = per_block.min(b - first);
                Self { first, samples, start: 0, len: samples * n }
            };
            return (0..b).step_by(per_block).map(block).collect();
        }
        let of_sample = |first| {
            (0..n).step_by(LANES).map(move |start| Self { first, samples: 1, start, len: LANES.min(n - start) })
        };
        (0..b).flat_map(of_sample).collect()
    }

    /// The same pixels of the samples that stand `by` further on.
    pub fn after(self, by: usize) -> Self {
        Self { first: self.first + by, ..self }
    }

    /// The first sample.
    pub fn first(&self) -> usize {
        self.first
    }

    /// The sample and the pixel of a lane; none beyond the block.
    pub fn pixel(&self, lane: usize) -> Option<(usize, usize)> {
        (lane < self.len).then(|| (self.first + lane / self.width(), self.start + lane % self.width()))
    }

    /// Lanes of one sample.
    fn width(&self) -> usize {
        self.len / self.samples
    }

    /// `rows` rows of lanes from `[b rows n]`; lanes beyond the block are 0.
    #[inline(always)]
    pub fn load(&self, values: &[f32], rows: usize, n: usize, into: &mut [Row]) {
        let width = self.width();
        if width == LANES {
            for (row, into) in into[..rows].iter_mut().enumerate() {
                into.copy_from_slice(&values[(self.first * rows + row) * n + self.start..][..LANES]);
            }
            return;
        }
        for (row, into) in into[..rows].iter_mut().enumerate() {
            *into = [0.0; LANES];
            for sample in 0..self.samples {
                let from = &values[((self.first + sample) * rows + row) * n + self.start..][..width];
                into[sample * width..][..width].copy_from_slice(from);
            }
        }
    }

    /// One number per sample for all its lanes; 1 beyond the block.
    #[inline(always)]
    pub fn per_sample(&self, value: impl Fn(usize) -> f32) -> Row {
        let mut row = [1.0; LANES];
        for sample in 0..self.samples {
            row[sample * self.width()..][..self.width()].fill(value(self.first + sample));
        }
        row
    }

    /// Rows of lanes to this block's part of an output.
    pub fn store(&self, rows: &[Row], out: &mut Part) {
        let width = self.width();
        for (i, piece) in out.0.iter_mut().enumerate() {
            let (sample, row) = (i / rows.len(), i % rows.len());
            piece.copy_from_slice(&rows[row][sample * width..][..width]);
        }
    }

    /// Adds up the lanes of every sample.
    pub fn sums<const N: usize>(&self, lanes: &[Row; N]) -> Vec<[f64; N]> {
        let of_sample = |sample: usize| {
            lanes
                .each_ref()
                .map(|row| row[sample * self.width()..][..self.width()].iter().map(|&x| f64::from(x)).sum())
        };
        (0..self.samples).map(of_sample).collect()
    }
}

/// A block's pieces of an output `[b rows n]`: the rows of one sample after those of the other.
pub(super) struct Part<'a>(Vec<&'a mut [f32]>);

/// Divides an output `[b rows n]` among the blocks.
pub(super) fn parts<'a>(out: &'a mut [f32], rows: usize, n: usize, blocks: &[Block]) -> Vec<Part<'a>> {
    let mut parts: Vec<Part> = blocks.iter().map(|block| Part(Vec::with_capacity(rows * block.samples))).collect();
    if n < FEW {
        let mut pieces = out.chunks_exact_mut(n.max(1));
        for (part, block) in parts.iter_mut().zip(blocks) {
            part.0.extend(pieces.by_ref().take(rows * block.samples));
        }
        return parts;
    }
    let per_sample = n.div_ceil(LANES);
    for (i, row) in out.chunks_exact_mut(n).enumerate() {
        let first = i / rows * per_sample;
        for (part, piece) in parts[first..][..per_sample].iter_mut().zip(row.chunks_mut(LANES)) {
            part.0.push(piece);
        }
    }
    parts
}

/// Adds the sums of blocks to those of their samples, in order.
pub(super) fn per_sample_sums<const N: usize>(b: usize, blocks: &[Block], sums: &[Vec<[f64; N]>]) -> Vec<[f64; N]> {
    let mut totals = vec![[0.0; N]; b];
    for (block, sums) in blocks.iter().zip(sums) {
        for (total, sum) in totals[block.first..].iter_mut().zip(sums) {
            for (total, sum) in total.iter_mut().zip(sum) {
                *total += sum;
            }
        }
    }
    totals
}
