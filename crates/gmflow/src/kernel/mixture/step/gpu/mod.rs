//! The passes of a solver's step on GPUs: the same files and functions as on the CPU.

#![allow(
    clippy::manual_clamp,
    clippy::manual_is_multiple_of,
    clippy::needless_range_loop,
    reason = "kernels are written in the part of Rust that they may use"
)]

mod guide;
mod guided;
mod ode;
mod reweight;
mod second_order;

use crate::kernel::gpu::empty;
use crate::kernel::mixture::step::ops::{GuidanceInputs, GuidedMixtures, Previous, StepOps};
use crate::kernel::mixture::step::types::{OdeSubstep, SecondOrderRule, StepPlan};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

impl StepOps for CubeBackend {
    fn step_guide(inputs: GuidanceInputs<Self>) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        guide::guide(inputs)
    }

    fn step_second_order(
        now: GuidedMixtures<Self>,
        previous_mean: CubeTensor,
        rule: SecondOrderRule,
    ) -> (CubeTensor, CubeTensor) {
        second_order::second_order(now, previous_mean, rule)
    }

    fn step_ode(
        mixture: GuidedMixtures<Self>,
        start: CubeTensor,
        x: CubeTensor,
        substeps: Vec<OdeSubstep>,
    ) -> CubeTensor {
        ode::ode_substeps(mixture, start, x, substeps)
    }

    fn step_at_once(
        inputs: GuidanceInputs<Self>,
        previous: Previous<Self>,
        plan: StepPlan,
    ) -> (CubeTensor, CubeTensor) {
        let GuidanceInputs { velocity, x, pixelwise, .. } = inputs.clone();
        let (mean, var, shift, power, centred) = guide::guide(inputs);
        let guided = GuidedMixtures { velocity, centred, origin: x.clone(), mean, var, shift, power, pixelwise };
        let mut corrected = guided.clone();
        if let Previous::Step(mean, rule) = previous {
            (corrected.shift, corrected.power) = second_order::second_order(guided.clone(), mean, rule);
        }
        let end = ode::ode_substeps(corrected, x.clone(), x.clone(), plan.substeps);
        let mean_at_next = match plan.to_next_mean {
            Some(substep) => ode::ode_substeps(guided, x, end.clone(), vec![substep]),
            None => empty(&x, [0; 4]),
        };
        (end, mean_at_next)
    }

    fn step_reweighted(mixture: GuidedMixtures<Self>) -> (CubeTensor, CubeTensor, CubeTensor) {
        reweight::reweighted(mixture)
    }
}
