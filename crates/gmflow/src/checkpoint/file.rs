//! Files, written so that a reader sees the old or the new one and nothing in between.

use super::digest::{Digesting, FileDigest};
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// The extension of temporary files, behind the number of the process.
const TEMPORARY: &str = "tmp";

/// Writes `bytes` to a temporary neighbour, syncs it and renames it to `path`.
///
/// # Errors
/// [`crate::FilesError::Io`] with the path; the temporary file is removed and an older file at `path` stays as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |file| file.write_all(bytes)).map(|_| ())
}

/// The file that [`write_atomic_with`] fills.
pub(super) type NewFile = BufWriter<Digesting<File>>;

/// [`write_atomic`] of what `write` puts into the file; returns the file's digest.
pub(super) fn write_atomic_with(
    path: &Path,
    write: impl FnOnce(&mut NewFile) -> std::io::Result<()>,
) -> Result<FileDigest> {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(format!(".{}.{TEMPORARY}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write_synced(&temporary, write).and_then(|digest| {
        fs::rename(&temporary, path)?;
        Ok(digest)
    });
    match written {
        Ok(digest) => sync_folder(path).map(|()| digest).map_err(|error| Error::io(path, error)),
        Err(error) => {
            // The first error is the one to report; a leftover temporary file does no harm.
            let _ = fs::remove_file(&temporary);
            Err(Error::io(path, error))
        }
    }
}

fn write_synced(path: &Path, write: impl FnOnce(&mut NewFile) -> std::io::Result<()>) -> std::io::Result<FileDigest> {
    let mut file = BufWriter::new(Digesting { inner: File::create(path)?, digest: FileDigest::default() });
    write(&mut file)?;
    let Digesting { inner, digest } = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    inner.sync_all()?;
    Ok(digest)
}

/// Removes the temporary files that killed processes left of [`write_atomic`] to files in `folder` of which `is_ours` says so, and
/// returns how many there were. The caller must hold the lock of the folder: a temporary file may be in use.
///
/// # Errors
/// [`crate::FilesError::Io`] where the folder cannot be read or a file cannot be removed.
pub fn remove_leftovers(folder: &Path, is_ours: impl Fn(&str) -> bool) -> Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let entry = entry.map_err(|error| Error::io(folder, error))?;
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_str().and_then(written_as).is_some_and(&is_ours) && path.is_file() {
            fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The file that a temporary file was to become: `NAME.PROCESS.tmp` was to become NAME.
fn written_as(name: &str) -> Option<&str> {
    let (name, process) = name.strip_suffix(TEMPORARY)?.strip_suffix('.')?.rsplit_once('.')?;
    (!process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// Makes the rename itself durable.
#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Elsewhere folders cannot be opened to be synced.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// The whole file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::io(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_leftovers_of_ours_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let ours = ["log.jsonl.4711.tmp", "a.b.1.tmp"];
        let others = ["log.jsonl", "log.jsonl.tmp", "log.jsonl.x1.tmp", "log.jsonl..tmp", "mine.12.tmp", "12.tmp"];
        for name in ours.iter().chain(&others) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::create_dir(folder.path().join("log.jsonl.12.tmp")).unwrap();
        let removed = remove_leftovers(folder.path(), |name| ["log.jsonl", "a.b", ""].contains(&name)).unwrap();
        assert_eq!(removed, 2);
        assert!(ours.iter().all(|name| !folder.path().join(name).exists()));
        assert!(others.iter().chain(&["log.jsonl.12.tmp"]).all(|name| folder.path().join(name).exists()));
    }
}
