//! The arguments of `gmflow info`.

use super::groups::{CHECKPOINT, PublishedArgs};
use clap::Args;
use std::path::PathBuf;

/// `gmflow info`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  gmflow info models/mnist\n  gmflow info models/mnist --tensors\n  gmflow info runs/mnist --json | jq .progress"
)]
pub struct InfoArgs {
    #[arg(help = CHECKPOINT)]
    pub checkpoint: PathBuf,
    /// List the tensors of every weight file; JSON always has them
    #[arg(long)]
    pub tensors: bool,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}
