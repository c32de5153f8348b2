//! The arguments of `gmflow import`.

use super::groups::{OutcomeArgs, OverwriteArgs, PrecisionArgs};
use clap::Args;
use std::path::PathBuf;

/// `gmflow import`.
#[derive(Args, Debug)]
#[command(
    long_about = "Reads a state dict that torch.save has written and writes it as safetensors. The pickle in the file is read \
without being run. With --config the tensors are checked against the network that a diffusers config describes, and the output \
is a folder of the published layout: config.json and diffusion_pytorch_model.safetensors.",
    after_help = "Examples:\n  gmflow import model.pt --out model.safetensors\n  \
gmflow import iter_100000.pth --prefix diffusion_ema.denoising. --config transformer/config.json --out imagenet/transformer"
)]
pub struct ImportArgs {
    /// The PyTorch file
    pub file: PathBuf,
    /// The safetensors file to write; with --config, the folder
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Take only the tensors with this prefix, and drop it from their names
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// The dictionary in the file that holds the weights [default: state_dict, where there is one]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// The config.json of a transformer, U-Net, spectrum network or autoencoder, which the tensors must fit
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub numbers: PrecisionArgs,
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}
