//! Relative paths in a configuration file.

use std::path::{Path, PathBuf};

use crate::is_url;

/// The absolute form of a path that stands in a configuration file in `folder`: a relative one is relative to that folder. One that does
/// not exist there but from the working directory is taken from there, with a warning that names it as `field`. A URL stays as it is.
pub fn beside(field: &str, path: &Path, folder: &Path) -> PathBuf {
    if is_url(path) {
        return path.to_path_buf();
    }
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let from_folder = absolute(folder.join(path));
    if path.is_absolute() || from_folder.exists() || !path.exists() {
        return from_folder;
    }
    let from_here = absolute(path.to_owned());
    log::warn!(
        "{field}: {} does not exist; {} is taken from the working directory. Paths are relative to the configuration file",
        from_folder.display(),
        from_here.display()
    );
    from_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let found = |path: &str| beside("path", Path::new(path), folder.path());
        std::fs::create_dir(folder.path().join("photos")).unwrap();
        assert_eq!(found("photos"), folder.path().join("photos"));
        assert_eq!(found("/photos"), Path::new("/photos"));
        // What is nowhere is for the reader to report, by its whole name.
        assert_eq!(found("no-such"), folder.path().join("no-such"));
    }

    #[test]
    fn the_folder_of_the_file_goes_before_the_working_directory() {
        let folder = tempfile::tempdir().unwrap();
        let found = || beside("path", Path::new("src"), folder.path());
        // Tests run in the folder of their crate.
        assert_eq!(found(), std::env::current_dir().unwrap().join("src"));
        std::fs::create_dir(folder.path().join("src")).unwrap();
        assert_eq!(found(), folder.path().join("src"));
    }
}
