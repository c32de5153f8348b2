//! The arguments of `gmflow info`.

use super::groups::{CHECKPOINT, PublishedArgs};
use clap::Args;
use std::path::PathBuf;

/// `gmflow info`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gmflow info models/mnist\n  gmflow info models/mnist --tensors\n  gmflow info runs/mnist --json | jq .progress\n  gmflow info --machine"
)]
pub struct InfoArgs {
    #[arg(help = CHECKPOINT, required_unless_present = "machine")]
    pub checkpoint: Option<PathBuf>,
    /// Show what this computer can do instead, and which products the networks take on it; it measures for a few seconds
    #[arg(long, conflicts_with_all = ["checkpoint", "tensors"])]
    pub machine: bool,
    /// List the tensors of every weight file; JSON always has them
    #[arg(long)]
    pub tensors: bool,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}
