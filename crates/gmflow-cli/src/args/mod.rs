//! The command line as the user writes it. What an argument means together with others is decided by the commands.

mod data;
mod demo;
mod encode;
mod eval;
mod export;
mod features;
mod groups;
mod import;
mod info;
mod init;
mod pack;
mod sample;
mod sampler;
#[cfg(feature = "serve")]
mod serve;
mod stats;
mod sweep;
mod train;
mod values;
mod world;

pub use data::{DataCommand, Drawn, GetArgs, ListArgs, MakeArgs, PathArgs};
pub use demo::DemoArgs;
pub use encode::EncodeArgs;
pub use eval::EvalArgs;
pub use export::{ExportArgs, Layout};
pub use features::{ClassifierSize, FeaturesCommand, FeaturesTrainArgs};
#[cfg(feature = "serve")]
pub use groups::ModelArgs;
pub use groups::{ArrayArgs, DownloadArgs, FeatureArgs, PublishedArgs};
pub use import::ImportArgs;
pub use info::InfoArgs;
pub use init::{InitArgs, PlanArgs};
pub use pack::PackArgs;
pub use sample::{Format, SampleArgs};
#[cfg(feature = "serve")]
pub use serve::{ServeArgs, ServerArgs, UiArgs};
pub use stats::StatsArgs;
pub use sweep::SweepArgs;
pub use train::TrainArgs;
pub use world::{BenchWorldArgs, MergeArgs, WorldArgs};

use clap::{Parser, Subcommand};
use gmflow::solver::SolverConfig;
use std::sync::LazyLock;

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
where_built!(object_store, "object-store");
where_built!(mpi, "mpi");

/// What the program has, for `--version`.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let (version, solvers) = (env!("CARGO_PKG_VERSION"), solvers());
    let guidance = "probabilistic, classifier-free, orthogonal projection, interval";
    format!("{version}{PARTS}\nsolvers:   {solvers}\nguidance:  {guidance}\nformats:   png, npz, safetensors{DATA}")
});

/// Where data may lie.
const DATA: &str = concat!("\ndata:      files", object_store!(", s3://, gs://, https://"));

/// Devices and networks.
const PARTS: &str = concat!(
    "\ndevices:   cpu (AVX2 and AVX-512 code chosen at run time)",
    cuda!("\n           cuda"),
    vulkan!("\n           vulkan"),
    wgpu!("\n           wgpu"),
    mpi!("\nprocesses: several, over MPI"),
    "\nnetworks:  mlp2d, gm-dit, unet",
);

/// The names of the solvers, in lines that begin below each other.
fn solvers() -> String {
    const INDENT: usize = 11;
    const WIDTH: usize = 116;
    let (mut text, mut width) = (String::new(), INDENT);
    for (i, (name, ..)) in SolverConfig::ALL.iter().enumerate() {
        let name = if *name == "gm-sde" { "gm-sde (orders 1 and 2)" } else { name };
        if i > 0 {
            text.push(',');
            let is_full = width + name.len() + 2 > WIDTH;
            text += &if is_full { format!("\n{:INDENT$}", "") } else { " ".into() };
            width = if is_full { INDENT } else { width + 2 };
        }
        text += name;
        width += name.len();
    }
    text
}

/// The whole command line.
#[derive(Parser, Debug)]
#[command(name = "gmflow", version, long_version = LONG_VERSION.as_str(), about = ABOUT, max_term_width = 110)]
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
    /// Answer requests for samples over HTTP, with a page to look and compare
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Show the page for a folder of training runs, or for a model
    #[cfg(feature = "serve")]
    Ui(UiArgs),
    /// Show what a checkpoint holds, or what this computer can do
    Info(InfoArgs),
    /// Write one set of a checkpoint's weights as a model folder to share
    Export(ExportArgs),
    /// Encode images with an autoencoder, once, to train on their latents
    Encode(EncodeArgs),
    /// Write images as tar shards, for clusters and object stores
    Pack(PackArgs),
    /// Get, find and make data sets
    #[command(
        after_help = "Examples:\n  gmflow data list\n  gmflow data get mnist\n  gmflow data make shapes --out shapes-photos"
    )]
    Data {
        /// What to do
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Measure samples or models against real data: FID, KID, precision and recall, colours, likelihood
    Eval(EvalArgs),
    /// Compute the reference statistics of a data set once, for eval
    Stats(StatsArgs),
    /// Measure a grid of models, solvers, steps and guidances, with charts
    Sweep(SweepArgs),
    /// Train a small classifier; eval can use its features
    Features {
        /// What to do
        #[command(subcommand)]
        command: FeaturesCommand,
    },
    /// Join the parts that calls with --shard wrote
    Merge(MergeArgs),
    /// Measure how fast the processes of a job exchange numbers, and predict the time of a training step
    BenchWorld(BenchWorldArgs),
    /// Turn the weights in a PyTorch file (.pt, .pth, .bin) into safetensors
    Import(ImportArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  gmflow completions bash > ~/.local/share/bash-completion/completions/gmflow")]
    Completions {
        /// The shell to complete in
        shell: clap_complete::Shell,
    },
}
