//! The passes of a solver's step on GPUs: the same files and functions as on the CPU.

#![allow(
    clippy::manual_clamp,
    clippy::manual_is_multiple_of,
    clippy::needless_range_loop,
    reason = "kernels are written in the part of Rust that they may use"
)]

mod guide;
mod ode;
mod reweight;
mod second_order;
mod shifted;

use crate::kernel::gpu::empty;
use crate::kernel::mixture::step::ops::{Before, GuidanceInputs, GuidedMixtures, StepOps};
use crate::kernel::mixture::step::types::{OdeSubstep, SecondOrderRule};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

impl StepOps for CubeBackend {
    fn step_guide(asked: GuidanceInputs<Self>) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        guide::guide(asked)
    }

    fn step_second_order(
        now: GuidedMixtures<Self>,
        before: CubeTensor,
        rule: SecondOrderRule,
    ) -> (CubeTensor, CubeTensor) {
        second_order::second_order(now, before, rule)
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
        asked: GuidanceInputs<Self>,
        pixelwise: bool,
        before: Before<Self>,
        substeps: Vec<OdeSubstep>,
        ahead: Option<OdeSubstep>,
    ) -> (CubeTensor, CubeTensor) {
        let GuidanceInputs { velocity, x, .. } = asked.clone();
        let (mean, var, shift, power, centred) = guide::guide(asked);
        let guided = GuidedMixtures { velocity, centred, origin: x.clone(), mean, var, shift, power, pixelwise };
        let mut now = guided.clone();
        if let Before::Step(mean, rule) = before {
            (now.shift, now.power) = second_order::second_order(guided.clone(), mean, rule);
        }
        let end = ode::ode_substeps(now, x.clone(), x.clone(), substeps);
        let foreseen = match ahead {
            Some(substep) => ode::ode_substeps(guided, x, end.clone(), vec![substep]),
            None => empty(&x, [0; 4]),
        };
        (end, foreseen)
    }

    fn step_reweighted(mixture: GuidedMixtures<Self>) -> (CubeTensor, CubeTensor, CubeTensor) {
        reweight::reweighted(mixture)
    }
}
