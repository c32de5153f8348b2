//! The Knothe-Rosenblatt transport between standard normals and mixtures with pixels as lanes, in f32.
//!
//! [`PixelMixture`] says what is computed. Here a quantile is looked for with a polynomial in the place of Phi first, a third of the
//! work; from there one step of the fourth order on the log of the distribution function is enough for most, and bisection safeguards
//! the rest. The point is mirrored so that it always lies in the lower tail, where that function loses nothing. Lanes so far out in a
//! tail that f32 does not reach are left to [`PixelMixture`], in f64.

mod line;
mod pixels;

use crate::kernel::mixture::sizes::{Mixture, Sizes};
use crate::kernel::mixture::transport::reference::PixelMixture;
use crate::kernel::mixture::transport::types::{Direction, Way};
use crate::kernel::simd::lanes::{Block, BlockReader, BlockWriter};
use crate::kernel::simd::memory::{UninitVec, par_map};
use crate::kernel::simd::pair::Pair;
use crate::kernel::simd::row::{LANES, Row, VECTOR};
use crate::kernel::simd::vector::widest;
use nalgebra::DMatrix;
use pixels::Pixels;
use pulp::{Simd, WithSimd};

/// The covariances `[b c c]` of mixtures, averaged over pixels.
pub(crate) fn covariances(mixture: Mixture, sizes: Sizes) -> Vec<f32> {
    let Sizes { c, n, .. } = sizes;
    let b = mixture.samples(sizes);
    let blocks = Block::all(b, n);
    let work = mixture.means.len();
    let sums = par_map(
        blocks.clone(),
        work,
        || Scratch::new(sizes),
        |scratch, block| {
            widest(Covarying { scratch, mixture, sizes, block });
            scratch.basis.iter().map(|row| block.sums(&[*row])).collect::<Vec<_>>()
        },
    );
    let mut totals = vec![0.0; b * c * c];
    for (block, sums) in blocks.iter().zip(sums) {
        for (entry, samples) in sums.iter().enumerate() {
            for (sample, [sum]) in samples.iter().enumerate() {
                totals[(block.first() + sample) * c * c + entry] += sum;
            }
        }
    }
    totals.into_iter().map(|total| (total / n as f64) as f32).collect()
}

/// Maps `values` `[b c n]`, with one basis per sample, `[b c c]` with a basis vector in every column.
pub(crate) fn transport(mixture: Mixture, values: &[f32], bases: &[f32], sizes: Sizes, way: Way) -> Vec<f32> {
    let Sizes { k, c, n } = sizes;
    let b = mixture.samples(sizes);
    assert_eq!(values.len(), b * c * n, "transport: values for {b} mixtures of {c} channels and {n} pixels");
    let blocks = Block::all(b, n);
    let mut mapped = UninitVec::new(values.len());
    let out = BlockWriter::new(mapped.room(), n);
    // A root search costs about ten passes over the components.
    let far = par_map(
        blocks,
        10 * k * values.len(),
        || Scratch::new(sizes),
        |scratch, block| {
            let far = widest(Mapping { scratch, mixture, values, bases, sizes, block, way });
            // SAFETY: every block comes up once.
            unsafe { out.write(&block, &scratch.out) };
            let lanes = far.iter().enumerate().filter(|(_, far)| **far > 0.0);
            lanes.filter_map(|(lane, _)| block.pixel(lane)).collect::<Vec<_>>()
        },
    );
    // SAFETY: the blocks are all samples, and every block was written.
    let mut mapped = unsafe { mapped.assume_init() };
    for (sample, pixel) in far.into_iter().flatten() {
        let at = |row: usize| row * n + pixel;
        let read = |from: &[f32], row: usize| f64::from(from[at(row)]);
        let means: Vec<f64> = (0..k * c).map(|row| read(mixture.means, sample * k * c + row)).collect();
        let log_weights: Vec<f64> = (0..k).map(|row| read(mixture.log_weights, sample * k + row)).collect();
        let value: Vec<f64> = (0..c).map(|row| read(values, sample * c + row)).collect();
        let basis = DMatrix::from_row_iterator(c, c, bases[sample * c * c..][..c * c].iter().map(|&x| f64::from(x)));
        let std = f64::from(mixture.log_std_at(sizes, (sample, pixel))).exp();
        let mixture = PixelMixture { means: &means, log_weights: &log_weights, std };
        let result = match way.direction {
            Direction::FromNormals => mixture.at_normals(&value, &basis, way.axes),
            Direction::ToNormals => mixture.to_normals(&value, &basis, way.axes),
        };
        for (row, x) in result.into_iter().enumerate() {
            mapped[at(sample * c + row)] = x as f32;
        }
    }
    mapped
}

/// Room for a block.
struct Scratch {
    /// For gathering: `[k c]`, `[k]` and `[c]`.
    means: Vec<Row>,
    log_weights: Vec<Row>,
    values: Vec<Row>,
    /// Mixtures of two vectors: see [`Pixels`].
    vector: Vec<Row>,
    /// `[c c]`.
    basis: Vec<Row>,
    /// `[c]`.
    out: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, .. }: Sizes) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        let vector = rows((2 * (k * c + 3 * k + 2 * c)).div_ceil(LANES / VECTOR));
        Self { means: rows(k * c), log_weights: rows(k), values: rows(c), vector, basis: rows(c * c), out: rows(c) }
    }
}

/// A block of [`covariances`].
struct Covarying<'a> {
    scratch: &'a mut Scratch,
    mixture: Mixture<'a>,
    sizes: Sizes,
    block: Block,
}

impl WithSimd for Covarying<'_> {
    type Output = ();

    /// The covariances into the scratch's `basis`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { scratch, mixture, sizes, block } = self;
        let Sizes { k, c, n } = sizes;
        let Scratch { means, log_weights, vector, basis, .. } = scratch;
        // SAFETY: rows of components and channels, and vectors of the block are read.
        let means = unsafe { BlockReader::new(&block, mixture.means, k * c, n, means) };
        // SAFETY: as above.
        let log_weights = unsafe { BlockReader::new(&block, mixture.log_weights, k, n, log_weights) };
        let within = mixture.stds(sizes, &block, 2.0);
        for v in block.pairs(simd) {
            let pixels = Pixels::new(simd, [&means, &log_weights], (k, c), v, vector);
            for i in 0..c {
                for j in 0..=i {
                    let between = pixels.between(i, j);
                    let entry = if i == j { between + Pair::load(simd, &within, v) } else { between };
                    entry.store(&mut basis[i * c + j], v);
                    entry.store(&mut basis[j * c + i], v);
                }
            }
        }
    }
}

/// A block of [`transport`].
struct Mapping<'a> {
    scratch: &'a mut Scratch,
    mixture: Mixture<'a>,
    values: &'a [f32],
    bases: &'a [f32],
    sizes: Sizes,
    block: Block,
    way: Way,
}

impl WithSimd for Mapping<'_> {
    type Output = Row;

    /// The mapped values into the scratch's `out`; returns what is beyond f32.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Row {
        let Self { scratch, mixture, values, bases, sizes, block, way } = self;
        let Sizes { k, c, n } = sizes;
        let Scratch { means, log_weights, values: room, vector, basis, out } = scratch;
        // SAFETY: rows of components and channels, and vectors of the block are read.
        let means = unsafe { BlockReader::new(&block, mixture.means, k * c, n, means) };
        // SAFETY: as above.
        let log_weights = unsafe { BlockReader::new(&block, mixture.log_weights, k, n, log_weights) };
        // SAFETY: as above.
        let values = unsafe { BlockReader::new(&block, values, c, n, room) };
        for (entry, row) in basis.iter_mut().enumerate() {
            *row = block.per_sample(|sample| bases[sample * c * c + entry]);
        }
        let std = mixture.stds(sizes, &block, 1.0);
        let mut far = [0.0; LANES];
        for v in block.pairs(simd) {
            let mut pixels = Pixels::new(simd, [&means, &log_weights], (k, c), v, vector);
            pixels.map((&values, basis), out, v, Pair::load(simd, &std, v), way).store(&mut far, v);
        }
        far
    }
}
