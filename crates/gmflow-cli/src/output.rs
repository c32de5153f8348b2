//! Writing results: to stdout without minding a closed pipe, to files without destroying what is there.

use crate::failure::usage;
use crate::rank;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::Path;

/// Writes all of `bytes` to stdout; of several processes the first one does.
pub fn write_stdout(bytes: &[u8]) -> Result<()> {
    if !rank::speaks() {
        return Ok(());
    }
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
    if !rank::speaks() {
        return Ok(());
    }
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

/// Checks that a folder can be made or written into, so that no work is done for nothing.
pub fn expect_folder(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|above| above.symlink_metadata().is_ok());
    // A relative path lies in the working directory.
    let there = there.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return Err(usage("--out", "a folder", format!("the file {}", there.display())));
    }
    match is_writable(there) {
        true => Ok(()),
        false => Err(usage("--out", "a folder that can be written to", there.display())),
    }
}

/// Checks that a file can be made or replaced: no folder has its name.
pub fn expect_file(path: &Path) -> Result<()> {
    match path.is_dir() {
        true => Err(usage("--out", "the name of a file", format!("the folder {}", path.display()))),
        false => Ok(()),
    }
}

#[cfg(unix)]
fn is_writable(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else { return true };
    // SAFETY: the path ends with a zero and outlives the call.
    unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// Where it cannot be told, the first file tells.
#[cfg(not(unix))]
fn is_writable(_: &Path) -> bool {
    true
}

/// A path as a word of a shell's command line.
pub fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    // A path holds no zero, the one character that has no quoted form.
    shlex::try_quote(&text).map_or_else(|_| text.to_string(), |quoted| quoted.into_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell_where_they_need_it() {
        let word = |text: &str| shell_word(Path::new(text));
        assert_eq!(word("runs/photos-1.toml"), "runs/photos-1.toml");
        assert_eq!(word("Handy Fotos.toml"), "'Handy Fotos.toml'");
        assert!(word("it's").contains('\''), "{}", word("it's"));
    }
}
