//! The arguments of `gmflow pack`.

use super::groups::OutcomeArgs;
use super::values::count;
use clap::Args;
use std::path::PathBuf;

/// `gmflow pack`.
#[derive(Args, Debug)]
#[command(
    long_about = "Writes a data set of images as tar shards, in the layout of WebDataset: NUMBER.jpg with the class in NUMBER.cls, names of \
classes in classes.txt. Clusters and object stores read a few large files faster than many small ones. Image files are copied as they are, in \
a random order, so that each shard holds images of all classes. The same call gives the same bytes. A call that was interrupted is continued \
by the same call.",
    after_help = "Examples:\n  gmflow pack photos --shards 16 --out photos-shards\n  gmflow train photos-shards\n  \
gmflow pack configs/mnist.toml --shards 8 --out s3://bucket/mnist"
)]
pub struct PackArgs {
    /// A folder of pictures, of Parquet files or of tar shards, or a configuration file (TOML) with a [data.source] table; a folder may
    /// be a URL
    #[arg(value_name = "DATA")]
    pub data: PathBuf,
    /// The folder of the files of a data set that DATA gives by its name (IDX or Parquet), or the folder above it
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Number of shards; some hundred megabytes each are a good size
    #[arg(long, value_name = "N", value_parser = count)]
    pub shards: usize,
    /// The folder to write, or a URL that starts with s3:// or gs://
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Another seed gives another order
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "in_order")]
    pub seed: u64,
    /// Keep the order of the data, in which classes follow each other
    #[arg(long)]
    pub in_order: bool,
    /// Remove the shards that an earlier call has packed there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}
