//! `gmflow train`: a run in a folder, which a signal stops at a checkpoint.

use crate::args::{PublishedArgs, TrainArgs};
use crate::checkpoint_path::resolve;
use crate::data::locate::{locate, relocate};
use crate::device::device;
use crate::failure::{Signalled, usage};
use crate::init;
use crate::local;
use crate::output;
use crate::signals::Signals;
use crate::terminal::{self, Training};
use anyhow::Result;
use burn::tensor::Device;
use gmflow_data::DatasetConfig;
use gmflow_train::plan::Plan;
use gmflow_train::{Config, Lines, Observer, Outcome, ResumeOptions, Run, Summary, Trainer};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time between lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// How the run ended.
#[derive(Serialize)]
struct Report {
    finished: bool,
    step: u64,
    images: u64,
    folder: PathBuf,
    checkpoint: PathBuf,
    /// The signal that stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &TrainArgs) -> Result<()> {
    let signals = Signals::listen("stopping after this step, with a checkpoint")?;
    let device = device(&arguments.device.name)?;
    let folder = arguments.out.clone().unwrap_or_else(|| default_folder(&arguments.config));
    let mut run = if arguments.resume || arguments.resume_from.is_some() {
        resume(arguments, &folder, &device)?
    } else {
        create(arguments, &folder, &device)?
    };
    terminal::say(&Summary::new(run.trainer(), &arguments.device.name, &folder)?.to_string());
    let outcome = run.run(signals.stop(), observer(run.trainer()).as_mut())?;
    let signal = signals.caught();
    let report = Report {
        finished: outcome == Outcome::Finished,
        step: run.trainer().steps_taken(),
        images: run.trainer().images(),
        checkpoint: gmflow_train::checkpoint::latest(&folder)?,
        folder,
        signal: signal.map(|signal| signal.name()),
    };
    let printed = if arguments.outcome.json { output::json(&report) } else { output::line(&report.text()) };
    match signal {
        // Also where everything was done: what comes behind `&&` was not to run. A terminal that is gone takes no line.
        Some(signal) => Err(Signalled(signal).into()),
        None => printed,
    }
}

fn create(arguments: &TrainArgs, folder: &Path, device: &Device) -> Result<Run> {
    for (name, given) in
        [("--no-verify", arguments.no_verify), ("--accept-changed-data", arguments.accept_changed_data)]
    {
        if given && !arguments.resume {
            return Err(usage(name, "--resume or --resume-from, which read a checkpoint", "neither"));
        }
    }
    refuse_own_config(&arguments.config, folder)?;
    let mut config = configuration(arguments)?;
    locate(&mut config.data.source, arguments.named.data_dir.as_deref())?;
    expect_data(&config)?;
    if let Some(from) = arguments.from.as_ref().or(config.train.from.as_ref()) {
        config.train.from = Some(resolve(from, &PublishedArgs::default())?);
    }
    config.train.new_classes |= arguments.new_classes;
    Ok(Run::create(config, folder, arguments.force, device)?)
}

fn resume(arguments: &TrainArgs, folder: &Path, device: &Device) -> Result<Run> {
    if Run::was_only_begun(folder)? {
        log::warn!("{}: the run was stopped before it wrote anything; it is begun again", folder.display());
        return create(arguments, folder, device);
    }
    let options = ResumeOptions {
        from: arguments.resume_from,
        unverified: arguments.no_verify,
        accept_changed_data: arguments.accept_changed_data,
    };
    let run = Run::resume_with(folder, &settings_to_resume(arguments, folder)?, options, device)?;
    warn_of_differences(arguments, run.trainer().config())?;
    Ok(run)
}

/// The settings that a resumed run gets: those of --set, and the folder of its data where that is another by now.
fn settings_to_resume(arguments: &TrainArgs, folder: &Path) -> Result<Vec<String>> {
    let mut settings = arguments.set.clone();
    let stored = folder.join("config.toml");
    if !stored.is_file() {
        return Ok(settings); // the run writes it again from its checkpoint, or says what is missing
    }
    let config = Config::load_resolved(&stored, &settings)?;
    if let Some(moved) = relocate(&config.data.source, arguments.named.data_dir.as_deref())? {
        let moved = toml::Value::String(moved.display().to_string());
        settings.push(format!("data.source.folder={moved}"));
    }
    Ok(settings)
}

/// A run writes config.toml into its folder; that must not be the file that the user wrote.
fn refuse_own_config(config: &Path, folder: &Path) -> Result<()> {
    let same = |a: &Path, b: &Path| Some(a.canonicalize().ok()? == b.canonicalize().ok()?);
    match same(config, &folder.join("config.toml")) {
        Some(true) => Err(usage(
            "--out",
            "a folder other than that of the configuration, which the run's own config.toml would overwrite",
            folder.display(),
        )),
        _ => Ok(()),
    }
}

/// The configuration of a file, or one for pictures.
fn configuration(arguments: &TrainArgs) -> Result<Config> {
    local::expect([arguments.config.as_path()])?;
    if is_configuration(&arguments.config) {
        if arguments.plan.any() {
            let expected =
                "a folder of pictures with --size, --minutes, --steps and --network; --set changes a configuration";
            return Err(usage("CONFIG", expected, arguments.config.display()));
        }
        return Ok(Config::load(&arguments.config, &arguments.set)?);
    }
    let plan = init::plan(&arguments.config, &arguments.plan, &arguments.device.name)?;
    terminal::say(&plan.words());
    Ok(plan.config(&arguments.set)?)
}

/// Whether a path names a configuration: everything but pictures does, so that what is wrong with it is said in those words.
fn is_configuration(path: &Path) -> bool {
    !path.is_dir() && DatasetConfig::guess(path).is_err()
}

/// The data must be there before weights are downloaded.
fn expect_data(config: &Config) -> Result<()> {
    let mut source = config.data.source.clone();
    let paths: Vec<_> = source.paths_mut().into_iter().map(|(_, path)| path).collect();
    let is_pattern = |path: &Path| path.to_string_lossy().contains(['*', '?', '[']);
    local::expect(paths.iter().map(|path| path.as_path()).filter(|path| !is_pattern(path)))
}

/// A bar where there is a terminal, otherwise a line every half minute.
fn observer(trainer: &Trainer) -> Box<dyn Observer> {
    let samples = (trainer.config().train.batch_size, trainer.samples_are());
    match terminal::is_there() {
        true => Box::new(Training::new(samples)),
        false => Box::new(Lines::new(std::io::stderr(), samples, BETWEEN_LINES)),
    }
}

/// A resumed run goes by its own configuration; what the file says otherwise by now is not lost without a word.
fn warn_of_differences(arguments: &TrainArgs, used: &Config) -> Result<()> {
    let Ok(mut file) = Config::load(&arguments.config, &arguments.set) else { return Ok(()) };
    file.fit_like(used);
    // Where the data are is no setting of the run.
    if let (DatasetConfig::Named(file), DatasetConfig::Named(used)) = (&mut file.data.source, &used.data.source) {
        file.folder.clone_from(&used.folder);
    }
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
        let ended = match (&self.signal, self.finished) {
            (_, true) => "finished".to_owned(),
            (None, false) => "stopped; --resume continues".to_owned(),
            (Some(signal), false) => format!("stopped by {signal}; --resume continues"),
        };
        format!("{ended}: step {step}, {images} samples seen, checkpoint {}", checkpoint.display())
    }
}

/// `runs/NAME` for `path/NAME.toml` and for pictures in `path/NAME`.
fn default_folder(config: &Path) -> PathBuf {
    let name =
        if is_configuration(config) { config.file_stem().unwrap_or_default().into() } else { Plan::name(config) };
    Path::new("runs").join(name)
}
