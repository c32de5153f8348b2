//! A small convolutional classifier, trained on the user's own labelled images: features for data that Inception knows nothing of.
//!
//! [`Architecture`] has two sizes: a small one for digits and the like, and a residual one for colour pictures. The features are
//! what the last layer reads the classes from.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow_data::{Corrupt, Shapes, ShapesDataset};
//! use gmflow_eval::features::classifier::{TrainSettings, train};
//!
//! let shapes = ShapesDataset::new(Shapes { size: 16, count: 40, ..Shapes::default() })?;
//! let settings = TrainSettings { epochs: 1, batch_size: 12, ..TrainSettings::default() };
//! let device = Device::flex();
//! let classifier = train(&shapes, Corrupt::Refuse, "shapes".into(), settings, &device, &mut |_progress| {})?;
//! let [vectors, logits] = classifier.extract(&[0.0; 3 * 16 * 16], [3, 16, 16])?;
//! assert_eq!((vectors.rows(), logits.columns()), (1, classifier.info.classes.len()));
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

mod augment;
mod network;
mod training;

pub use augment::Augment;
pub use network::Architecture;
pub use training::{Progress, TrainSettings, train};

use crate::{Error, Matrix, Result};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::{read_header, read_tensors, write_atomic};
use gmflow::network::HostTensor;
use gmflow_files::json;
use network::{Layers, Parameters};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file's metadata entry that holds [`ClassifierInfo`].
const METADATA: &str = "gmflow-classifier";
/// Images worked on at a time.
const AT_ONCE: usize = 64;

/// What a classifier was made for and from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierInfo {
    /// Channels, height and width of the images.
    pub shape: [usize; 3],
    /// The names of the classes.
    pub classes: Vec<String>,
    /// The share of images held out of training that are classified as labelled.
    pub accuracy: f64,
    /// How many were held out.
    pub held_out: usize,
    /// How many it was trained on.
    pub trained_on: usize,
    /// Its layers and how it was trained. Files from before there was a choice hold neither layers nor what was chosen later: they
    /// are read with the defaults.
    pub settings: TrainSettings,
    /// The data set, as the caller describes it.
    pub data: String,
}

/// A trained classifier.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// What it is.
    pub info: ClassifierInfo,
    parameters: Parameters,
    device: Device,
}

impl ClassifierInfo {
    fn layers(&self) -> Layers {
        self.settings.network.layers(self.shape[0], self.classes.len())
    }
}

impl Classifier {
    /// Numbers in a feature vector.
    pub fn features(&self) -> usize {
        self.info.settings.network.features()
    }

    /// Reads the file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file that is none of these, or with tensors that do not fit what it says of itself.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, error))?;
        let (_, metadata) = read_header(&bytes).map_err(|wrong| Error::wrong(path, wrong))?;
        let text = metadata.metadata().as_ref().and_then(|entries| entries.get(METADATA));
        let text = text.ok_or_else(|| Error::file(path, METADATA, "an entry of the metadata", "none"))?;
        let info: ClassifierInfo =
            json::read(text.as_bytes()).map_err(|wrong| Error::in_metadata(path, METADATA, wrong))?;
        info.settings.validate().map_err(|error| Error::file(path, METADATA, "settings in range", error))?;
        let mut tensors = read_tensors(path)?;
        let mut parameters = Parameters::new();
        for (name, shape) in info.layers().shapes() {
            let tensor = tensors.remove(&name).filter(|tensor| tensor.shape == shape);
            let tensor =
                tensor.ok_or_else(|| Error::file(path, name, format!("shape {shape:?}"), "another or none"))?;
            parameters.push(tensor);
        }
        Ok(Self { info, parameters, device: device.clone() })
    }

    /// Writes weights and description to one .safetensors file, atomically.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let unwritable = |error: &dyn std::fmt::Display| Error::file(path, "content", "what can be written", error);
        let info = serde_json::to_string(&self.info).map_err(|error| unwritable(&error))?;
        let names = self.info.layers().shapes();
        let bytes: Vec<Vec<u8>> = self.parameters.iter().map(|p| bytemuck::cast_slice(&p.values).to_vec()).collect();
        let views: Result<Vec<_>, _> = names
            .iter()
            .zip(&bytes)
            .map(|((name, shape), bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
            .collect();
        let views = views.map_err(|error: safetensors::SafeTensorError| unwritable(&error))?;
        let metadata = [(METADATA.to_owned(), info)].into();
        let file = safetensors::serialize(views, Some(metadata)).map_err(|error| unwritable(&error))?;
        Ok(write_atomic(path, &file)?)
    }

    /// Features `[n f]` and logits `[n classes]` of images `[n c h w]` in [-1, 1].
    ///
    /// # Errors
    /// Images of another shape than the classifier's.
    pub fn extract(&self, images: &[f32], shape: [usize; 3]) -> Result<[Matrix; 2]> {
        let size: usize = shape.iter().product();
        if shape != self.info.shape || size == 0 || !images.len().is_multiple_of(size) {
            let (expected, got) = (format!("shape {:?}, as the classifier's", self.info.shape), format!("{shape:?}"));
            return Err(Error::config("images", expected, got));
        }
        let parameters: Vec<_> = self.parameters.iter().map(|parameter| on_device(parameter, &self.device)).collect();
        let (mut features, mut logits) = (Matrix::default(), Matrix::default());
        let (layers, [c, h, w]) = (self.info.layers(), shape);
        for chunk in images.chunks(AT_ONCE * size) {
            let x = Tensor::from_data(TensorData::new(chunk.to_vec(), [chunk.len() / size, c, h, w]), &self.device);
            let (found, classes) = layers.forward(&parameters, x);
            features.append(&Matrix::new(host(found)?, self.features())?)?;
            logits.append(&Matrix::new(host(classes)?, self.info.classes.len())?)?;
        }
        Ok([features, logits])
    }
}

/// A parameter as a flat tensor on a device.
fn on_device(parameter: &HostTensor, device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(parameter.values.clone(), [parameter.values.len()]), device)
}

fn host<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>> {
    x.into_data().try_into_vec().map_err(|error| Error::config("features", "numbers in f32", format!("{error:?}")))
}
