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
mod sample;
mod sampler;
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
pub use groups::{ArrayArgs, DownloadArgs, FeatureArgs, PublishedArgs};
pub use import::ImportArgs;
pub use info::InfoArgs;
pub use init::{InitArgs, PlanArgs};
pub use sample::{Format, SampleArgs};
pub use stats::StatsArgs;
pub use sweep::SweepArgs;
pub use train::TrainArgs;
pub use world::{BenchWorldArgs, MergeArgs, WorldArgs};

use clap::{Parser, Subcommand};

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
where_built!(mpi, "mpi");

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ndevices:   cpu (AVX2 and AVX-512 code chosen at run time)",
    cuda!("\n           cuda"),
    vulkan!("\n           vulkan"),
    wgpu!("\n           wgpu"),
    mpi!("\nprocesses: several, over MPI"),
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
