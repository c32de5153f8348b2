//! From what the user calls a checkpoint to the model folder.

use anyhow::Result;
use std::path::{Path, PathBuf};

/// The files that tell that a folder holds a model: ours, a published checkpoint, a transformer alone.
const MARKERS: [&str; 3] = ["model.json", "model_index.json", "config.json"];

/// The model folder for `path`: itself if it holds a model, otherwise the latest checkpoint of the run in it.
pub fn model_folder(path: &Path) -> Result<PathBuf> {
    if MARKERS.iter().any(|marker| path.join(marker).is_file()) {
        return Ok(path.to_owned());
    }
    std::fs::read_dir(path).map_err(|error| gmflow::Error::io(path, error))?;
    latest_checkpoint(&path.join("checkpoints")).ok_or_else(|| {
        let expected = "model.json or model_index.json (a model), or checkpoints/step-*/model.json (a run)";
        gmflow::Error::file(path, "folder", expected, "none of them").into()
    })
}

/// The complete checkpoint with the most steps.
fn latest_checkpoint(folder: &Path) -> Option<PathBuf> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("model.json").is_file())
        .filter_map(|path| Some((step(&path)?, path)))
        .max()
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch_model(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("model.json"), "{}").unwrap();
    }

    #[test]
    fn a_run_stands_for_its_latest_complete_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = run.path().join("checkpoints");
        touch_model(&checkpoints.join("step-00000900"));
        touch_model(&checkpoints.join("step-00001000"));
        std::fs::create_dir_all(checkpoints.join("step-00001100")).unwrap();
        assert_eq!(model_folder(run.path()).unwrap(), checkpoints.join("step-00001000"));
    }

    #[test]
    fn a_model_folder_stands_for_itself() {
        let model = tempfile::tempdir().unwrap();
        touch_model(model.path());
        assert_eq!(model_folder(model.path()).unwrap(), model.path());
    }

    #[test]
    fn a_folder_with_neither_is_named() {
        let empty = tempfile::tempdir().unwrap();
        let message = model_folder(empty.path()).unwrap_err().to_string();
        assert!(message.contains(empty.path().to_str().unwrap()), "{message}");
    }
}
