//! A lock on a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The most bytes of a lock file that are read.
const MOST_BYTES: u64 = 1000;

/// The right to write into a folder, which one process has at a time.
///
/// The operating system keeps the lock and takes it back when the process ends, however it ends. So a lock file that a killed process
/// left is not a lock. The file says who holds the lock: the command, the process and the host.
///
/// ```
/// use gmflow_files::{FolderLock, LockError};
///
/// let folder = tempfile::tempdir()?;
/// let lock = FolderLock::acquire(folder.path(), "gmflow train")?;
/// let second = FolderLock::acquire(folder.path(), "gmflow encode");
/// assert!(matches!(second, Err(LockError::Held { .. })));
///
/// drop(lock);
/// FolderLock::acquire(folder.path(), "gmflow encode")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

/// Why a folder could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process, or another part of this one, holds the lock.
    #[error("{}: expected a folder that nothing else writes to, got one in use by {holder}; wait for its end or use another folder", folder.display())]
    Held {
        /// The folder.
        folder: PathBuf,
        /// Who holds the lock, such as `gmflow train (process 4711 on host atlas)`.
        holder: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
}

impl FolderLock {
    /// The name of the lock file. It stays in the folder, empty, after the lock is given back: a file that is removed could be locked
    /// by two processes, each with a file of its own.
    pub const FILE_NAME: &str = ".gmflow.lock";

    /// Takes the lock of `folder`, which must exist, or fails at once. `command` names the holder to others.
    ///
    /// Some network file systems have no locks. There a warning says so, and the lock excludes nobody.
    ///
    /// # Errors
    /// [`LockError::Held`] naming the holder; [`LockError::Io`] for a folder that does not exist or cannot be written to.
    pub fn acquire(folder: &Path, command: &str) -> Result<Self, LockError> {
        let path = folder.join(Self::FILE_NAME);
        let io = |source| LockError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { folder: folder.to_path_buf(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) if has_no_locks(&error) => {
                log::warn!("{}: this file system has no locks; let no second process write here", folder.display());
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let host = hostname::get().map_or_else(|_| "unknown".into(), |host| host.to_string_lossy().into_owned());
        let text = format!("{command} (process {} on host {host})", std::process::id());
        replace(&mut file, &text).map_err(io)?;
        Ok(Self { file })
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // What the file says is for people only: nothing depends on it.
        let _ = replace(&mut self.file, "");
        let _ = self.file.unlock();
    }
}

fn replace(file: &mut File, text: &str) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// What the lock file says, in one line. On some systems a locked file cannot be read by others.
fn holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let read = file.take(MOST_BYTES).read_to_end(&mut bytes);
    let text: String =
        String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match (read, text.trim()) {
        (Ok(_), text) if !text.is_empty() => text.to_owned(),
        _ => "another process".to_owned(),
    }
}

/// Whether the file system cannot lock, as opposed to a lock that was refused.
fn has_no_locks(error: &std::io::Error) -> bool {
    // ENOLCK, which has no kind of its own: a network file system without a lock server.
    const NO_LOCKS: i32 = 37;
    error.kind() == ErrorKind::Unsupported || (cfg!(target_os = "linux") && error.raw_os_error() == Some(NO_LOCKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::acquire(folder.path(), "gmflow train").unwrap();
        let message = FolderLock::acquire(folder.path(), "gmflow train").unwrap_err().to_string();
        assert!(message.contains(&format!("gmflow train (process {} on host ", std::process::id())), "{message}");
        drop(lock);
        FolderLock::acquire(folder.path(), "gmflow train").unwrap();
    }

    #[test]
    fn what_a_killed_process_left_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FolderLock::FILE_NAME);
        std::fs::write(&path, "gmflow train (process 1 on host elsewhere, with a long story)").unwrap();
        let lock = FolderLock::acquire(folder.path(), "gmflow encode").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("gmflow encode (process ") && text.ends_with(')') && !text.contains("story"),
            "{text}"
        );
        drop(lock);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap().path().join("gone");
        let message = FolderLock::acquire(&folder, "gmflow train").unwrap_err().to_string();
        assert!(message.contains("gone"), "{message}");
    }
}
