//! Arguments of commands that several processes work on.

use clap::Args;
use gmflow_world::Shard;
use std::path::PathBuf;

/// Several processes.
#[derive(Args, Debug, Clone, Copy)]
pub struct WorldArgs {
    /// Several processes (mpirun, srun): seconds without an answer of the others after which a process ends
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub timeout: u64,
}

/// Several processes, or one part of the work.
#[derive(Args, Debug, Clone, Copy)]
pub struct ShardArgs {
    #[command(flatten)]
    pub world: WorldArgs,
    /// Do part I of N alone, without a word to the other processes, as in a job array: 2/8 is the second of eight. gmflow merge joins
    /// the parts
    #[arg(long, value_name = "I/N", value_parser = part)]
    pub shard: Option<Shard>,
}

/// Reads a part of the work.
pub fn part(text: &str) -> Result<Shard, String> {
    text.parse().map_err(|error| match error {
        gmflow_world::Error::Config { expected, .. } => format!("expected {expected}"),
        other => other.to_string(),
    })
}

/// `gmflow merge`.
#[derive(Args, Debug)]
#[command(
    long_about = "Joins the parts that calls with --shard wrote: files of samples (.npz, .safetensors), of statistics, of figures, \
or parts of a cache of latents. The result has the bytes of a call without --shard. All parts must be there, and of one call's settings.",
    after_help = "Examples:\n  gmflow merge samples.*-of-8.npz --out samples.npz\n  \
gmflow merge eval.*-of-8.safetensors --out eval.json\n  gmflow merge latents --out latents"
)]
pub struct MergeArgs {
    /// The parts: files of samples, statistics or figures; or the folder that holds the parts of a cache of latents
    #[arg(required = true, value_name = "PART")]
    pub parts: Vec<PathBuf>,
    /// The file or folder to write
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
}

/// `gmflow bench-world`.
#[derive(Args, Debug)]
#[command(
    long_about = "Measures how fast the processes of a job exchange numbers: the latency of a message, and the bandwidth of sums beside that \
of the MPI library's own sum. With a configuration it also measures a step of training, and predicts its time for 1 to 64 processes.",
    after_help = "Examples:\n  mpirun -n 2 gmflow bench-world\n  mpirun -n 2 gmflow bench-world configs/shapes.toml"
)]
pub struct BenchWorldArgs {
    /// A configuration of training, as for gmflow train
    pub config: Option<PathBuf>,
    /// Replace one setting of the file; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The largest sum, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub size: u32,
    /// Sums of each size, of which the median counts; steps of training, twice as many
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    #[command(flatten)]
    pub world: WorldArgs,
    /// Print what was measured as JSON
    #[arg(long)]
    pub json: bool,
}
