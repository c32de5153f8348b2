//! From a name to a model: a folder, a training run, or a repository on the hub.

use super::hub::{DownloadProgress, HubId, HubSettings, fetch};
use super::{LoadOptions, Model, StoredVae};
use crate::kernel::MatmulPrecision;
use crate::{Error, Result};
use burn::tensor::Device;
use std::path::{Path, PathBuf};

/// The files that tell that a folder holds a model: ours, a published checkpoint, a transformer alone.
const MARKERS: [&str; 3] = ["model.json", "model_index.json", "config.json"];

/// The model folder for `path`: itself if it holds a model, otherwise the latest checkpoint of the run in it.
///
/// # Errors
/// [`crate::FilesError::Io`] where there is no such folder; [`crate::FilesError::File`] where it holds neither.
pub fn model_folder(path: &Path) -> Result<PathBuf> {
    if MARKERS.iter().any(|marker| path.join(marker).is_file()) {
        return Ok(path.to_owned());
    }
    std::fs::read_dir(path).map_err(|error| Error::io(path, error))?;
    latest_checkpoint(&path.join("checkpoints")).ok_or_else(|| {
        let expected = "model.json or model_index.json (a model), or checkpoints/step-*/model.json (a run)";
        Error::file(path, "folder", expected, "none of them")
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

/// Downloads are noted in the log.
struct Logged;

impl DownloadProgress for Logged {
    fn start(&mut self, file: &str, bytes: u64) {
        log::info!("downloading {file}, {bytes} bytes");
    }

    fn advance(&mut self, _bytes: u64) {}

    fn finish(&mut self) {}
}

impl Model {
    /// Opens a model on the CPU, ready to sample from. `name` is a model folder, ours or in the diffusers layout; a training run, whose
    /// latest checkpoint counts; or `owner/name` or `owner/name@revision` of a repository on the Hugging Face hub, which is downloaded to
    /// its standard cache. The first moving average is taken before the weights themselves, and the autoencoder of a model of latents is
    /// loaded where it is there.
    ///
    /// The network's weights are packed for prediction ([`Network::pack`](crate::network::Network::pack)): [`Model::load`] gives a model
    /// that can be saved and trained.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] or [`crate::FilesError::File`] naming the file and the tensor or field that is wrong; [`Error::Hub`],
    /// which says what to do.
    pub fn open(name: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(name, &Device::flex())
    }

    /// [`Model::open`] on any device.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn open_on(name: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let name = name.as_ref();
        let folder = match name.to_str().and_then(HubId::parse) {
            Some(id) if !name.exists() => fetch(&id, None, &HubSettings::from_env()?, &mut Logged)?,
            _ => model_folder(name)?,
        };
        let average = Self::ema_names(&folder)?.into_iter().next();
        let options =
            LoadOptions { ema: average.as_deref(), pack: Some(MatmulPrecision::F32), ..LoadOptions::default() };
        let mut model = Self::load_with(&folder, options, device)?;
        let encoded_with = model.info.latent.as_ref().and_then(|latent| latent.vae.as_ref()).map(Path::new);
        if let (None, Some(path)) = (&model.vae, encoded_with.filter(|path| path.is_dir())) {
            model.vae = Some(StoredVae::open(path, None)?.load(device)?);
        }
        Ok(model)
    }

    /// The device that the network is on.
    pub fn device(&self) -> Device {
        use burn::module::Module;
        self.network.devices().into_iter().next().unwrap_or_else(Device::flex)
    }
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
