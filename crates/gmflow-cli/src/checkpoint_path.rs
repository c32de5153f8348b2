//! From what the user calls a checkpoint to the model folder.

use crate::args::PublishedArgs;
use crate::failure::usage;
use crate::local::Near;
use crate::terminal;
use anyhow::Result;
use gmflow::checkpoint::hub::{DownloadProgress, HubId, HubSettings, fetch};
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};

/// Where the hub's programs keep their files, below the home folder.
const HUB_HOME: &str = ".cache/huggingface";

/// The files that tell that a folder holds a model: ours, a published checkpoint, a transformer alone.
const MARKERS: [&str; 3] = ["model.json", "model_index.json", "config.json"];

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
        return model_folder(checkpoint);
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
    Err(anyhow::anyhow!(
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

/// The model folder for `path`: itself if it holds a model, otherwise the latest checkpoint of the run in it.
pub fn model_folder(path: &Path) -> Result<PathBuf> {
    if MARKERS.iter().any(|marker| path.join(marker).is_file()) {
        return Ok(path.to_owned());
    }
    if let Err(error) = std::fs::read_dir(path) {
        let error = gmflow::Error::io(path, error);
        let near = Near::to(path).words();
        return Err(anyhow::anyhow!(
            "{error}; expected a local folder, or owner/name of a repository on the hub; {near}"
        ));
    }
    latest_checkpoint(&path.join("checkpoints")).ok_or_else(|| {
        let expected = "model.json or model_index.json (a model), or checkpoints/step-*/model.json (a run)";
        gmflow::Error::file(path, "folder", expected, "none of them").into()
    })
}

/// The complete checkpoint with the most steps.
fn latest_checkpoint(folder: &Path) -> Option<PathBuf> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("model.json").is_file())
        .filter_map(|path| Some((step(&path)?, path)))
        .max()
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch_model(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("model.json"), "{}").unwrap();
    }

    #[test]
    fn a_run_stands_for_its_latest_complete_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = run.path().join("checkpoints");
        touch_model(&checkpoints.join("step-00000900"));
        touch_model(&checkpoints.join("step-00001000"));
        std::fs::create_dir_all(checkpoints.join("step-00001100")).unwrap();
        assert_eq!(model_folder(run.path()).unwrap(), checkpoints.join("step-00001000"));
    }

    #[test]
    fn a_model_folder_stands_for_itself() {
        let model = tempfile::tempdir().unwrap();
        touch_model(model.path());
        assert_eq!(model_folder(model.path()).unwrap(), model.path());
    }

    #[test]
    fn a_folder_with_neither_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let message = model_folder(empty.path()).unwrap_err().to_string();
        assert!(message.contains(empty.path().to_str().unwrap()), "{message}");
    }
}
