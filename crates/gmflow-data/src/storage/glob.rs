//! Patterns with `*`, `?` and `[...]`.

use std::path::{Path, PathBuf};

use gmflow_files::is_clutter;

use crate::{Error, Result};

/// Whether a text has the marks of a pattern.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// The files of this machine that match a pattern, in any order.
///
/// # Errors
/// [`crate::FilesError::Config`] for what is no pattern; [`crate::FilesError::Io`] for a folder that cannot be listed.
pub(super) fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let paths = glob::glob(pattern).map_err(|error| Error::config("path", "a file, folder or pattern", error))?;
    let mut found = Vec::new();
    for file in paths {
        let file = file.map_err(|error| Error::io(error.path().to_path_buf(), error.into()))?;
        if !file.file_name().is_some_and(is_clutter) {
            found.push(file);
        }
    }
    Ok(found)
}

/// Whether a file belongs to a set by its ending.
pub(super) fn has_ending(path: &Path, ending: &str) -> bool {
    let has = path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    has && !path.file_name().is_some_and(is_clutter)
}
