//! Files as opposed to pipes and devices, which may have no end.

use std::fs::FileType;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// What a path leads to that is neither a file nor a folder, as a message calls it.
///
/// # Errors
/// A path that does not exist or may not be read.
pub fn no_file(path: &Path) -> Result<Option<&'static str>> {
    let kind = std::fs::metadata(path)?.file_type();
    Ok((!kind.is_file() && !kind.is_dir()).then(|| name(kind)))
}

/// Refuses what would be waited for or read without end: pipes, sockets and devices.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] with what it is; as [`no_file`].
pub(crate) fn refuse_no_file(path: &Path) -> Result<()> {
    match no_file(path)? {
        None => Ok(()),
        Some(what) => Err(Error::new(ErrorKind::InvalidInput, format!("expected a file, got {what}"))),
    }
}

#[cfg(unix)]
fn name(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match () {
        () if kind.is_fifo() => "a named pipe (FIFO)",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    }
}

#[cfg(not(unix))]
fn name(_: FileType) -> &'static str {
    "something else"
}
