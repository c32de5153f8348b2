//! The arguments of `gmflow stats`.

use super::groups::{OutcomeArgs, OverwriteArgs, ReferenceArgs};
use super::world::ShardArgs;
use clap::Args;
use std::path::PathBuf;

/// `gmflow stats`.
#[derive(Args, Debug)]
#[command(
    long_about = "Computes features of a data set and writes their mean, covariance and the vectors themselves to one file, which \
`gmflow eval --real` takes instead of the data.",
    after_help = "Example:\n  gmflow stats configs/mnist.toml --features classifier=mnist-features.safetensors --out mnist.stats.safetensors"
)]
pub struct StatsArgs {
    /// A configuration file (TOML) with a [data.source] table that names images, a folder of images, or an array file (.npy, .npz, .safetensors)
    pub data: PathBuf,
    #[command(flatten)]
    pub reference: ReferenceArgs,
    /// Keep mean and covariance only: a small file that has no precision, recall or kernel distance
    #[arg(long)]
    pub moments_only: bool,
    /// The file to write (.safetensors)
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
    #[command(flatten)]
    pub shard: ShardArgs,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}
