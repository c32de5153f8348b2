//! Random numbers of solvers.

use crate::mixture::GaussianMixture;
use crate::rng::{self, Purpose};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Where a solver's random numbers come from. `index` counts the sub-steps of a run.
pub trait NoiseSource {
    /// Standard normals `[b c h w]`.
    fn normal(&mut self, purpose: Purpose, index: usize, shape: [usize; 4]) -> Tensor<4>;
    /// A component of the mixture for every pixel, `[b 1 1 h w]`.
    fn component(&mut self, index: usize, mixture: &GaussianMixture) -> Tensor<5, Int>;
    /// The basis `[b 1 1 c c]` of a spectral draw, where it is prescribed; by default it is computed.
    fn basis(&mut self, _index: usize) -> Option<Tensor<5>> {
        None
    }
}

/// One seed per sample: a sample is the same in any batch.
#[derive(Clone, Debug)]
pub struct SeededNoise {
    /// One seed per sample.
    pub seeds: Vec<u64>,
    /// Where the tensors are made.
    pub device: Device,
}

impl NoiseSource for SeededNoise {
    fn normal(&mut self, purpose: Purpose, index: usize, [_, c, h, w]: [usize; 4]) -> Tensor<4> {
        rng::normal_batch(&self.seeds, purpose, index as u64, [c, h, w], &self.device)
    }

    fn component(&mut self, index: usize, mixture: &GaussianMixture) -> Tensor<5, Int> {
        let [b, _, _, h, w] = mixture.means.dims();
        let uniforms = |&seed: &u64| rng::uniforms(seed, Purpose::Component, index as u64, h * w);
        let values: Vec<f32> = self.seeds.iter().flat_map(uniforms).collect();
        mixture.component(&Tensor::from_data(TensorData::new(values, [b, 1, h, w]), &self.device))
    }
}
