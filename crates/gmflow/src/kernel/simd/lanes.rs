//! Pixels as vector lanes: blocks of an image, or all pixels of several small maps, and their parts of inputs and outputs.

use crate::kernel::simd::gather::{gather, scatter};
use crate::kernel::simd::memory::fill;
use crate::kernel::simd::row::{LANES, Row, VECTOR, tree};
use crate::kernel::simd::vector::V;
use pulp::Simd;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Maps with fewer pixels share lanes.
const FEW: usize = 16;

/// The pixels that are worked on together: `len` pixels of one sample from `start` on, or all pixels of `samples` samples.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// The number of blocks before this one.
    index: usize,
    first: usize,
    samples: usize,
    start: usize,
    len: usize,
}

impl Block {
    /// The blocks of `b` maps of `n` pixels.
    pub fn all(b: usize, n: usize) -> Vec<Self> {
        let blocks = 0..Self::count(b, n);
        if n < FEW {
            let per_block = Self::whole_samples(n);
            let block = |index| {
                let first = index * per_block;
                let samples = per_block.min(b - first);
                Self { index, first, samples, start: 0, len: samples * n }
            };
            return blocks.map(block).collect();
        }
        let per_sample = n.div_ceil(LANES);
        let block = |index| {
            let start = index % per_sample * LANES;
            Self { index, first: index / per_sample, samples: 1, start, len: LANES.min(n - start) }
        };
        blocks.map(block).collect()
    }

    /// How many there are of `b` maps of `n` pixels.
    pub fn count(b: usize, n: usize) -> usize {
        if n < FEW { b.div_ceil(Self::whole_samples(n)) } else { b * n.div_ceil(LANES) }
    }

    /// The least number of samples that share no block with others.
    pub fn whole_samples(n: usize) -> usize {
        if n < FEW { LANES / n.max(1) } else { 1 }
    }

    /// Whether all blocks of maps of `n` pixels can be read and written in place.
    pub fn all_direct(n: usize) -> bool {
        n >= FEW && n.is_multiple_of(VECTOR)
    }

    /// Whether rows can be read and written in place, in whole vectors.
    fn is_direct(&self) -> bool {
        self.samples == 1 && self.len.is_multiple_of(VECTOR)
    }

    /// The number of vectors of a block.
    #[inline(always)]
    pub fn vectors<S: Simd>(&self, _: S) -> usize {
        if self.is_direct() { self.len / S::F32_LANES } else { LANES / S::F32_LANES }
    }

    /// The vectors in pairs; the last one of an odd number is paired with itself.
    #[inline(always)]
    pub fn pairs<S: Simd>(&self, simd: S) -> impl Iterator<Item = [usize; 2]> {
        let n = self.vectors(simd);
        (0..n).step_by(2).map(move |v| [v, (v + 1).min(n - 1)])
    }

    /// The samples of the block.
    pub fn sample_numbers(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.samples
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
        gather(&values[self.first * rows * n..], [self.samples, n], self.pixels(), &mut into[..rows]);
    }

    /// The pixels of each sample.
    fn pixels(&self) -> Range<usize> {
        self.start..self.start + self.width()
    }

    /// One number per sample in all its lanes; 1 beyond the block.
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
                tree(sums)
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

/// Reads the rows of an input in a block: in place, if whole vectors can be read there, otherwise from a gathered copy.
#[derive(Clone, Copy)]
pub(crate) struct BlockReader<'a> {
    values: &'a [f32],
    rows: usize,
    stride: usize,
    len: usize,
}

impl<'a> BlockReader<'a> {
    /// Of an input `[b rows n]`; `room` holds `rows` rows.
    ///
    /// # Safety
    /// The caller reads only rows below `rows` and only vectors of the block ([`Block::vectors`]). [`BlockReader::at`] does not check this,
    /// because passes spend their time in it.
    #[inline(always)]
    pub unsafe fn new(block: &Block, values: &'a [f32], rows: usize, n: usize, room: &'a mut [Row]) -> Self {
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
        // SAFETY: the caller of `new` has promised to read only rows and vectors that `new` has found in the slice. Every bit pattern is a
        // vector.
        V::new(simd, unsafe { self.values.as_ptr().add(row * self.stride + lane).cast::<S::f32s>().read_unaligned() })
    }
}

/// `rows` numbers for every lane of a block, those of a vector side by side: `[vectors rows VECTOR]`. Rows of images whose width is a power
/// of two are a page apart and push each other out of the cache; these are read from front to back.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    values: &'a [f32],
    rows: usize,
}

impl<'a> Packed<'a> {
    /// How many numbers `b` maps of `n` pixels take.
    pub fn len(b: usize, n: usize, rows: usize) -> usize {
        Block::count(b, n) * rows * LANES
    }

    /// Those of a block, out of those of all blocks.
    ///
    /// # Safety
    /// As [`BlockReader::new`].
    pub unsafe fn new(block: &Block, values: &'a [f32], rows: usize) -> Self {
        Self { values: &values[block.index * rows * LANES..][..rows * LANES], rows }
    }

    /// Vector `v` of a row.
    #[inline(always)]
    pub fn at<S: Simd>(&self, simd: S, row: usize, v: usize) -> V<S> {
        let at = packed_at::<S>(self.rows, row, v);
        debug_assert!(row < self.rows && at + S::F32_LANES <= self.values.len());
        // SAFETY: as in `BlockReader::at`.
        V::new(simd, unsafe { self.values.as_ptr().add(at).cast::<S::f32s>().read_unaligned() })
    }
}

/// The same to be written to.
pub(crate) struct PackedMut<'a> {
    values: &'a mut [MaybeUninit<f32>],
    rows: usize,
}

impl<'a> PackedMut<'a> {
    /// Those of a block.
    ///
    /// # Safety
    /// As [`BlockReader::new`], also for what is set; nothing may be read before it was set.
    pub unsafe fn new(values: &'a mut [MaybeUninit<f32>], rows: usize) -> Self {
        assert_eq!(values.len(), rows * LANES, "the numbers of a block");
        Self { values, rows }
    }

    /// Vector `v` of a row.
    #[inline(always)]
    pub fn at<S: Simd>(&self, simd: S, row: usize, v: usize) -> V<S> {
        let at = packed_at::<S>(self.rows, row, v);
        debug_assert!(row < self.rows && at + S::F32_LANES <= self.values.len());
        // SAFETY: as in `BlockReader::at`; the caller of `new` has promised to have set it.
        V::new(simd, unsafe { self.values.as_ptr().add(at).cast::<S::f32s>().read_unaligned() })
    }

    /// Sets vector `v` of a row.
    #[inline(always)]
    pub fn set<S: Simd>(&mut self, row: usize, v: usize, to: V<S>) {
        let at = packed_at::<S>(self.rows, row, v);
        debug_assert!(row < self.rows && at + S::F32_LANES <= self.values.len());
        // SAFETY: as in `Packed::at`.
        unsafe { self.values.as_mut_ptr().add(at).cast::<S::f32s>().write_unaligned(to.bare()) };
    }

    /// Clears the lanes that a block leaves unused.
    pub fn clear_from<S: Simd>(&mut self, vectors: usize) {
        let used = (vectors * S::F32_LANES).div_ceil(VECTOR);
        fill(&mut self.values[used * self.rows * VECTOR..], 0.0);
    }
}

/// Where vector `v` of a row stands.
#[inline(always)]
fn packed_at<S: Simd>(rows: usize, row: usize, v: usize) -> usize {
    let lane = v * S::F32_LANES;
    (lane / VECTOR * rows + row) * VECTOR + lane % VECTOR
}

/// An output `[b rows n]` of which every block writes its own part.
pub(crate) struct BlockWriter<'a> {
    values: *mut f32,
    len: usize,
    n: usize,
    lives: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: blocks do not overlap, and the functions that write one require that no other thread does.
unsafe impl Sync for BlockWriter<'_> {}

impl<'a> BlockWriter<'a> {
    /// Into `values`, `[b rows n]`.
    pub fn new(values: &'a mut [MaybeUninit<f32>], n: usize) -> Self {
        Self { values: values.as_mut_ptr().cast(), len: values.len(), n, lives: PhantomData }
    }

    /// The `rows` rows of a block; `room` holds as many rows for blocks that cannot be written in place.
    ///
    /// # Safety
    /// No other thread writes this block as long as the result lives, and the caller sets only rows below `rows` and vectors of the block.
    #[inline(always)]
    pub unsafe fn target<'b>(&'b self, block: &Block, rows: usize, room: &'b mut [Row]) -> BlockRows<'b> {
        if !block.is_direct() {
            let room = &mut room[..rows];
            let (to, stride) = (room.as_mut_ptr().cast(), LANES);
            return BlockRows { to, stride, rows, len: LANES, gathered: Some((self, *block, room)) };
        }
        let at = block.first * rows * self.n + block.start;
        assert!(rows > 0 && at + (rows - 1) * self.n + block.len <= self.len, "a block beyond the output");
        // SAFETY: it lies within the output, which lives as long as this.
        let to = unsafe { self.values.add(at) };
        BlockRows { to, stride: self.n, rows, len: block.len, gathered: None }
    }

    /// Writes rows of lanes to the part of a block.
    ///
    /// # Safety
    /// No other thread writes this block at the same time.
    #[inline(always)]
    pub unsafe fn write(&self, block: &Block, rows: &[Row]) {
        let (first, pixels) = (block.first * rows.len() * self.n, block.pixels());
        let end = (block.samples * rows.len()).saturating_sub(1) * self.n + pixels.end;
        assert!(rows.is_empty() || first + end <= self.len, "a block beyond the output");
        // SAFETY: it lies within the output, which lives as long as this, and the caller is the only one who writes there.
        unsafe { scatter(rows, [block.samples, self.n], pixels, self.values.wrapping_add(first)) };
    }
}

/// Writes the rows of an output in a block: in place, if whole vectors can be written there, otherwise by way of a gathered copy.
pub(crate) struct BlockRows<'a> {
    to: *mut f32,
    stride: usize,
    rows: usize,
    len: usize,
    gathered: Option<(&'a BlockWriter<'a>, Block, &'a mut [Row])>,
}

impl BlockRows<'_> {
    #[inline(always)]
    fn place<S: Simd>(&self, row: usize, v: usize) -> *mut S::f32s {
        let lane = v * S::F32_LANES;
        debug_assert!(row < self.rows && lane + S::F32_LANES <= self.len);
        // SAFETY: the caller of `BlockWriter::target` has promised to set only rows and vectors that it has found in the output or the room.
        unsafe { self.to.add(row * self.stride + lane).cast() }
    }

    /// Sets vector `v` of a row.
    #[inline(always)]
    pub fn set<S: Simd>(&mut self, row: usize, v: usize, value: V<S>) {
        // SAFETY: see `place`.
        unsafe { self.place::<S>(row, v).write_unaligned(value.bare()) };
    }

    /// Writes what was gathered.
    #[inline(always)]
    pub fn finish(self) {
        if let Some((sink, block, room)) = self.gathered {
            // SAFETY: the caller of `BlockWriter::target` has promised it.
            unsafe { sink.write(&block, room) };
        }
    }
}

/// One number per sample, for the lanes of a block.
pub(crate) enum PerSample {
    /// There is one sample.
    Same(f32),
    /// [`Block::per_sample`].
    Lanes(Box<Row>),
}

impl PerSample {
    #[inline(always)]
    pub fn new(block: &Block, value: impl Fn(usize) -> f32) -> Self {
        match block.samples {
            1 => Self::Same(value(block.first)),
            _ => Self::Lanes(Box::new(block.per_sample(value))),
        }
    }

    /// Vector `v`.
    #[inline(always)]
    pub fn at<S: Simd>(&self, simd: S, v: usize) -> V<S> {
        match self {
            Self::Same(value) => V::splat(simd, *value),
            Self::Lanes(row) => V::load(simd, row, v),
        }
    }
}

/// Sums over the pixels of each sample of a block, of `N` numbers a pixel.
pub(crate) struct Summing<S: Simd, const N: usize> {
    /// Vectors one upon the other, where all their lanes belong to one sample.
    vectors: [V<S>; N],
    /// Otherwise the lanes.
    lanes: Option<Box<[Row; N]>>,
}

impl<S: Simd, const N: usize> Summing<S, N> {
    #[inline(always)]
    pub fn new(simd: S, block: &Block) -> Self {
        let lanes = (!block.is_direct()).then(|| Box::new([[0.0; LANES]; N]));
        Self { vectors: [V::splat(simd, 0.0); N], lanes }
    }

    /// Vector `v`, which comes once.
    #[inline(always)]
    pub fn add(&mut self, v: usize, values: [V<S>; N]) {
        match &mut self.lanes {
            None => self.vectors.iter_mut().zip(values).for_each(|(sum, value)| *sum = *sum + value),
            Some(lanes) => lanes.iter_mut().zip(values).for_each(|(lanes, value)| value.store(lanes, v)),
        }
    }

    #[inline(always)]
    pub fn finish(self, block: &Block) -> Sums<N> {
        match self.lanes {
            None => Sums { first: self.vectors.map(V::sum), others: Vec::new() },
            Some(lanes) => block.sums(&lanes),
        }
    }
}

/// The sums of the samples of a block: one, or more where maps are small.
pub(crate) struct Sums<const N: usize> {
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
pub(crate) fn per_sample_sums<const N: usize>(b: usize, blocks: &[Block], sums: &[Sums<N>]) -> Vec<[f64; N]> {
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
