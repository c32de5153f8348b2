//! The negative log-likelihood of a mixture at every pixel, and its gradient, each in one pass over the means.

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::simd::channels;
use crate::kernel::simd::lanes::{Block, BlockReader, BlockWriter, PerSample, Summing, Sums, per_sample_sums};
use crate::kernel::simd::memory::UninitVec;
use crate::kernel::simd::pair::Pair;
use crate::kernel::simd::row::{LANES, Row, VECTOR};
use crate::kernel::simd::threads::Threads;
use crate::kernel::simd::vector::widest;
use pulp::{Simd, WithSimd};
use std::f32::consts::LOG2_E;

/// Smaller responsibilities count as 0. Their products with the gradient of a mean over a batch are too small for normal numbers, and
/// processors take many times as long for those.
const NEGLIGIBLE: f32 = 1e-30;

/// The values of a mixture and a target: `[b k c n]`, `[b k n]`, `[b]`, `[b c n]`.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub means: &'a [f32],
    pub log_weights: &'a [f32],
    pub log_std: &'a [f32],
    pub target: &'a [f32],
}

/// Gradients in the order and shapes of [`Inputs`].
pub(crate) struct Grads {
    pub means: Vec<f32>,
    pub log_weights: Vec<f32>,
    pub log_std: Vec<f32>,
    pub target: Vec<f32>,
}

/// Room for a block: what is gathered of inputs and outputs, and the joint probabilities.
struct Scratch {
    means: Vec<Row>,
    log_weights: Vec<Row>,
    target: Vec<Row>,
    /// Of the result and of its gradient.
    result: [Vec<Row>; 2],
    /// Of the gradients of means, log weights and target.
    grads: [Vec<Row>; 3],
    /// Two vectors for each component.
    joint: Vec<Row>,
}

impl Scratch {
    fn new(Sizes { k, c, n }: Sizes, backward: bool) -> Self {
        let direct = Block::all_direct(n);
        let rows = |n: usize, needed: bool| vec![[0.0; LANES]; if needed { n } else { 0 }];
        Self {
            means: rows(k * c, !direct),
            log_weights: rows(k, !direct),
            target: rows(c, !direct),
            result: [rows(1, !direct), rows(1, !direct)],
            grads: [k * c, k, c].map(|n| rows(n, backward && !direct)),
            joint: rows((2 * k).div_ceil(LANES / VECTOR), true),
        }
    }
}

/// The inputs of a block.
struct BlockInputs<'a> {
    means: BlockReader<'a>,
    log_weights: BlockReader<'a>,
    target: BlockReader<'a>,
    /// -1/(2 s^2), 1/s^2 and c log s.
    of_std: [PerSample; 3],
}

impl<'a> BlockInputs<'a> {
    #[inline(always)]
    fn new(inputs: Inputs<'a>, Sizes { k, c, n }: Sizes, block: &Block, rows: [&'a mut [Row]; 3]) -> Self {
        let [means, log_weights, target] = rows;
        let precision = |sample: usize| (-2.0 * inputs.log_std[sample]).exp();
        // SAFETY: rows of components and channels, and vectors of the block are read.
        unsafe {
            Self {
                means: BlockReader::new(block, inputs.means, k * c, n, means),
                log_weights: BlockReader::new(block, inputs.log_weights, k, n, log_weights),
                target: BlockReader::new(block, inputs.target, c, n, target),
                of_std: [
                    PerSample::new(block, |sample| -0.5 * precision(sample)),
                    PerSample::new(block, precision),
                    PerSample::new(block, |sample| c as f32 * inputs.log_std[sample]),
                ],
            }
        }
    }
}

/// How far the mean of a component is from the target.
#[inline(always)]
fn apart<S: Simd>(inputs: &BlockInputs, simd: S, (row, channel): (usize, usize), v: [usize; 2]) -> Pair<S> {
    Pair::of(&inputs.means, simd, row, v) - Pair::of(&inputs.target, simd, channel, v)
}

/// log A_k N(target; mean_k, s^2), without the constant, from the squared distance.
#[inline(always)]
fn log_joint<S: Simd>(log_weight: Pair<S>, square: Pair<S>, [factor, offset]: [Pair<S>; 2]) -> Pair<S> {
    square.mul_add(factor, log_weight - offset)
}

/// e^x for x of at most about 0.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: Pair<S>) -> Pair<S> {
    (x * Pair::splat(simd, LOG2_E)).exp2_or_less()
}

/// A block of [`nll`].
struct Forward<'a> {
    inputs: Inputs<'a>,
    sizes: Sizes,
    block: Block,
    scratch: &'a mut Scratch,
    out: &'a BlockWriter<'a>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { inputs, sizes, block, scratch, out } = self;
        let Sizes { k, c, .. } = sizes;
        let Scratch { means, log_weights, target, result: [result, _], joint, .. } = scratch;
        let inputs = BlockInputs::new(inputs, sizes, &block, [means, log_weights, target]);
        // SAFETY: every block comes up once, and its vectors are set in one row.
        let mut out = unsafe { out.target(&block, 1, result) };
        let (joint, _) = S::as_mut_simd_f32s(joint.as_flattened_mut()).0.as_chunks_mut::<2>();
        let joint = &mut joint[..k];
        for v in block.pairs(simd) {
            let [factor, _, offset] = inputs.of_std.each_ref().map(|number| Pair::per_sample(number, simd, v));
            let mut top = Pair::splat(simd, f32::NEG_INFINITY);
            for (k, joint) in joint.iter_mut().enumerate() {
                let mut square = Pair::splat(simd, 0.0);
                for channel in 0..c {
                    let apart = apart(&inputs, simd, (k * c + channel, channel), v);
                    square = apart.mul_add(apart, square);
                }
                let value = log_joint(Pair::of(&inputs.log_weights, simd, k, v), square, [factor, offset]);
                value.keep(joint);
                top = top.max(value);
            }
            let mut total = Pair::splat(simd, 0.0);
            for joint in &*joint {
                total = total + exp(simd, Pair::new(simd, joint) - top);
            }
            (Pair::splat(simd, 0.0) - (top + total.ln())).set(&mut out, 0, v);
        }
        out.finish();
    }
}

/// Where the gradients of [`Inputs`] go, but for that of `log_std`.
struct Outputs<'a> {
    means: BlockWriter<'a>,
    log_weights: BlockWriter<'a>,
    target: BlockWriter<'a>,
}

/// A block of [`nll_grad`].
struct Backward<'a> {
    inputs: Inputs<'a>,
    /// The result and its gradient.
    result: [&'a [f32]; 2],
    sizes: Sizes,
    block: Block,
    scratch: &'a mut Scratch,
    out: &'a Outputs<'a>,
}

impl WithSimd for Backward<'_> {
    type Output = Sums<1>;

    /// The gradients of a block, and the sums of that of the standard deviation.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums<1> {
        let c = self.sizes.c;
        match channels::COMPILED.contains(&c) {
            true => self.compiled(simd),
            false => self.run::<S, 0>(simd, c),
        }
    }
}

impl Backward<'_> {
    #[inline(always)]
    fn compiled<S: Simd>(self, simd: S) -> Sums<1> {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd, C))
    }

    /// With the responsibilities r_k = exp(log joint_k + nll) the gradients are -r_k, r_k (mean_k - x)/s^2 and
    /// c - sum_k r_k |mean_k - x|^2/s^2. C is the number of channels, or 0 where it is not compiled for that.
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S, c: usize) -> Sums<1> {
        let Self { inputs, result, sizes, block, scratch, out } = self;
        let Sizes { k, n, .. } = sizes;
        let Scratch { means, log_weights, target, result: [result_rows, grad_rows], grads, joint } = scratch;
        let (joint, _) = S::as_mut_simd_f32s(joint.as_flattened_mut()).0.as_chunks_mut::<2>();
        let joint = &mut joint[..k];
        let inputs = BlockInputs::new(inputs, sizes, &block, [means, log_weights, target]);
        // SAFETY: one row, and vectors of the block are read.
        let [result, grad] = unsafe {
            [
                BlockReader::new(&block, result[0], 1, n, result_rows),
                BlockReader::new(&block, result[1], 1, n, grad_rows),
            ]
        };
        let [of_means, of_weights, of_target] = grads;
        // SAFETY: every block comes up once, and its vectors are set in all rows.
        let [mut of_means, mut of_weights, mut of_target] = unsafe {
            [
                out.means.target(&block, k * c, of_means),
                out.log_weights.target(&block, k, of_weights),
                out.target.target(&block, c, of_target),
            ]
        };
        let number = |x: f32| Pair::splat(simd, x);
        let mut sums = Summing::new(simd, &block);
        for v in block.pairs(simd) {
            let [factor, precision, offset] =
                inputs.of_std.each_ref().map(|number| Pair::per_sample(number, simd, v));
            let (result, grad) = (Pair::of(&result, simd, 0, v), Pair::of(&grad, simd, 0, v));
            let mut total = [number(0.0); C];
            let mut of_std = grad * number(c as f32);
            for (k, kept) in joint.iter_mut().enumerate() {
                let (mut square, mut distances) = (number(0.0), [number(0.0); C]);
                for (channel, distance) in distances.iter_mut().enumerate() {
                    *distance = apart(&inputs, simd, (k * c + channel, channel), v);
                    square = distance.mul_add(*distance, square);
                }
                for channel in C..c {
                    let distance = apart(&inputs, simd, (k * c + channel, channel), v);
                    square = distance.mul_add(distance, square);
                }
                let joint = log_joint(Pair::of(&inputs.log_weights, simd, k, v), square, [factor, offset]);
                let share = exp(simd, joint + result);
                let share = number(0.0).only(share.less(number(NEGLIGIBLE)), share * grad);
                (number(0.0) - share).set(&mut of_weights, k, v);
                let pull = share * precision;
                of_std = of_std - pull * square;
                for (channel, distance) in distances.into_iter().enumerate() {
                    let pull = distance * pull;
                    pull.set(&mut of_means, k * C + channel, v);
                    total[channel] = total[channel] - pull;
                }
                if C == 0 {
                    pull.keep(kept);
                }
            }
            for (channel, total) in total.into_iter().enumerate() {
                total.set(&mut of_target, channel, v);
            }
            for channel in C..c {
                let mut total = number(0.0);
                for (k, pull) in joint.iter().enumerate() {
                    let at = (k * c + channel, channel);
                    let pull = apart(&inputs, simd, at, v) * Pair::new(simd, pull);
                    pull.set(&mut of_means, at.0, v);
                    total = total - pull;
                }
                total.set(&mut of_target, channel, v);
            }
            let [first, second] = of_std.both();
            sums.add(v[0], [first]);
            if v[1] > v[0] {
                sums.add(v[1], [second]);
            }
        }
        of_means.finish();
        of_weights.finish();
        of_target.finish();
        sums.finish(&block)
    }
}

/// Refuses inputs that are not of the sizes.
fn check(inputs: &Inputs, Sizes { k, c, n }: Sizes) {
    let b = inputs.log_std.len();
    let lengths = [inputs.means.len(), inputs.log_weights.len(), inputs.target.len()];
    assert_eq!(lengths, [b * k * c * n, b * k * n, b * c * n], "nll: sizes of means, log weights and target");
}

/// The negative log-likelihood `[b n]`.
pub(crate) fn nll(inputs: Inputs, sizes: Sizes) -> Vec<f32> {
    check(&inputs, sizes);
    let (b, n) = (inputs.log_std.len(), sizes.n);
    if inputs.means.is_empty() {
        return vec![f32::INFINITY; b * n];
    }
    let mut out = UninitVec::new(b * n);
    let writer = BlockWriter::new(out.room(), n);
    Threads::All.map(
        Block::all(b, n),
        inputs.means.len(),
        || Scratch::new(sizes, false),
        |scratch, block| widest(Forward { inputs, sizes, block, scratch, out: &writer }),
    );
    // SAFETY: the blocks are all pixels, and every block was written.
    unsafe { out.assume_init() }
}

/// The gradient of [`nll`], whose result is `nll`, given the gradient `grad` of it.
pub(crate) fn nll_grad(inputs: Inputs, nll: &[f32], grad: &[f32], sizes: Sizes) -> Grads {
    check(&inputs, sizes);
    let (b, n) = (inputs.log_std.len(), sizes.n);
    assert_eq!([nll.len(), grad.len()], [b * n; 2], "nll: sizes of the result and its gradient");
    let lengths = [inputs.means.len(), inputs.log_weights.len(), inputs.target.len()];
    if inputs.means.is_empty() {
        let [means, log_weights, target] = lengths.map(|n| vec![0.0; n]);
        return Grads { means, log_weights, log_std: vec![0.0; b], target };
    }
    let [mut means, mut log_weights, mut target] = lengths.map(UninitVec::new);
    let blocks = Block::all(b, n);
    let out = Outputs {
        means: BlockWriter::new(means.room(), n),
        log_weights: BlockWriter::new(log_weights.room(), n),
        target: BlockWriter::new(target.room(), n),
    };
    let result = [nll, grad];
    let sums = Threads::All.map(
        blocks.clone(),
        inputs.means.len(),
        || Scratch::new(sizes, true),
        |scratch, block| widest(Backward { inputs, result, sizes, block, scratch, out: &out }),
    );
    let log_std = per_sample_sums(b, &blocks, &sums).into_iter().map(|[sum]| sum as f32).collect();
    // SAFETY: the blocks are all pixels, and all rows of every block were written.
    let [means, log_weights, target] =
        unsafe { [means.assume_init(), log_weights.assume_init(), target.assume_init()] };
    Grads { means, log_weights, log_std, target }
}
