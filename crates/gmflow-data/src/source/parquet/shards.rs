//! Which files a Parquet data set is read from.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use gmflow_files::what_is;

use crate::source::start_of;
use crate::storage::Files;
use crate::{Error, Result};

/// With these bytes every Parquet file starts; of one with an encrypted footer it is the second.
const MAGIC: [&[u8]; 2] = [b"PAR1", b"PARE"];

/// Names of the parts of a data set, with which the hub's files begin.
const SPLITS: [&str; 6] = ["train", "test", "validation", "valid", "val", "dev"];

/// The files that `path` stands for, sorted.
///
/// # Errors
/// Those of [`Files::find`].
pub(super) fn shards(files: &Files, path: &Path) -> Result<Vec<PathBuf>> {
    let found: Vec<PathBuf> = files.find(path, "parquet")?.into_iter().map(|entry| entry.path).collect();
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
pub(super) fn open(files: &Files, path: &Path) -> Result<File> {
    let file = files.open_whole(path)?;
    let start = start_of(path, &file)?;
    if !MAGIC.iter().any(|magic| start.starts_with(magic)) {
        let got = what_is(&start).unwrap_or("other bytes at its start");
        return Err(Error::file(path, "content", "a Parquet file", got));
    }
    Ok(file)
}
