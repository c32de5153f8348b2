//! Relative paths in a configuration file.

use std::path::{Path, PathBuf};

/// A relative path that would be right from the working directory and is not from the file's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    /// What a path may be.
    pub expected: String,
    /// What was written, and where it leads.
    pub got: String,
}

/// The absolute form of a path that stands in a configuration file in `folder`: a relative one is relative to that folder.
///
/// # Errors
/// [`Misplaced`] for a path that does not exist there but from the working directory: which is meant is not guessed.
pub fn beside(path: &Path, folder: &Path) -> Result<PathBuf, Misplaced> {
    let joined = folder.join(path);
    let absolute = std::path::absolute(&joined).unwrap_or(joined);
    if path.is_relative() && !absolute.exists() && path.exists() {
        let shown = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        return Err(Misplaced {
            expected: format!("a path relative to the folder of this file ({}), or an absolute one", shown.display()),
            got: format!("{}, which exists from the working directory only", path.display()),
        });
    }
    Ok(absolute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("photos")).unwrap();
        let found = beside(Path::new("photos"), folder.path()).unwrap();
        assert_eq!(found, folder.path().join("photos"));
        assert_eq!(beside(Path::new("/photos"), folder.path()).unwrap(), Path::new("/photos"));
        // What is nowhere is for the reader to report, by its whole name.
        assert_eq!(beside(Path::new("no-such"), folder.path()).unwrap(), folder.path().join("no-such"));
    }

    #[test]
    fn a_path_from_the_working_directory_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        // Tests run in the folder of their crate.
        let wrong = beside(Path::new("src"), folder.path()).unwrap_err();
        assert!(wrong.expected.contains(&folder.path().display().to_string()), "{wrong:?}");
        assert!(wrong.got.starts_with("src, "), "{wrong:?}");
        std::fs::create_dir(folder.path().join("src")).unwrap();
        assert_eq!(beside(Path::new("src"), folder.path()).unwrap(), folder.path().join("src"));
    }
}
