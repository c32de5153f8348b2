//! Where the files of a known data set are: in a folder that the user gives, below `GMFLOW_DATA`, or in the hub's cache.

use crate::failure::usage;
use anyhow::{Result, anyhow};
use gmflow::checkpoint::hub::{HubId, HubSettings, cached_dataset};
use gmflow_data::{DatasetConfig, KnownSet, NamedData, SetFiles, Split};
use std::path::{Path, PathBuf};

/// The variable that names a folder with one subfolder per known set.
pub const VARIABLE: &str = "GMFLOW_DATA";
/// The ending of the files on the hub.
pub const EXTENSION: &str = "parquet";

/// Fills in the folder of a set that a configuration gives by its name; `given` is the folder of `--data`.
pub fn locate(source: &mut DatasetConfig, given: Option<&Path>) -> Result<()> {
    let DatasetConfig::Named(named) = source else {
        return match given {
            None => Ok(()),
            Some(given) => Err(usage(
                "--data",
                "a configuration that names its data (kind = \"named\")",
                format!("{}, and a configuration that says itself where its data are", given.display()),
            )),
        };
    };
    let NamedData { name: set, split, folder, .. } = named;
    match (given, &folder) {
        (Some(given), _) => *folder = Some(in_given(*set, *split, given)?),
        // Where it is not right, opening says so.
        (None, Some(_)) => {}
        (None, None) => *folder = Some(find(*set, *split)?.ok_or_else(|| absent(*set, *split))?),
    }
    Ok(())
}

/// The folder of a run's data, if it is no longer where it was and is found elsewhere, or `given` names another.
pub fn relocate(source: &DatasetConfig, given: Option<&Path>) -> Result<Option<PathBuf>> {
    if let DatasetConfig::Named(NamedData { name: set, split, folder: Some(folder), .. }) = source
        && given.is_none()
    {
        if set.find(folder, *split).is_some() {
            return Ok(None);
        }
        let found = find(*set, *split)?.ok_or_else(|| absent(*set, *split))?;
        log::warn!("{} is no longer in {}; it is read from {}", set.name(), folder.display(), found.display());
        return Ok(Some(found));
    }
    let mut moved = source.clone();
    locate(&mut moved, given)?;
    Ok(match moved {
        DatasetConfig::Named(NamedData { folder, .. }) => folder,
        _ => None,
    })
}

/// The absolute folder of a part's files where the user says they are.
fn in_given(set: KnownSet, split: Split, given: &Path) -> Result<PathBuf> {
    let files = set.find(given, split).ok_or_else(|| {
        let got = if given.is_dir() { "a folder without them" } else { "no such folder" };
        let expected = format!("a folder with the {split} files of {} (IDX or Parquet)", set.name());
        usage("--data", expected, format!("{}: {got}", given.display()))
    })?;
    Ok(std::path::absolute(files.folder())?)
}

/// The folder of a part's files below `GMFLOW_DATA` or in the cache.
pub fn find(set: KnownSet, split: Split) -> Result<Option<PathBuf>> {
    if let Some(folder) = below_variable(set)
        && let Some(files) = set.find(&folder, split)
    {
        return Ok(Some(std::path::absolute(files.folder())?));
    }
    let cached = cached_dataset(&hub_id(set)?, (set.repository_folder(), EXTENSION), &HubSettings::from_env()?);
    let files = cached.and_then(|folder| set.find(&folder, split));
    Ok(files.as_ref().map(SetFiles::folder).map(Path::to_owned))
}

/// The set's own folder below the variable's, if both are there.
fn below_variable(set: KnownSet) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(VARIABLE).filter(|value| !value.is_empty())?).join(set.name());
    folder.is_dir().then_some(folder)
}

/// The repository of a set.
pub fn hub_id(set: KnownSet) -> Result<HubId> {
    HubId::parse(set.repository()).ok_or_else(|| anyhow!("{}: not the name of a repository", set.repository()))
}

/// What to do where a set is nowhere.
pub fn absent(set: KnownSet, split: Split) -> anyhow::Error {
    let name = set.name();
    anyhow!(
        "{name} ({split}): not found in the cache; run `gmflow data get {name}` ({} MB), or give the folder of its files with \
         --data DIR, or set {VARIABLE} to a folder that holds {name}/",
        set.megabytes()
    )
}
