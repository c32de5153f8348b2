//! Files for functions that take paths.

use std::sync::LazyLock;
use tempfile::TempDir;

/// In memory where the system has such a folder: on a disk, rewriting a file takes longer than reading it.
pub static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a temporary folder"));

/// Replaces the file called `name`.
pub fn write(name: &str, content: &[u8]) -> std::path::PathBuf {
    let path = FOLDER.path().join(name);
    std::fs::write(&path, content).expect("a temporary file");
    path
}
