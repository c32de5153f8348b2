//! Paths on this machine: whether they are there, and what was probably meant.

use anyhow::{Result, anyhow};
use gmflow_data::is_url;
use std::path::{Path, PathBuf};

/// Folders where models usually lie, which are searched for a name without a folder.
const USUAL: [&str; 2] = ["models", "runs"];
/// Names that a message lists.
const LISTED: usize = 3;

/// What was found near a path that does not exist.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Near {
    /// What exists and has a name like it.
    pub names: Vec<PathBuf>,
    /// The folders that were searched.
    pub searched: Vec<PathBuf>,
}

impl Near {
    /// Looks beside the path, and for a name without a folder in models/ and runs/ too.
    pub fn to(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let parent = path.parent().unwrap_or(Path::new(""));
        let usual = USUAL.iter().filter(|_| parent.as_os_str().is_empty()).map(PathBuf::from);
        let mut near = Self::default();
        let mut found = Vec::new();
        for folder in std::iter::once(parent.to_path_buf()).chain(usual) {
            let shown = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.clone() };
            let Ok(entries) = std::fs::read_dir(&shown) else { continue };
            near.searched.push(shown);
            for entry in entries.flatten() {
                let other = entry.file_name().to_string_lossy().to_lowercase();
                let distance = strsim::damerau_levenshtein(&name, &other);
                if distance <= 1 + name.chars().count() / 4 && !other.starts_with('.') {
                    found.push((distance, folder.join(entry.file_name())));
                }
            }
        }
        found.sort();
        near.names = found.into_iter().map(|(_, path)| path).take(LISTED).collect();
        near
    }

    /// `did you mean a or b? searched: .`; without names only where was searched.
    pub fn words(&self) -> String {
        let listed = |paths: &[PathBuf], between: &str| {
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(between)
        };
        let searched = match self.searched.is_empty() {
            true => "its folder is not there either".to_owned(),
            false => format!("searched: {}", listed(&self.searched, ", ")),
        };
        match self.names.is_empty() {
            true => searched,
            false => format!("did you mean {}? {searched}", listed(&self.names, " or ")),
        }
    }
}

/// The same as [`expect`] before a checkpoint is downloaded; one that is here is read first, and may say more of what is missing.
pub fn expect_beside<'a>(checkpoint: &Path, paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    if checkpoint.exists() { Ok(()) } else { expect(paths.into_iter().map(PathBuf::as_path)) }
}

/// Whether only opening tells what is there: behind a URL, or of what matches a pattern or a range.
pub fn is_elsewhere(path: &Path) -> bool {
    is_url(path) || path.to_string_lossy().contains(['*', '?', '[', '{'])
}

/// Fails where one of these is not there: to be called before anything is downloaded or computed. What [`is_elsewhere`] passes.
pub fn expect<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    match paths.into_iter().find(|path| !path.exists() && !is_elsewhere(path)) {
        None => Ok(()),
        Some(path) => Err(anyhow!("{}: no such file or folder; {}", path.display(), Near::to(path).words())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_lists_what_is_near() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["mnist", "mnist-k1", "cifar10", ".mnist"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let near = Near::to(&folder.path().join("mnits"));
        assert_eq!(near.names, [folder.path().join("mnist")]);
        assert_eq!(near.searched, [folder.path()]);
        let message = expect([folder.path().join("cifra10").as_path()]).unwrap_err().to_string();
        assert!(message.contains("did you mean") && message.contains("cifar10?"), "{message}");
        let message = expect([folder.path().join("no/where").as_path()]).unwrap_err().to_string();
        assert!(message.contains("its folder is not there either"), "{message}");
        assert!(expect([folder.path()]).is_ok());
    }
}
