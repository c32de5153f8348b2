//! The second-order change in one pass.

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::cpu::guided::{GuidedMixtures, Scratch, Tilted};
use crate::kernel::mixture::step::types::SecondOrderRule;
use crate::kernel::simd::channels::{self, each};
use crate::kernel::simd::lanes::{Block, BlockReader, BlockWriter, PerSample, Summing, Sums, per_sample_sums};
use crate::kernel::simd::pair::Pair;
use crate::kernel::simd::threads::Threads;
use crate::kernel::simd::vector::widest;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// The second-order change from `previous_mean` `[b c n]`, where the prediction before would have the mean now, alone or with the shift of `now`,
/// into `out` `[b c n]`, and its mean square into `power` `[b]`. Writes all of both and returns them.
pub(crate) fn second_order<'a>(
    now: GuidedMixtures,
    previous_mean: &[f32],
    sizes: Sizes,
    rule: SecondOrderRule,
    (out, power): (&'a mut [MaybeUninit<f32>], &'a mut [MaybeUninit<f32>]),
    threads: Threads,
) -> (&'a [f32], &'a [f32]) {
    let Sizes { k, c, n } = sizes;
    let b = power.len();
    assert_eq!([out.len(), previous_mean.len()], [b * c * n; 2], "second order: room for {b} samples");
    let blocks = Block::all(b, n);
    let writer = BlockWriter::new(out, n);
    let sums = threads.map(
        blocks.clone(),
        b * k * c * n,
        || Scratch::new(sizes, false),
        |scratch, block| {
            let out = &writer;
            widest(Changing { scratch, out, now, previous_mean, sizes, block, rule })
        },
    );
    for (power, [sum]) in power.iter_mut().zip(per_sample_sums(b, &blocks, &sums)) {
        power.write((sum / (c * n) as f64) as f32);
    }
    // SAFETY: every block has written its part, and there is a sum for each sample.
    unsafe { (out.assume_init_ref(), power.assume_init_ref()) }
}

/// A block of [`second_order`].
struct Changing<'a> {
    scratch: &'a mut Scratch,
    out: &'a BlockWriter<'a>,
    now: GuidedMixtures<'a>,
    previous_mean: &'a [f32],
    sizes: Sizes,
    block: Block,
    rule: SecondOrderRule,
}

impl WithSimd for Changing<'_> {
    type Output = Sums<1>;

    /// The changed shift into `out`; the sum of its squares.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums<1> {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Changing<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) -> Sums<1> {
        let Self { scratch, out: writer, now, previous_mean, sizes, block, rule } = self;
        let Scratch { joint, mean, shift, start, out, .. } = scratch;
        // SAFETY: every block comes up once, and channels and its vectors are set.
        let mut out = unsafe { writer.target(&block, C, out) };
        // SAFETY: channels, and vectors of the block are read.
        let previous_mean = unsafe { BlockReader::new(&block, previous_mean, C, sizes.n, start) };
        let guided = !now.shift.is_empty();
        let factor = PerSample::new(&block, |sample| {
            let noise = rule.noise[0] * now.var[sample] + rule.noise[1] * now.power[sample];
            rule.gain * (1.0 - noise).max(0.0).sqrt()
        });
        let mut mixture = Tilted::<C>::new(&now, &block, sizes, (joint, mean, shift));
        let mut power = Summing::new(simd, &block);
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let (nu, zeta) = (mixture.nu, mixture.zeta);
            // The mean of the guided mixture now.
            let mut first = mixture.mean;
            if guided {
                let offset = mixture.tilted_mean(&nu, zeta);
                first = each!(C, simd, i => first[i] + offset[i]);
            }
            let factor = Pair::per_sample(&factor, simd, v);
            let mut sum = Pair::splat(simd, 0.0);
            for (i, &first) in first.iter().enumerate() {
                let change = first - Pair::of(&previous_mean, simd, i, v);
                let shift = if rule.translate { change * factor } else { change.mul_add(factor, mixture.shift[i]) };
                sum = shift.mul_add(shift, sum);
                shift.set(&mut out, i, v);
            }
            let [first, second] = sum.both();
            power.add(v[0], [first]);
            if v[1] > v[0] {
                power.add(v[1], [second]);
            }
        }
        out.finish();
        power.finish(&block)
    }
}
