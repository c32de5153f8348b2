//! The `gmflow` command: parse, validate, call a library function, print.

mod allocator;
mod args;
mod arrays;
mod bench_world;
mod checkpoint_path;
mod data;
mod data_source;
mod demo;
mod device;
mod encode;
mod eval;
mod export;
mod failure;
mod import;
mod info;
mod init;
mod local;
mod machine;
mod merge;
mod output;
mod pack;
mod plot;
mod rank;
mod sample;
mod sampler;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod sweep;
mod table;
mod terminal;
mod train;
mod world;

use clap::{CommandFactory, Parser};
use gmflow_data::FOUND;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use world::Job;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// Log lines that are shown where RUST_LOG does not say otherwise: warnings, and what was found in data sets.
const SHOWN: &str = "warn,gmflow::data=info";

/// Whether this is said for the first time. A data set is often opened again, and need not be described again.
fn is_new(words: String) -> bool {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(words)
}

/// Log lines in plain words; where RUST_LOG asks for others, with time, level and place.
fn start_log() {
    let mut log = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(SHOWN));
    log.target(env_logger::Target::Pipe(Box::new(terminal::Log)));
    if std::env::var_os("RUST_LOG").is_none() {
        log.format(|out, record| match record.level() {
            log::Level::Error => writeln!(out, "error: {}{}", rank::prefix(), record.args()),
            log::Level::Info if record.target() == FOUND && !is_new(record.args().to_string()) => Ok(()),
            log::Level::Info if !rank::speaks() => Ok(()),
            log::Level::Warn => writeln!(out, "warning: {}{}", rank::prefix(), record.args()),
            _ => writeln!(out, "{}", record.args()),
        });
    }
    log.init();
}

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    // Training does this when it has begun.
    if !matches!(cli.command, args::Command::Train(_)) {
        allocator::keep_freed_memory();
    }
    start_log();
    let job = match start_job(&cli.command) {
        Ok(job) => job,
        Err(error) => return ExitCode::from(failure::report(Err(error))),
    };
    let code = failure::report(run(cli, &job));
    ExitCode::from(job.end(code))
}

/// The processes that work on the command.
fn start_job(command: &args::Command) -> anyhow::Result<Job> {
    use args::Command;
    match command {
        Command::Train(arguments) => Job::start(&arguments.world, None),
        Command::Sample(arguments) => Job::start(&arguments.shard.world, arguments.shard.shard),
        Command::Encode(arguments) => Job::start(&arguments.world, arguments.part),
        Command::Sweep(arguments) => Job::start(&arguments.shard.world, arguments.shard.shard),
        Command::Eval(arguments) => Job::start(&arguments.shard.world, arguments.shard.shard),
        Command::Stats(arguments) => Job::start(&arguments.shard.world, arguments.shard.shard),
        Command::BenchWorld(arguments) => Job::start(&arguments.world, None),
        _ => Ok(Job::alone()),
    }
}

/// The products in bf16 that the environment asks for, to measure or to test the others.
fn forced_products() -> anyhow::Result<Option<gmflow::kernel::Bf16Products>> {
    let Ok(value) = std::env::var(machine::FORCED) else { return Ok(None) };
    match machine::forced(&value) {
        Some(products) => Ok(Some(products)),
        None => Err(failure::usage(machine::FORCED, "dot-product or widened", value)),
    }
}

fn run(cli: args::Cli, job: &Job) -> anyhow::Result<()> {
    if !matches!(cli.command, args::Command::Completions { .. }) {
        // Before anything is taken of it.
        gmflow::limits::available();
        job.start_threads()?;
        gmflow::kernel::force_bf16_products(forced_products()?);
    }
    match cli.command {
        args::Command::Demo(arguments) => demo::run(&arguments),
        args::Command::Init(arguments) => init::run(&arguments),
        args::Command::Train(arguments) => train::run(&arguments, job),
        args::Command::Sample(arguments) => sample::run(&arguments, job),
        #[cfg(feature = "serve")]
        args::Command::Serve(arguments) => serve::run(&arguments),
        #[cfg(feature = "serve")]
        args::Command::Ui(arguments) => serve::show(&arguments),
        args::Command::Info(arguments) => info::run(&arguments),
        args::Command::Export(arguments) => export::run(&arguments),
        args::Command::Encode(arguments) => encode::run(&arguments, job),
        args::Command::Pack(arguments) => pack::run(&arguments),
        args::Command::Data { command } => data::run(&command),
        args::Command::Eval(arguments) => eval::run(&arguments, job),
        args::Command::Stats(arguments) => eval::stats::run(&arguments, job),
        args::Command::Features { command: args::FeaturesCommand::Train(arguments) } => {
            eval::features::train(&arguments)
        }
        args::Command::Sweep(arguments) => sweep::run(&arguments, job),
        args::Command::Merge(arguments) => merge::run(&arguments),
        args::Command::BenchWorld(arguments) => bench_world::run(&arguments, job),
        args::Command::Import(arguments) => import::run(&arguments),
        args::Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::Cli::command(), "gmflow", &mut script);
            output::write_stdout(&script)
        }
    }
}
