//! The arguments of `gmflow eval`.

use super::groups::{DeviceArgs, ModelArgs, OverwriteArgs, ReferenceArgs, TableArgs};
use super::sampler::SamplerArgs;
use super::values::{count, steps};
use super::world::ShardArgs;
use clap::Args;
use std::path::PathBuf;

/// `gmflow eval`.
#[derive(Args, Debug)]
#[command(
    long_about = "Compares samples with real data and prints one row of a table for each set: Fréchet distance (called FID \
where the features are Inception's), kernel distance, Inception Score, precision, recall, density, coverage, copies, colours, and, with --nll, \
the likelihood. A checkpoint is sampled from on the way, without files. Models of points in the plane are compared with their density.",
    after_help = "Examples:\n  gmflow eval --real configs/cifar10.toml --fake samples/ --features inception=weights.pth\n  \
gmflow eval --real mnist.stats.safetensors --fake models/mnist --features classifier=mnist-features.safetensors --num 1000 --steps 8 --out \
mnist.json\n  gmflow eval --real configs/checkerboard.toml --fake runs/checkerboard --steps 4"
)]
pub struct EvalArgs {
    /// The reference: a file of gmflow stats, a configuration file (TOML) with a [data.source] table that names the data, a folder of
    /// images, an array file, or a .npz of mu and sigma
    #[arg(long, value_name = "DATA|STATS")]
    pub real: PathBuf,
    /// What is measured: folders of images, array files (.npy, .npz, .safetensors; images [n c h w] or [n h w c], points [n 2]), run folders,
    /// models or published checkpoints
    #[arg(long, value_name = "DIR|FILE|ID", num_args = 1.., required = true)]
    pub fake: Vec<PathBuf>,
    #[command(flatten)]
    pub reference: ReferenceArgs,
    /// Number of samples drawn from a checkpoint [default: as many as the reference has, at most 10000]
    #[arg(long, value_name = "N", value_parser = count)]
    pub num: Option<usize>,
    /// Measure the likelihood of the real images under the checkpoints, in bits per dimension: over all times, and in a table by time
    #[arg(long)]
    pub nll: bool,
    /// Number of times t at which --nll measures each image, one in each of as many equal parts of (0, 1]; the table by
    /// time has a row for each part
    #[arg(long, value_name = "N", requires = "nll", default_value_t = gmflow_eval::likelihood::TIMES, value_parser = count)]
    pub nll_times: usize,
    /// Leave out the figures that need all feature vectors: kernel distance, precision, recall, density, coverage, copies
    #[arg(long)]
    pub moments_only: bool,
    /// Number of nearest neighbours for precision and recall
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = count)]
    pub neighbours: usize,
    /// Number of subsets for the kernel distance
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = steps)]
    pub kid_subsets: usize,
    /// Samples per subset; fewer if a set is smaller
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = count)]
    pub kid_subset_size: usize,
    /// NumPy seed of the subsets
    #[arg(long, value_name = "S", default_value_t = 2020)]
    pub kid_seed: u32,
    /// Number of samples computed at once [default: 64 images or 4096 points]
    #[arg(long, value_name = "B", value_parser = count)]
    pub batch: Option<usize>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Write all figures and settings here as JSON, and the table beside it as .md
    #[arg(long, value_name = "FILE.json")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub shard: ShardArgs,
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
    #[command(flatten)]
    pub table: TableArgs,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}
