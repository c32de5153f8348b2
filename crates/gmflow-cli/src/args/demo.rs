//! The arguments of `gmflow demo`.

use clap::Args;
use std::path::PathBuf;

/// The most seconds of a demo: a day.
const LONGEST_DEMO: u64 = 24 * 60 * 60;

/// `gmflow demo`.
#[derive(Args, Debug)]
#[command(
    long_about = "Trains two small networks on a checkerboard of points: ordinary flow matching (one Gaussian, L2 loss) \
and a Gaussian mixture flow (K = 64, transition loss). Then draws points from both in 1, 2, 4 and 8 network evaluations \
and compares them with the true density, in one picture and one table.",
    after_help = "Example:\n  gmflow demo --out demo && xdg-open demo/demo.png"
)]
pub struct DemoArgs {
    /// Folder for the picture, the table and the two models
    #[arg(long, value_name = "DIR", default_value = "gmflow-demo")]
    pub out: PathBuf,
    /// Seed of the networks, the training points and the samples
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Train each model for about this many seconds instead of a fixed number of steps (then the result depends on
    /// the machine's speed)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=LONGEST_DEMO))]
    pub seconds: Option<u64>,
    /// Overwrite an earlier demo in the same folder
    #[arg(long)]
    pub force: bool,
    /// Print the table as JSON
    #[arg(long)]
    pub json: bool,
}
