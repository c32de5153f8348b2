//! The arguments of `gmflow features`.

use super::groups::{DataArgs, OutcomeArgs, OverwriteArgs};
use super::values::count;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `gmflow features`.
#[derive(Subcommand, Debug)]
pub enum FeaturesCommand {
    /// Train a classifier on labelled images
    Train(FeaturesTrainArgs),
}

/// `gmflow features train`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gmflow features train configs/mnist.toml --out mnist-features.safetensors
  gmflow features train configs/cifar10.toml --network residual --epochs 12 --batch-size 128 --lr 3e-3 --warmup 0.2 \\
      --label-smoothing 0.1 --shift 4 --out cifar10-features.safetensors")]
pub struct FeaturesTrainArgs {
    /// A configuration file (TOML) with a [data.source] table that names labelled images, or a folder with one subfolder per class
    pub data: PathBuf,
    #[command(flatten)]
    pub named: DataArgs,
    /// Height and width to resize the images of a folder to
    #[arg(long, value_name = "PIXELS", value_parser = count)]
    pub size: Option<usize>,
    /// The file to write (.safetensors)
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The layers of the classifier
    #[arg(long, value_enum, value_name = "small|residual", default_value_t = ClassifierSize::Small)]
    pub network: ClassifierSize,
    /// Channels of the residual network's first level, a multiple of 16; the next two have twice and four times as many [default: 64]
    #[arg(long, value_name = "CHANNELS", value_parser = count)]
    pub width: Option<usize>,
    /// Residual blocks of each of its three levels [default: 1]
    #[arg(long, value_name = "N", value_parser = count)]
    pub depth: Option<usize>,
    /// Number of passes over the images
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = count)]
    pub epochs: usize,
    /// Images per step
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    pub batch_size: usize,
    /// Peak learning rate; it decays linearly to 0
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    pub lr: f64,
    /// Share of the steps in which the learning rate rises to its peak
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub warmup: f64,
    /// The weight decay of AdamW
    #[arg(long, value_name = "W", default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Share of the target probability that is spread evenly over all classes
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub label_smoothing: f64,
    /// Shift the images at random by up to this many pixels in each direction
    #[arg(long, value_name = "PIXELS", default_value_t = 2)]
    pub shift: usize,
    /// Mirror half of the images, as `horizontal_flip = true` in the configuration also asks for. Not for letters and digits
    #[arg(long)]
    pub flip: bool,
    /// Seed of the weights, the order of the images, the shifts and the held-out images
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}

/// The layers of the classifier that is trained for its features.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassifierSize {
    /// Four convolutions, 128 features: digits and the like
    Small,
    /// Residual blocks at three levels, four times as many features as --width: colour pictures
    Residual,
}
