//! A whole step of GM-ODE: guidance, second-order change and sub-steps.

pub(crate) mod guide;
pub(crate) mod guided;
pub(crate) mod ode;
pub(crate) mod reweight;
pub(crate) mod second_order;

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::sizes::per_sample;
use crate::kernel::mixture::step::types::{SecondOrderRule, ShiftRule, StepPlan};
use crate::kernel::simd::lanes::{Block, Packed};
use crate::kernel::simd::memory::{UninitVec, with_room};
use crate::kernel::simd::threads::{ThreadTeam, Threads};
use guide::{GuidanceInputs, GuidedRoom, guide};
use guided::{GuidedMixtures, centred_rows};
use ode::{Plan, SubSteps, ToNextMean, ode_substeps};
use second_order::second_order;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Values of mixtures that one thread is through with before others have come.
const SMALL: usize = 4096;

/// A prediction, and what the previous step and the next one have to do with it.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    /// With guidance off or probabilistic, which moves no components.
    pub inputs: GuidanceInputs<'a>,
    /// The previous step's posterior mean at the current point `[b c n]`, and how the change is carried out: added to the shift.
    pub previous: Option<(&'a [f32], SecondOrderRule)>,
    pub plan: &'a StepPlan,
}

impl<'a> Step<'a> {
    /// That of some samples.
    fn of_samples(self, sizes: Sizes, samples: Range<usize>) -> Self {
        let previous = self.previous.map(|(mean, rule)| (per_sample(mean, sizes.c * sizes.n, &samples), rule));
        Self { inputs: self.inputs.of_samples(sizes, samples), previous, ..self }
    }

    /// One pass after the other: writes all of `out` and, where it is asked for, all of `mean_at_next`.
    fn run(
        self,
        sizes: Sizes,
        out: &mut [MaybeUninit<f32>],
        mean_at_next: &mut [MaybeUninit<f32>],
        threads: Threads,
    ) {
        let pixels = out.len();
        let b = pixels / (sizes.c * sizes.n).max(1);
        let mixtures = Packed::len(b, sizes.n, centred_rows(sizes));
        with_room(mixtures + 3 * (pixels + b), |mut room| {
            let Self { inputs, previous, plan } = self;
            let mut take = |n: usize| {
                let (taken, rest) = std::mem::take(&mut room).split_at_mut(n);
                room = rest;
                taken
            };
            // The first ones are whole vectors, which begin where lines of the cache do.
            let centred = take(mixtures);
            let [mean, changed] = [(); 2].map(|()| take(pixels));
            let shift = take(if inputs.rule == ShiftRule::Off { 0 } else { pixels });
            let [var, power, changed_power] = [(); 3].map(|()| take(b));
            let guided = guide(inputs, sizes, GuidedRoom { centred, mean, shift, var, power }, threads);
            let mut corrected = guided;
            if let Some((mean, rule)) = previous {
                let (shift, power) = second_order(guided, mean, sizes, rule, (changed, changed_power), threads);
                corrected = GuidedMixtures { shift, power, ..guided };
            }
            let next = plan.to_next_mean.map(|substep| ToNextMean { guided, substep, out: mean_at_next });
            let sub_steps = SubSteps { start: inputs.x, x: inputs.x, substeps: Plan::Same(&plan.substeps), next };
            ode_substeps(corrected, sub_steps, sizes, out, threads);
        });
    }
}

/// The samples `[b c n]` after all sub-steps and, where it is asked for, the posterior mean there.
///
/// A thread takes a sample through all passes, so that what the network predicted for it is read once and what the passes hand on stays in
/// the core's own cache; where there are fewer samples than threads, the threads share each pass.
pub(crate) fn ode_step(step: Step, sizes: Sizes) -> (Vec<f32>, Vec<f32>) {
    let Sizes { k, c, n } = sizes;
    let (b, of_sample) = (step.inputs.x.len() / (c * n).max(1), (c * n).max(1));
    let together = Block::whole_samples(n);
    let mut out = UninitVec::new(b * c * n);
    let mut mean_at_next = UninitVec::new(if step.plan.to_next_mean.is_some() { b * c * n } else { 0 });
    let (samples_out, mut next_out) = (out.room(), mean_at_next.room());
    let work = b * k * c * n * (4 + step.plan.substeps.len());
    if b.div_ceil(together) < rayon::current_num_threads() && b * k * c * n > SMALL {
        let size = Block::count(b, n);
        ThreadTeam::with(size, work, |threads| step.run(sizes, samples_out, next_out, threads));
    } else {
        let shares = samples_out.chunks_mut(together * of_sample).enumerate().map(|(i, out)| {
            let samples = i * together..i * together + out.len() / of_sample;
            let next = next_out.split_off_mut(..out.len().min(next_out.len())).unwrap_or_default();
            (step.of_samples(sizes, samples), out, next)
        });
        Threads::All.map(
            shares.collect(),
            work,
            || (),
            |(), (step, out, next)| step.run(sizes, out, next, Threads::One),
        );
    }
    // SAFETY: the shares are all samples, and each run has written its own.
    unsafe { (out.assume_init(), mean_at_next.assume_init()) }
}
