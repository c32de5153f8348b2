//! The sub-steps of GM-ODE in one pass.

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::cpu::shifted::{GuidedMixtures, Scratch, Tilt, Tilted};
use crate::kernel::mixture::step::types::OdeSubstep;
use crate::kernel::simd::channels::{self, each};
use crate::kernel::simd::lanes::{Block, BlockReader, BlockWriter};
use crate::kernel::simd::pair::Pair;
use crate::kernel::simd::threads::Threads;
use crate::kernel::simd::vector::widest;
use pulp::{Simd, WithSimd};

/// What a step tells the next one: by the mixtures without its own second-order change, from where the last sub-step ends, what one more ends
/// at, into `[b c n]`.
pub(crate) struct Ahead<'a> {
    pub shifted: GuidedMixtures<'a>,
    pub substep: OdeSubstep,
    pub out: &'a mut [f32],
}

/// The samples `[b c n]` after all sub-steps from `x`, with mixtures that were predicted at `start`, into `out`.
pub(crate) fn ode_substeps(
    shifted: GuidedMixtures,
    [start, x]: [&[f32]; 2],
    sizes: Sizes,
    substeps: &[OdeSubstep],
    ahead: Option<Ahead>,
    out: &mut [f32],
    threads: Threads,
) {
    let Sizes { c, n, .. } = sizes;
    let blocks = Block::all(x.len() / (c * n).max(1), n);
    let work = x.len() * sizes.k * (substeps.len() + usize::from(ahead.is_some()));
    let out = BlockWriter::new(out, n);
    let ahead = ahead.map(|Ahead { shifted, substep, out }| (shifted, substep, BlockWriter::new(out, n)));
    threads.map(
        blocks,
        work,
        || Scratch::new(sizes, false),
        |scratch, block| {
            let ahead = ahead.as_ref().map(|(shifted, substep, out)| (shifted, substep, out));
            widest(Stepping { scratch, out: &out, shifted, start, x, sizes, block, substeps, ahead });
        },
    );
}

/// A block of [`ode_substeps`].
struct Stepping<'a> {
    scratch: &'a mut Scratch,
    out: &'a BlockWriter<'a>,
    shifted: GuidedMixtures<'a>,
    start: &'a [f32],
    x: &'a [f32],
    sizes: Sizes,
    block: Block,
    substeps: &'a [OdeSubstep],
    /// As in [`Ahead`].
    ahead: Option<(&'a GuidedMixtures<'a>, &'a OdeSubstep, &'a BlockWriter<'a>)>,
}

impl WithSimd for Stepping<'_> {
    type Output = ();

    /// All sub-steps from `x`, into `out`, and the one ahead.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Stepping<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, out: sink, shifted, start, x, sizes, block, substeps, ahead } = self;
        let Scratch { joint, mean, shift, shift_ahead, x: room, start: start_room, out, out_ahead, .. } = scratch;
        // SAFETY: every block comes up once.
        let mut out = unsafe { sink.target(&block, C, out) };
        let mut ahead = ahead.map(|(shifted, substep, sink)| {
            // SAFETY: the same.
            let out = unsafe { sink.target(&block, C, out_ahead) };
            (Tilt::new(shifted, &block, sizes, shift_ahead), substep, out)
        });
        let start = BlockReader::new(&block, start, C, sizes.n, start_room);
        let x = BlockReader::new(&block, x, C, sizes.n, room);
        let mut mixture = Tilted::<C>::new(&shifted, &block, sizes, (joint, mean, shift));
        let k = mixture.k;
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let start = each!(C, simd, i => Pair::of(&start, simd, i, v));
            let mut x = each!(C, simd, i => Pair::of(&x, simd, i, v));
            // The sub-step ahead is one more in the same loop, so that its code is there once.
            for i in 0..=substeps.len() {
                let substep = match substeps.get(i) {
                    Some(substep) => substep,
                    None => {
                        x.into_iter().enumerate().for_each(|(i, x)| x.set(&mut out, i, v));
                        let Some((tilt, one_more, _)) = &ahead else { break };
                        (_, mixture.nu, mixture.zeta) = tilt.vectors(mixture.components, k, mixture.var);
                        *one_more
                    }
                };
                x = mixture.substep(&x, &start, substep);
            }
            if let Some((_, _, out)) = &mut ahead {
                for (i, x) in x.into_iter().enumerate() {
                    x.set(out, i, v);
                }
            }
        }
        out.finish();
        if let Some((_, _, out)) = ahead {
            out.finish();
        }
    }
}
