//! One repository on the hub: its list of files, and the way of one file into the cache.

use super::client::{Client, Failure, Kind, check_status};
use super::{DownloadProgress, HubId, HubSettings};
use crate::checkpoint::weight_files::is_plain_name;
use crate::{Error, Result};
use hf_hub::api::RepoInfo;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a file is tried; every try continues the one before.
const TRIES: u32 = 5;
/// The pause after the first failure; it doubles with every further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// What Python's programs call a file that is not whole yet.
const PART: &str = "incomplete";
/// Where they keep their locks, in the cache.
const LOCKS: &str = ".locks";
/// Bytes copied at a time.
const PIECE: usize = 1 << 16;

/// A repository that has answered.
pub(super) struct Remote {
    id: HubId,
    client: Client,
    /// At the commit that the revision stood for when it was opened, so that all files belong together.
    repo: Repo,
    cache: CacheRepo,
    /// The cache's entry for the revision that was asked for.
    reference: CacheRepo,
    locks: PathBuf,
    commit: String,
    files: Vec<String>,
}

/// What the hub says about a file.
struct Facts {
    etag: String,
    size: u64,
}

impl Remote {
    /// Asks for the list of files of a repository of this type.
    pub(super) fn open(id: &HubId, of: RepoType, settings: &HubSettings) -> Result<Self, Failure> {
        let client = Client::new(settings)?;
        let cache = Cache::new(settings.cache.clone());
        let named = Repo::with_revision(id.repo.clone(), of, id.revision.clone());
        let list = client.document(&format!("/api/{}", named.api_url()), "the repository or its revision")?;
        let info: RepoInfo = serde_json::from_slice(&list)
            .map_err(|error| Failure::new(Kind::Final, format!("expected the hub's list of files, got {error}")))?;
        if !is_plain_name(&info.sha) {
            return Err(Failure::new(Kind::Final, format!("expected the name of a commit, got {:?}", info.sha)));
        }
        let repo = Repo::with_revision(id.repo.clone(), of, info.sha.clone());
        Ok(Self {
            id: id.clone(),
            client,
            cache: cache.repo(repo.clone()),
            locks: settings.cache.join(LOCKS).join(repo.folder_name()),
            repo,
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
        if self.id.revision == self.commit {
            return Ok(());
        }
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
            if failure.kind == Kind::Final {
                return Err(wrong(failure.message));
            }
            if tried == TRIES {
                return Err(wrong(format!("{}; run the command again, and it continues", failure.message)));
            }
            log::warn!("{}: {file}: {}; trying again", self.id, failure.message);
            std::thread::sleep(pause);
            (pause, tried) = (pause * 2, tried + 1);
        }
    }

    /// Downloads a file, or what is missing of it, and checks its size.
    fn attempt(&self, file: &str, path: &Path, progress: &mut dyn DownloadProgress) -> Result<(), Failure> {
        let url = format!("/{}/resolve/{}/{file}", self.repo.url(), self.repo.url_revision());
        let facts = self.facts(&url, file)?;
        let blob = self.cache.blob_path(&facts.etag);
        create_parent(&blob)?;
        let _lock = self.lock(&facts.etag)?;
        // The same content may have come as another file, of another revision or with another program.
        let whole = fs::metadata(&blob).is_ok_and(|blob| blob.is_file() && blob.len() == facts.size);
        if !whole {
            self.complete(&url, file, &blob, facts.size, progress)?;
        }
        link(&blob, path, file)
    }

    /// Asks for the first byte of a file, whose answer tells what the file is.
    fn facts(&self, url: &str, file: &str) -> Result<Facts, Failure> {
        let answer = self.client.get(url, Some("bytes=0-0"))?;
        let status = answer.response.status().as_u16();
        // Of an empty file there is no first byte.
        if status != 416 {
            check_status(&answer.response, file)?;
        }
        // They become names of files in the cache.
        let etag = answer.etag.filter(|etag| is_plain_name(etag));
        if answer.commit.as_deref() != Some(self.commit.as_str()) {
            let message = format!("expected an answer for commit {}, got one for {:?}", self.commit, answer.commit);
            return Err(Failure::new(Kind::Final, message));
        }
        let size = match status {
            206 | 416 => content_range(&answer.response).map(|(_, size)| size),
            _ => header(&answer.response, "content-length").and_then(|length| length.parse().ok()),
        };
        match (etag, size) {
            (Some(etag), Some(size)) => Ok(Facts { etag, size }),
            _ => {
                Err(Failure::new(Kind::Final, "expected an answer that tells the file's name and size, got another"))
            }
        }
    }

    /// Keeps other programs from downloading the same content at once.
    fn lock(&self, etag: &str) -> Result<File, Failure> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| local(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                log::warn!("{}: another program is downloading the same file; waiting for it", path.display());
                file.lock().map_err(|error| local(&path, &error))?;
                Ok(file)
            }
            Err(TryLockError::Error(error)) => Err(local(&path, &error)),
        }
    }

    /// Downloads what is missing of `blob`.
    fn complete(
        &self,
        url: &str,
        file: &str,
        blob: &Path,
        size: u64,
        progress: &mut dyn DownloadProgress,
    ) -> Result<(), Failure> {
        let part = blob.with_added_extension(PART);
        let mut out =
            OpenOptions::new().create(true).append(true).open(&part).map_err(|error| local(&part, &error))?;
        let mut have = out.metadata().map_err(|error| local(&part, &error))?.len();
        if have > size {
            // Not what it should be the beginning of.
            have = restart(&out, &part)?;
        }
        progress.start(file, size);
        if have < size {
            let answer = self.client.get(url, Some(&format!("bytes={have}-")))?;
            if answer.response.status().as_u16() == 416 {
                restart(&out, &part)?;
            }
            check_status(&answer.response, file)?;
            // A server that knows no ranges sends the file from its beginning.
            if answer.response.status().as_u16() != 206 {
                have = restart(&out, &part)?;
            } else if content_range(&answer.response).is_none_or(|range| range != (have, size)) {
                restart(&out, &part)?;
                return Err(Failure::new(Kind::Passing, format!("expected the bytes from {have} on, got others")));
            }
            progress.advance(have);
            have += copy(answer.response.into_body().into_reader(), &mut out, &part, progress)?;
        } else {
            progress.advance(have);
        }
        if have > size {
            restart(&out, &part)?;
        }
        if have != size {
            return Err(Failure::new(Kind::Passing, format!("expected {size} bytes, got {have}")));
        }
        if let Err(failure) = check_content(blob, &part) {
            restart(&out, &part)?;
            return Err(failure);
        }
        out.sync_all().and_then(|()| fs::rename(&part, blob)).map_err(|error| local(blob, &error))?;
        progress.finish();
        Ok(())
    }
}

/// Compares what came with the hash that names it: large files are named by their SHA-256, small ones by another.
fn check_content(blob: &Path, part: &Path) -> Result<(), Failure> {
    let Some(named) = sha256_of_name(blob) else { return Ok(()) };
    let got = sha256(part).map_err(|error| local(part, &error))?;
    match got == named {
        true => Ok(()),
        false => Err(Failure::new(Kind::Passing, format!("expected content with SHA-256 {named}, got {got}"))),
    }
}

/// The SHA-256 that names a blob, in hexadecimal digits, where it is one.
fn sha256_of_name(blob: &Path) -> Option<&str> {
    let digits = |name: &&str| name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    blob.file_name()?.to_str().filter(digits)
}

/// The SHA-256 of a file in hexadecimal digits.
fn sha256(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether a file of a snapshot has the content that its blob is named after; so have those that no hash is known of.
pub(super) fn is_intact(path: &Path) -> std::io::Result<bool> {
    let blob = fs::canonicalize(path)?;
    match sha256_of_name(&blob) {
        Some(named) => Ok(sha256(&blob)? == named),
        None => Ok(true),
    }
}

/// Removes a file of a snapshot with its content.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    let blob = fs::canonicalize(path)?;
    fs::remove_file(path)?;
    if blob.is_file() { fs::remove_file(blob) } else { Ok(()) }
}

/// Empties a part.
fn restart(out: &File, part: &Path) -> Result<u64, Failure> {
    out.set_len(0).map_err(|error| local(part, &error))?;
    Ok(0)
}

/// Copies until the transfer ends or breaks, and tells how many bytes came.
fn copy(
    mut body: impl Read,
    out: &mut File,
    part: &Path,
    progress: &mut dyn DownloadProgress,
) -> Result<u64, Failure> {
    let mut piece = vec![0; PIECE];
    let mut copied = 0;
    loop {
        let count = match body.read(&mut piece) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::new(Kind::Passing, format!("the transfer broke: {error}"))),
        };
        let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(copied) };
        out.write_all(bytes).map_err(|error| local(part, &error))?;
        copied += count as u64;
        progress.advance(count as u64);
    }
}

/// Makes `path` in a snapshot stand for a blob.
fn link(blob: &Path, path: &Path, file: &str) -> Result<(), Failure> {
    create_parent(path)?;
    let linked = remove_broken(path).and_then(|()| make_link(blob, path, file.matches('/').count()));
    match linked {
        Err(error) if !path.is_file() => Err(local(path, &error)),
        _ => Ok(()),
    }
}

fn remove_broken(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata().is_ok() { fs::remove_file(path) } else { Ok(()) }
}

/// A relative link, so that the cache can be moved; `depth` folders lie between the snapshot's and the link.
#[cfg(unix)]
fn make_link(blob: &Path, path: &Path, depth: usize) -> std::io::Result<()> {
    let mut target: PathBuf = std::iter::repeat_n("..", depth + 2).collect();
    target.push("blobs");
    target.push(blob.file_name().unwrap_or_default());
    std::os::unix::fs::symlink(target, path)
}

/// Elsewhere links need a privilege; the file takes the blob's place, as with Python's programs.
#[cfg(not(unix))]
fn make_link(blob: &Path, path: &Path, _depth: usize) -> std::io::Result<()> {
    fs::rename(blob, path)
}

fn create_parent(path: &Path) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|error| local(parent, &error))
}

/// An error of this machine's disk.
fn local(path: &Path, error: &std::io::Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room, or set HF_HOME to another disk",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; set HF_HOME to a folder that can be written"
        }
        _ => "",
    };
    Failure::new(Kind::Final, format!("the cache cannot be written: {}: {error}{advice}", path.display()))
}

fn header<'a>(response: &'a ureq::http::Response<ureq::Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The first byte and the size of the whole in `bytes 5-9/10` or `bytes */10`.
fn content_range(response: &ureq::http::Response<ureq::Body>) -> Option<(u64, u64)> {
    let (range, size) = header(response, "content-range")?.strip_prefix("bytes ")?.split_once('/')?;
    let first = match range {
        "*" => 0,
        range => range.split_once('-')?.0.parse().ok()?,
    };
    Some((first, size.parse().ok()?))
}
