//! Roll-outs along the velocity of mixtures that were predicted once, each sample by sub-steps of its own, with gradients.
//!
//! [`reference`] defines them in tensor operations. On the CPU [`forward`] runs the sub-steps of GM-ODE and [`backward`] goes the way back in
//! one pass, whatever their number; elsewhere tensor operations compute both.

pub(crate) mod backward;
pub(crate) mod forward;
pub(crate) mod ops;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use crate::kernel::mixture::step::passes::are_compiled_for;
use crate::kernel::mixture::step::types::OdeSubstep;
use crate::kernel::on_cpu;
use crate::mixture::GaussianMixture;
use burn::backend::Dispatch;
use burn::tensor::Tensor;
use ops::PolicyOps;
use std::sync::Arc;

/// The Euler sub-steps of every sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RollOut {
    /// When each sample's mixture was predicted, `[b]`.
    pub(crate) sources: Vec<f32>,
    /// `count` for each sample, one sample after the other; at the end of a sample's those that change nothing.
    pub(crate) substeps: Vec<OdeSubstep>,
    /// The most that a sample takes.
    pub(crate) count: usize,
}

/// The path of one sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SamplePath {
    /// Euler sub-steps between these times.
    Along(Vec<f64>),
    /// To the mean of the mixture's x0 at the point where the sample is, at this time.
    ToMean(f64),
}

impl RollOut {
    /// From the time at which each sample's mixture was predicted, and its path.
    pub(crate) fn new(sources: &[f64], paths: &[SamplePath]) -> Self {
        let substeps = |(source, path): (&f64, &SamplePath)| match path {
            SamplePath::ToMean(t) => vec![OdeSubstep::to_mean((*source, *t), true)],
            SamplePath::Along(times) => {
                times.windows(2).map(|ends| OdeSubstep::from_point(*source, ends[0], ends[1])).collect::<Vec<_>>()
            }
        };
        Self::of_samples(sources, sources.iter().zip(paths).map(substeps).collect())
    }

    fn of_samples(sources: &[f64], of_samples: Vec<Vec<OdeSubstep>>) -> Self {
        let count = of_samples.iter().map(Vec::len).max().unwrap_or(0);
        let padded = |mut substeps: Vec<OdeSubstep>| {
            substeps.resize(count, OdeSubstep::NOTHING);
            substeps
        };
        let substeps = of_samples.into_iter().flat_map(padded).collect();
        Self { sources: sources.iter().map(|t| *t as f32).collect(), substeps, count }
    }
}

/// Where the sub-steps end `[b c h w]` from `x`, by velocity mixtures that were predicted at `source` `[b c h w]`. Gradients reach the
/// mixtures and `x`.
pub(crate) fn roll_out(
    velocity: &GaussianMixture,
    source: &Tensor<4>,
    x: &Tensor<4>,
    plan: &Arc<RollOut>,
) -> Tensor<4> {
    let [b, k, c, h, w] = velocity.means.dims();
    if !(velocity.is_plain() && are_compiled_for(c) && on_cpu(&x.device())) {
        return reference::roll_out(velocity, source, x, plan);
    }
    let flat = |x: &Tensor<4>| x.clone().reshape([b, c, h * w]).into_dispatch();
    let end = <Dispatch as PolicyOps>::policy_roll_out(
        velocity.means.clone().reshape([b, k * c, h * w]).into_dispatch(),
        velocity.log_weights.clone().reshape([b, k, h * w]).into_dispatch(),
        velocity.log_std.clone().reshape([b, 1]).into_dispatch(),
        flat(source),
        flat(x),
        plan.clone(),
    );
    Tensor::<3>::from_dispatch(end).reshape([b, c, h, w])
}
