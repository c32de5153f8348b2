//! The `gmflow` command: parse, validate, call a library function, print.

mod args;
mod arrays;
mod checkpoint_path;
mod data_source;
mod demo;
mod device;
mod encode;
mod eval;
mod export;
mod failure;
mod images;
mod import;
mod info;
mod init;
mod local;
mod output;
mod plot;
mod sample;
mod sampler;
mod signals;
mod sweep;
mod table;
mod terminal;
mod train;

use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// The system's allocator gives every large tensor back to the kernel and has it cleared again on the next step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's number for the delay before unused memory goes back to the system, in milliseconds; -1 is never.
const PURGE_DELAY: i32 = 15;

/// Keeps freed memory for the next step: given back, it would be cleared anew, a quarter of the time of a training step.
fn keep_freed_memory() {
    // SAFETY: an option of the allocator in use; MIMALLOC_PURGE_DELAY in the environment goes before it.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1) };
}

fn main() -> ExitCode {
    keep_freed_memory();
    let cli = args::Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .target(env_logger::Target::Pipe(Box::new(terminal::Log)))
        .init();
    failure::report(run(cli))
}

fn run(cli: args::Cli) -> anyhow::Result<()> {
    match cli.command {
        args::Command::Demo(arguments) => demo::run(&arguments),
        args::Command::Init(arguments) => init::run(&arguments),
        args::Command::Train(arguments) => train::run(&arguments),
        args::Command::Sample(arguments) => sample::run(&arguments),
        args::Command::Info(arguments) => info::run(&arguments),
        args::Command::Export(arguments) => export::run(&arguments),
        args::Command::Encode(arguments) => encode::run(&arguments),
        args::Command::Eval(arguments) => eval::run(&arguments),
        args::Command::Stats(arguments) => eval::stats::run(&arguments),
        args::Command::Features { command: args::FeaturesCommand::Train(arguments) } => {
            eval::features::train(&arguments)
        }
        args::Command::Sweep(arguments) => sweep::run(&arguments),
        args::Command::Import(arguments) => import::run(&arguments),
        args::Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::Cli::command(), "gmflow", &mut script);
            output::write_stdout(&script)
        }
    }
}
