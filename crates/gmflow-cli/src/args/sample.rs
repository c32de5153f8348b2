//! The arguments of `gmflow sample`.

use super::groups::{CHECKPOINT, DeviceArgs, ModelArgs};
use super::sampler::SamplerArgs;
use super::values::count;
use super::world::ShardArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `gmflow sample`.
#[derive(Args, Debug)]
#[command(
    long_about = "Draws samples from a trained model. Sample i uses seed S+i for everything random in it, so it is the \
same whatever --batch and --num are. Image models give one PNG per sample, or a grid, or one array file; every file says in its \
metadata how it was made. Models of 2-D points give an array file and a picture of their histogram. A folder takes samples of the \
same settings with other seeds beside those that are there; those of other settings are refused.",
    after_help = "Examples:\n  gmflow sample --checkpoint models/mnist --class 7 --steps 6 --out sevens\n  \
gmflow sample --checkpoint models/mnist --num 100 --grid --out digits.png\n  \
gmflow sample --checkpoint runs/mnist --solver gm-sde --steps 32 --num 1000 --format npz --out samples.npz"
)]
pub struct SampleArgs {
    #[arg(long, value_name = "DIR|ID", help = CHECKPOINT)]
    pub checkpoint: PathBuf,
    /// Where to write: a folder, or a file when the name ends in .png (with --grid), .npz or .safetensors, in upper or lower case
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Number of samples [default: 16 images or 10000 points]
    #[arg(long, value_name = "N", value_parser = count)]
    pub num: Option<usize>,
    /// A class by its label, a synonym of the label or its index; several are separated by commas, and the option may be
    /// repeated. A label that has commas in it is one class. Samples take the classes in turn [default: all classes]
    #[arg(long, value_name = "CLASS", allow_negative_numbers = true)]
    pub class: Vec<String>,
    /// Number of samples computed at once; the result does not depend on it [default: 16 images or 4096 points]
    #[arg(long, value_name = "B", value_parser = count)]
    pub batch: Option<usize>,
    /// Start from this noise instead of the seeds': tensor `noise` [n c h w] of a safetensors file, float32 with mean 0 and
    /// standard deviation 1
    #[arg(long, value_name = "FILE", conflicts_with = "num")]
    pub noise: Option<PathBuf>,
    /// Write one picture with all images
    #[arg(long, conflicts_with = "format")]
    pub grid: bool,
    /// File format of the samples [default: png for images, npz for points]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// Side of the overlapping tiles, in latents, in which larger images are decoded
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    pub vae_tile: usize,
    /// Write the latents of a model of latents, not decoded; needs npz or safetensors
    #[arg(long)]
    pub latents: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub shard: ShardArgs,
    /// Replace the samples that are there: in a folder, remove those of other settings. Files that gmflow sample did not write stay
    #[arg(long)]
    pub force: bool,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}

/// File formats of samples.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One PNG file per image
    Png,
    /// NumPy archive with `samples` [n c h w] or [n 2], `seeds` and, with classes, `classes`
    Npz,
    /// The same in one safetensors file
    Safetensors,
}
