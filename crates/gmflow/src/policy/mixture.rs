//! The mixture as a policy.

use super::{Policy, plain};
use crate::kernel::mixture::policy::{RollOut, SamplePath, roll_out};
use crate::mixture::{DataMixture, GaussianMixture, VelocityMixture};
use crate::{Error, Result};
use burn::tensor::{Tensor, TensorData, activation::log_softmax};
use std::sync::Arc;

/// The logarithm of the weight of a component that a policy does without.
const NO_WEIGHT: f32 = -1e9;

/// The velocity mixture that was predicted at (`x_src`, `t_src`): at (x, t) its velocity is (x - E[x0 | x])/t, with the posterior mean by
/// (10).
#[derive(Clone, Debug)]
pub struct MixturePolicy {
    velocity: VelocityMixture,
    x_src: Tensor<4>,
    t_src: Vec<f64>,
}

impl MixturePolicy {
    /// From a prediction at `x_src` `[b c h w]` and the time of each sample.
    ///
    /// # Errors
    /// [`Error::Shape`] where the shapes do not fit each other.
    pub fn new(velocity: VelocityMixture, x_src: Tensor<4>, t_src: Vec<f64>) -> Result<Self> {
        let [b, _, c, h, w] = velocity.0.means.dims();
        match (x_src.dims() == [b, c, h, w], t_src.len() == b) {
            (true, true) => Ok(Self { velocity, x_src, t_src }),
            (false, _) => Err(Error::shape("x_src", [b, c, h, w], x_src.dims())),
            (_, false) => Err(Error::shape("t_src", [b], [t_src.len()])),
        }
    }

    pub(super) fn source(&self) -> &Tensor<4> {
        &self.x_src
    }

    pub(super) fn ends(&self, x: &Tensor<4>, paths: &[SamplePath]) -> Tensor<4> {
        let plan = Arc::new(RollOut::new(&self.t_src, paths));
        roll_out(&self.velocity.0, &self.x_src, x, &plan)
    }

    /// The number of components.
    pub fn components(&self) -> usize {
        self.velocity.0.means.dims()[1]
    }

    /// The mixture over x0 at the source.
    pub fn data(&self) -> DataMixture {
        let times: Vec<f32> = self.t_src.iter().map(|t| *t as f32).collect();
        let times = Tensor::from_data(TensorData::new(times, [self.t_src.len()]), &self.x_src.device());
        self.velocity.to_data(&self.x_src, &times)
    }

    /// The policy at a temperature: see [`GaussianMixture::tempered`].
    pub fn at_temperature(self, temperature: f64) -> Self {
        Self { velocity: VelocityMixture(self.velocity.0.tempered(temperature)), ..self }
    }

    /// The policy without the components that `dropped` `[b k]` names, at all pixels of a sample; the others' weights are renormalised. A
    /// sample that would lose all of them keeps all.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of components.
    pub fn without(self, dropped: &[bool]) -> Result<Self> {
        let [b, k, ..] = self.velocity.0.means.dims();
        if dropped.len() != b * k {
            return Err(Error::shape("dropped components", [b, k], [dropped.len()]));
        }
        let of_sample = |dropped: &[bool]| {
            let all = dropped.iter().all(|dropped| *dropped);
            dropped.iter().map(|dropped| if *dropped && !all { NO_WEIGHT } else { 0.0 }).collect::<Vec<f32>>()
        };
        let change: Vec<f32> = dropped.chunks(k.max(1)).flat_map(of_sample).collect();
        let change = Tensor::<5>::from_data(TensorData::new(change, [b, k, 1, 1, 1]), &self.x_src.device());
        let VelocityMixture(mixture) = self.velocity;
        let log_weights = log_softmax(mixture.log_weights + change, 1);
        Ok(Self { velocity: VelocityMixture(GaussianMixture { log_weights, ..mixture }), ..self })
    }

    /// The same without gradients, on the plain device.
    pub fn detached(&self) -> Self {
        let GaussianMixture { means, log_weights, log_std } = self.velocity.0.clone();
        let velocity =
            GaussianMixture { means: plain(means), log_weights: plain(log_weights), log_std: plain(log_std) };
        let x_src = plain(self.x_src.clone());
        Self { velocity: VelocityMixture(velocity), x_src, t_src: self.t_src.clone() }
    }
}

impl From<MixturePolicy> for Policy {
    fn from(policy: MixturePolicy) -> Self {
        Self::Mixture(policy)
    }
}
