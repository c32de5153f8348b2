//! A run in a folder: the loop with its logs, checkpoints and pictures.
//!
//! ```text
//! OUT/config.toml                  the resolved configuration
//! OUT/log.jsonl                    one line every log.every steps
//! OUT/events.out.tfevents.*        the same for TensorBoard
//! OUT/checkpoints/step-00001000/   a model folder, optimizer.safetensors and state.json
//! OUT/samples/step-00001000.png    pictures during training
//! OUT/failure/                     what is known of a step that was not finite
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use gmflow::checkpoint::write_atomic;
use gmflow::loss::LossConfig;

use crate::checkpoint;
use crate::config::Config;
use crate::log::{Density, Log};
use crate::progress::Observer;
use crate::samples;
use crate::trainer::{StepReport, Trainer};
use crate::{Error, Result};

/// A trainer and its folder.
#[derive(Debug)]
pub struct Run {
    trainer: Trainer,
    folder: PathBuf,
    log: Log,
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
    /// As [`Trainer::new`]; the folder already holds a run and `overwrite` is off. With it, the earlier run's
    /// configuration, checkpoints and logs are removed.
    pub fn create(config: Config, folder: &Path, overwrite: bool, device: &Device) -> Result<Self> {
        let holds_run = holds_run(folder);
        if holds_run && !overwrite {
            return Err(Error::RunExists { path: folder.to_path_buf() });
        }
        // Before anything is removed: a configuration that cannot be run costs nothing, and the old run may be what this one starts from.
        let trainer = Trainer::new(config, device)?;
        if holds_run {
            clear(folder)?;
        }
        Self::open(trainer, folder)
    }

    /// Continues the run in `folder` from its last complete checkpoint, with the run's configuration changed by
    /// `overrides` (see [`Config::load`]), for example to train longer.
    ///
    /// # Errors
    /// There is no checkpoint; a file is damaged; an override changes the network.
    pub fn resume(folder: &Path, overrides: &[String], device: &Device) -> Result<Self> {
        let config = Config::load(&folder.join("config.toml"), overrides)?;
        let latest = checkpoint::latest(folder)?;
        let trainer = checkpoint::load(&latest, config, device)?;
        Self::open(trainer, folder)
    }

    fn open(mut trainer: Trainer, folder: &Path) -> Result<Self> {
        if let Some(sample) = &trainer.config().sample {
            samples::check(&trainer, sample)?;
        }
        std::fs::create_dir_all(folder.join("checkpoints")).map_err(|e| Error::io(folder, e))?;
        // A run that was killed may have left an unfinished checkpoint or one too many.
        checkpoint::prune(folder, trainer.config().checkpoint.keep)?;
        write_atomic(&folder.join("config.toml"), trainer.config().to_toml()?.as_bytes())?;
        trainer.set_dump_folder(folder.join("failure"));
        let channels = trainer.data_info().shape[0];
        let density = match trainer.config().loss {
            // Only a log density has bits: L2 is a distance.
            LossConfig::L2 => None,
            LossConfig::Transition { weight_scale, .. } => Some(Density { channels, weight_scale }),
        };
        let log = Log::open(folder, trainer.steps_taken(), trainer.images(), density)?;
        Ok(Self { trainer, folder: folder.to_path_buf(), log })
    }

    /// Trains to the last step, or until `stop` is set: then the step is finished and a checkpoint written.
    ///
    /// # Errors
    /// As [`Trainer::step`]; a file that cannot be written. The last checkpoint stays as it is.
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        let total = self.trainer.config().total_steps();
        observer.on_start(self.trainer.steps_taken(), total);
        let result = self.steps(total, stop, observer);
        observer.on_end();
        result
    }

    fn steps(&mut self, total: u64, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        while self.trainer.steps_taken() < total {
            let report = self.trainer.step()?;
            self.log.add(&report);
            observer.on_step(&report);
            let last = report.step == total;
            let stopped = stop.load(Ordering::Relaxed) && !last;
            self.after_step(&report, last || stopped, observer)?;
            if stopped {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// Log line, picture and checkpoint where they are due; log line and checkpoint also at the end.
    fn after_step(&mut self, report: &StepReport, ends: bool, observer: &mut dyn Observer) -> Result<()> {
        let config = self.trainer.config();
        let due = |every: u64| report.step.is_multiple_of(every);
        let (log_due, save_due) = (due(config.log.every) || ends, due(config.checkpoint.every) || ends);
        let (keep, sample) = (config.checkpoint.keep, config.sample.clone());
        if log_due {
            observer.on_log(&self.log.write(report)?);
        }
        if let Some(sample) = sample.filter(|sample| report.step.is_multiple_of(sample.every)) {
            let picture = samples::draw(&self.trainer, &sample)?;
            let folder = self.folder.join("samples");
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            let path = folder.join(format!("step-{:08}.png", report.step));
            write_atomic(&path, &picture.png)?;
            self.log.picture(report.step, picture.size, &picture.png)?;
            observer.on_samples(&path);
        }
        if save_due {
            let path = checkpoint::save(&self.trainer, &self.folder)?;
            checkpoint::prune(&self.folder, keep)?;
            observer.on_checkpoint(&path);
        }
        Ok(())
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn holds_run(folder: &Path) -> bool {
    folder.join("config.toml").exists() || folder.join("checkpoints").exists()
}

/// Removes what a run writes, and nothing else.
fn clear(folder: &Path) -> Result<()> {
    for name in ["checkpoints", "samples", "failure"] {
        let path = folder.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    for entry in entries {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "config.toml" || name == "log.jsonl" || name.starts_with("events.out.tfevents.") {
            std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
}
