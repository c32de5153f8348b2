//! Pixels as vector lanes: blocks of an image, or all pixels of several small maps, and their parts of inputs and outputs.

use super::simd::V;
use pulp::Simd;
use std::marker::PhantomData;

/// Pixels that are worked on at a time; the lanes of every vector divide it.
pub(super) const LANES: usize = 64;
/// The lanes of the widest vector, and the numbers of a line of the cache.
pub(super) const VECTOR: usize = 16;
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

    /// Whether rows can be read and written where they are, in whole vectors.
    fn is_direct(&self) -> bool {
        self.samples == 1 && self.len.is_multiple_of(VECTOR)
    }

    /// Vectors that a block is worked on in.
    #[inline(always)]
    pub fn vectors<S: Simd>(&self, _: S) -> usize {
        if self.is_direct() { self.len / S::F32_LANES } else { LANES / S::F32_LANES }
    }

    /// The same two by two; the last of an odd number stands beside itself.
    #[inline(always)]
    pub fn pairs<S: Simd>(&self, simd: S) -> impl Iterator<Item = [usize; 2]> {
        let n = self.vectors(simd);
        (0..n).step_by(2).map(move |v| [v, (v + 1).min(n - 1)])
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

    /// Asks for what the block after this one loads: rows are far apart, and the processor does not guess the next piece of each.
    #[inline(always)]
    pub fn prefetch_next(&self, values: &[f32], rows: usize, n: usize) {
        #[cfg(target_arch = "x86_64")]
        for row in 0..rows {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            let at = (self.first * rows + row) * n + self.start + LANES;
            for line in 0..LANES / VECTOR {
                // SAFETY: a prefetch reads nothing that the program sees, whatever the address.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(values.as_ptr().wrapping_add(at + VECTOR * line).cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (values, rows, n);
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

    /// Adds up the lanes of every sample.
    pub fn sums<const N: usize>(&self, lanes: &[Row; N]) -> Sums<N> {
        if self.samples == 1 {
            // Sixteen sums side by side first: additions that wait for each other take longer than the rest of a block.
            let of_row = |row: &Row| {
                let mut sums = [0.0; VECTOR];
                for lanes in row[..self.len].chunks(VECTOR) {
                    sums.iter_mut().zip(lanes).for_each(|(sum, x)| *sum += x);
                }
                sums.iter().map(|&sum| f64::from(sum)).sum()
            };
            return Sums { first: lanes.each_ref().map(of_row), others: Vec::new() };
        }
        let of_sample = |sample: usize| {
            lanes
                .each_ref()
                .map(|row| row[sample * self.width()..][..self.width()].iter().map(|&x| f64::from(x)).sum())
        };
        Sums { first: of_sample(0), others: (1..self.samples).map(of_sample).collect() }
    }
}

/// The rows of an input in a block: where they are, if whole vectors can be read there, otherwise gathered.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    values: &'a [f32],
    rows: usize,
    stride: usize,
    len: usize,
}

impl<'a> Source<'a> {
    /// Of an input `[b rows n]`; `room` holds `rows` rows.
    #[inline(always)]
    pub fn new(block: &Block, values: &'a [f32], rows: usize, n: usize, room: &'a mut [Row]) -> Self {
        if block.is_direct() {
            let values = &values[block.first * rows * n + block.start..][..(rows - 1) * n + block.len];
            return Self { values, rows, stride: n, len: block.len };
        }
        block.load(values, rows, n, room);
        Self { values: room[..rows].as_flattened(), rows, stride: LANES, len: LANES }
    }

    /// Vector `v` of a row.
    #[inline(always)]
    pub fn at<S: Simd>(&self, simd: S, row: usize, v: usize) -> V<S> {
        let (lane, size) = (v * S::F32_LANES, size_of::<S::f32s>() / size_of::<f32>());
        debug_assert!(row < self.rows && lane + size <= self.len);
        // SAFETY: rows and lanes are within those that `new` has found in the slice: callers go through `rows` rows and the block's
        // vectors. Every bit pattern is a vector.
        V::new(simd, unsafe { self.values.as_ptr().add(row * self.stride + lane).cast::<S::f32s>().read_unaligned() })
    }
}

/// An output `[b rows n]` of which every block writes its own part.
pub(super) struct Sink<'a> {
    values: *mut f32,
    len: usize,
    n: usize,
    lives: PhantomData<&'a mut [f32]>,
}

// SAFETY: blocks do not overlap, and whoever writes one vouches for being the only one that does.
unsafe impl Sync for Sink<'_> {}

impl<'a> Sink<'a> {
    /// Into `values`, `[b rows n]`.
    pub fn new(values: &'a mut [f32], n: usize) -> Self {
        Self { values: values.as_mut_ptr(), len: values.len(), n, lives: PhantomData }
    }

    /// Writes rows of lanes to the part of a block.
    ///
    /// # Safety
    /// Nobody else may write this block at the same time.
    #[inline(always)]
    pub unsafe fn write(&self, block: &Block, rows: &[Row]) {
        let width = block.width();
        for sample in 0..block.samples {
            for (row, lanes) in rows.iter().enumerate() {
                let at = ((block.first + sample) * rows.len() + row) * self.n + block.start;
                assert!(at + width <= self.len, "a block beyond the output");
                let lanes = &lanes[sample * width..][..width];
                // SAFETY: it lies within the output, which lives as long as this, and the caller is the only one who writes there.
                unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), self.values.add(at), width) };
            }
        }
    }
}

/// The sums of the samples of a block: one, or more where maps are small.
pub(super) struct Sums<const N: usize> {
    first: [f64; N],
    others: Vec<[f64; N]>,
}

impl<const N: usize> Sums<N> {
    /// In the order of the samples.
    pub fn iter(&self) -> impl Iterator<Item = &[f64; N]> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// Adds the sums of blocks to those of their samples, in order.
pub(super) fn per_sample_sums<const N: usize>(b: usize, blocks: &[Block], sums: &[Sums<N>]) -> Vec<[f64; N]> {
    let mut totals = vec![[0.0; N]; b];
    for (block, sums) in blocks.iter().zip(sums) {
        for (total, sum) in totals[block.first..].iter_mut().zip(sums.iter()) {
            for (total, sum) in total.iter_mut().zip(sum) {
                *total += sum;
            }
        }
    }
    totals
}
