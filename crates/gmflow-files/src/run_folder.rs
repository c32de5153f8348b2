use std::path::Path;

/// The file that marks the folder of a training run.
pub const RUN_MANIFEST: &str = "run.manifest";

/// Whether a folder is that of a training run. The pictures in it are samples of a model and no data.
pub fn is_run(folder: &Path) -> bool {
    folder.join(RUN_MANIFEST).is_file()
}
