//! The sub-steps of GM-ODE in one pass.

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::cpu::guided::{GuidedMixtures, Numbers, Scratch, Tilt, Tilted};
use crate::kernel::mixture::step::types::OdeSubstep;
use crate::kernel::simd::channels::{self, each};
use crate::kernel::simd::lanes::{Block, BlockReader, BlockWriter, PerSample};
use crate::kernel::simd::pair::Pair;
use crate::kernel::simd::threads::Threads;
use crate::kernel::simd::vector::widest;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// Where sub-steps begin, and what they lead to.
pub(crate) struct SubSteps<'a> {
    /// Where the mixtures were predicted `[b c n]`.
    pub start: &'a [f32],
    /// Where the first sub-step begins `[b c n]`.
    pub x: &'a [f32],
    pub substeps: Plan<'a>,
    pub next: Option<ToNextMean<'a>>,
}

/// The sub-steps of samples.
#[derive(Clone, Copy)]
pub(crate) enum Plan<'a> {
    /// The same for all.
    Same(&'a [OdeSubstep]),
    /// So many for each sample, one sample after the other. What a sample does not need stands at its end and changes nothing.
    PerSample(&'a [OdeSubstep], usize),
}

impl Plan<'_> {
    /// Sub-steps of a sample.
    fn len(&self) -> usize {
        match self {
            Self::Same(substeps) => substeps.len(),
            Self::PerSample(_, count) => *count,
        }
    }
}

/// What a step tells the next one: by the guided mixtures without the second-order change, from where the last sub-step ends, what one more
/// ends at, into `[b c n]`.
pub(crate) struct ToNextMean<'a> {
    pub guided: GuidedMixtures<'a>,
    pub substep: OdeSubstep,
    pub out: &'a mut [MaybeUninit<f32>],
}

/// The samples `[b c n]` after all sub-steps into `out`; writes all of it, and all of the room for what is next.
pub(crate) fn ode_substeps(
    mixtures: GuidedMixtures,
    SubSteps { start, x, substeps, next }: SubSteps,
    sizes: Sizes,
    out: &mut [MaybeUninit<f32>],
    threads: Threads,
) {
    let Sizes { c, n, .. } = sizes;
    let b = x.len() / (c * n).max(1);
    assert_eq!(out.len(), b * c * n, "sub-steps: room for {b} samples");
    if let Some(next) = &next {
        assert_eq!(next.out.len(), out.len(), "sub-steps: room for the mean that is next");
    }
    let blocks = Block::all(b, n);
    let work = x.len() * sizes.k * (substeps.len() + usize::from(next.is_some()));
    let out = BlockWriter::new(out, n);
    let next = next.map(|ToNextMean { guided, substep, out }| (guided, substep, BlockWriter::new(out, n)));
    threads.map(
        blocks,
        work,
        || Scratch::new(sizes, false),
        |scratch, block| {
            let next = next.as_ref().map(|(guided, substep, out)| (guided, substep, out));
            widest(Stepping { scratch, out: &out, mixtures, start, x, sizes, block, substeps, next });
        },
    );
}

/// A block of [`ode_substeps`].
struct Stepping<'a> {
    scratch: &'a mut Scratch,
    out: &'a BlockWriter<'a>,
    mixtures: GuidedMixtures<'a>,
    start: &'a [f32],
    x: &'a [f32],
    sizes: Sizes,
    block: Block,
    substeps: Plan<'a>,
    /// As in [`ToNextMean`].
    next: Option<(&'a GuidedMixtures<'a>, &'a OdeSubstep, &'a BlockWriter<'a>)>,
}

impl WithSimd for Stepping<'_> {
    type Output = ();

    /// All sub-steps from `x`, into `out`, and the one to the next mean.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        channels::choose!(self.sizes.c, C => self.run::<S, C>(simd))
    }
}

impl Stepping<'_> {
    #[inline(always)]
    fn run<S: Simd, const C: usize>(self, simd: S) {
        let Self { scratch, out: writer, mixtures, start, x, sizes, block, substeps, next } = self;
        let Scratch { joint, mean, shift, next_shift, x: room, start: start_room, out, next_mean, .. } = scratch;
        // SAFETY: every block comes up once, and channels and its vectors are set.
        let mut out = unsafe { writer.target(&block, C, out) };
        let mut next = next.map(|(mixtures, substep, writer)| {
            // SAFETY: the same.
            let out = unsafe { writer.target(&block, C, next_mean) };
            (Tilt::new(mixtures, &block, sizes, next_shift), substep, out)
        });
        // SAFETY: channels, and vectors of the block are read.
        let start = unsafe { BlockReader::new(&block, start, C, sizes.n, start_room) };
        // SAFETY: as above.
        let x = unsafe { BlockReader::new(&block, x, C, sizes.n, room) };
        let mut mixture = Tilted::<C>::new(&mixtures, &block, sizes, (joint, mean, shift));
        let k = mixture.k;
        let plan = BlockPlan::new(&block, substeps);
        for v in block.pairs(simd) {
            let mut mixture = mixture.vectors(simd, v);
            let start = each!(C, simd, i => Pair::of(&start, simd, i, v));
            let mut x = each!(C, simd, i => Pair::of(&x, simd, i, v));
            // The sub-step to the next mean is one more in the same loop, so that its code is there once.
            for i in 0..=plan.len() {
                let substep = match plan.numbers(simd, i, v) {
                    Some(substep) => substep,
                    None => {
                        x.into_iter().enumerate().for_each(|(i, x)| x.set(&mut out, i, v));
                        let Some((tilt, one_more, _)) = &next else { break };
                        (_, mixture.nu, mixture.zeta) = tilt.vectors(mixture.components, k, mixture.var);
                        Numbers::same(simd, one_more)
                    }
                };
                x = mixture.substep(&x, &start, &substep);
            }
            if let Some((_, _, out)) = &mut next {
                for (i, x) in x.into_iter().enumerate() {
                    x.set(out, i, v);
                }
            }
        }
        out.finish();
        if let Some((_, _, out)) = next {
            out.finish();
        }
    }
}

/// The sub-steps of a block's samples.
enum BlockPlan<'a> {
    Same(&'a [OdeSubstep]),
    /// The four numbers of each, as in [`Numbers`].
    Own(Vec<[PerSample; 4]>),
}

impl<'a> BlockPlan<'a> {
    #[inline(always)]
    fn new(block: &Block, plan: Plan<'a>) -> Self {
        match plan {
            Plan::Same(substeps) => Self::Same(substeps),
            Plan::PerSample(all, count) => Self::own(block, all, count),
        }
    }

    #[inline(never)]
    fn own(block: &Block, all: &[OdeSubstep], count: usize) -> Self {
        let of = |sample: usize, i: usize| &all[sample * count + i];
        let needed = |i: &usize| block.sample_numbers().any(|sample| !of(sample, *i).changes_nothing());
        let steps = (0..count).rev().find(needed).map_or(0, |last| last + 1);
        let numbers =
            |i: usize, number: fn(&OdeSubstep) -> f32| PerSample::new(block, |sample| number(of(sample, i)));
        let step = |i| {
            [numbers(i, |s| s.of_x_tau), numbers(i, |s| s.of_x_t), numbers(i, |s| s.zeta), numbers(i, |s| s.keep)]
        };
        Self::Own((0..steps).map(step).collect())
    }

    #[inline(always)]
    fn len(&self) -> usize {
        match self {
            Self::Same(substeps) => substeps.len(),
            Self::Own(substeps) => substeps.len(),
        }
    }

    /// Those of sub-step `i` in two vectors.
    #[inline(always)]
    fn numbers<S: Simd>(&self, simd: S, i: usize, v: [usize; 2]) -> Option<Numbers<S>> {
        match self {
            Self::Same(substeps) => substeps.get(i).map(|substep| Numbers::same(simd, substep)),
            Self::Own(substeps) => substeps.get(i).map(|[of_x, of_start, zeta, keep]| Numbers {
                of_x: Pair::per_sample(of_x, simd, v),
                of_start: Pair::per_sample(of_start, simd, v),
                zeta: Pair::per_sample(zeta, simd, v),
                keep: Pair::per_sample(keep, simd, v),
            }),
        }
    }
}
