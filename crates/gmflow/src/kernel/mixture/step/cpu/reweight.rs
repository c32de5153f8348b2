//! The reweighted mixtures themselves, for steps that draw from them.

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::cpu::guided::{GuidedMixtures, Scratch, Tilted, natural};
use crate::kernel::simd::channels;
use crate::kernel::simd::lanes::{Block, BlockWriter, PerSample};
use crate::kernel::simd::memory::{UninitVec, par_map};
use crate::kernel::simd::pair::Pair;
use crate::kernel::simd::vector::widest;
use pulp::{Simd, WithSimd};
use std::f32::consts::{LN_2, LOG2_E};

/// The reweighted mixtures over x0: means `[b k c n]`, log weights `[b k n]`, log standard deviations `[b]`, or `[b n]` where pixels were
/// reweighted by their own variance.
pub(crate) fn reweighted(mixtures: GuidedMixtures, sizes: Sizes) -> [Vec<f32>; 3] {
    let Sizes { k, c, n } = sizes;
    let b = mixtures.var.len();
    let blocks = Block::all(b, n);
    let lengths = [b * k * c * n, b * k * n, if mixtures.is_pixelwise() { b * n } else { 0 }];
    let [mut means, mut log_weights, mut log_std] = lengths.map(UninitVec::new);
    let [to_means, to_weights, to_stds] =
        [&mut means, &mut log_weights, &mut log_std].map(|out| BlockWriter::new(out.room(), n));
    par_map(
        blocks,
        b * k * c * n,
        || Scratch::new(sizes, true),
        |scratch, block| {
            widest(Reweighting { scratch, mixtures, sizes, block });
            // SAFETY: every block comes up once.
            unsafe {
                to_means.write(&block, &scratch.out_means);
                to_weights.write(&block, &scratch.out_weights);
                if mixtures.is_pixelwise() {
                    to_stds.write(&block, &scratch.out[..1]);
                }
            }
        },
    );
    // SAFETY: the blocks are all samples, and every block was written.
    let [means, log_weights, log_std] =
        unsafe { [means.assume_init(), log_weights.assume_init(), log_std.assume_init()] };
    if mixtures.is_pixelwise() {
        return [means, log_weights, log_std];
    }
    let log_std = mixtures.log_std[..b].iter().enumerate().map(|(sample, &log_std)| {
        let log_std = log_std + mixtures.t.ln();
        let zeta = match mixtures.shift {
            [] => 0.0,
            _ => natural(mixtures.var[sample], mixtures.power[sample]).1,
        };
        log_std - 0.5 * ((2.0 * log_std).exp() * zeta).ln_1p()
    });
    [means, log_weights, log_std.collect()]
}

/// A block of [`reweighted`].
struct Reweighting<'a> {
    scratch: &'a mut Scratch,
    mixtures: GuidedMixtures<'a>,
    sizes: Sizes,
    block: Block,
}

impl WithSimd for Reweighting<'_> {
    type Output = ();

    /// The reweighted mixtures into the scratch.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Reweighting<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, mixtures, sizes, block } = self;
        let Scratch { joint, mean, shift, out, out_means, out_weights, .. } = scratch;
        let log_std = PerSample::new(&block, |sample| mixtures.log_std[sample] + mixtures.t.ln());
        let mut mixture = Tilted::<C>::new(&mixtures, &block, sizes, (joint, mean, shift));
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let (nu, zeta) = (mixture.nu, mixture.zeta);
            let (scale, top) = mixture.joint(&nu, zeta);
            let mut total = Pair::splat(simd, 0.0);
            for joint in &*mixture.joint {
                total = total + (Pair::new(simd, joint) - top).exp2_or_less();
            }
            let norm = total.ln().mul_add(Pair::splat(simd, LOG2_E), top);
            scale.ln().mul_add(Pair::splat(simd, 0.5), Pair::per_sample(&log_std, simd, v)).store(&mut out[0], v);
            let reweighted = out_means.chunks_exact_mut(C).zip(&mut *out_weights);
            for ((k, joint), (means, weight)) in mixture.joint.iter().enumerate().zip(reweighted) {
                ((Pair::new(simd, joint) - norm) * Pair::splat(simd, LN_2)).store(weight, v);
                for (i, to) in means.iter_mut().enumerate() {
                    let mean = mixture.var.mul_add(nu[i], mixture.components.mean(k, i));
                    mean.mul_add(scale, mixture.mean[i]).store(to, v);
                }
            }
        }
    }
}
