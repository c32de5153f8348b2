//! From what the user calls a checkpoint to the model folder.

use crate::args::PublishedArgs;
use crate::failure::usage;
use crate::local::Near;
use crate::terminal;
use anyhow::{Result, anyhow};
use gmflow::checkpoint::hub::{DownloadProgress, HubId, HubSettings, fetch};
use gmflow_eval::models::model_folder;
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};

/// Where the hub's programs keep their files, below the home folder.
const HUB_HOME: &str = ".cache/huggingface";

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
    Ok(fetch(&id, variant, &hub_settings()?, &mut bars)?)
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

/// The hub's settings from the environment, by the names that its own programs give them.
pub fn hub_settings() -> Result<HubSettings> {
    let read = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    // A variable that was filled from a file often ends with a line break.
    let word = |name: &str| read(name).map(|value| value.trim().to_owned());
    let home = match read("HF_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir()
            .ok_or_else(|| {
                usage("HF_HOME", "the folder of the hub's cache, because there is no home folder", "nothing")
            })?
            .join(HUB_HOME),
    };
    let from_file = || std::fs::read_to_string(home.join("token")).ok().map(|token| token.trim().to_owned());
    let token = word("HF_TOKEN").or_else(|| word("HUGGING_FACE_HUB_TOKEN")).or_else(from_file);
    let offline =
        word("HF_HUB_OFFLINE").is_some_and(|value| !matches!(value.to_lowercase().as_str(), "0" | "false" | "no"));
    Ok(HubSettings {
        endpoint: word("HF_ENDPOINT"),
        token: token.filter(|token| !token.is_empty()),
        cache: read("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
        offline,
    })
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
    model_folder(path).map_err(|error| match error {
        gmflow_eval::Error::Io { .. } => {
            let near = Near::to(path).words();
            anyhow!("{error}; expected a local folder, or owner/name of a repository on the hub; {near}")
        }
        other => other.into(),
    })
}
