//! Which files a checkpoint consisted of when it was measured.

use crate::features::sha256;
use crate::models::model_folder;
use std::collections::BTreeMap;
use std::path::Path;

/// The first digits of the SHA-256 of every file that a model is read from, by its name in the folder.
pub type Weights = BTreeMap<String, String>;

/// Digits of a digest.
const DIGITS: usize = 16;

/// Those of a checkpoint on this machine; `None` where it is not there, or cannot be read.
pub fn weights(checkpoint: &Path) -> Option<Weights> {
    let mut found = Weights::new();
    collect(&model_folder(checkpoint).ok()?, "", &mut found)?;
    Some(found)
}

/// The files of a folder and of those in it: a published checkpoint has one for each of its parts.
fn collect(folder: &Path, prefix: &str, found: &mut Weights) -> Option<()> {
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?;
        if path.is_dir() && prefix.is_empty() {
            collect(&path, &format!("{name}/"), found)?;
        }
        let is_read =
            path.extension().is_some_and(|ending| ["safetensors", "bin", "json"].iter().any(|e| ending == *e));
        // What training needs beside the model.
        let is_of_training = name.contains("optimizer") || name == "state.json";
        if path.is_file() && is_read && !is_of_training {
            let digest = sha256(&path).ok()?;
            found.insert(format!("{prefix}{name}"), digest.get(..DIGITS)?.to_owned());
        }
    }
    Some(())
}
