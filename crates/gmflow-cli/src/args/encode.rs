//! The arguments of `gmflow encode`.

use super::groups::{DeviceArgs, OutcomeArgs};
use super::values::count;
use super::world::{WorldArgs, part};
use clap::Args;
use gmflow_world::Shard;
use std::path::PathBuf;

/// `gmflow encode`.
#[derive(Args, Debug)]
#[command(
    long_about = "Turns a data set of images into latents of an autoencoder: the mean and the standard deviation of each, in safetensors \
shards, which `gmflow train` reads as [data.source] kind = \"latents\". A call that was interrupted is continued by the same call.",
    after_help = "Examples:\n  gmflow encode --vae CHECKPOINT --images photos --size 256 --mirror --out photos-latents\n  \
gmflow encode --vae CHECKPOINT --data configs/cifar10.toml --out cifar10-latents"
)]
pub struct EncodeArgs {
    /// The autoencoder: a folder with its config.json, or a checkpoint with a vae/ folder
    #[arg(long, value_name = "DIR")]
    pub vae: PathBuf,
    /// A configuration file (TOML) with a [data.source] table that names the images
    #[arg(long, value_name = "FILE", required_unless_present = "images", conflicts_with = "images")]
    pub data: Option<PathBuf>,
    /// The folder of the files of a data set that --data gives by its name (IDX or Parquet), or the folder above it
    #[arg(long, value_name = "DIR", requires = "data")]
    pub data_dir: Option<PathBuf>,
    /// A folder of images in one subfolder per class, or of tar shards; it may be a URL
    #[arg(long, value_name = "DIR", requires = "size")]
    pub images: Option<PathBuf>,
    /// Height and width to resize the images of --images to
    #[arg(long, value_name = "PIXELS", requires = "images", value_parser = count)]
    pub size: Option<usize>,
    /// The folder of latents to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Encode the mirrored images too, for horizontal_flip in training
    #[arg(long)]
    pub mirror: bool,
    /// Number of images encoded at once
    #[arg(long, value_name = "B", default_value_t = 8, value_parser = count)]
    pub batch: usize,
    /// Number of latents per file
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = count)]
    pub shard: usize,
    /// Encode only this many images, the first ones
    #[arg(long, value_name = "N", value_parser = count)]
    pub limit: Option<usize>,
    /// Store numbers in 32 bits rather than in 16
    #[arg(long)]
    pub full_precision: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub world: WorldArgs,
    /// Do part I of N alone, without a word to the other processes, as in a job array: 2/8 is the second of eight. gmflow merge joins
    /// the parts
    #[arg(long, value_name = "I/N", value_parser = part)]
    pub part: Option<Shard>,
    /// Start again in a folder that already holds latents
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}
