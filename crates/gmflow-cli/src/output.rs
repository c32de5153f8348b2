//! Writing results: to stdout without minding a closed pipe, to files without destroying what is there.

use crate::failure::usage;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::Path;

/// Writes all of `bytes` to stdout.
pub fn write_stdout(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Prints `text` and ends the line.
pub fn line(text: &str) -> Result<()> {
    write_stdout(format!("{text}\n").as_bytes())
}

/// Prints `value` as indented JSON.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    serde_json::to_writer_pretty(&mut stdout, value).map_err(std::io::Error::from)?;
    writeln!(stdout)?;
    Ok(stdout.flush()?)
}

/// Fails if one of `paths` exists, unless `force`: to be called before the work that fills them.
pub fn refuse_existing<'a>(paths: impl IntoIterator<Item = &'a Path>, force: bool) -> Result<()> {
    let existing = paths.into_iter().find(|path| !force && path.symlink_metadata().is_ok());
    match existing {
        Some(path) => bail!("{}: exists already; --force overwrites it", path.display()),
        None => Ok(()),
    }
}

/// Checks that a file that is to be written has the ending of its only format, in upper or lower case.
pub fn require_ending(path: &Path, ending: &str) -> Result<()> {
    match path.extension() {
        Some(found) if found.eq_ignore_ascii_case(ending) => Ok(()),
        _ => Err(usage("--out", format!("a file name ending in .{ending}"), path.display())),
    }
}

/// Removes a file, if it is there.
pub fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Creates the folder that `path` will lie in.
pub fn create_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => create_folder(folder),
        None => Ok(()),
    }
}

/// Creates a folder and those above it.
pub fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot create the folder", folder.display()))
}
