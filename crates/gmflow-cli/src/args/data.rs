//! The arguments of `gmflow data`.

use super::groups::OutcomeArgs;
use super::values::{Choice, count, one_of};
use clap::{Args, Subcommand, ValueEnum};
use gmflow_data::PictureFormat;
use std::path::PathBuf;

/// `gmflow data`.
#[derive(Subcommand, Debug)]
pub enum DataCommand {
    /// Download data sets from the Hugging Face hub
    Get(GetArgs),
    /// Show the data sets that have a name, and where they are
    List(ListArgs),
    /// Print the folder of a data set
    Path(PathArgs),
    /// Draw a data set and write it as a folder of pictures, to try things without photos of your own
    Make(MakeArgs),
}

/// `gmflow data get`.
#[derive(Args, Debug)]
#[command(
    long_about = "Downloads data sets from the Hugging Face hub into its cache (HF_HOME, HF_HUB_CACHE), which other programs share. Every \
file is compared with the size and the SHA-256 that the hub states. An interrupted download continues with the same call; HF_ENDPOINT names \
a mirror, HF_HUB_OFFLINE=1 asks the cache alone.",
    after_help = "Example:\n  gmflow data get mnist\n  gmflow train configs/mnist.toml --out runs/mnist"
)]
pub struct GetArgs {
    /// mnist, fashion-mnist or cifar10; several are downloaded one after the other
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}

/// `gmflow data list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

/// `gmflow data path`.
#[derive(Args, Debug)]
pub struct PathArgs {
    /// mnist, fashion-mnist or cifar10
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The folder of the test files rather than of the training files
    #[arg(long)]
    pub test: bool,
}

/// `gmflow data make`.
#[derive(Args, Debug)]
#[command(
    long_about = "Draws pictures of coloured shapes (circle, cross, ring, square, star, triangle) and writes them as a folder with one \
subfolder per class: the layout that your own photos need.",
    after_help = "Example:\n  gmflow data make shapes --out shapes-photos"
)]
pub struct MakeArgs {
    /// What to draw
    #[arg(value_enum, value_name = "NAME")]
    pub what: Drawn,
    /// The folder to write; it must not exist yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Number of pictures; the classes take turns
    #[arg(long, value_name = "N", default_value_t = 1200, value_parser = count)]
    pub num: usize,
    /// Height and width in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 64, value_parser = count)]
    pub size: usize,
    /// Another seed gives other pictures
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// The format of the files
    #[arg(long, value_name = "F", default_value = "jpeg", value_parser = one_of(FORMATS))]
    pub format: PictureFormat,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}

/// A data set that is drawn.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Drawn {
    /// Coloured shapes in six classes
    Shapes,
}

const FORMATS: &[Choice<PictureFormat>] =
    &[("jpeg", PictureFormat::Jpeg, "As cameras write it"), ("png", PictureFormat::Png, "Lossless")];
