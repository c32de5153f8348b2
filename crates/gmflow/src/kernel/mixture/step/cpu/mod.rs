//! A whole step of GM-ODE: guidance, second-order change and sub-steps.

pub(crate) mod guide;
pub(crate) mod ode;
pub(crate) mod reweight;
pub(crate) mod second_order;
pub(crate) mod shifted;

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::sizes::per_sample;
use crate::kernel::mixture::step::types::{OdeSubstep, SecondOrderRule, ShiftRule};
use crate::kernel::simd::lanes::{Block, Packed};
use crate::kernel::simd::memory::{build, par_items, with_room};
use crate::kernel::simd::threads::{ThreadTeam, Threads};
use guide::{GuidanceInputs, GuidedRoom, guide};
use ode::{Ahead, ode_substeps};
use second_order::second_order;
use shifted::{GuidedMixtures, centred_rows};
use std::ops::Range;

/// Values of mixtures that one thread is through with before others have come.
const SMALL: usize = 4096;

/// A prediction, and what the step before and the one after it have to do with it.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    /// With guidance off or probabilistic, which moves no components.
    pub asked: GuidanceInputs<'a>,
    /// Whether shifts are divided by the pixel's own variance.
    pub pixelwise: bool,
    /// Where the prediction before would have the mean now `[b c n]`, and how the change is carried on: added to the shift.
    pub before: Option<(&'a [f32], SecondOrderRule)>,
    pub substeps: &'a [OdeSubstep],
    /// What tells where this one would have the mean after the step.
    pub ahead: Option<OdeSubstep>,
}

impl<'a> Step<'a> {
    /// That of some samples.
    fn of_samples(self, sizes: Sizes, samples: Range<usize>) -> Self {
        let before = self.before.map(|(mean, rule)| (per_sample(mean, sizes.c * sizes.n, &samples), rule));
        Self { asked: self.asked.of_samples(sizes, samples), before, ..self }
    }

    /// One pass after the other.
    fn run(self, sizes: Sizes, out: &mut [f32], foreseen: &mut [f32], threads: Threads) {
        let pixels = out.len();
        let b = pixels / (sizes.c * sizes.n).max(1);
        let mixtures = Packed::len(b, sizes.n, centred_rows(sizes));
        with_room(mixtures + 3 * (pixels + b), |mut room| {
            let Self { asked, pixelwise, before, substeps, ahead } = self;
            let mut take = |n: usize| room.split_off_mut(..n).expect("as much room as was asked for");
            // The first ones are whole vectors, which begin where lines of the cache do.
            let centred = take(mixtures);
            let [mean, changed] = [(); 2].map(|()| take(pixels));
            let shift = take(if asked.rule == ShiftRule::Off { 0 } else { pixels });
            let [var, power, changed_power] = [(); 3].map(|()| take(b));
            guide(asked, sizes, &mut GuidedRoom { centred, mean, shift, var, power }, threads);
            let (log_std, t) = (asked.velocity.log_std, asked.t);
            let guided = GuidedMixtures { centred, log_std, t, mean, shift, var, power, pixelwise };
            let mut now = guided;
            if let Some((mean, rule)) = before {
                second_order(guided, mean, sizes, rule, (changed, changed_power), threads);
                now = GuidedMixtures { shift: changed, power: changed_power, ..guided };
            }
            let ahead = ahead.map(|substep| Ahead { shifted: guided, substep, out: foreseen });
            ode_substeps(now, [asked.x, asked.x], sizes, substeps, ahead, out, threads);
        });
    }
}

/// The samples `[b c n]` after all sub-steps and, where it is asked for, what is foreseen of the mean there.
///
/// A thread takes a sample through all passes, so that what the network predicted for it is read once and what the passes hand on stays in
/// the core's own cache; where there are fewer samples than threads, the threads share each pass.
pub(crate) fn ode_step(step: Step, sizes: Sizes) -> (Vec<f32>, Vec<f32>) {
    let Sizes { k, c, n } = sizes;
    let (b, of_sample) = (step.asked.x.len() / (c * n).max(1), (c * n).max(1));
    let together = Block::whole_samples(n);
    let mut out = Vec::new();
    let foreseen = build(if step.ahead.is_some() { b * c * n } else { 0 }, |mut foreseen| {
        out = build(b * c * n, |out| {
            let work = b * k * c * n * (4 + step.substeps.len());
            if b.div_ceil(together) < rayon::current_num_threads() && b * k * c * n > SMALL {
                let size = Block::count(b, n);
                return ThreadTeam::with(size, work, |threads| step.run(sizes, out, foreseen, threads));
            }
            let shares = out.chunks_mut(together * of_sample).enumerate().map(|(i, out)| {
                let samples = i * together..i * together + out.len() / of_sample;
                let foreseen = foreseen.split_off_mut(..out.len().min(foreseen.len())).unwrap_or_default();
                (step.of_samples(sizes, samples), out, foreseen)
            });
            par_items(shares.collect(), work, |(step, out, foreseen)| step.run(sizes, out, foreseen, Threads::One));
        });
    });
    (out, foreseen)
}
