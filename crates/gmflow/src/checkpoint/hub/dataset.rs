//! Data sets on the hub.

use super::client::Kind;
use super::download::{Remote, is_intact, remove};
use super::{DownloadProgress, HubId, HubSettings, snapshot};
use crate::{Error, Result};
use hf_hub::RepoType;
use std::path::{Path, PathBuf};

/// The local folder with the files of `folder` (in the repository of data `id`) with the ending `extension`. What is not in the cache
/// is downloaded, and what came is compared with the SHA-256 that the hub names it by, where it does; so is what was there already.
///
/// # Errors
/// [`Error::Hub`], which says what to do.
pub fn fetch_dataset(
    id: &HubId,
    (folder, extension): (&str, &str),
    settings: &HubSettings,
    progress: &mut dyn DownloadProgress,
) -> Result<PathBuf> {
    if settings.offline {
        let advice = "offline (HF_HUB_OFFLINE), and the cache does not hold it";
        return cached_dataset(id, (folder, extension), settings).ok_or_else(|| Error::hub(id, advice));
    }
    let remote = match Remote::open(id, RepoType::Dataset, settings) {
        Ok(remote) => remote,
        Err(failure) => {
            let cached = cached_dataset(id, (folder, extension), settings).filter(|_| failure.kind != Kind::Final);
            let Some(cached) = cached else { return Err(Error::hub(id, failure.message)) };
            log::warn!("{id}: no answer from the hub ({}); the copy in the cache is used", failure.message);
            return Ok(cached);
        }
    };
    let below = format!("{folder}/");
    let mut names = remote.files_in(&below);
    names.retain(|name| Path::new(name).extension().is_some_and(|ending| ending == extension));
    if names.is_empty() {
        return Err(Error::hub(id, format!("expected {below}*.{extension}, got none in its list of files")));
    }
    for name in names {
        let path = remote.folder().join(folder).join(&name);
        if path.is_file() && !is_intact(&path).map_err(|error| Error::io(&path, error))? {
            log::warn!("{}: not the content that its name promises; it is downloaded again", path.display());
            remove(&path).map_err(|error| Error::io(&path, error))?;
        }
        remote.get(&format!("{below}{name}"), progress)?;
    }
    remote.remember()?;
    Ok(remote.folder().join(folder))
}

/// The folder that [`fetch_dataset`] gives, if the cache holds files for it; the network is not asked.
pub fn cached_dataset(id: &HubId, (folder, extension): (&str, &str), settings: &HubSettings) -> Option<PathBuf> {
    let folder = snapshot(id, RepoType::Dataset, settings)?.join(folder);
    let wanted = |path: &Path| path.extension().is_some_and(|ending| ending == extension) && path.is_file();
    let mut entries = std::fs::read_dir(&folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries.any(|path| wanted(&path)).then_some(folder)
}
