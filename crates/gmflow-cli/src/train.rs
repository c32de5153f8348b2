//! `gmflow train`: a run in a folder, which Ctrl-C stops at a checkpoint.

use crate::args::{PublishedArgs, TrainArgs};
use crate::checkpoint_path::resolve;
use crate::device::device;
use crate::output;
use anyhow::{Context, Result};
use gmflow_train::{Config, Outcome, Progress, Run};
use serde::Serialize;
use signal_hook::consts::SIGINT;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The exit code of a program ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// How the run ended.
#[derive(Serialize)]
struct Report {
    finished: bool,
    step: u64,
    images: u64,
    folder: PathBuf,
    checkpoint: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &TrainArgs) -> Result<()> {
    let device = device(&arguments.device)?;
    let folder = arguments.out.clone().unwrap_or_else(|| default_folder(&arguments.config));
    let mut run = if arguments.resume {
        let run = Run::resume(&folder, &arguments.set, &device)?;
        warn_of_differences(arguments, run.trainer().config())?;
        run
    } else {
        let mut config = Config::load(&arguments.config, &arguments.set)?;
        if let Some(from) = arguments.from.as_ref().or(config.train.from.as_ref()) {
            config.train.from = Some(resolve(from, &PublishedArgs::default())?);
        }
        Run::create(config, &folder, arguments.force, &device)?
    };
    let stop = stop_on_interrupt()?;
    let batch_size = run.trainer().config().train.batch_size;
    let outcome = run.run(&stop, &mut Progress::new(batch_size))?;
    let report = Report {
        finished: outcome == Outcome::Finished,
        step: run.trainer().steps_taken(),
        images: run.trainer().images(),
        checkpoint: gmflow_train::checkpoint::latest(&folder)?,
        folder,
    };
    if arguments.json { output::json(&report) } else { output::line(&report.text()) }
}

/// A resumed run goes by its own configuration; what the file says otherwise by now is not lost without a word.
fn warn_of_differences(arguments: &TrainArgs, used: &Config) -> Result<()> {
    let Ok(mut file) = Config::load(&arguments.config, &arguments.set) else { return Ok(()) };
    file.train.from.clone_from(&used.train.from); // told by --from, which a resumed run does not take
    let names = used.differences(&file)?;
    if !names.is_empty() {
        let (file, names) = (arguments.config.display(), names.join(", "));
        log::warn!("the run goes on as it was begun, {file} differs in {names}; --set changes a run");
    }
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let Self { step, images, checkpoint, .. } = self;
        let ended = if self.finished { "finished" } else { "stopped; --resume continues" };
        format!("{ended}: step {step}, {images} samples seen, checkpoint {}", checkpoint.display())
    }
}

/// `runs/NAME` for `path/NAME.toml`.
fn default_folder(config: &Path) -> PathBuf {
    Path::new("runs").join(config.file_stem().unwrap_or_default())
}

/// A flag that the first Ctrl-C sets; the second ends the program at once.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    // The order matters: the shutdown looks at the flag before the same Ctrl-C sets it.
    signal_hook::flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&stop))
        .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&stop)))
        .context("Ctrl-C cannot be listened to")?;
    Ok(stop)
}
