//! Gaussian mixture flow matching: the method, from time grids to samples.
//!
//! The modules stand here in the order the data flows through them:
//!
//! | module | what it holds |
//! |---|---|
//! | [`time`], [`path`] | the forward process: times, noise, and what a velocity says of the data |
//! | [`network`] | networks that predict a mixture of velocities at every pixel, and the trait [`network::Denoiser`] for others |
//! | [`mixture`] | the mixtures, and what is known of them in closed form |
//! | [`policy`], [`distill`] | one prediction for a whole step, and networks that learn to make it from a teacher |
//! | [`loss`], [`optim`] | what a network learns from; AdamW for training loops of one's own |
//! | [`guidance`], [`solver`] | from predictions to samples |
//! | [`pipeline`], [`sampler`] | network, guidance and solver joined; the same in one expression, from a model |
//! | [`samples`] | samples with what is known of them, and their files |
//! | [`checkpoint`] | models in folders and on the hub |
//! | [`kernel`] | the arithmetic of the above on CPUs and GPUs |
//! | [`device`], [`limits`], [`rng`], [`error`] | devices by name, sizes that are refused, random numbers, errors |
//!
//! # Samples from a model
//!
//! ```no_run
//! let model = gmflow::checkpoint::Model::open("models/mnist")?; // or a run, or owner/name on the hub
//! let samples = model.sampler().steps(6).classes([7]).seeds(0..16).sample()?;
//! samples.save_grid("sevens.png")?;
//! # Ok::<(), gmflow::Error>(())
//! ```
//!
//! # A step of training, and samples of the network
//!
//! ```
//! use burn::module::Module;
//! use burn::tensor::{Device, Tensor};
//! use gmflow::loss::{LossBatch, LossConfig};
//! use gmflow::network::{Mlp2dConfig, NetworkConfig};
//! use gmflow::optim::{AdamW, Optimizer};
//! use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
//! use gmflow::rng::{Purpose, normal_batch};
//! use gmflow::solver::GmOde;
//!
//! let device = Device::flex();
//! let recording = device.clone().autodiff();
//! let config = Mlp2dConfig { num_gaussians: 4, hidden_dim: 16, embed_dim: 8, ..Mlp2dConfig::default() };
//! let network = NetworkConfig::Mlp2d(config).init(0, &recording)?;
//!
//! let seeds: Vec<u64> = (0..32).collect();
//! let draw = |purpose| normal_batch(&seeds, purpose, 0, [2, 1, 1], &recording); // [b 2 1 1]
//! let batch = LossBatch {
//!     x0: draw(Purpose::Estimate).sign(), // the corners of a square
//!     class: None,
//!     t: Tensor::full([32], 0.5, &recording),
//!     noise: draw(Purpose::TrainNoise),
//!     transition_noise: draw(Purpose::TrainTransition),
//! };
//! let loss = LossConfig::Transition { transition_ratio: 0.9, weight_scale: 1.0 };
//! let gradients = loss.evaluate(&network, batch).loss.backward();
//! let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
//! let network = Optimizer::new(rule).step(network, gradients).valid();
//!
//! let pipeline = Pipeline { network: &network, spectrum: None, device };
//! let request = SampleRequest { seeds, classes: None, shape: [2, 1, 1], noise: None };
//! let config = SamplerConfig::new(GmOde { order: 2, substeps: None }, 4);
//! let points = pipeline.sample(&config, &request, &mut keep_going)?;
//! assert_eq!(points.dims(), [32, 2, 1, 1]);
//! # Ok::<(), gmflow::Error>(())
//! ```
//!
//! Whole training runs are in the crate `gmflow-train`, data sets in `gmflow-data`, metrics in `gmflow-eval`.

pub mod checkpoint;
pub mod device;
pub mod distill;
pub mod error;
pub mod guidance;
pub mod kernel;
pub mod limits;
pub mod loss;
pub mod machine;
pub mod mixture;
pub mod network;
pub mod optim;
pub mod path;
pub mod pipeline;
pub mod policy;
pub mod rng;
pub mod sampler;
pub mod samples;
pub mod solver;
pub mod time;

pub use error::{Error, Result};
pub use gmflow_files::Error as FilesError;

/// The README's example, compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
