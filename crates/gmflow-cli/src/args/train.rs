//! The arguments of `gmflow train`.

use super::groups::{DataArgs, DeviceArgs, OutcomeArgs};
use super::init::PlanArgs;
use super::world::WorldArgs;
use clap::Args;
use std::path::PathBuf;

/// `gmflow train`.
#[derive(Args, Debug)]
#[command(
    long_about = "Trains the model that a TOML file describes: network, data, loss, optimiser, schedule. The run folder \
holds the resolved configuration, checkpoints, logs (JSON lines and TensorBoard) and sample pictures. Ctrl-C, SIGTERM, SIGHUP and \
SIGUSR1 write a checkpoint and stop, with the exit code 128 + the signal's number; --resume continues as if nothing had happened.",
    after_help = "Examples:\n  gmflow train photos\n  gmflow train configs/mnist.toml --out runs/mnist\n  \
gmflow train configs/mnist.toml --out runs/mnist --resume\n  \
gmflow train configs/mnist.toml --out runs/short --set train.steps=100 --set train.lr=1e-4\n  \
gmflow train configs/mnist.toml --out runs/tuned --from models/mnist --set train.steps=1000 --set train.lr=1e-4"
)]
pub struct TrainArgs {
    /// The configuration file (TOML); or pictures, for which a configuration is chosen as by gmflow init
    pub config: PathBuf,
    #[command(flatten)]
    pub plan: PlanArgs,
    #[command(flatten)]
    pub named: DataArgs,
    /// The run folder; without it, runs/ and the name of the configuration or the pictures
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace one setting of the file; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Start from the weights of this model: a folder, a run, or owner/name on the hub. The same as train.from
    #[arg(long, value_name = "MODEL", conflicts_with = "resume")]
    pub from: Option<PathBuf>,
    /// Allow the model of --from to have other classes than the data; training gives its class numbers new meanings
    #[arg(long, conflicts_with_all = ["resume", "resume_from"])]
    pub new_classes: bool,
    /// Continue from the run folder's latest checkpoint, or start from the beginning if there is none yet
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Continue from the checkpoint of this step; later ones are renamed and kept
    #[arg(long, value_name = "STEP", conflicts_with_all = ["force", "from"])]
    pub resume_from: Option<u64>,
    /// Continue even if files of the checkpoint differ from their checksums (damaged, or changed on purpose)
    #[arg(long)]
    pub no_verify: bool,
    /// Continue although the data has changed: other images, and classes added at the end or removed from the end
    #[arg(long)]
    pub accept_changed_data: bool,
    /// Start again in a folder that already holds a run; the run's own files are removed first
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub world: WorldArgs,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}
