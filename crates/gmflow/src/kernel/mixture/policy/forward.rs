//! Roll-outs by the passes of GM-ODE.

use super::RollOut;
use crate::kernel::mixture::sizes::{Mixture, Sizes};
use crate::kernel::mixture::step::cpu::guide::{GuidanceInputs, GuidedParts};
use crate::kernel::mixture::step::cpu::guided::GuidedMixtures;
use crate::kernel::mixture::step::cpu::ode::{Plan, SubSteps, ode_substeps};
use crate::kernel::mixture::step::types::ShiftRule;
use crate::kernel::simd::memory::UninitVec;
use crate::kernel::simd::threads::Threads;

/// The earliest time that a mixture is predicted at, so that a velocity's standard deviation has a logarithm over x0.
pub(crate) const EARLIEST_SOURCE: f32 = 1e-6;

/// What a roll-out goes by: `[b k c n]`, `[b k n]`, `[b]`, `[b c n]`, `[b c n]`.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub means: &'a [f32],
    pub log_weights: &'a [f32],
    pub log_std: &'a [f32],
    pub source: &'a [f32],
    pub x: &'a [f32],
}

/// The ends `[b c n]`. A velocity u at time t stands for the same x0 as t u at time 1. With means scaled in this way, samples of different
/// times go through the passes for samples of one time.
pub(crate) fn roll_out(inputs: Inputs, plan: &RollOut, sizes: Sizes) -> Vec<f32> {
    let Sizes { k, c, n } = sizes;
    let (b, of_sample) = (plan.sources.len(), (k * c * n).max(1));
    let times: Vec<f32> = plan.sources.iter().map(|t| t.max(EARLIEST_SOURCE)).collect();
    let scaled = |(means, t): (&[f32], &f32)| means.iter().map(|mean| mean * t).collect::<Vec<_>>();
    let means: Vec<f32> = inputs.means.chunks(of_sample).zip(&times).flat_map(scaled).collect();
    let log_std: Vec<f32> = inputs.log_std.iter().zip(&times).map(|(std, t)| std + t.ln()).collect();
    let velocity = Mixture { means: &means, log_weights: inputs.log_weights, log_std: &log_std };
    let guidance = GuidanceInputs::new(velocity, (inputs.source, 1.0), sizes, (ShiftRule::Off, false));
    let parts = GuidedParts::new(guidance, b, sizes);
    let mixtures = GuidedMixtures {
        centred: &parts.centred,
        log_std: &log_std,
        t: 1.0,
        mean: &parts.mean,
        shift: &parts.shift,
        var: &parts.var,
        power: &parts.power,
        pixelwise: false,
    };
    let substeps = Plan::PerSample(&plan.substeps, plan.count);
    let steps = SubSteps { start: inputs.source, x: inputs.x, substeps, next: None };
    let mut out = UninitVec::new(inputs.x.len());
    ode_substeps(mixtures, steps, sizes, out.room(), Threads::All);
    // SAFETY: the pass writes all of its room.
    unsafe { out.assume_init() }
}
