//! The command line as the user writes it. What an argument means together with others is decided by the commands.

use crate::data::args::DataArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const ABOUT: &str = "Gaussian mixture flow matching: train a generative model, sample from it in a few steps";

/// A macro that gives its text where this build has a feature.
macro_rules! where_built {
    ($name:ident, $feature:literal) => {
        #[cfg(feature = $feature)]
        macro_rules! $name {
            ($text:literal) => {
                $text
            };
        }
        #[cfg(not(feature = $feature))]
        macro_rules! $name {
            ($text:literal) => {
                ""
            };
        }
    };
}
where_built!(cuda, "cuda");
where_built!(vulkan, "vulkan");
where_built!(wgpu, "wgpu");

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ndevices:   cpu (AVX2 and AVX-512 code chosen at run time)",
    cuda!("\n           cuda"),
    vulkan!("\n           vulkan"),
    wgpu!("\n           wgpu"),
    "\nnetworks:  mlp2d, gm-dit, unet",
    "\nsolvers:   gm-ode, gm-sde (orders 1 and 2), euler, heun, ddpm-small, ddpm-large, dpmpp-2m, dpmpp-2m-sde, dpmpp-2s,",
    "\n           unipc, deis, sa-solver",
    "\nguidance:  probabilistic, classifier-free, orthogonal projection, interval",
    "\nformats:   png, npz, safetensors",
);

/// The whole command line.
#[derive(Parser, Debug)]
#[command(name = "gmflow", version, long_version = LONG_VERSION, about = ABOUT, max_term_width = 110)]
#[command(
    after_help = "Start with:  gmflow demo\nExit codes:  0 done, 1 failed while running, 2 wrong arguments or settings"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant per command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// See the method win on a 2-D example, in about two minutes and without a download
    Demo(DemoArgs),
    /// Look at a folder of pictures and write a configuration that fits it and this machine
    Init(InitArgs),
    /// Train a model as a configuration file says, or on a folder of pictures, or continue a run
    Train(TrainArgs),
    /// Draw samples from a trained model
    Sample(SampleArgs),
    /// Show what a checkpoint holds
    Info(InfoArgs),
    /// Write one set of a checkpoint's weights as a model folder to share
    Export(ExportArgs),
    /// Encode images with an autoencoder, once, to train on their latents
    Encode(EncodeArgs),
    /// Get, find and make data sets
    #[command(
        after_help = "Examples:\n  gmflow data list\n  gmflow data get mnist\n  gmflow data make shapes --out shapes-photos"
    )]
    Data {
        /// What to do
        #[command(subcommand)]
        command: crate::data::DataCommand,
    },
    /// Measure samples or models against real data: FID, KID, precision and recall, colours, likelihood
    Eval(EvalArgs),
    /// Compute the reference statistics of a data set once, for eval
    Stats(StatsArgs),
    /// Measure a grid of models, solvers, steps and guidances, with charts
    Sweep(SweepArgs),
    /// Train a small classifier whose features eval can use
    Features {
        /// What to do
        #[command(subcommand)]
        command: FeaturesCommand,
    },
    /// Turn the weights in a PyTorch file (.pt, .pth, .bin) into safetensors
    Import(ImportArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  gmflow completions bash > ~/.local/share/bash-completion/completions/gmflow")]
    Completions {
        /// The shell to complete in
        shell: clap_complete::Shell,
    },
}

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

/// What a plan for a set of pictures goes by.
#[derive(Args, Debug, Default)]
pub struct PlanArgs {
    /// Height and width that the pictures are brought to [default: 32, or as they are where they are small and of one size]
    #[arg(long, value_name = "PIXELS", value_parser = count)]
    pub size: Option<usize>,
    /// How long training may take: the network and the number of steps follow from it [default: 120]
    #[arg(long, value_name = "MIN", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub minutes: Option<u64>,
    /// How many steps to train, whatever time they take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "minutes")]
    pub steps: Option<u64>,
    /// The network [default: the largest that the time, the memory and the number of pictures allow]
    #[arg(long, value_enum, value_name = "NETWORK")]
    pub network: Option<NetworkSize>,
}

/// The networks of a plan.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkSize {
    /// For a few minutes: pictures of simple shapes
    Tiny,
    /// For an hour or two on a laptop
    Small,
    /// For a night on a laptop
    Medium,
    /// For a GPU
    Large,
}

impl From<NetworkSize> for gmflow_train::plan::NetworkSize {
    fn from(size: NetworkSize) -> Self {
        match size {
            NetworkSize::Tiny => Self::Tiny,
            NetworkSize::Small => Self::Small,
            NetworkSize::Medium => Self::Medium,
            NetworkSize::Large => Self::Large,
        }
    }
}

/// `gmflow init`.
#[derive(Args, Debug)]
#[command(
    long_about = "Looks at a set of pictures: how many, which classes, sizes and formats. Chooses the size to learn, a network that fits the \
machine and the time, and the number of steps; takes a few steps to see how fast they are; and writes a short configuration with comments for \
`gmflow train`, with the expected time to the first pictures that look like the data and to the end.",
    after_help = "Examples:\n  gmflow init photos\n  gmflow init photos --minutes 30 --size 64 --out photos-64.toml\n  \
gmflow init train-images-idx3-ubyte.gz --out digits.toml"
)]
pub struct InitArgs {
    /// A folder of pictures, in one subfolder per class where there are classes; Parquet files, or a folder of them; or an IDX file
    pub data: PathBuf,
    /// The configuration to write [default: the name of the data and .toml]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub plan: PlanArgs,
    /// Where to compute: cpu, or in a build for GPUs cuda, vulkan, wgpu, with an index as in cuda:1, or gpu
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// `gmflow train`.
#[derive(Args, Debug)]
#[command(
    long_about = "Trains the model that a TOML file describes: network, data, loss, optimiser, schedule. The run folder \
holds the resolved configuration, checkpoints, logs (JSON lines and TensorBoard) and sample pictures. Ctrl-C, SIGTERM, SIGHUP and \
SIGUSR1 write a checkpoint and stop, with the exit code 128 + the signal's number; --resume continues as if nothing had happened.",
    after_help = "Examples:\n  gmflow train photos --minutes 30\n  gmflow train configs/mnist.toml --out runs/mnist\n  \
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
    /// Let the model of --from have other classes than the data: training gives its class numbers new meanings
    #[arg(long, conflicts_with_all = ["resume", "resume_from"])]
    pub new_classes: bool,
    /// Continue from the run folder's latest checkpoint, or from the beginning where there was none yet
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Continue from the checkpoint of this step; later ones are renamed and kept
    #[arg(long, value_name = "STEP", conflicts_with_all = ["force", "from"])]
    pub resume_from: Option<u64>,
    /// Continue from a checkpoint with files that differ from its checksums: they are damaged, or were changed on purpose
    #[arg(long)]
    pub no_verify: bool,
    /// Continue although the data changed since: with other images, and classes added behind the others or removed from the end
    #[arg(long)]
    pub accept_changed_data: bool,
    /// Start anew in a run folder that already holds a run, whose own files are removed first
    #[arg(long)]
    pub force: bool,
    /// Where to compute: cpu, or in a build for GPUs cuda, vulkan, wgpu, with an index as in cuda:1, or gpu
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// `gmflow encode`.
#[derive(Args, Debug)]
#[command(
    long_about = "Turns a data set of images into latents of an autoencoder: the mean and the standard deviation of each, in safetensors \
shards, which `gmflow train` reads as [data.source] kind = \"latents\". A call that was interrupted is continued by the same call.",
    after_help = "Examples:\n  gmflow encode --vae CHECKPOINT --images photos --size 256 --mirror --out photos-latents\n  \
gmflow encode --vae CHECKPOINT --data configs/cifar10.toml --out cifar10-latents"
)]
pub struct EncodeArgs {
    /// The autoencoder: a folder with its config.json, or a checkpoint with a vae/ folder
    #[arg(long, value_name = "DIR")]
    pub vae: PathBuf,
    /// A configuration file (TOML) whose [data.source] table names the images
    #[arg(long, value_name = "FILE", required_unless_present = "images", conflicts_with = "images")]
    pub data: Option<PathBuf>,
    /// The folder of the files of a data set that --data gives by its name (IDX or Parquet), or the folder above it
    #[arg(long, value_name = "DIR", requires = "data")]
    pub data_dir: Option<PathBuf>,
    /// A folder of images in one subfolder per class
    #[arg(long, value_name = "DIR", requires = "size")]
    pub images: Option<PathBuf>,
    /// Height and width that the images of --images are brought to
    #[arg(long, value_name = "PIXELS", requires = "images", value_parser = count)]
    pub size: Option<usize>,
    /// The folder of latents to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Encode the mirrored images too, for horizontal_flip in training
    #[arg(long)]
    pub mirror: bool,
    /// How many images are encoded at once
    #[arg(long, value_name = "B", default_value_t = 8, value_parser = count)]
    pub batch: usize,
    /// Latents of one file
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = count)]
    pub shard: usize,
    /// Encode the first images only
    #[arg(long, value_name = "N", value_parser = count)]
    pub limit: Option<usize>,
    /// Store numbers in 32 bits rather than in 16
    #[arg(long)]
    pub full_precision: bool,
    /// Where to compute: cpu, or in a build for GPUs cuda, vulkan, wgpu, with an index as in cuda:1, or gpu
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Start anew in a folder that already holds latents
    #[arg(long)]
    pub force: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// `gmflow export`.
#[derive(Args, Debug)]
#[command(
    long_about = "Writes the weights of a checkpoint, or one of its moving averages, as a folder to share, without the \
optimiser's state: in the layout of published checkpoints (model_index.json, transformer/, spectrum_net/, vae/, scheduler/; \
safetensors), or as a model folder of this program (model.json, model.safetensors). `gmflow sample` takes both.",
    after_help = "Examples:\n  gmflow export --checkpoint runs/imagenet --vae sd-vae --precision bf16 --out imagenet-bf16\n  \
gmflow export --checkpoint runs/mnist --layout gmflow --precision f16 --out models/mnist"
)]
pub struct ExportArgs {
    /// A run folder (its latest checkpoint is taken), a model folder, a published checkpoint, or owner/name of one on the
    /// Hugging Face hub
    #[arg(long, value_name = "DIR|ID")]
    pub checkpoint: PathBuf,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How the folder is laid out
    #[arg(long, value_enum, default_value = "diffusers")]
    pub layout: Layout,
    /// The autoencoder to put beside a model of latents: a folder with its config.json, or a checkpoint with a vae/ folder
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// Put this into the names of the weight files, such as bf16
    #[arg(long, value_name = "V")]
    pub as_variant: Option<String>,
    /// Cut weight files at about this many megabytes [default: 10000]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..))]
    pub shard: Option<u64>,
    /// The moving average to write; `none` for the weights themselves [default: the first average by name, where there
    /// is one]
    #[arg(long, value_name = "NAME")]
    pub ema: Option<String>,
    /// How numbers are stored
    #[arg(long, value_name = "P", value_enum, default_value = "f32")]
    pub precision: Precision,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which features images are compared by.
#[derive(Args, Debug, Clone)]
pub struct FeatureArgs {
    /// Features: inception (the published weights, downloaded once), inception=FILE, inception-pytorch-fid[=FILE] (that
    /// program's resizing), classifier=FILE (from gmflow features train), pixels; or precomputed, for arrays of vectors
    #[arg(long, value_name = "F", default_value = "inception")]
    pub features: String,
    /// Do not download anything
    #[arg(long)]
    pub offline: bool,
}

/// What the numbers of array files are.
#[derive(Args, Debug, Clone, Copy, Default)]
pub struct ArrayArgs {
    /// The numbers that are black and white in array files of images: -1,1 or 0,1 or 0,255 or others [default: uint8 is 0,255; floating-point
    /// numbers are -1,1, and are refused where they lie outside or none is negative; files of gmflow sample are -1,1]
    #[arg(long, value_name = "LOW,HIGH", value_parser = range, allow_hyphen_values = true)]
    pub range: Option<[f64; 2]>,
    /// Where the channels of array files of images are [default: the axis of size 1 or 3, or the one that fits the reference]
    #[arg(long, value_enum)]
    pub layout: Option<ArrayLayout>,
}

/// Where the channels of images are.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArrayLayout {
    /// [n, c, h, w]
    Nchw,
    /// [n, h, w, c]
    Nhwc,
}

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
    /// A configuration file (TOML) whose [data.source] table names labelled images, or a folder with one subfolder per class
    pub data: PathBuf,
    #[command(flatten)]
    pub named: DataArgs,
    /// Height and width that the images of a folder are brought to
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
    /// How often every image is seen
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = count)]
    pub epochs: usize,
    /// Images per step
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    pub batch_size: usize,
    /// The highest learning rate; it falls to 0 in a line
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    pub lr: f64,
    /// The share of the steps in which the learning rate rises to the highest
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub warmup: f64,
    /// The weight decay of AdamW
    #[arg(long, value_name = "W", default_value_t = 0.01)]
    pub weight_decay: f64,
    /// The probability that the target spreads evenly over all classes
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub label_smoothing: f64,
    /// Move the images by up to so many pixels in each direction
    #[arg(long, value_name = "PIXELS", default_value_t = 2)]
    pub shift: usize,
    /// Mirror half of the images, as `horizontal_flip = true` in the configuration also asks for. Not for letters and digits
    #[arg(long)]
    pub flip: bool,
    /// Seed of the weights, the order, the shifts and what is held out
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// The layers of the classifier that is trained for its features.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassifierSize {
    /// Four convolutions, 128 features: digits and the like
    Small,
    /// Residual blocks at three levels, four times as many features as --width: colour pictures
    Residual,
}

/// `gmflow stats`.
#[derive(Args, Debug)]
#[command(
    long_about = "Computes features of a data set and writes their mean, covariance and the vectors themselves to one file, which \
`gmflow eval --real` takes instead of the data.",
    after_help = "Example:\n  gmflow stats configs/mnist.toml --features classifier=mnist-features.safetensors --out mnist.stats.safetensors"
)]
pub struct StatsArgs {
    /// A configuration file (TOML) whose [data.source] table names images, a folder of images, or an array file (.npy, .npz, .safetensors)
    pub data: PathBuf,
    #[command(flatten)]
    pub named: DataArgs,
    #[command(flatten)]
    pub features: FeatureArgs,
    #[command(flatten)]
    pub arrays: ArrayArgs,
    /// Height and width that the images of a folder are brought to [default: as they are, all of one size]
    #[arg(long, value_name = "PIXELS", value_parser = count)]
    pub size: Option<usize>,
    /// Use the first images only
    #[arg(long, value_name = "N", value_parser = count)]
    pub limit: Option<usize>,
    /// Keep mean and covariance only: a small file that has no precision, recall or kernel distance
    #[arg(long)]
    pub moments_only: bool,
    /// The file to write (.safetensors)
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// `gmflow eval`.
#[derive(Args, Debug)]
#[command(
    long_about = "Compares samples with real data and prints one row of a table for each set: Fréchet distance (called FID \
where the features are Inception's), kernel distance, Inception Score, precision, recall, density, coverage, colours, and, with --nll, \
the likelihood. A checkpoint is sampled from on the way, without files. Models of points in the plane are compared with their density.",
    after_help = "Examples:\n  gmflow eval --real configs/cifar10.toml --fake samples/ --features inception=weights.pth\n  \
gmflow eval --real mnist.stats.safetensors --fake models/mnist --features classifier=mnist-features.safetensors --num 1000 --steps 8 --out \
mnist.json\n  gmflow eval --real configs/checkerboard.toml --fake runs/checkerboard --steps 4"
)]
pub struct EvalArgs {
    /// The reference: a file of gmflow stats, a configuration file (TOML) whose [data.source] table names the data, a folder of
    /// images, an array file, or a .npz of mu and sigma
    #[arg(long, value_name = "DATA|STATS")]
    pub real: PathBuf,
    #[command(flatten)]
    pub named: DataArgs,
    /// What is measured: folders of images, array files (.npy, .npz, .safetensors; images [n c h w] or [n h w c], points [n 2]), run folders,
    /// models or published checkpoints
    #[arg(long, value_name = "DIR|FILE|ID", num_args = 1.., required = true)]
    pub fake: Vec<PathBuf>,
    #[command(flatten)]
    pub features: FeatureArgs,
    #[command(flatten)]
    pub arrays: ArrayArgs,
    /// How many samples are drawn from a checkpoint [default: as many as the reference has, at most 10000]
    #[arg(long, value_name = "N", value_parser = count)]
    pub num: Option<usize>,
    /// Use the first images of the reference only
    #[arg(long, value_name = "N", value_parser = count)]
    pub limit: Option<usize>,
    /// Height and width that the images of a folder given as --real are brought to [default: as they are, all of one size]
    #[arg(long, value_name = "PIXELS", value_parser = count)]
    pub size: Option<usize>,
    /// Measure the likelihood of the real images under the checkpoints, in bits per dimension: over all times, and in a table by time
    #[arg(long)]
    pub nll: bool,
    /// At how many times --nll measures every image: one in each of as many equal parts of (0, 1], which are the rows of the table by
    /// time
    #[arg(long, value_name = "N", requires = "nll", default_value_t = gmflow_eval::likelihood::TIMES, value_parser = count)]
    pub nll_times: usize,
    /// Leave out what needs all vectors: kernel distance, precision, recall, density, coverage
    #[arg(long)]
    pub moments_only: bool,
    /// Neighbours that precision and recall go by
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = count)]
    pub neighbours: usize,
    /// Subsets of the kernel distance
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = steps)]
    pub kid_subsets: usize,
    /// Samples in a subset, or fewer where a set is smaller
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = count)]
    pub kid_subset_size: usize,
    /// NumPy's seed of the subsets
    #[arg(long, value_name = "S", default_value_t = 2020)]
    pub kid_seed: u32,
    #[command(flatten)]
    pub sampler: SamplerArgs,
    /// Seed of the first sample
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// How many samples are computed at once [default: 64 images or 4096 points]
    #[arg(long, value_name = "B", value_parser = count)]
    pub batch: Option<usize>,
    /// The moving average of the weights to use; `none` for the weights themselves [default: the first average by name,
    /// where there is one]
    #[arg(long, value_name = "NAME")]
    pub ema: Option<String>,
    /// What the large layers of a checkpoint's network multiply; everything else is computed in f32, as is all where the processor or
    /// the network has nothing for what is asked
    #[arg(long, value_enum, value_name = "PRECISION", default_value = "f32")]
    pub precision: Arithmetic,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// The autoencoder that decodes a model of latents [default: the one that came with the model, or that its data was
    /// encoded with]
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    /// Write all figures and settings here as JSON, and the table beside it as .md
    #[arg(long, value_name = "FILE.json")]
    pub out: Option<PathBuf>,
    /// Where to compute: cpu, or in a build for GPUs cuda, vulkan, wgpu, with an index as in cuda:1, or gpu
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// Print the table in Markdown
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Print JSON instead of the table
    #[arg(long)]
    pub json: bool,
}

/// `gmflow sweep`.
#[derive(Args, Debug)]
#[command(
    long_about = "Measures every combination that a plan (TOML) names: models, solvers, steps, guidance. Each finished cell is one line of \
OUT/cells.jsonl and is never measured again; the same call continues after an interruption and tries failed cells again. Writes tables \
(table.md, best.md) and charts (PNG and SVG) of distance and precision against network evaluations, and of precision against recall.",
    after_help = "Example:\n  gmflow sweep docs/sweep-digits.toml --out sweep"
)]
pub struct SweepArgs {
    /// The plan
    pub plan: PathBuf,
    #[command(flatten)]
    pub named: DataArgs,
    /// The folder for cells, tables and charts
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Do not download anything
    #[arg(long)]
    pub offline: bool,
    /// Where to compute: cpu, or in a build for GPUs cuda, vulkan, wgpu, with an index as in cuda:1, or gpu
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Measure every cell anew
    #[arg(long)]
    pub force: bool,
    /// Print the tables in Markdown
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Print the cells as JSON instead of the tables
    #[arg(long)]
    pub json: bool,
}

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
    /// Take the tensors whose names begin with this, without it
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// The dictionary in the file that holds the weights [default: state_dict, where there is one]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// The config.json of a transformer, U-Net, spectrum network or autoencoder, which the tensors must fit
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How numbers are stored
    #[arg(long, value_name = "P", value_enum, default_value = "f32")]
    pub precision: Precision,
    /// Overwrite what is there
    #[arg(long)]
    pub force: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which of a checkpoint's versions and weights to read, and how.
#[derive(Args, Debug, Default)]
pub struct PublishedArgs {
    /// The branch, tag or commit of a repository on the hub [default: main]
    #[arg(long, value_name = "R")]
    pub revision: Option<String>,
    /// Read these weights of a published checkpoint, such as bf16
    #[arg(long, value_name = "V")]
    pub variant: Option<String>,
    /// Read weights that differ from the checksums in model.json: they are damaged, or were changed on purpose
    #[arg(long)]
    pub no_verify: bool,
}

/// Folder layouts.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// That of published checkpoints
    Diffusers,
    /// model.json and model.safetensors
    Gmflow,
}

/// How numbers are stored.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits
    F32,
    /// 16 bits with the range of f32
    Bf16,
    /// 16 bits, IEEE half precision
    F16,
}

impl From<Precision> for gmflow::checkpoint::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::F16 => Self::F16,
        }
    }
}

/// What the network multiplies.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// 32-bit floating point
    F32,
    /// bf16 with sums in f32: faster and in less memory where the processor has AVX512-BF16
    Bf16,
    /// 8-bit integers with a scale for every 128: faster still and smaller where the processor has AVX512-VNNI
    Int8,
}

impl From<Arithmetic> for gmflow::kernel::Arithmetic {
    fn from(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::F32 => Self::F32,
            Arithmetic::Bf16 => Self::Bf16,
            Arithmetic::Int8 => Self::Int8,
        }
    }
}

/// `gmflow sample`.
#[derive(Args, Debug)]
#[command(
    long_about = "Draws samples from a trained model. Sample i uses seed S+i for everything random in it, so it is the \
same whatever --batch and --num are. Image models give one PNG per sample, or a grid, or one array file; every file says in its \
metadata how it was made. Models of 2-D points give an array file and a picture of their histogram. A folder takes samples of the \
same settings with other seeds beside those that are there; those of other settings are refused.",
    after_help = "Examples:\n  gmflow sample --checkpoint models/mnist --class 7 --steps 6 --out sevens\n  \
gmflow sample --checkpoint models/mnist --num 100 --grid --out digits.png\n  \
gmflow sample --checkpoint runs/mnist --solver gm-sde --steps 32 --num 1000 --format npz --out samples.npz"
)]
pub struct SampleArgs {
    /// A run folder (its latest checkpoint is taken), a model folder, a published checkpoint, or owner/name of one on the
    /// Hugging Face hub
    #[arg(long, value_name = "DIR|ID")]
    pub checkpoint: PathBuf,
    /// Where to write: a folder, or a file when the name ends in .png (with --grid), .npz or .safetensors, in upper or lower case
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// How many samples; without it 16 images or 10000 points
    #[arg(long, value_name = "N", value_parser = count)]
    pub num: Option<usize>,
    /// A class by its label, one of the label's synonyms or its index, or several with commas between them; may be repeated. What is a
    /// whole label is one class, commas and all. Samples take the classes in turn [default: all classes]
    #[arg(long, value_name = "CLASS", allow_negative_numbers = true)]
    pub class: Vec<String>,
    #[command(flatten)]
    pub sampler: SamplerArgs,
    /// Seed of the first sample
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// How many samples are computed at once; without it 16 images or 4096 points. The result does not depend on it
    #[arg(long, value_name = "B", value_parser = count)]
    pub batch: Option<usize>,
    /// Start from this noise instead of the seeds': tensor `noise` [n c h w] of a safetensors file, float32 with mean 0 and
    /// standard deviation 1
    #[arg(long, value_name = "FILE", conflicts_with = "num")]
    pub noise: Option<PathBuf>,
    /// Write one picture with all images
    #[arg(long, conflicts_with = "format")]
    pub grid: bool,
    /// How to write the samples; without it PNG files for images and npz for points
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// The moving average of the weights to use; `none` for the weights themselves [default: the first average by name,
    /// where there is one]
    #[arg(long, value_name = "NAME")]
    pub ema: Option<String>,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// The autoencoder that decodes a model of latents [default: the one that came with the model, or that its data was
    /// encoded with]
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    /// Decode images that are larger than this in overlapping tiles, in latents to a side
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count)]
    pub vae_tile: usize,
    /// Write the latents of a model of latents, not decoded; needs npz or safetensors
    #[arg(long)]
    pub latents: bool,
    /// What the network's large layers multiply; everything else is computed in f32, as is all where the processor or the network has
    /// nothing for what is asked. The samples' metadata say what was computed
    #[arg(long, value_enum, value_name = "PRECISION", default_value = "f32")]
    pub precision: Arithmetic,
    /// Where to compute: cpu, or in a build for GPUs cuda, vulkan, wgpu, with an index as in cuda:1, or gpu
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: String,
    /// Replace the samples that are there: in a folder, remove those of other settings. Files that gmflow sample did not write stay
    #[arg(long)]
    pub force: bool,
    /// Print what was written as JSON
    #[arg(long)]
    pub json: bool,
}

/// How samples are drawn.
#[derive(Args, Debug, Clone, Default, PartialEq)]
#[command(next_help_heading = "Sampler")]
pub struct SamplerArgs {
    /// Solver; without it gm-ode for mixtures (K > 1) and euler for K = 1
    #[arg(long, value_enum)]
    pub solver: Option<Solver>,
    /// Order of gm-ode and gm-sde: 1 or 2 [default: 2]
    #[arg(long, value_name = "1|2", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub order: Option<u8>,
    /// Network evaluations per sample (a guided evaluation counts once)
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = steps)]
    pub steps: usize,
    /// Sub-steps of gm-ode within a step, which need no network; without it as many as the steps call for
    #[arg(long, value_name = "N", value_parser = steps)]
    pub substeps: Option<usize>,
    /// Probabilistic guidance in [0, 1); 0 is off [default: the guidance the model was given in training, else off]
    #[arg(long, value_name = "W", conflicts_with = "cfg")]
    pub guidance: Option<f64>,
    /// Classifier-free guidance scale, at least 1; 1 is off
    #[arg(long, value_name = "W")]
    pub cfg: Option<f64>,
    /// How much of the guidance direction's part along the prediction is removed, in [0, 1] [default: 1 with
    /// --guidance, 0 with --cfg]
    #[arg(long, value_name = "X")]
    pub orthogonal: Option<f64>,
    /// The variance that guidance and steps of order 2 go by where they reweight mixtures [default: what the model was given in training,
    /// else image, as published]
    #[arg(long, value_enum, value_name = "image|pixel")]
    pub reweight_by: Option<ReweightBy>,
    /// Guide only between these times, where 1 is noise and 0 data, such as 0.2,0.8
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval)]
    pub guidance_interval: Option<[f64; 2]>,
    /// Shape gm-sde's draws with the model's spectrum network [default: on if the model has one]
    #[arg(long, value_enum, value_name = "on|off")]
    pub spectral: Option<Switch>,
    /// How steps of order 2 carry out the change of the prediction [default: what the model was given in training, else reweight, as
    /// published]
    #[arg(long, value_enum, value_name = "reweight|translate")]
    pub second_order: Option<Carry>,
    /// For comparisons: steps of order 2 compare predictions without moving the previous one to the new point
    #[arg(long)]
    pub unconverted: bool,
}

/// `gmflow info`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  gmflow info models/mnist\n  gmflow info runs/mnist --json | jq .progress")]
pub struct InfoArgs {
    /// A run folder (its latest checkpoint is taken), a model folder, a published checkpoint, or owner/name of one on the
    /// Hugging Face hub
    pub checkpoint: PathBuf,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// The solvers by their names on the command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// Deterministic, along the mixture's analytic velocity
    GmOde,
    /// Stochastic, with draws from the mixture
    GmSde,
    /// Euler steps along the mean velocity (DDIM)
    Euler,
    /// Heun's second-order steps
    Heun,
    /// Ancestral sampling with the smaller variance
    DdpmSmall,
    /// Ancestral sampling with the larger variance
    DdpmLarge,
    /// DPM-Solver++ 2M, multistep of order 2
    #[value(name = "dpmpp-2m")]
    Dpmpp2m,
    /// DPM-Solver++ 2M for the stochastic equation
    #[value(name = "dpmpp-2m-sde")]
    Dpmpp2mSde,
    /// DPM-Solver++ 2S, steps in pairs
    #[value(name = "dpmpp-2s")]
    Dpmpp2s,
    /// UniPC-2, a multistep predictor and corrector
    #[value(name = "unipc")]
    UniPc,
    /// DEIS of order 2
    Deis,
    /// SA-Solver, a stochastic multistep predictor and corrector
    #[value(name = "sa-solver")]
    Sa,
}

/// File formats of samples.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One PNG file per image
    Png,
    /// NumPy archive with `samples` [n c h w] or [n 2], `seeds` and, with classes, `classes`
    Npz,
    /// The same in one safetensors file
    Safetensors,
}

/// The variance that reweighting goes by.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReweightBy {
    /// The average over the image: uncertain pixels move further than is asked
    Image,
    /// The pixel's own along the shift: every pixel moves as far as is asked
    Pixel,
}

/// How the second-order change is carried out.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carry {
    /// With guidance, by reweighting the mixture
    Reweight,
    /// By moving the guided mixture, which is exact, but in few steps leaves what the mixture holds likely
    Translate,
}

/// On or off.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

impl Solver {
    /// The name on the command line.
    pub fn name(self) -> String {
        name_of(&self)
    }
}

/// The name of an argument's value on the command line.
pub fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Two numbers with a comma between them.
fn interval(text: &str) -> Result<[f64; 2], String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "expected two numbers such as 0.2,0.8".to_owned())
}

/// Two numbers with a comma or two dots between them, the lower one first.
fn range(text: &str) -> Result<[f64; 2], String> {
    let plain = text.trim().trim_start_matches('[').trim_end_matches(']');
    let numbers: Option<Vec<f64>> = match plain.split_once("..") {
        Some((low, high)) => [low, high].iter().map(|number| number.trim().parse().ok()).collect(),
        None => plain.split(',').map(|number| number.trim().parse().ok()).collect(),
    };
    numbers
        .and_then(|numbers| <[f64; 2]>::try_from(numbers).ok())
        .filter(|[low, high]| low.is_finite() && high.is_finite() && low < high)
        .ok_or_else(|| "expected two numbers, the lower one first, such as 0,255 or -1,1".to_owned())
}

/// The most seconds of a demo: a day.
const LONGEST_DEMO: u64 = 24 * 60 * 60;

/// A number of things, at least one.
pub fn count(text: &str) -> Result<usize, String> {
    at_most(text, gmflow::limits::MOST_SAMPLES)
}

/// A number of steps or rounds, at least one.
fn steps(text: &str) -> Result<usize, String> {
    at_most(text, gmflow::limits::MOST_STEPS)
}

fn at_most(text: &str, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("expected a whole number from 1 to {most}"))
}
