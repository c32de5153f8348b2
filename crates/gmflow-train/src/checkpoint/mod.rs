//! Checkpoints: a model folder with the optimiser's state, complete or not there at all.
//!
//! `optimizer.safetensors` holds `exp_avg.NAME` and `exp_avg_sq.NAME` for every parameter, `spectrum_optimizer.safetensors`
//! the same for the spectrum network where one is trained, and `state.json` the progress and the digests of all other files.
//! The generators need no state: every draw is a function of the seed and the number of the sample.

mod load;
mod model;
mod state;

pub(crate) use load::{Start, model_folder, weights};
pub use load::{load, verify};
pub(crate) use model::config_of;
pub use model::model;
pub use state::State;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use gmflow::checkpoint::{Precision, write_tensors};
use gmflow::network::{HostTensor, Network, TorchNames};

use crate::optimizer::AdamW;
use crate::params;
use crate::trainable::Trainable;
use crate::trainer::Trainer;
use crate::{Error, Result};

/// The folder of all checkpoints, in that of a run.
pub(crate) const FOLDER: &str = "checkpoints";
const PREFIX: &str = "step-";
const STATE_FILE: &str = "state.json";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const SPECTRUM_OPTIMIZER_FILE: &str = "spectrum_optimizer.safetensors";
/// Extension of a folder that is being written or removed.
const UNFINISHED: &str = "unfinished";
/// Extension of a checkpoint that another has taken the place of.
const SET_ASIDE: &str = "old";

/// The name of a step's checkpoint.
pub(crate) fn name(step: u64) -> String {
    format!("{PREFIX}{step:08}")
}

/// Whether a file in a checkpoint of ours has this name.
pub(crate) fn is_file_of_ours(name: &str) -> bool {
    let is_average = name.starts_with("ema.") && name.ends_with(".safetensors");
    let weights = ["model.safetensors", "spectrum.safetensors", OPTIMIZER_FILE, SPECTRUM_OPTIMIZER_FILE];
    is_average || name == STATE_FILE || name == "model.json" || weights.contains(&name)
}

/// Whether a folder of this name in the folder of checkpoints is of ours: complete, set aside, being written or being removed.
pub(crate) fn is_folder_of_ours(name: &str) -> bool {
    let hidden =
        name.strip_prefix('.').map(|name| name.strip_suffix(UNFINISHED).and_then(|name| name.strip_suffix('.')));
    let Some(name) = hidden.unwrap_or(Some(name)) else { return false };
    let (name, extension) = name.split_once('.').unwrap_or((name, SET_ASIDE));
    step_of(name).is_some() && extension.strip_prefix(SET_ASIDE).is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The step in the name of a checkpoint's folder.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX).filter(|digits| is_number(digits))?.parse().ok()
}

/// The step of the checkpoint in `folder`, by its name.
pub(crate) fn step_of_folder(folder: &Path) -> Option<u64> {
    step_of(folder.file_name()?.to_str()?)
}

/// Writes the checkpoint of the trainer's current step below `run_folder` and returns its folder.
///
/// It is written beside its place under another name, synced and renamed, so a folder `step-*` is always complete. A folder that has
/// this name already is set aside, not overwritten.
///
/// # Errors
/// A weight, moment or average that is not finite, before anything is written; a file that cannot be written.
pub fn save(trainer: &Trainer, run_folder: &Path) -> Result<PathBuf> {
    trainer.check_finite()?;
    let parent = run_folder.join(FOLDER);
    let name = name(trainer.steps_taken());
    let (unfinished, folder) = (parent.join(format!(".{name}.{UNFINISHED}")), parent.join(&name));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|e| Error::io(&unfinished, e))?;
    }
    fs::create_dir_all(&unfinished).map_err(|e| Error::io(&unfinished, e))?;
    if let Err(error) = write_files(trainer, &unfinished).and_then(|()| sync(&unfinished)) {
        // What has been written is of no use, and where the disk is full it is in the way. The first error is the one to report.
        let _ = fs::remove_dir_all(&unfinished);
        return Err(error);
    }
    if folder.exists() {
        set_aside(&folder)?;
    }
    fs::rename(&unfinished, &folder).map_err(|e| Error::io(&folder, e))?;
    sync(&parent)?;
    Ok(folder)
}

fn write_files(trainer: &Trainer, folder: &Path) -> Result<()> {
    let network = trainer.network();
    let names: Vec<&str> = network.averages.iter().map(|ema| ema.config.name.as_str()).collect();
    let snapshots = names.iter().map(|name| network.snapshot(Some(name))).collect::<Result<Vec<Network>>>()?;
    let averages: Vec<(&str, &Network)> = names.iter().copied().zip(&snapshots).collect();
    let mut files = model(trainer)?.save(folder, &averages, Precision::F32)?;
    let mut write = |name: &str, moments: &[(String, HostTensor)]| -> Result<()> {
        files.insert(name.to_owned(), write_tensors(&folder.join(name), moments, Precision::F32)?);
        Ok(())
    };
    write(OPTIMIZER_FILE, &moments(network)?)?;
    if let Some(spectrum) = trainer.spectrum() {
        write(SPECTRUM_OPTIMIZER_FILE, &moments(spectrum)?)?;
    }
    State::of(trainer, files).write(folder)
}

/// Both moments of every parameter, under the parameter's name.
fn moments<M: TorchNames>(trainable: &Trainable<M>) -> Result<Vec<(String, HostTensor)>> {
    let AdamW { exp_avg, exp_avg_sq, .. } = &trainable.optimizer;
    let mut named = Vec::new();
    for (kind, values) in [("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)] {
        for (info, values) in trainable.infos.iter().zip(values) {
            let tensor = HostTensor { shape: info.shape.clone(), values: params::on_host(values)? };
            named.push((format!("{kind}.{}", info.name), tensor));
        }
    }
    Ok(named)
}

/// The newest checkpoint of a run.
///
/// # Errors
/// [`Error::NoCheckpoint`].
pub fn latest(run_folder: &Path) -> Result<PathBuf> {
    list(run_folder)?.pop().ok_or_else(|| Error::NoCheckpoint { path: run_folder.to_path_buf() })
}

/// The checkpoint of a step.
///
/// # Errors
/// [`Error::Config`] naming the steps that there are.
pub fn at(run_folder: &Path, step: u64) -> Result<PathBuf> {
    let all = list(run_folder)?;
    match all.iter().find(|folder| step_of_folder(folder) == Some(step)) {
        Some(folder) => Ok(folder.clone()),
        None => {
            let steps: Vec<String> =
                all.iter().filter_map(|folder| step_of_folder(folder)).map(|step| step.to_string()).collect();
            let steps = if steps.is_empty() { "none".to_owned() } else { steps.join(", ") };
            Err(Error::Config {
                source_name: run_folder.display().to_string(),
                field: "--resume-from".into(),
                expected: format!("the step of a checkpoint ({steps})"),
                got: step.to_string(),
            })
        }
    }
}

/// Sets aside all checkpoints after a step, so that a run can go on from there, and returns their new places.
///
/// # Errors
/// A folder that cannot be renamed.
pub fn set_aside_after(run_folder: &Path, step: u64) -> Result<Vec<PathBuf>> {
    let later = |folder: &PathBuf| step_of_folder(folder).is_some_and(|other| other > step);
    list(run_folder)?.into_iter().filter(later).map(|folder| set_aside(&folder)).collect()
}

/// Gives a checkpoint a name under which it is not found as a checkpoint any more, and stays.
fn set_aside(folder: &Path) -> Result<PathBuf> {
    let mut free = (1..).map(|number| {
        folder.with_extension(if number == 1 { SET_ASIDE.to_owned() } else { format!("{SET_ASIDE}{number}") })
    });
    let aside = free.find(|path| !path.exists()).unwrap_or_else(|| folder.with_extension(SET_ASIDE));
    fs::rename(folder, &aside).map_err(|e| Error::io(folder, e))?;
    Ok(aside)
}

/// Removes all but the newest `keep` checkpoints. One that holds files which are none of ours stays, and a warning says so.
///
/// # Errors
/// A folder cannot be removed.
pub fn prune(run_folder: &Path, keep: usize) -> Result<()> {
    let mut old = list(run_folder)?;
    old.truncate(old.len().saturating_sub(keep));
    for folder in old {
        if let Some(name) = foreign_file(&folder)? {
            log::warn!("{}: is kept, because it holds {name}, which training did not write", folder.display());
            continue;
        }
        remove(&folder)?;
    }
    Ok(())
}

/// Removes the files of a checkpoint, and its folder unless something else is in it.
///
/// # Errors
/// A file cannot be removed.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    if foreign_file(folder)?.is_some() {
        let is_ours = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(is_file_of_ours);
        let mut ours = entries(folder)?.into_iter().filter(is_ours);
        return ours.try_for_each(|path| fs::remove_file(&path).map_err(|e| Error::io(path, e)));
    }
    // Renamed first, so that a process killed here leaves no half of a checkpoint under a checkpoint's name.
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.with_file_name(format!(".{name}.{UNFINISHED}"));
    fs::rename(folder, &unfinished).map_err(|e| Error::io(folder, e))?;
    fs::remove_dir_all(&unfinished).map_err(|e| Error::io(&unfinished, e))
}

/// Removes what an interrupted write or removal left.
///
/// # Errors
/// A folder cannot be removed.
pub fn remove_unfinished(run_folder: &Path) -> Result<()> {
    for folder in entries(&run_folder.join(FOLDER))? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && is_folder_of_ours(&name) {
            fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        }
    }
    Ok(())
}

/// The name of something in a checkpoint that is not of ours.
fn foreign_file(folder: &Path) -> Result<Option<String>> {
    let names =
        entries(folder)?.into_iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Ok(names.into_iter().find(|name| !is_file_of_ours(name)))
}

/// Everything in a folder; nothing where there is no such folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let found = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    found.map_err(|e| Error::io(folder, e))
}

/// Checkpoints, oldest first.
pub(crate) fn list(run_folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> = entries(&run_folder.join(FOLDER))?
        .into_iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| Some((step_of_folder(&path)?, path)))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(folder, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ours_are_told_from_others() {
        for ours in [
            "step-00000100",
            "step-123456789",
            "step-00000100.old",
            "step-00000100.old2",
            ".step-00000100.unfinished",
        ] {
            assert!(is_folder_of_ours(ours), "{ours}");
        }
        for other in [
            "step-",
            "step-x",
            "best",
            "step-00000100.bak",
            "step-100.older",
            ".step-x.unfinished",
            ".step-1",
            "notes",
        ] {
            assert!(!is_folder_of_ours(other), "{other}");
        }
        assert!(["model.json", "ema.slow.safetensors", "state.json"].iter().all(|name| is_file_of_ours(name)));
        assert!(["notes.txt", "model.json.bak", "ema.txt"].iter().all(|name| !is_file_of_ours(name)));
    }
}
