//! A run in a folder: the loop with its logs, checkpoints and pictures.
//!
//! ```text
//! OUT/run.manifest                 the mark of a run's folder, and the list of its files
//! OUT/config.toml                  the resolved configuration
//! OUT/log.jsonl                    one line every log.every steps
//! OUT/events.out.tfevents.*        the same for TensorBoard
//! OUT/checkpoints/step-00001000/   a model folder, optimizer.safetensors and state.json
//! OUT/samples/step-00001000.png    pictures during training
//! OUT/failure/                     what is known of a step that was not finite
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use gmflow::checkpoint::write_atomic;
use gmflow::loss::LossConfig;
use gmflow_data::DatasetConfig;
use gmflow_world::{Solo, World};

use crate::checkpoint::{self, ResumeOptions};
use crate::config::Config;
use crate::folder::{CONFIG, Found, Opening, RunFolder, SAMPLES, failure_folder, picture_name};
use crate::log::{Density, Log};
use crate::place;
use crate::progress::Observer;
use crate::samples;
use crate::tensorboard::EventFile;
use crate::trainer::{StepReport, Trainer};
use crate::world::{Status, Team};
use crate::{Error, Result};

/// A trainer and its folder, into which no other process writes meanwhile.
#[derive(Debug)]
pub struct Run {
    trainer: Trainer,
    folder: RunFolder,
    log: Log,
    /// The newest step, where it was taken here.
    last: Option<StepReport>,
    /// The step of the newest checkpoint, where there is one.
    saved: Option<u64>,
    /// An attempt to save has failed, so that another would.
    cannot_save: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were taken.
    Finished,
    /// The stop flag was set; the last checkpoint is of the step that was being taken.
    Stopped,
}

impl Run {
    /// Starts a run in `folder`, which is created.
    ///
    /// # Errors
    /// As [`Trainer::new`]; another process is writing into the folder; it holds a run and `overwrite` is off; it holds files with the
    /// names of a run's that no run wrote. With `overwrite`, the earlier run's own files are removed, and no others.
    pub fn create(config: Config, folder: &Path, overwrite: bool, device: &Device) -> Result<Self> {
        Self::create_in(Arc::new(Solo::default()), config, folder, overwrite, device)
    }

    /// [`Run::create`] as rank 0 of a world. [`Run::lead`] follows.
    ///
    /// # Errors
    /// As [`Run::create`]; fewer samples in a batch than ranks.
    pub fn create_in(
        world: Arc<dyn World>,
        config: Config,
        folder: &Path,
        overwrite: bool,
        device: &Device,
    ) -> Result<Self> {
        let early = Self::lock_early(folder, &config.data.source, overwrite)?;
        // Before anything is removed: a configuration that cannot be run costs nothing, and the old run may be what this one starts from.
        let trainer = Trainer::on(config, None, device, Team::new(world))?;
        check_samples(&trainer)?;
        let mut locked = early.map_or_else(|| Self::lock_new(folder, overwrite), Ok)?;
        locked.clear()?;
        Self::open(trainer, locked)
    }

    /// What [`Run::create`] refuses of a folder for a run on this data, told before the data is looked at.
    ///
    /// # Errors
    /// The folder lies in that of the data; as [`Run::create`] of the folder.
    pub fn check_folder(folder: &Path, source: &DatasetConfig, overwrite: bool) -> Result<()> {
        Self::lock_early(folder, source, overwrite).map(|_| ())
    }

    /// A folder with a run is locked before the data is opened, which may take minutes; another is left as it is until then.
    fn lock_early(folder: &Path, source: &DatasetConfig, overwrite: bool) -> Result<Option<RunFolder>> {
        place::outside_data(folder, source)?;
        match RunFolder::look(folder, Opening::New)? {
            Found::Nothing => Ok(None),
            Found::Run(_) => Self::lock_new(folder, overwrite).map(Some),
            Found::Foreign(names) => Err(Error::Foreign { path: folder.to_path_buf(), names }),
        }
    }

    fn lock_new(folder: &Path, overwrite: bool) -> Result<RunFolder> {
        let locked = RunFolder::lock(folder, Opening::New)?;
        match locked.holds_run()? && !overwrite {
            true => Err(Error::RunExists { path: folder.to_path_buf() }),
            false => Ok(locked),
        }
    }

    /// Whether a run was begun in `folder` and killed before it wrote anything but its mark.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn was_only_begun(folder: &Path) -> Result<bool> {
        let is_run = matches!(RunFolder::look(folder, Opening::Resume)?, Found::Run(_));
        Ok(is_run && !folder.join(CONFIG).exists() && checkpoint::list(folder)?.is_empty())
    }

    /// Continues the run in `folder` from its newest checkpoint, with the run's configuration changed by `overrides` (see
    /// [`Config::load`]), for example to train longer. A run that was killed before its first checkpoint starts from step 0.
    ///
    /// # Errors
    /// As [`Run::resume_with`].
    pub fn resume(folder: &Path, overrides: &[String], device: &Device) -> Result<Self> {
        Self::resume_with(folder, overrides, ResumeOptions::default(), device)
    }

    /// [`Run::resume`] as `options` say.
    ///
    /// # Errors
    /// Another process is writing into the folder; there is no run, or its checkpoints are gone; a file is damaged, and the message says
    /// which older checkpoint is whole; an override changes the network; the data changed since the checkpoint.
    pub fn resume_with(folder: &Path, overrides: &[String], options: ResumeOptions, device: &Device) -> Result<Self> {
        Self::resume_in(Arc::new(Solo::default()), folder, overrides, options, device)
    }

    /// [`Run::resume_with`] as rank 0 of a world, which may be of another size than that of the call before. [`Run::lead`] follows.
    ///
    /// # Errors
    /// As [`Run::resume_with`]; fewer samples in a batch than ranks.
    pub fn resume_in(
        world: Arc<dyn World>,
        folder: &Path,
        overrides: &[String],
        options: ResumeOptions,
        device: &Device,
    ) -> Result<Self> {
        let team = Team::new(world);
        let path = folder.join(CONFIG);
        if !path.is_file() && checkpoint::list(folder)?.is_empty() {
            return Err(Error::NoRun { path: folder.to_path_buf() });
        }
        if let Found::Foreign(names) = RunFolder::look(folder, Opening::Resume)? {
            return Err(Error::Foreign { path: folder.to_path_buf(), names });
        }
        let mut locked = RunFolder::lock(folder, Opening::Resume)?;
        if !path.is_file() {
            let config = checkpoint::config_of(&checkpoint::latest(folder)?)?;
            write_atomic(&path, config.to_toml()?.as_bytes())?;
            log::warn!("{}: was gone; it is written again from the newest checkpoint", path.display());
        }
        let config = Config::load_resolved(&path, overrides)?;
        let trainer = match (options.from, checkpoint::list(folder)?.pop()) {
            (Some(step), _) => Self::load(folder, &checkpoint::at(folder, step)?, config, options, (device, team))?,
            (None, Some(newest)) => Self::load(folder, &newest, config, options, (device, team))?,
            (None, None) if locked.had_checkpoint() => {
                return Err(Error::NoCheckpoint { path: folder.to_path_buf() });
            }
            (None, None) => {
                log::warn!(
                    "{}: the run was stopped before its first checkpoint; it starts at step 0 again, as it was configured",
                    folder.display()
                );
                Trainer::on(config, None, device, team)?
            }
        };
        check_samples(&trainer)?;
        for aside in checkpoint::set_aside_after(folder, trainer.steps_taken())? {
            log::warn!(
                "{}: a later checkpoint, which the run no longer goes by, was renamed to this",
                aside.display()
            );
            let name = aside.file_name().unwrap_or_default().to_string_lossy();
            locked.will_write(&format!("{}/{name}", checkpoint::FOLDER))?;
        }
        Self::open(trainer, locked)
    }

    /// Loads a checkpoint. Where it is damaged the message says how to go on.
    fn load(
        folder: &Path,
        from: &Path,
        config: Config,
        options: ResumeOptions,
        (device, team): (&Device, Team),
    ) -> Result<Trainer> {
        let error = match checkpoint::load_in(from, config, device, options, team) {
            Err(error) if error.is_damage() => error,
            other => return other,
        };
        let is_older = |path: &PathBuf| checkpoint::step_of_folder(path) < checkpoint::step_of_folder(from);
        let older = checkpoint::list(folder)?.into_iter().rev().filter(is_older);
        let mut whole = older.filter(|path| checkpoint::verify(path).is_ok());
        let whole = whole.find_map(|path| checkpoint::step_of_folder(&path));
        Err(Error::Damaged { cause: Box::new(error), whole })
    }

    fn open(mut trainer: Trainer, mut folder: RunFolder) -> Result<Self> {
        let event_file = EventFile::new_name();
        let world = trainer.team.world();
        folder.prepare(&event_file, world.size())?;
        let dumps = failure_folder(world.rank(), world.size());
        write_config(&mut folder, trainer.config())?;
        trainer.set_dump_folder(folder.path().join(dumps));
        let channels = trainer.data_info().shape[0];
        let density = match trainer.config().loss {
            _ if trainer.config().distill.is_some() => None,
            // Only a log density has bits: L2 is a distance.
            LossConfig::L2 => None,
            LossConfig::Transition { weight_scale, .. } => Some(Density { channels, weight_scale }),
        };
        let log = Log::open(&mut folder, &event_file, [trainer.steps_taken(), trainer.images()], density)?;
        let newest = checkpoint::list(folder.path())?.pop();
        let saved = newest.and_then(|path| checkpoint::step_of_folder(&path));
        Ok(Self { trainer, folder, log, last: None, saved, cannot_save: false })
    }

    /// Takes the other ranks of the world into the run, which have called [`Follower::join`](crate::Follower::join).
    ///
    /// # Errors
    /// [`Error::Rank`] where one of them cannot take part.
    pub fn lead(&mut self) -> Result<()> {
        let folder = self.folder.path().to_path_buf();
        self.trainer.lead(Some(&folder))
    }

    /// Trains to the last step, or until `stop` is set: then the step is finished and a checkpoint written.
    ///
    /// # Errors
    /// As [`Trainer::step`]; a file that cannot be written. The steps that were taken are saved first, where they can be, and the message
    /// says so ([`Error::Saved`]); earlier checkpoints stay as they are.
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        let total = self.trainer.config().total_steps();
        observer.on_start(self.trainer.steps_taken(), total);
        let result = self.steps(total, stop, observer);
        let result = result.map_err(|error| self.save_before(error, observer));
        observer.on_end();
        let ended = self.trainer.team.command(Status::End);
        result.and_then(|outcome| ended.map(|()| outcome))
    }

    fn steps(&mut self, total: u64, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        while self.trainer.steps_taken() < total {
            if self.trainer.team.stops(stop) {
                self.save_now(observer)?;
                return Ok(Outcome::Stopped);
            }
            let report = self.trainer.step()?;
            self.last = Some(report);
            self.log.add(&report);
            observer.on_step(&report);
            self.after_step(&report, report.step == total, observer)?;
        }
        Ok(Outcome::Finished)
    }

    /// Log line, checkpoint and picture where they are due, and at the end. The picture comes last, as it takes
    /// the longest and is missed the least.
    fn after_step(&mut self, report: &StepReport, ends: bool, observer: &mut dyn Observer) -> Result<()> {
        let config = self.trainer.config();
        let due = |every: u64| report.step.is_multiple_of(every);
        let (log_due, save_due) = (due(config.log.every) || ends, due(config.checkpoint.every) || ends);
        let sample = config.sample.clone().filter(|sample| due(sample.every) || ends);
        if log_due {
            observer.on_log(&self.log.write(report)?);
        }
        if save_due {
            self.save(observer)?;
            checkpoint::prune(self.folder.path(), self.trainer.config().checkpoint.keep)?;
        }
        if let Some(sample) = sample {
            self.trainer.collect_averages()?;
            let picture = samples::draw(&self.trainer, &sample)?;
            self.trainer.keep_own_state();
            let folder = self.folder.path().join(SAMPLES);
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            let path = self.folder.will_write(&format!("{SAMPLES}/{}", picture_name(report.step)))?;
            write_atomic(&path, &picture.png)?;
            self.log.picture(report.step, picture.size, &picture.png)?;
            observer.on_samples(&path);
        }
        Ok(())
    }

    /// Logs and saves the steps that were taken since it was done last.
    fn save_now(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if let Some(report) = self.last.filter(|_| self.log.has_steps()) {
            observer.on_log(&self.log.write(&report)?);
        }
        if self.saved != Some(self.trainer.steps_taken()) {
            self.trainer.team.command(Status::Save)?;
            self.save(observer)?;
            checkpoint::prune(self.folder.path(), self.trainer.config().checkpoint.keep)?;
        }
        Ok(())
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let step = self.trainer.steps_taken();
        self.cannot_save = true;
        self.folder.will_write(&format!("{}/{}", checkpoint::FOLDER, checkpoint::name(step)))?;
        let folder = self.folder.path();
        let path = self.trainer.saved_by(|trainer| checkpoint::save(trainer, folder))?;
        (self.cannot_save, self.saved) = (false, Some(step));
        self.folder.has_saved()?;
        observer.on_checkpoint(&path);
        Ok(())
    }

    /// Saves what can be saved before the run ends with `error`, which is returned with word of that. No older checkpoint is removed: one
    /// of a time before the trouble may be wanted.
    fn save_before(&mut self, error: Error, observer: &mut dyn Observer) -> Error {
        let step = self.trainer.steps_taken();
        self.trainer.team.tell(&error);
        if self.cannot_save || step == 0 {
            return error;
        }
        if self.saved != Some(step)
            && let Err(second) = self.trainer.team.command(Status::Save).and_then(|()| self.save(observer))
        {
            log::error!("the steps since the last checkpoint could not be saved: {second}");
            return error;
        }
        Error::Saved { cause: Box::new(error), step }
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// The newest picture in the run's folder.
    pub fn newest_picture(&self) -> Option<PathBuf> {
        self.folder.newest_picture()
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn check_samples(trainer: &Trainer) -> Result<()> {
    for (field, why) in trainer.config().without_effect() {
        log::warn!("{field} {why}");
    }
    trainer.config().sample.as_ref().map_or(Ok(()), |sample| samples::check(trainer, sample))
}

/// Writes the configuration, unless the file holds it as it is: a user's comments stay.
fn write_config(folder: &mut RunFolder, config: &Config) -> Result<()> {
    let path = folder.will_write(CONFIG)?;
    let written = std::fs::read_to_string(&path).ok();
    if written.and_then(|text| Config::parse(&text, &path, &[]).ok()).as_ref() != Some(config) {
        write_atomic(&path, config.to_toml()?.as_bytes())?;
    }
    Ok(())
}
