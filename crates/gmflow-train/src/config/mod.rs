//! What a run is made from: one TOML file, checked once.
//!
//! ```
//! use gmflow_train::Config;
//!
//! let text = r#"
//!     [data.source]
//!     kind = "density"
//!     name = "checkerboard"
//!
//!     [train]
//!     steps = 1000
//! "#;
//! let config = Config::parse(text, "moons.toml".as_ref(), &["train.lr=1e-4".into()])?;
//! config.validate()?;
//! assert_eq!((config.train.lr, config.total_steps()), (1e-4, 1000));
//! assert_eq!(config.network.kind(), "mlp2d", "what is not given fits the data");
//! # Ok::<(), gmflow_train::Error>(())
//! ```

mod collect;
mod defaults;
mod distill;
mod ema;
mod load;
pub(crate) mod overrides;
mod paths;
mod schedule;
mod validate;

pub use defaults::FromData;
pub use distill::{DistillConfig, PolicyKind};
pub use ema::{EmaConfig, EmaDecay};
pub use schedule::Schedule;

pub(crate) use load::from_json;
pub(crate) use validate::below;

use gmflow::kernel::PrecisionChoice;
use gmflow::loss::LossConfig;
use gmflow::network::NetworkConfig;
use gmflow::pipeline::SamplerConfig;
pub use gmflow::time::TimeSampling;
use gmflow_data::DatasetConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The whole configuration of a run. The resolved form is stored in the run folder and in every checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is learnt.
    pub data: DataConfig,
    /// The network that predicts the velocity mixture; absent: a small one for the kind of data, or with `train.from` that of the model.
    /// What the data tells, such as the number of channels and classes, need not be given, and must agree with it.
    pub network: NetworkConfig,
    /// The main network's loss; absent: the transition loss.
    pub loss: LossConfig,
    /// How training times are drawn.
    #[serde(default)]
    pub time: TimeSampling,
    /// A spectrum network beside the main one; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectrum: Option<SpectrumConfig>,
    /// Distillation of a teacher in place of the loss on data; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distill: Option<DistillConfig>,
    /// Optimisation.
    pub train: TrainConfig,
    /// Averages of the weights, each under its own name.
    #[serde(default)]
    pub ema: Vec<EmaConfig>,
    /// When checkpoints are written and how many are kept.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// How often figures are logged.
    #[serde(default)]
    pub log: LogConfig,
    /// Sample pictures during training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleConfig>,
    /// Settings that are taken from the data when it is opened.
    #[serde(skip)]
    pub from_data: FromData,
}

/// What is learnt: a 2-D density or a set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The density, file or folder. A relative path is relative to the folder of the configuration file; one that `--set` gives is
    /// relative to the working directory. The resolved configuration holds the absolute path.
    pub source: DatasetConfig,
    /// Batches prepared ahead by the background thread.
    #[serde(default = "default_queue")]
    pub queue: usize,
}

/// A spectrum network trained beside the main one, for GM-SDE with correlated pixels, (20).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpectrumConfig {
    /// Channels, height and width of the spectrum; absent: the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_size: Option<[usize; 3]>,
    /// Widths of the hidden layers.
    #[serde(default = "default_layers")]
    pub layers: Vec<usize>,
    /// A factor on the spectral loss.
    #[serde(default = "one")]
    pub weight: f64,
}

/// Optimisation. The defaults of the optimiser are PyTorch's AdamW defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Samples per optimiser step, over all accumulation: the specified quantity.
    pub batch_size: usize,
    /// Samples per forward and backward pass; default: the whole batch, or of points on the CPU as many as its caches hold
    /// ([`gmflow::network::Network::fastest_pass`]). Changes memory and time, and the result by no more than the rounding of
    /// sums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Optimiser steps of the run; give this or `images`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Samples seen by the run, rounded up to whole steps; give this or `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Learning rate after warm-up.
    #[serde(default = "default_lr")]
    pub lr: f64,
    /// Decay rates of the first and second moment.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly.
    #[serde(default)]
    pub warmup_steps: u64,
    /// The learning rate after warm-up.
    #[serde(default)]
    pub schedule: Schedule,
    /// Largest norm of the whole gradient; absent: no clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_grad_norm: Option<f64>,
    /// Probability that a label is replaced by the null class, which guidance needs.
    #[serde(default)]
    pub label_dropout: f64,
    /// Seed of the weights, the data order and every draw; above 9223372036854775807 in quotes.
    #[serde(default, with = "gmflow_files::seed")]
    pub seed: u64,
    /// Weights to start from: a model folder, ours or in the diffusers layout, or a run, whose latest checkpoint counts. An average is
    /// taken before the weights themselves. A configuration without a `network` table takes the model's network. Absent: weights drawn from
    /// the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Whether the model in `from` may have other classes than the data, as when it is trained anew for other pictures: a class then
    /// starts from what the model knows of another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_classes: bool,
    /// The parameters that are trained, by the beginnings of their names in checkpoints, those of the spectrum network behind `spectrum.`;
    /// absent or empty: all. The others keep their values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
    /// Several processes: each keeps the moments and averages of its part of the parameters alone. Less memory, the same result.
    #[serde(default)]
    pub shard_state: bool,
    /// Several processes: gradients are rounded to bf16 on their way between them. Half the bytes; sums stay in f32.
    #[serde(default)]
    pub exchange_bf16: bool,
    /// Recompute activations in the backward pass: less memory, more time.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// What the heavy linear layers and the convolutions multiply, forward and backward: `f32`, or `bf16` with sums, weights and everything else
    /// in f32; `auto` is the faster of the two when the run begins, and `config.toml` of the run says which; for U-Nets it is `bf16` wherever
    /// the processor has it. Where the dot product of bf16 is slow, linear layers multiply in f32 with either. There are no gradients in `int8`.
    #[serde(default)]
    pub precision: PrecisionChoice,
}

/// Checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints; the last step always writes one.
    pub every: u64,
    /// Checkpoints kept, newest first.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 1000, keep: 2 }
    }
}

/// Logged figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Steps between lines of `log.jsonl` and TensorBoard points; loss and speed are means over that span.
    pub every: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { every: 50 }
    }
}

/// Sample pictures during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleConfig {
    /// Steps between pictures.
    pub every: u64,
    /// Samples in the picture. Classes take turns.
    pub num: usize,
    /// Solver, steps and guidance. A student of distillation is drawn as it is trained, whatever stands here.
    pub sampler: SamplerConfig,
    /// The average of the weights that is sampled; absent: the first, or the raw weights where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<String>,
    /// The folder of the autoencoder that decodes latents; absent: pictures show the first three channels of latents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<PathBuf>,
}

impl TrainConfig {
    /// Whether all parameters are trained.
    pub(crate) fn trains_all(&self) -> bool {
        self.only.as_ref().is_none_or(Vec::is_empty)
    }
}

impl Config {
    /// Optimiser steps of the whole run.
    pub fn total_steps(&self) -> u64 {
        let batch = self.train.batch_size.max(1) as u64;
        self.train.steps.unwrap_or_else(|| self.train.images.unwrap_or(0).div_ceil(batch))
    }
}

fn one() -> f64 {
    1.0
}

fn default_layers() -> Vec<usize> {
    vec![64, 8]
}

fn default_queue() -> usize {
    2
}

fn default_lr() -> f64 {
    1e-3
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_eps() -> f64 {
    1e-8
}

fn default_weight_decay() -> f64 {
    1e-2
}
