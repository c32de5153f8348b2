//! `gmflow train`: a run in a folder, which a signal stops at a checkpoint.

use crate::allocator;
use crate::args::{PlanArgs, PublishedArgs, TrainArgs};
use crate::checkpoint_path::resolve;
use crate::data::locate::{locate, relocate};
use crate::failure::{Signalled, usage};
use crate::init;
use crate::local;
use crate::output;
use crate::signals::Signals;
use crate::terminal::{self, Training};
use crate::world::Job;
use anyhow::Result;
use burn::tensor::Device;
use gmflow_data::{DatasetConfig, absolute, is_url};
use gmflow_files::what_is;
use gmflow_train::plan::Plan;
use gmflow_train::{Config, Follower, Lines, Observer, Outcome, ResumeOptions, Run, Summary, Trainer};
use serde::Serialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The time between lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// The first bytes of a file, which tell what it is.
const START: u64 = 64;

/// How the run ended.
#[derive(Serialize)]
struct Report {
    finished: bool,
    step: u64,
    images: u64,
    folder: PathBuf,
    checkpoint: PathBuf,
    /// The newest picture of samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<PathBuf>,
    /// The signal that stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &TrainArgs, job: &Job) -> Result<()> {
    let signals = Signals::listen("stopping after this step, with a checkpoint")?;
    if !job.is_first() {
        return follow(arguments, job, &signals);
    }
    let folder = arguments.out.clone().unwrap_or_else(|| default_folder(&arguments.config));
    let open = |device: Device| match arguments.resume || arguments.resume_from.is_some() {
        true => resume(arguments, &folder, (&device, job), &signals),
        false => create(arguments, &folder, (&device, job), &signals),
    };
    let mut run = job.agree(job.device(&arguments.device.name).and_then(open))?;
    // From here on the ranks tell each other of every failure.
    job.settle();
    run.lead()?;
    allocator::keep_freed_memory();
    terminal::say(&Summary::new(run.trainer(), &arguments.device.name, &folder)?.to_string());
    let before = run.trainer().steps_taken();
    let outcome = run.run(signals.stop(), observer(run.trainer()).as_mut())?;
    let signal = signals.caught();
    let report = Report {
        finished: outcome == Outcome::Finished,
        step: run.trainer().steps_taken(),
        images: run.trainer().images(),
        checkpoint: gmflow_train::checkpoint::latest(&folder)?,
        picture: run.newest_picture(),
        folder,
        signal: signal.map(|signal| signal.name()),
    };
    let next = Next { run: run.trainer(), arguments, had_steps: run.trainer().steps_taken() > before };
    let printed = if arguments.outcome.json { output::json(&report) } else { output::line(&report.text(&next)) };
    match signal {
        // Also where everything was done: what comes behind `&&` was not to run. A terminal that is gone takes no line.
        Some(signal) => Err(Signalled(signal).into()),
        None => printed,
    }
}

/// What every rank but the first does: it takes part in the run of rank 0, which alone has the folder.
fn follow(arguments: &TrainArgs, job: &Job, signals: &Signals) -> Result<()> {
    let prepared = job.device(&arguments.device.name).and_then(|device| Ok((device, own_configuration(arguments)?)));
    let (device, own) = job.agree(prepared)?;
    job.settle();
    let mut follower = Follower::join(Arc::clone(job.world()), &device, own.as_ref())?;
    allocator::keep_freed_memory();
    follower.run(signals.stop())?;
    signals.caught().map_or(Ok(()), |signal| Err(Signalled(signal).into()))
}

/// The configuration that this rank was started with, to be compared with that of rank 0. A run that goes on has its own, pictures get one
/// from rank 0, and where there is no common disk there may be no file.
fn own_configuration(arguments: &TrainArgs) -> Result<Option<Config>> {
    let goes_on = arguments.resume || arguments.resume_from.is_some();
    if goes_on || !is_configuration(&arguments.config) || !arguments.config.is_file() {
        return Ok(None);
    }
    let mut config = Config::load(&arguments.config, &arguments.set)?;
    config.train.new_classes |= arguments.new_classes;
    Ok(Some(config))
}

fn create(arguments: &TrainArgs, folder: &Path, (device, job): (&Device, &Job), signals: &Signals) -> Result<Run> {
    for (name, given) in
        [("--no-verify", arguments.no_verify), ("--accept-changed-data", arguments.accept_changed_data)]
    {
        if given && !arguments.resume {
            return Err(usage(name, "--resume or --resume-from, which read a checkpoint", "neither"));
        }
    }
    refuse_own_config(&arguments.config, folder)?;
    output::expect_folder(folder)?;
    let mut config = configuration(arguments, folder, signals)?;
    locate(&mut config.data.source, arguments.named.data_dir.as_deref())?;
    expect_data(&config)?;
    if let Some(from) = arguments.from.as_ref().or(config.train.from.as_ref()) {
        config.train.from = Some(resolve(from, &PublishedArgs::default())?);
    }
    if let Some(distill) = &mut config.distill {
        distill.teacher = resolve(&distill.teacher, &PublishedArgs::default())?;
    }
    if arguments.force {
        refuse_own_weights(config.train.from.as_deref(), folder)?;
    }
    if arguments.new_classes && config.train.from.is_none() {
        return Err(usage("--new-classes", "--from, which names the model with other classes", "no --from"));
    }
    config.train.new_classes |= arguments.new_classes;
    Ok(Run::create_in(Arc::clone(job.world()), config, folder, arguments.force, device)?)
}

fn resume(arguments: &TrainArgs, folder: &Path, (device, job): (&Device, &Job), signals: &Signals) -> Result<Run> {
    if Run::was_only_begun(folder)? {
        log::warn!("{}: the run was stopped before it wrote anything; it is begun again", folder.display());
        return create(arguments, folder, (device, job), signals);
    }
    refuse_plan(&arguments.plan)?;
    let options = ResumeOptions {
        from: arguments.resume_from,
        unverified: arguments.no_verify,
        accept_changed_data: arguments.accept_changed_data,
    };
    let settings = settings_to_resume(arguments, folder)?;
    let run = Run::resume_in(Arc::clone(job.world()), folder, &settings, options, device)?;
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
    expect_same_data(&arguments.config, &config.data.source, folder)?;
    if let Some(moved) = relocate(&config.data.source, arguments.named.data_dir.as_deref())? {
        let moved = toml::Value::String(moved.display().to_string());
        settings.push(format!("data.source.folder={moved}"));
    }
    Ok(settings)
}

/// A run goes on as it was begun.
fn refuse_plan(plan: &PlanArgs) -> Result<()> {
    let expected = match plan.given() {
        None => return Ok(()),
        Some("--minutes" | "--steps") => {
            "no such option with --resume; --set train.steps=N changes the length of a run"
        }
        Some(_) => {
            "no such option with --resume, as a run keeps its network and size; --out names the folder of a new run"
        }
    };
    Err(usage(plan.given().unwrap_or_default(), expected, "both"))
}

/// Pictures that are named beside --resume must be those that the run was begun with.
fn expect_same_data(given: &Path, used: &DatasetConfig, folder: &Path) -> Result<()> {
    if is_configuration(given) {
        // A run has a configuration of its own; folders of pictures have names without this ending.
        let is_named_so = given.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml"));
        return if is_named_so || given.is_file() { Ok(()) } else { local::expect([given]) };
    }
    let (mut given, mut used) = (DatasetConfig::guess(given)?, used.clone());
    let full = |path: &Path| path.canonicalize().unwrap_or_else(|_| absolute(path));
    let (given, used) = (given.paths_mut(), used.paths_mut());
    let (Some((_, got)), Some((name, expected))) = (given.first(), used.first()) else { return Ok(()) };
    if full(got) == full(expected) {
        return Ok(());
    }
    let expected = format!(
        "{}, the data of the run in {} (if it was moved, add --set data.source.{name}={}; --out names the folder of another run)",
        expected.display(),
        folder.display(),
        output::shell_word(got)
    );
    Err(usage("CONFIG", expected, got.display()))
}

/// With --force the run in the folder is removed; weights that are taken from there would be lost with it.
fn refuse_own_weights(from: Option<&Path>, folder: &Path) -> Result<()> {
    let Some((from, out)) = from.and_then(|from| Some((from.canonicalize().ok()?, folder.canonicalize().ok()?)))
    else {
        return Ok(());
    };
    match from.starts_with(out) {
        true => Err(usage(
            "--out",
            "a folder other than that of the model of --from, which --force would remove",
            folder.display(),
        )),
        false => Ok(()),
    }
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
fn configuration(arguments: &TrainArgs, folder: &Path, signals: &Signals) -> Result<Config> {
    local::expect([arguments.config.as_path()])?;
    if is_configuration(&arguments.config) {
        refuse_picture(&arguments.config)?;
        refuse_plan_of_file(arguments)?;
        return Ok(Config::load(&arguments.config, &arguments.set)?);
    }
    // All that can be told before the pictures are looked at, which may take minutes.
    let source = DatasetConfig::guess(&arguments.config)?;
    Run::check_folder(folder, &source, arguments.force)?;
    Plan::check(&source, &arguments.plan.options(&arguments.set))?;
    let (data, set, device) = (&arguments.config, &arguments.set, &arguments.device.name);
    let plan = signals.without_saving(|| init::plan(data, &arguments.plan, set, device))?;
    terminal::say(&plan.words());
    Ok(plan.config(&arguments.set)?)
}

/// One picture is no data, and no configuration either.
fn refuse_picture(path: &Path) -> Result<()> {
    let mut start = Vec::new();
    // A pipe would be waited for without end.
    let file =
        path.is_file().then(|| std::fs::File::open(path).and_then(|file| file.take(START).read_to_end(&mut start)));
    match file.and_then(Result::ok).and_then(|_| what_is(&start)).filter(|what| what.ends_with("image")) {
        Some(what) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let expected =
                format!("a configuration or a folder of pictures, such as that of this one, {}", folder.display());
            Err(usage("CONFIG", expected, format!("{what}, {}", path.display())))
        }
        None => Ok(()),
    }
}

/// A configuration says itself what a plan would choose.
fn refuse_plan_of_file(arguments: &TrainArgs) -> Result<()> {
    let Some(name) = arguments.plan.given() else { return Ok(()) };
    let instead = match name {
        "--minutes" | "--steps" => "--set train.steps=N changes the length of training",
        "--size" => "--set data.source.image.size=PIXELS changes the size of the pictures",
        _ => "the table [network] describes the network",
    };
    let expected = format!("a folder of pictures beside it; for a configuration, {instead}");
    Err(usage(name, expected, arguments.config.display()))
}

/// Whether a path names a configuration: everything but pictures does, so that what is wrong with it is said in those words.
fn is_configuration(path: &Path) -> bool {
    !is_url(path) && !path.is_dir() && DatasetConfig::guess(path).is_err()
}

/// The data must be there before weights are downloaded.
fn expect_data(config: &Config) -> Result<()> {
    let mut source = config.data.source.clone();
    let paths: Vec<_> = source.paths_mut().into_iter().map(|(_, path)| path).collect();
    local::expect(paths.iter().map(|path| path.as_path()))
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
    fn text(&self, next: &Next) -> String {
        let Self { step, images, checkpoint, .. } = self;
        let ended = match (&self.signal, self.finished) {
            (_, true) => "finished".to_owned(),
            (None, false) => "stopped; --resume continues".to_owned(),
            (Some(signal), false) => format!("stopped by {signal}; --resume continues"),
        };
        let mut text = format!("{ended}: step {step}, {images} samples seen, checkpoint {}", checkpoint.display());
        if let Some(picture) = &self.picture {
            text += &format!("\npicture   {}", picture.display());
        }
        if self.finished {
            text += &next.text(&self.folder);
        }
        text
    }
}

/// What to do after a run is finished.
struct Next<'a> {
    run: &'a Trainer,
    arguments: &'a TrainArgs,
    /// Whether this call has taken a step.
    had_steps: bool,
}

impl Next<'_> {
    /// The commands that draw samples and, where nothing was left to do, that train longer.
    fn text(&self, folder: &Path) -> String {
        let run = output::shell_word(folder);
        let name = folder.file_name().unwrap_or("samples".as_ref());
        let (option, ending) = if self.run.data_info().points { ("", "npz") } else { ("--grid ", "png") };
        let out = output::shell_word(&PathBuf::from(name).with_added_extension(ending));
        let mut text = format!("\nnext      gmflow sample --checkpoint {run} {option}--out {out}");
        if !self.had_steps {
            let (config, steps) = (output::shell_word(&self.arguments.config), 2 * self.run.config().total_steps());
            text += &format!("\nlonger    gmflow train {config} --out {run} --resume --set train.steps={steps}");
        }
        text
    }
}

/// `runs/NAME` for `path/NAME.toml` and for pictures in `path/NAME`.
fn default_folder(config: &Path) -> PathBuf {
    let name =
        if is_configuration(config) { config.file_stem().unwrap_or_default().into() } else { Plan::name(config) };
    Path::new("runs").join(name)
}
