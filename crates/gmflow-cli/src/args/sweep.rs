//! The arguments of `gmflow sweep`.

use super::groups::{DataArgs, DeviceArgs, DownloadArgs, TableArgs};
use super::world::ShardArgs;
use clap::Args;
use std::path::PathBuf;

/// `gmflow sweep`.
#[derive(Args, Debug)]
#[command(
    long_about = "Measures every combination that a plan (TOML) names: models, solvers, steps, guidance. Each finished cell is one line of \
OUT/cells.jsonl and is never measured again; the same call continues after an interruption and tries failed cells again. Writes tables \
(table.md, best.md) and charts (PNG and SVG) of distance and precision against network evaluations, and of precision against recall.",
    after_help = "Example:\n  gmflow sweep book/src/sweep-digits.toml --out sweep"
)]
pub struct SweepArgs {
    /// The plan
    pub plan: PathBuf,
    #[command(flatten)]
    pub named: DataArgs,
    /// The folder for cells, tables and charts
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub download: DownloadArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub shard: ShardArgs,
    /// Measure every cell again
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub table: TableArgs,
}
