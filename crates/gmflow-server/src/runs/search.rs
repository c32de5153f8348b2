//! Folders below a folder, and the names that requests know them by.

use std::fs;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

/// Levels of folders that are searched.
const DEPTH: usize = 3;
/// Folders that are looked at in a search, and found, at the most.
const MOST_FOLDERS: usize = 20_000;
const MOST_FOUND: usize = 1000;
/// What stands for `/` in an id.
const BETWEEN: char = '~';

/// A kind of folder, told by a file in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    /// The file.
    pub marker: &'static str,
}

impl Kind {
    fn is(self, folder: &Path) -> bool {
        folder.join(self.marker).is_file()
    }

    /// The folders of this kind at `root` and below it, with their ids.
    pub fn list(self, root: &Path) -> Vec<(String, PathBuf)> {
        let (mut found, mut looked) = (Vec::new(), 0);
        self.search((root, root), 0, &mut found, &mut looked);
        found
    }

    fn search(
        self,
        (root, folder): (&Path, &Path),
        depth: usize,
        found: &mut Vec<(String, PathBuf)>,
        looked: &mut usize,
    ) {
        *looked += 1;
        if self.is(folder) {
            found.extend(id_of(root, folder).map(|id| (id, folder.to_owned())));
            return;
        }
        if depth == DEPTH || *looked > MOST_FOLDERS || found.len() >= MOST_FOUND {
            return;
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            // Links are not followed: they may lead in circles.
            if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.search((root, &entry.path()), depth + 1, found, looked);
            }
        }
    }

    /// The folder of this kind with an id.
    pub fn find(self, root: &Path, id: &str) -> Option<PathBuf> {
        if self.is(root) {
            return id_of(root, root).filter(|own| own == id).map(|_| root.to_owned());
        }
        let parts: Vec<&str> = id.split(BETWEEN).collect();
        // What leads out of the folder, or to itself, is no name.
        let plain = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\', '\0']);
        if parts.len() > DEPTH || !parts.iter().all(plain) {
            return None;
        }
        let folder = parts.iter().fold(root.to_owned(), |path, part| path.join(part));
        Some(folder).filter(|folder| self.is(folder))
    }
}

/// The path of a folder below the root, in one word; of the root its own name.
fn id_of(root: &Path, folder: &Path) -> Option<String> {
    let below = folder.strip_prefix(root).ok()?.to_str()?;
    if below.is_empty() {
        let own = fs::canonicalize(root).ok()?;
        return Some(own.file_name()?.to_str()?.to_owned());
    }
    Some(below.replace(MAIN_SEPARATOR, &BETWEEN.to_string()))
}
