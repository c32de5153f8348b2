//! Files of this machine and behind URLs, read in the same way.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use gmflow_files::{is_url, no_file, scheme};

use super::braces::expand;
use super::glob::{has_ending, is_pattern, matches};
use super::remote::Remote;
use super::{Storage, name_of};
use crate::{Error, Result};

/// A file of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path or URL, as messages name it.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What changes when the content does: the time of the last change, or the server's ETag.
    pub tag: String,
}

/// Access to files on this machine and behind URLs.
#[derive(Debug)]
pub struct Files {
    storage: Storage,
    /// Made when the first URL is met.
    remote: OnceLock<Remote>,
}

impl Files {
    /// Access with these settings. Nothing is opened yet.
    ///
    /// # Errors
    /// Those of [`Storage::validate`].
    pub fn new(storage: &Storage) -> Result<Self> {
        storage.validate()?;
        Ok(Self { storage: storage.clone(), remote: OnceLock::new() })
    }

    /// The settings.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The files that `path` stands for, sorted by name: those of a folder that end in `.ending`, those that match a pattern, those of a
    /// range in braces (in its order), or the file itself. The path may be a URL.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for what is not there or cannot be listed; [`crate::FilesError::File`] for a folder without such files;
    /// [`crate::FilesError::Config`] for a pattern that matches nothing, or a URL in a program that was built without them.
    pub fn find(&self, path: &Path, ending: &str) -> Result<Vec<Entry>> {
        let text = path.to_str().unwrap_or_default();
        let there = !is_url(path) && path.exists();
        if text.contains('{') && !there {
            let names = expand(text)?;
            if !names.iter().any(|name| is_pattern(name)) {
                return self.stat_all(names.into_iter().map(PathBuf::from).collect());
            }
            let found = names.iter().map(|name| self.find(Path::new(name), ending)).collect::<Result<Vec<_>>>()?;
            return Ok(found.into_iter().flatten().collect());
        }
        if is_pattern(text) && !there {
            return self.matching(text, ending);
        }
        // A name that ends so is one file; anything else may be a folder, which object stores know only by what lies in it.
        let is_folder = match is_url(path) {
            true => !has_ending(path, ending),
            false => path.is_dir(),
        };
        if !is_folder {
            return Ok(vec![self.stat(path)?]);
        }
        let found = self.in_folder(path, ending)?;
        match found.is_empty() {
            true => Err(Error::file(path, "folder", format!("at least one *.{ending} file"), "none")),
            false => Ok(found),
        }
    }

    /// The files directly in a folder that end in `.ending`, sorted.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for a folder that cannot be listed.
    pub fn in_folder(&self, folder: &Path, ending: &str) -> Result<Vec<Entry>> {
        let mut found = match local(folder)? {
            Some(local) => {
                let mut found = Vec::new();
                for entry in std::fs::read_dir(&local).map_err(|error| Error::io(folder, error))? {
                    let path = entry.map_err(|error| Error::io(folder, error))?.path();
                    if has_ending(&path, ending) && path.is_file() {
                        found.push(self.stat(&path)?);
                    }
                }
                found
            }
            None => {
                let all = self.remote(folder)?.list(folder, false)?;
                all.into_iter().filter(|entry| has_ending(&entry.path, ending)).collect()
            }
        };
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Everything below a URL, at any depth, sorted.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for what cannot be listed, as a web server cannot.
    pub fn list(&self, url: &Path) -> Result<Vec<Entry>> {
        let mut found = self.remote(url)?.list(url, true)?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// What matches a pattern.
    fn matching(&self, text: &str, ending: &str) -> Result<Vec<Entry>> {
        let nothing = || Error::config("path", "a pattern that matches files", text);
        let mut found = match local(Path::new(text))? {
            Some(local) => {
                let paths = matches(local.to_str().unwrap_or_default())?;
                paths.iter().map(|path| self.stat(path)).collect::<Result<Vec<_>>>()?
            }
            None => {
                let pattern =
                    glob::Pattern::new(text).map_err(|error| Error::config("path", "a URL with a pattern", error))?;
                let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
                let literal = text.find(['*', '?', '[']).unwrap_or(text.len());
                let folder =
                    text.get(..literal).and_then(|text| text.rsplit_once('/')).map_or(text, |(folder, _)| folder);
                let all = self.list(Path::new(folder))?;
                let own = |entry: &Entry| entry.path.to_str().is_some_and(|path| pattern.matches_with(path, options));
                all.into_iter().filter(own).filter(|entry| has_ending(&entry.path, ending)).collect()
            }
        };
        found.sort_by(|a, b| a.path.cmp(&b.path));
        if found.is_empty() { Err(nothing()) } else { Ok(found) }
    }

    /// Size and tag of a file.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for a file that is not there or may not be read.
    pub fn stat(&self, path: &Path) -> Result<Entry> {
        self.stat_if_there(path)?.ok_or_else(|| Error::io(path, std::io::ErrorKind::NotFound.into()))
    }

    /// The same of several files, which a server is asked for at the same time.
    fn stat_all(&self, paths: Vec<PathBuf>) -> Result<Vec<Entry>> {
        let missing = |path: &Path| Error::io(path, std::io::ErrorKind::NotFound.into());
        if let Some(first) = paths.first()
            && local(first)?.is_none()
        {
            let found = self.remote(first)?.stat_all(&paths)?;
            return paths.iter().zip(found).map(|(path, entry)| entry.ok_or_else(|| missing(path))).collect();
        }
        paths.iter().map(|path| self.stat(path)).collect()
    }

    /// The same, or `None` for a file that is not there.
    ///
    /// # Errors
    /// As [`stat`](Self::stat).
    pub fn stat_if_there(&self, path: &Path) -> Result<Option<Entry>> {
        let Some(local) = local(path)? else {
            return self
                .remote(path)?
                .stat_all(&[path.to_path_buf()])
                .map(|found| found.into_iter().flatten().next());
        };
        let metadata = match std::fs::metadata(&local) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, error)),
        };
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let tag = changed.map_or_else(String::new, |time| format!("{}.{:09}", time.as_secs(), time.subsec_nanos()));
        Ok(Some(Entry { path: path.to_path_buf(), bytes: metadata.len(), tag }))
    }

    /// Opens a file, or the copy of it in the cache, which is made where there is none. `None` for a file behind a URL that is too large
    /// for the cache: it can only be read in ranges.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`]; [`crate::FilesError::File`] for a pipe or a device.
    pub fn open(&self, entry: &Entry) -> Result<Option<File>> {
        match local(&entry.path)? {
            Some(local) => open_local(&entry.path, &local).map(Some),
            None => self.remote(&entry.path)?.open(entry),
        }
    }

    /// The same for a file that must be opened as a whole.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`crate::FilesError::Config`] for one that is too large for the cache.
    pub fn open_whole(&self, path: &Path) -> Result<File> {
        if let Some(local) = local(path)? {
            return open_local(path, &local);
        }
        let entry = self.stat(path)?;
        self.open(&entry)?.ok_or_else(|| {
            let need = 2.0 * entry.bytes as f64 / 1e9;
            let expected = format!("at least {need:.1}, for {} ({} bytes)", path.display(), entry.bytes);
            Error::config("storage.cache_gigabytes", expected, self.storage.cache_gigabytes)
        })
    }

    /// Bytes of a file. One behind a URL is read from its copy in the cache if there is one; no copy is made.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`]; [`crate::FilesError::File`] for a file that is shorter.
    pub fn read(&self, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>> {
        if range.end > entry.bytes || range.start > range.end {
            let expected = format!("{} bytes", range.end);
            return Err(Error::file(&entry.path, "file size", expected, entry.bytes));
        }
        match local(&entry.path)? {
            Some(local) => read_at(&entry.path, &open_local(&entry.path, &local)?, range),
            None => self.remote(&entry.path)?.read(entry, range),
        }
    }

    /// The same, of a file of which a copy is made in the cache where there is none and it is small enough.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_kept(&self, entry: &Entry) -> Result<Vec<u8>> {
        match self.open(entry)? {
            Some(file) => read_at(&entry.path, &file, 0..entry.bytes),
            None => self.read_all(entry),
        }
    }

    /// A whole file.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_all(&self, entry: &Entry) -> Result<Vec<u8>> {
        self.read(entry, 0..entry.bytes)
    }

    /// Asks for a copy in the cache, without waiting for it. Of files of this machine nothing is done.
    pub fn prefetch(&self, entry: &Entry) {
        if let Some(remote) = self.remote.get()
            && is_url(&entry.path)
        {
            remote.prefetch(entry);
        }
    }

    /// Writes a file to a place that is a path or a URL: whole or not at all, in place of one that is there. `from` is a file of this
    /// machine; for a path it must be on the same file system, and is moved.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`].
    pub fn put(&self, from: &Path, to: &Path) -> Result<()> {
        match local(to)? {
            Some(local) => std::fs::rename(from, local).map_err(|error| Error::io(to, error)),
            None => self.remote(to)?.write(from, to),
        }
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`].
    pub fn remove(&self, path: &Path) -> Result<()> {
        match local(path)? {
            Some(local) => match std::fs::remove_file(local) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
                _ => Ok(()),
            },
            None => self.remote(path)?.remove(path),
        }
    }

    fn remote(&self, url: &Path) -> Result<&Remote> {
        if let Some(remote) = self.remote.get() {
            return Ok(remote);
        }
        let remote = Remote::new(&self.storage, url)?;
        Ok(self.remote.get_or_init(|| remote))
    }
}

/// The path on this machine of a path or of a `file://` URL; `None` of other URLs.
///
/// # Errors
/// [`crate::FilesError::Config`] for a `file://` URL with a host.
fn local(path: &Path) -> Result<Option<PathBuf>> {
    match scheme(path) {
        None => Ok(Some(path.to_path_buf())),
        Some("file") => {
            let rest = path.to_str().and_then(|text| text.strip_prefix("file://")).unwrap_or_default();
            match rest.starts_with('/') {
                true => Ok(Some(PathBuf::from(rest))),
                false => {
                    Err(Error::config("path", "file:// and an absolute path, as in file:///data", path.display()))
                }
            }
        }
        Some(_) => Ok(None),
    }
}

/// Opens a file of this machine.
fn open_local(path: &Path, local: &Path) -> Result<File> {
    // A pipe would be waited for without end.
    if let Some(what) = no_file(local).map_err(|error| Error::io(path, error))? {
        return Err(Error::file(path, "kind", "a file", what));
    }
    File::open(local).map_err(|error| Error::io(path, error))
}

/// Bytes of an open file, whatever its position is.
///
/// # Errors
/// [`crate::FilesError::Io`]; [`crate::FilesError::File`] for a file that is shorter.
pub(crate) fn read_at(path: &Path, file: &File, range: Range<u64>) -> Result<Vec<u8>> {
    let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| Error::io(path, std::io::ErrorKind::OutOfMemory.into()))?;
    bytes.resize(length, 0);
    read_exact_at(file, &mut bytes, range.start).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            let got = file.metadata().map_or_else(|_| "less".into(), |metadata| metadata.len().to_string());
            Error::file(path, "file size", format!("{} bytes", range.end), format!("{got} (it has become shorter)"))
        }
        _ => Error::io(path, error),
    })?;
    Ok(bytes)
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes = bytes.get_mut(count..).unwrap_or_default();
                offset += count as u64;
            }
        }
    }
    Ok(())
}

/// The folder that a path or URL lies in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    let text = path.to_str().unwrap_or_default();
    match (is_url(path), text.rsplit_once('/')) {
        (true, Some((folder, _))) => PathBuf::from(folder),
        _ => path.parent().unwrap_or(Path::new("")).to_path_buf(),
    }
}

/// A file in a folder, which may be a URL.
pub(crate) fn in_folder(folder: &Path, name: &str) -> PathBuf {
    match is_url(folder) {
        // Path::join would do the same, but with the separator of the system.
        true => PathBuf::from(format!("{}/{name}", folder.to_string_lossy().trim_end_matches('/'))),
        false => folder.join(name),
    }
}

/// The part of an entry's path below a folder, with `/` between its parts.
pub(crate) fn below(folder: &Path, entry: &Path) -> String {
    let (folder, path) = (folder.to_string_lossy(), entry.to_string_lossy());
    match path.strip_prefix(folder.trim_end_matches('/')) {
        Some(rest) => rest.trim_start_matches('/').to_owned(),
        None => name_of(entry),
    }
}
