//! Host-side, counter-based random numbers: a draw is a pure function of (seed, purpose, index).
//!
//! No generator carries state from one draw to the next, so a sample does not depend on the batch it is computed in,
//! and a resumed training run draws what the uninterrupted one would have drawn.
//!
//! ```
//! use gmflow::rng::{Purpose, normals};
//!
//! let draws = normals(7, Purpose::InitialNoise, 0, 4);
//! assert_eq!(draws, normals(7, Purpose::InitialNoise, 0, 4));
//! assert_ne!(draws, normals(8, Purpose::InitialNoise, 0, 4));
//! ```

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

/// What a draw is for; draws for different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// The noise a sampler starts from.
    InitialNoise = 1,
    /// The choice of a mixture component at every pixel.
    Component = 2,
    /// The normal draw within a component.
    WithinComponent = 3,
    /// The noise of a reverse transition.
    Transition = 4,
    /// White noise that is shaped by a power spectrum.
    Spectral = 5,
    /// Training times.
    TrainTime = 6,
    /// Noise of the forward diffusion in training.
    TrainNoise = 7,
    /// Noise of the forward transition in training.
    TrainTransition = 8,
    /// Label dropout.
    LabelDropout = 9,
    /// Network initialisation.
    Weights = 10,
    /// Monte-Carlo estimates.
    Estimate = 11,
    /// Dropout in training.
    Dropout = 12,
    /// The segment that a sample of distillation begins.
    Segment = 13,
    /// Where the paths of distillation ask the teacher.
    Gaps = 14,
    /// Components that a path of distillation does without.
    ComponentDropout = 15,
    /// The noise that separates the components of a new student.
    StudentStart = 16,
}

/// The generator for one (seed, purpose, index); `index` is the solver step, the training step or the parameter.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    rng
}

/// `n` standard normals from one stream.
pub fn normals(seed: u64, purpose: Purpose, index: u64, n: usize) -> Vec<f32> {
    let mut rng = stream(seed, purpose, index);
    (0..n).map(|_| rng.sample(StandardNormal)).collect()
}

/// `n` uniforms in [0, 1) from one stream.
pub fn uniforms(seed: u64, purpose: Purpose, index: u64, n: usize) -> Vec<f32> {
    let mut rng = stream(seed, purpose, index);
    (0..n).map(|_| rng.random::<f32>()).collect()
}

/// One number from one stream, as the key of draws that are made elsewhere.
pub fn key(seed: u64, purpose: Purpose, index: u64) -> u64 {
    stream(seed, purpose, index).random()
}

/// One seed per sample to a batch `[b c h w]` of standard normals.
pub fn normal_batch(
    seeds: &[u64],
    purpose: Purpose,
    index: u64,
    [c, h, w]: [usize; 3],
    device: &Device,
) -> Tensor<4> {
    let of_sample = |&seed: &u64| normals(seed, purpose, index, c * h * w);
    let values: Vec<f32> = seeds.par_iter().flat_map_iter(of_sample).collect();
    Tensor::from_data(TensorData::new(values, [seeds.len(), c, h, w]), device) // [b c h w]
}
