//! A whole step of GM-ODE: guidance, second-order change and sub-steps.

use super::guide::{Asked, GuidedParts, GuidedRoom, guide};
use super::lanes::{Block, Packed};
use super::memory::{build, par_items};
use super::nll::Sizes;
use super::threads::{Crew, Threads};
use super::tilt::{ChangeRule, OdeSubstep, Shifted, centred_rows, ode_substeps, per_sample, second_order};
use std::ops::Range;

/// Values of mixtures that one thread is through with before others have come.
const SMALL: usize = 4096;

/// A prediction and what is known of the step before.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    /// With guidance off or probabilistic, which moves no components.
    pub asked: Asked<'a>,
    /// Whether shifts are divided by the pixel's own variance.
    pub pixelwise: bool,
    /// The step before, the points of its predictions `[b c n]`, and how its change is carried on: added to the shift.
    pub before: Option<(Shifted<'a>, &'a [f32], ChangeRule)>,
    pub substeps: &'a [OdeSubstep],
}

impl<'a> Step<'a> {
    /// That of some samples.
    fn of_samples(self, sizes: Sizes, samples: Range<usize>) -> Self {
        let before = self.before.map(|(shifted, x, rule)| {
            let x = per_sample(x, sizes.c * sizes.n, &samples);
            (shifted.of_samples(sizes, samples.clone()), x, rule)
        });
        Self { asked: self.asked.of_samples(sizes, samples), before, ..self }
    }

    /// One pass after the other.
    fn run(self, sizes: Sizes, mut room: GuidedRoom, out: &mut [f32], threads: Threads) {
        let Self { asked, pixelwise, before, substeps } = self;
        guide(asked, sizes, &mut room, threads);
        let GuidedRoom { centred, mean, shift, var, power } = room;
        let (log_std, t) = (asked.velocity.log_std, asked.t);
        let now = Shifted { centred, log_std, t, mean, shift, var, power, pixelwise };
        let Some((before, x_before, rule)) = before else {
            return ode_substeps(now, asked.x, sizes, substeps, out, threads);
        };
        let (shift, power) = second_order((now, asked.x), (before, x_before), sizes, rule, threads);
        ode_substeps(Shifted { shift: &shift, power: &power, ..now }, asked.x, sizes, substeps, out, threads);
    }
}

/// What [`guide`] finds, and the samples `[b c n]` after all sub-steps.
///
/// A thread takes a sample through all passes, so that what the network predicted for it is read from memory once and found in the
/// cache by the others; where there are fewer samples than threads, the threads share each pass.
pub(super) fn ode_step(step: Step, sizes: Sizes) -> (GuidedParts, Vec<f32>) {
    let Sizes { k, c, n } = sizes;
    let (b, of_sample) = (step.asked.x.len() / (c * n).max(1), (c * n).max(1));
    let together = Block::whole_samples(n);
    let mut out = Vec::new();
    let parts = GuidedParts::build(b, sizes, step.asked.rule, |room| {
        out = build(b * c * n, |out| {
            let shares = b.div_ceil(together);
            if shares < rayon::current_num_threads() && b * k * c * n > SMALL {
                return Crew::with(|crew| step.run(sizes, room, out, Threads::Crew(crew)));
            }
            let GuidedRoom { centred, mean, mut shift, var, power } = room;
            let mixtures = centred.chunks_mut(Packed::len(together, n, centred_rows(sizes)).max(1));
            let pixels = mean.chunks_mut(together * of_sample).zip(out.chunks_mut(together * of_sample));
            let per_sample = var.chunks_mut(together).zip(power.chunks_mut(together));
            let rooms = mixtures.zip(pixels).zip(per_sample).enumerate();
            let shares = rooms.map(|(i, ((centred, (mean, out)), (var, power)))| {
                let shift = shift.split_off_mut(..mean.len().min(shift.len())).unwrap_or_default();
                let samples = i * together..i * together + var.len();
                (step.of_samples(sizes, samples), GuidedRoom { centred, mean, shift, var, power }, out)
            });
            let work = b * k * c * n * (2 + 2 + step.substeps.len());
            par_items(shares.collect(), work, |(step, room, out)| step.run(sizes, room, out, Threads::One));
        });
    });
    (parts, out)
}
