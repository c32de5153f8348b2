//! The arguments of `gmflow serve` and `gmflow ui`.

use super::groups::{CHECKPOINT, DeviceArgs, ModelArgs};
use super::values::{count, steps};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `gmflow serve`.
#[derive(Args, Debug)]
#[command(
    long_about = "Answers requests for samples over HTTP, and shows a page for them. Requests that come at the same time share \
network calls; their pictures are those of gmflow sample. Without other options the server listens on this machine's own address, \
and asks for no key.",
    after_help = "Examples:\n  gmflow serve models/mnist\n  gmflow serve mnist=models/mnist photos=runs/photos --runs runs\n  \
gmflow serve models/mnist --bind 0.0.0.0:8080 --host models.example.org --key-file key"
)]
pub struct ServeArgs {
    #[arg(value_name = "[NAME=]DIR|ID", help = CHECKPOINT)]
    pub models: Vec<String>,
    /// Show the training runs below this folder, and sample their checkpoints
    #[arg(long, value_name = "DIR")]
    pub runs: Option<PathBuf>,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// `gmflow ui`.
#[derive(Args, Debug)]
#[command(
    long_about = "Shows the page for a folder: of training runs, of one run, or of a model. The same as gmflow serve for it.",
    after_help = "Examples:\n  gmflow ui runs\n  gmflow ui models/mnist"
)]
pub struct UiArgs {
    /// A folder of runs, a run, or a model
    pub folder: PathBuf,
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// How a server listens, and how much it takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Where to listen; port 0 is any that is free. An address that others can reach needs a key
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub bind: SocketAddr,
    /// The file of the key that requests have to carry, as Authorization: Bearer KEY
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A name that requests may call the server by, beside localhost and numbers; may be repeated
    #[arg(long, value_name = "NAME")]
    pub host: Vec<String>,
    /// The origin of a page elsewhere that may use the API, such as https://example.org; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub cors_origin: Vec<String>,
    /// Images computed at once for a request
    #[arg(long, value_name = "B", default_value_t = 16, value_parser = count)]
    pub batch: usize,
    /// Images of a request
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = count)]
    pub max_samples: usize,
    /// Points of a request
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = count)]
    pub max_points: usize,
    /// Network calls for a sample
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = steps)]
    pub max_steps: usize,
    /// Seconds that a request may take: its work by itself, and a plain request until its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = count)]
    pub max_seconds: usize,
    /// Seconds that a job may run, beside others; it then ends with an error
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = count)]
    pub max_job_seconds: usize,
    /// Seconds that a request may wait because of others; what would wait longer is refused with 429 and the time to come again
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub max_wait: u32,
    /// Requests that may wait or run
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    pub max_queue: usize,
    /// Open streams of events
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_streams: usize,
    /// Open connections
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count)]
    pub max_connections: usize,
    /// Seconds that results of jobs are kept
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub keep: u32,
    /// Megabytes of results that are kept
    #[arg(long, value_name = "MB", default_value_t = 256)]
    pub keep_memory: u32,
    /// Megabytes of weights in memory; models that are not used make room [default: all models]
    #[arg(long, value_name = "MB")]
    pub model_memory: Option<u32>,
    /// Unload a model that nobody has used for so many seconds [default: never]
    #[arg(long, value_name = "SECONDS")]
    pub idle: Option<u32>,
    /// Seconds that work goes on after a signal to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: u32,
    /// Take the page from this folder, to work on it
    #[arg(long, value_name = "DIR", hide = true)]
    pub page: Option<PathBuf>,
}
