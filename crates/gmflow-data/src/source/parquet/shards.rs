//! Which files a Parquet data set is read from.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use gmflow_files::{is_clutter, no_file, what_is};

use crate::source::{is_parquet, start_of};
use crate::{Error, Result};

/// With these bytes every Parquet file starts; of one with an encrypted footer it is the second.
const MAGIC: [&[u8]; 2] = [b"PAR1", b"PARE"];

/// Names of the parts of a data set, with which the hub's files begin.
const SPLITS: [&str; 6] = ["train", "test", "validation", "valid", "val", "dev"];

/// The files that `path` stands for, sorted.
///
/// # Errors
/// [`crate::FilesError::Io`] for a folder that cannot be listed; [`crate::FilesError::File`] for one without Parquet files;
/// [`crate::FilesError::Config`] for a pattern that matches nothing.
pub(super) fn shards(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).map_err(|error| Error::io(path, error))? {
            let file = entry.map_err(|error| Error::io(path, error))?.path();
            if is_parquet(&file) && file.is_file() {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(Error::file(path, "folder", "at least one *.parquet file", "none"));
        }
    } else if let Some(pattern) = path.to_str().filter(|text| !path.exists() && text.contains(['*', '?', '['])) {
        let paths = glob::glob(pattern).map_err(|error| Error::config("path", "a file, folder or pattern", error))?;
        for file in paths {
            let file = file.map_err(|error| Error::io(error.path().to_path_buf(), error.into()))?;
            if !file.file_name().is_some_and(is_clutter) {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(Error::config("path", "a pattern that matches files", pattern));
        }
    } else {
        found.push(path.to_path_buf());
    }
    found.sort();
    warn_of_splits(path, &found);
    Ok(found)
}

/// Training and test images in one folder are one set: that may not be what is meant.
fn warn_of_splits(path: &Path, files: &[PathBuf]) {
    let split = |file: &PathBuf| {
        let name = file.file_stem()?.to_str()?.to_lowercase();
        let start = name.split(|c: char| !c.is_alphabetic()).next()?;
        SPLITS.into_iter().find(|split| *split == start)
    };
    let splits: BTreeSet<&str> = files.iter().filter_map(split).collect();
    if splits.len() > 1 {
        let splits: Vec<&str> = splits.into_iter().collect();
        let (path, splits) = (path.display(), splits.join(", "));
        log::warn!(
            "{path}: the parts {splits} are read as one set; a pattern such as train-*.parquet takes one of them"
        );
    }
}

/// Opens a file that starts as a Parquet file does.
///
/// # Errors
/// [`crate::FilesError::Io`]; [`crate::FilesError::File`] that says what the file is instead.
pub(super) fn open(path: &Path) -> Result<File> {
    if let Some(what) = no_file(path).map_err(|error| Error::io(path, error))? {
        return Err(Error::file(path, "kind", "a file", what));
    }
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let start = start_of(path, &file)?;
    if !MAGIC.iter().any(|magic| start.starts_with(magic)) {
        let got = what_is(&start).unwrap_or("other bytes at its start");
        return Err(Error::file(path, "content", "a Parquet file", got));
    }
    Ok(file)
}
