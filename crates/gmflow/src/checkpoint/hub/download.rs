//! One repository on the hub: its list of files, and the way of one file into the cache.

use super::{DownloadProgress, HubId, HubSettings};
use crate::checkpoint::weight_files::is_plain_name;
use crate::{Error, Result};
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a file is tried; every try continues the one before.
const TRIES: u32 = 5;
/// The pause after the first failure; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// What hf-hub calls a file that is not whole yet.
const PART: &str = "part";

/// A repository that has answered.
pub(super) struct Remote {
    id: HubId,
    api: Api,
    /// At the commit that the revision stood for when it was opened, so that all files belong together.
    repo: ApiRepo,
    cache: CacheRepo,
    /// The cache's entry for the revision that was asked for.
    reference: CacheRepo,
    commit: String,
    files: Vec<String>,
}

/// Why the hub gave no answer that helps.
pub(super) struct Failure {
    /// Whether nobody answered at all.
    pub(super) unreachable: bool,
    /// What happened, and what to do.
    pub(super) message: String,
}

impl Remote {
    /// Asks for the list of files.
    pub(super) fn open(id: &HubId, settings: &HubSettings) -> Result<Self, Failure> {
        let cache = Cache::new(settings.cache.clone());
        let mut builder = ApiBuilder::from_cache(cache.clone())
            .with_token(settings.token.clone())
            .with_progress(false)
            .with_user_agent("gmflow", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let api = builder.build().map_err(|error| failure(&error, ""))?;
        let named = Repo::with_revision(id.repo.clone(), RepoType::Model, id.revision.clone());
        let info =
            api.repo(named.clone()).info().map_err(|error| failure(&error, "the repository or its revision"))?;
        if !is_plain_name(&info.sha) {
            let message = format!("expected the name of a commit, got {:?}", info.sha);
            return Err(Failure { unreachable: false, message });
        }
        let pinned = Repo::with_revision(id.repo.clone(), RepoType::Model, info.sha.clone());
        Ok(Self {
            id: id.clone(),
            repo: api.repo(pinned.clone()),
            api,
            cache: cache.repo(pinned),
            reference: cache.repo(named),
            commit: info.sha,
            files: info.siblings.into_iter().map(|file| file.rfilename).collect(),
        })
    }

    pub(super) fn id(&self) -> &HubId {
        &self.id
    }

    /// The snapshot's folder.
    pub(super) fn folder(&self) -> PathBuf {
        self.cache.pointer_path(&self.commit)
    }

    /// Whether the repository holds a file.
    pub(super) fn has(&self, file: &str) -> bool {
        self.files.iter().any(|known| known == file)
    }

    /// The names of the files directly in a folder, which is "" or ends in a slash.
    pub(super) fn files_in(&self, folder: &str) -> Vec<String> {
        let names = self.files.iter().filter_map(|file| file.strip_prefix(folder));
        names.filter(|name| !name.contains('/')).map(str::to_owned).collect()
    }

    /// Notes in the cache which commit the revision stands for.
    pub(super) fn remember(&self) -> Result<()> {
        let folder = self.folder();
        self.reference.create_ref(&self.commit).map_err(|error| Error::io(&folder, error))
    }

    /// The local path of a file, which is downloaded where it is not there yet.
    pub(super) fn get(&self, file: &str, progress: &mut dyn DownloadProgress) -> Result<PathBuf> {
        let path = self.folder().join(file);
        if path.is_file() {
            return Ok(path);
        }
        let wrong = |message: String| Error::hub(&self.id, format!("{file}: {message}"));
        if !file.split('/').all(is_plain_name) {
            return Err(wrong("expected the name of a file in the repository".into()));
        }
        let mut pause = FIRST_PAUSE;
        let mut tried = 1;
        loop {
            let Err(failure) = self.attempt(file, &path, progress) else { return Ok(path) };
            if tried == TRIES || failure.is_final {
                return Err(wrong(failure.message));
            }
            log::warn!("{}: {file}: {}; trying again", self.id, failure.message);
            std::thread::sleep(pause);
            (pause, tried) = (pause * 2, tried + 1);
        }
    }

    /// Downloads a file, or what is missing of it, and checks its size.
    fn attempt(&self, file: &str, path: &Path, progress: &mut dyn DownloadProgress) -> Result<(), Attempt> {
        let metadata = self.api.metadata(&self.repo.url(file)).map_err(|error| Attempt::of(&error, file))?;
        // They become names of files in the cache.
        if !is_plain_name(metadata.etag()) || metadata.commit_hash() != self.commit {
            let message =
                format!("expected an answer for commit {}, got one for {:?}", self.commit, metadata.commit_hash());
            return Err(Attempt { is_final: true, message });
        }
        let (size, blob) = (metadata.size() as u64, self.cache.blob_path(metadata.etag()));
        let part = blob.with_extension(PART);
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if length(&part) >= size {
            // Not what it should be the beginning of.
            remove(&part)?;
        }
        let adapter = Adapter { progress, file, size, told: false };
        let downloaded = self.repo.download_with_progress(file, adapter);
        if let Err(error) = downloaded {
            if length(&part) > size {
                remove(&part)?;
            }
            return Err(Attempt::of(&error, file));
        }
        let got = length(path);
        if got != size {
            remove(&blob)?;
            remove(path)?;
            return Err(Attempt { is_final: false, message: format!("expected {size} bytes, got {got}") });
        }
        Ok(())
    }
}

/// Why a try failed.
struct Attempt {
    /// Whether another would fail too.
    is_final: bool,
    message: String,
}

impl Attempt {
    fn of(error: &ApiError, file: &str) -> Self {
        let is_final = match status(error) {
            Some(status) => status < 500 && status != 408 && status != 416 && status != 429,
            None => matches!(error, ApiError::IoError(error) if is_local(error)),
        };
        let Failure { message, .. } = failure(error, file);
        let message = if is_final { message } else { format!("{message}; run the command again, and it continues") };
        Self { is_final, message }
    }
}

fn remove(path: &Path) -> Result<(), Attempt> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Attempt { is_final: true, message: format!("{}: {error}", path.display()) })
        }
        _ => Ok(()),
    }
}

/// The HTTP status of an error.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match error.as_ref() {
            ureq::Error::StatusCode(status) => Some(*status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Whether an error comes from this machine's disk.
fn is_local(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
    )
}

/// An error in words that say what to do; `what` was asked for.
fn failure(error: &ApiError, what: &str) -> Failure {
    let message = match status(error) {
        Some(401 | 403) => {
            "the hub refuses access: set HF_TOKEN to a token that may read it, and accept its terms there".into()
        }
        Some(404) => format!(
            "the hub has no such thing ({what}): check owner, name and --revision, or HF_TOKEN if it is private"
        ),
        Some(429) => "the hub is asked too often: wait a while, or set HF_TOKEN".into(),
        Some(status) => format!("the hub answered with status {status}"),
        None => match error {
            ApiError::IoError(error) if is_local(error) => format!("the cache cannot be written: {error}"),
            ApiError::LockAcquisition(path) => {
                format!("{}: another program is downloading the same file", path.display())
            }
            error => format!("the download failed: {error}"),
        },
    };
    let unreachable = match error {
        ApiError::RequestError(error) => !matches!(error.as_ref(), ureq::Error::StatusCode(_) | ureq::Error::Json(_)),
        ApiError::IoError(error) => !is_local(error),
        _ => false,
    };
    let advice = "; check the network and HF_ENDPOINT, or give a local folder";
    Failure { message: if unreachable { format!("{message}{advice}") } else { message }, unreachable }
}

/// Hands on what hf-hub tells.
struct Adapter<'a> {
    progress: &'a mut dyn DownloadProgress,
    file: &'a str,
    size: u64,
    /// hf-hub begins twice; after it has, it counts the bytes that were there before as having come.
    told: bool,
}

impl Progress for Adapter<'_> {
    fn init(&mut self, _size: usize, _filename: &str) {
        if !std::mem::replace(&mut self.told, true) {
            self.progress.start(self.file, self.size);
        }
    }

    fn update(&mut self, size: usize) {
        self.progress.advance(size as u64);
    }

    fn finish(&mut self) {
        self.progress.finish();
    }
}
