//! The arguments of `gmflow init`, and of the plan that it and `gmflow train` make.

use super::groups::{DeviceArgs, OutcomeArgs, OverwriteArgs};
use super::values::{Choice, count, minutes, one_of, train_steps};
use clap::Args;
use gmflow_train::plan::NetworkSize;
use std::path::PathBuf;

/// What a plan for a set of pictures goes by.
#[derive(Args, Debug, Default)]
pub struct PlanArgs {
    /// Height and width to resize the pictures to [default: 32; small pictures of one size stay as they are]
    #[arg(long, value_name = "PIXELS", value_parser = count)]
    pub size: Option<usize>,
    /// How long training may take: the network and the number of steps follow from it [default: 30]
    #[arg(long, value_name = "MIN", value_parser = minutes)]
    pub minutes: Option<u64>,
    /// Number of training steps, however long they take
    #[arg(long, value_name = "N", value_parser = train_steps, conflicts_with = "minutes")]
    pub steps: Option<u64>,
    /// The network [default: the largest that the time, the memory and the number of pictures allow]
    #[arg(long, value_name = "NETWORK", value_parser = one_of(NETWORKS))]
    pub network: Option<NetworkSize>,
}

const NETWORKS: &[Choice<NetworkSize>] = &[
    ("tiny", NetworkSize::Tiny, "For a few minutes: pictures of simple shapes"),
    ("small", NetworkSize::Small, "For half an hour to two hours on a laptop"),
    ("medium", NetworkSize::Medium, "For a night on a laptop"),
    ("large", NetworkSize::Large, "For a GPU"),
];

/// `gmflow init`.
#[derive(Args, Debug)]
#[command(
    long_about = "Looks at a set of pictures: how many, which classes, sizes and formats. Chooses the size to learn, a network that fits the \
machine and the time, and the number of steps; takes a few steps to see how fast they are; and writes a short configuration with comments for \
`gmflow train`, with the expected time to the first pictures that look like the data and to the end.",
    after_help = "Examples:\n  gmflow init photos\n  gmflow init photos --minutes 120 --size 64 --out photos-64.toml\n  \
gmflow init train-images-idx3-ubyte.gz --out digits.toml"
)]
pub struct InitArgs {
    /// A folder of pictures, in one subfolder per class where there are classes; Parquet files, or a folder of them; or an IDX file
    pub data: PathBuf,
    /// The configuration to write [default: the name of the data with .toml]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub plan: PlanArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub overwrite: OverwriteArgs,
    #[command(flatten)]
    pub outcome: OutcomeArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_the_names_that_plans_give_them() {
        assert_eq!(NETWORKS.iter().map(|choice| choice.1).collect::<Vec<_>>(), NetworkSize::ALL);
        assert!(NETWORKS.iter().all(|(name, size, _)| *name == size.name()));
    }
}
