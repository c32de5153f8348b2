//! Checkpoints from the Hugging Face hub, kept in its standard cache, which other programs share.
//!
//! Only what sampling needs is downloaded: descriptions and safetensors files, never pickles. A download that breaks continues where
//! it ended, in the same call or in a later one.
//!
//! ```
//! use gmflow::checkpoint::hub::HubId;
//!
//! let id = HubId::parse("Lakonik/gmflow_imagenet_k8_ema@main").expect("owner/name@revision");
//! assert_eq!((id.repo.as_str(), id.revision.as_str()), ("Lakonik/gmflow_imagenet_k8_ema", "main"));
//! assert!(HubId::parse("models/mnist/run").is_none(), "a path");
//! ```

mod client;
mod dataset;
mod download;
mod plan;
mod settings;

use super::diffusers::weight_file;
use super::weight_files::{is_plain_name, shard_names};
use super::{Model, ModelInfo};
use crate::{Error, Result};
use client::Kind;
pub use dataset::{cached_dataset, fetch_dataset};
use download::Remote;
use hf_hub::{Cache, Repo, RepoType};
pub use settings::HubSettings;
use std::path::{Path, PathBuf};

/// The branch that is meant where none is named.
const MAIN: &str = "main";
/// The most characters of an id's part that the hub gives out, and some more.
const LONGEST_NAME: usize = 128;
/// Hexadecimal digits of a commit's full name.
const COMMIT_DIGITS: usize = 40;

/// A repository on the hub, at one of its revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    /// `owner/name`.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: String,
}

impl HubId {
    /// Reads `owner/name` or `owner/name@revision`; `None` where the text is something else, such as a path.
    pub fn parse(text: &str) -> Option<Self> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let (owner, name) = repo.split_once('/')?;
        let valid = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty()
                && part.len() <= LONGEST_NAME
                && part.chars().all(allowed)
                && !part.starts_with(['.', '-'])
        };
        (valid(owner) && valid(name) && is_revision(revision))
            .then(|| Self { repo: repo.to_owned(), revision: revision.to_owned() })
    }

    /// The same repository at another revision.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] for what cannot be a revision.
    pub fn at(self, revision: &str) -> Result<Self> {
        match is_revision(revision) {
            true => Ok(Self { revision: revision.to_owned(), ..self }),
            false => Err(Error::config("revision", "a branch, tag or commit", revision)),
        }
    }
}

impl std::fmt::Display for HubId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repo)?;
        if self.revision == MAIN { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Whether the text may name a revision; a slash is allowed, as in `refs/pr/1`.
fn is_revision(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.split('/').all(|part| is_plain_name(part) && !part.starts_with('-'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// Whether a revision is a commit's full name.
fn is_commit(revision: &str) -> bool {
    revision.len() == COMMIT_DIGITS && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// Who is told how a download goes.
pub trait DownloadProgress {
    /// A file of so many bytes is begun, or continued after a try that broke.
    fn start(&mut self, file: &str, bytes: u64);
    /// So many more bytes are there: have come, or were there from an earlier try.
    fn advance(&mut self, bytes: u64);
    /// The file is there.
    fn finish(&mut self);
}

/// The local folder of a repository's snapshot, with everything that loading `variant` needs (see
/// [`super::LoadOptions::variant`]); what is not in the cache is downloaded. Without a connection, a complete snapshot in the cache is
/// taken, with a warning.
///
/// # Errors
/// [`Error::Hub`], which says what to do; [`crate::FilesError::File`] where the repository holds no model.
pub fn fetch(
    id: &HubId,
    variant: Option<&str>,
    settings: &HubSettings,
    progress: &mut dyn DownloadProgress,
) -> Result<PathBuf> {
    let cached = || cached(id, variant, settings);
    if settings.offline {
        return cached().map_err(|missing| {
            let missing = missing.map_or_else(|| "it is not there".to_owned(), |error| error.to_string());
            let advice = "offline, so the cache must hold it; allow the network once (HF_HUB_OFFLINE) to download it";
            Error::hub(id, format!("{missing}: {advice}"))
        });
    }
    // A commit does not change, so that a whole one needs no question.
    if is_commit(&id.revision)
        && let Ok(folder) = cached()
    {
        return Ok(folder);
    }
    let mut remote = match Remote::open(id, RepoType::Model, settings) {
        Ok(remote) => remote,
        Err(failure) if failure.kind != Kind::Final => match cached() {
            Ok(folder) => {
                log::warn!("{id}: no answer from the hub ({}); the copy in the cache is used", failure.message);
                return Ok(folder);
            }
            Err(_) => return Err(Error::hub(id, failure.message)),
        },
        Err(failure) => return Err(Error::hub(id, failure.message)),
    };
    plan::download(&mut remote, variant, progress)?;
    remote.remember()?;
    Ok(remote.folder())
}

/// The snapshot in the cache, where it is whole; otherwise what is wrong with it, if it is there at all.
fn cached(id: &HubId, variant: Option<&str>, settings: &HubSettings) -> Result<PathBuf, Option<Error>> {
    let folder = snapshot(id, RepoType::Model, settings).ok_or(None)?;
    check(&folder, variant).map_err(Some)?;
    Ok(folder)
}

/// The folder of the revision's snapshot in the cache, if it is there.
fn snapshot(id: &HubId, of: RepoType, settings: &HubSettings) -> Option<PathBuf> {
    let repo = Repo::with_revision(id.repo.clone(), of, id.revision.clone());
    let cache = Cache::new(settings.cache.clone());
    let reference = settings.cache.join(repo.folder_name()).join("refs").join(&id.revision);
    let commit = std::fs::read_to_string(reference).unwrap_or_else(|_| id.revision.clone());
    let folder = is_plain_name(commit.trim()).then(|| cache.repo(repo).pointer_path(commit.trim()))?;
    folder.is_dir().then_some(folder)
}

/// Checks that every file of a model is there, without reading weights.
fn check(folder: &Path, variant: Option<&str>) -> Result<()> {
    ModelInfo::load(folder)?;
    for path in Model::weight_files(folder, variant)? {
        let shards = match path.extension().is_some_and(|extension| extension == "json") {
            true => shard_names(&path)?.into_iter().map(|name| path.with_file_name(name)).collect(),
            false => vec![path],
        };
        for shard in shards {
            std::fs::metadata(&shard).map_err(|error| Error::io(&shard, error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        let id = HubId::parse("Lakonik/gmflow_imagenet_k8_ema").unwrap();
        assert_eq!((id.repo.as_str(), id.revision.as_str()), ("Lakonik/gmflow_imagenet_k8_ema", "main"));
        assert_eq!(id.to_string(), "Lakonik/gmflow_imagenet_k8_ema");
        let id = HubId::parse("a/b@refs/pr/1").unwrap();
        assert_eq!((id.revision.as_str(), id.to_string().as_str()), ("refs/pr/1", "a/b@refs/pr/1"));
        assert_eq!(id.at("v1.0").unwrap().to_string(), "a/b@v1.0");
        for path in [
            "models", "./a/b", "a/b/c", "/a/b", "a/", "/b", "../b", "a/..", "a b/c", "a/b@", "a/b@../x", "a/b@-x", "",
        ] {
            assert_eq!(HubId::parse(path), None, "{path}");
        }
        assert!(HubId::parse("a/b").unwrap().at("..").is_err());
    }
}
