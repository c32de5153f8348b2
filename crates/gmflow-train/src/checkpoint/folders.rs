//! The folders of checkpoints: their names, the newest one, what is set aside and what is removed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The folder of all checkpoints, in that of a run.
pub(crate) const FOLDER: &str = "checkpoints";
const PREFIX: &str = "step-";
pub(super) const STATE_FILE: &str = "state.json";
pub(super) const OPTIMIZER_FILE: &str = "optimizer.safetensors";
pub(super) const SPECTRUM_OPTIMIZER_FILE: &str = "spectrum_optimizer.safetensors";
/// Extension of a folder that is being written or removed.
pub(super) const UNFINISHED: &str = "unfinished";
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
pub(super) fn set_aside(folder: &Path) -> Result<PathBuf> {
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
