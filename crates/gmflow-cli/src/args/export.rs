//! The arguments of `gmflow export`.

use super::groups::{CHECKPOINT, OutcomeArgs, OverwriteArgs, PrecisionArgs, PublishedArgs};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `gmflow export`.
#[derive(Args, Debug)]
#[command(
    long_about = "Writes the weights of a checkpoint, or one of its moving averages, as a folder to share, without the \
optimiser's state: in the layout of published checkpoints (model_index.json, transformer/, spectrum_net/, vae/, scheduler/; \
safetensors), or as a model folder of this program (model.json, model.safetensors). `gmflow sample` takes both.",
    after_help = "Examples:\n  gmflow export --checkpoint runs/imagenet --vae sd-vae --precision bf16 --out imagenet-bf16\n  \
gmflow export --checkpoint runs/mnist --layout gmflow --precision f16 --out models/mnist"
)]
pub struct ExportArgs {
    #[arg(long, value_name = "DIR|ID", help = CHECKPOINT)]
    pub checkpoint: PathBuf,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How the folder is laid out
    #[arg(long, value_enum, default_value = "diffusers")]
    pub layout: Layout,
    /// The autoencoder to put beside a model of latents: a folder with its config.json, or a checkpoint with a vae/ folder
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// Put this into the names of the weight files, such as bf16
    #[arg(long, value_name = "V")]
    pub as_variant: Option<String>,
    /// Split weight files at about this many megabytes [default: 10000]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    pub shard: Option<u64>,
    /// The moving average to write; `none` for the weights themselves [default: the first average by name, where there
    /// is one]
    #[arg(long, value_name = "NAME")]
    pub ema: Option<String>,
    #[command(flatten)]
    pub numbers: PrecisionArgs,
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}

/// Folder layouts.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// That of published checkpoints
    Diffusers,
    /// model.json and model.safetensors
    Gmflow,
}
