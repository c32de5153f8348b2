//! From what the user calls a checkpoint to the model folder.

use crate::args::PublishedArgs;
use crate::failure::usage;
use crate::local::Near;
use crate::terminal;
use anyhow::{Result, anyhow};
use gmflow::FilesError;
use gmflow::checkpoint::hub::{DownloadProgress, HubId, HubSettings, fetch};
use gmflow::checkpoint::model_folder;
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};

/// The model folder for what the user names: a local path, or else a repository on the hub, which is downloaded.
pub fn resolve(checkpoint: &Path, published: &PublishedArgs) -> Result<PathBuf> {
    let (revision, variant) = (published.revision.as_deref(), published.variant.as_deref());
    let id = match checkpoint.exists() {
        true => None,
        false => checkpoint.to_str().and_then(HubId::parse),
    };
    if let (Some(id), None) = (&id, revision) {
        refuse_near(checkpoint, id)?;
    }
    let Some(id) = id else {
        if let Some(revision) = revision {
            return Err(usage("--revision", "a repository on the hub, such as owner/name", revision));
        }
        return local_model(checkpoint);
    };
    let id = match revision {
        Some(revision) => id.at(revision)?,
        None => id,
    };
    let mut bars = Bars::default();
    let fetched = fetch(&id, variant, &HubSettings::from_env()?, &mut bars);
    // What was meant for a folder here reads like a name on the hub.
    let is_path = revision.is_none() && !checkpoint.to_string_lossy().contains('@');
    fetched.map_err(|error| match is_path {
        true => anyhow::Error::from(error)
            .context(format!("{}: no such folder here, and none from the hub", checkpoint.display())),
        false => error.into(),
    })
}

/// A local name with a slip is not asked of the hub.
fn refuse_near(checkpoint: &Path, id: &HubId) -> Result<()> {
    let near = Near::to(checkpoint);
    let says_where = checkpoint.to_string_lossy().contains('@');
    if near.names.is_empty() || says_where {
        return Ok(());
    }
    Err(anyhow!(
        "{}: no such folder; {}; the repository of this name on the hub is {}@main",
        checkpoint.display(),
        near.words(),
        id.repo
    ))
}

/// One progress bar per file.
#[derive(Default)]
pub struct Bars {
    bar: Option<ProgressBar>,
}

impl DownloadProgress for Bars {
    fn start(&mut self, file: &str, bytes: u64) {
        self.finish();
        self.bar = Some(terminal::download(bytes, file));
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// The model folder for a path on this machine.
fn local_model(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Err(anyhow!("{}: expected the folder of a model or of a run, got a file", path.display()));
    }
    model_folder(path).map_err(|error| match error {
        gmflow::Error::Files(FilesError::Io { .. }) => {
            let near = Near::to(path).words();
            anyhow!("{error}; expected a local folder, or owner/name of a repository on the hub; {near}")
        }
        other => other.into(),
    })
}
