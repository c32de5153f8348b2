//! Networks that turn images into vectors to be compared.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow_eval::features::FeatureNetwork;
//! use gmflow_eval::features::download::INCEPTION;
//!
//! let spec = "pixels".parse()?; // or "inception", which is downloaded to the folder
//! let weights = || INCEPTION.fetch("features".as_ref(), false, &mut |_bytes| {});
//! let network = FeatureNetwork::load(&spec, &Device::flex(), weights)?;
//! let images = [-1.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0];
//! let features = network.extract(&images, [1, 2, 2])?;
//! assert_eq!((features.vectors.rows(), features.vectors.columns()), (2, 4));
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

pub mod classifier;
pub mod download;
pub mod inception;
pub mod resize;

use crate::{Error, Matrix, Result};
use burn::tensor::Device;
use classifier::Classifier;
use gmflow::checkpoint::{PytorchFile, read_tensors};
use inception::Inception;
use resize::Resize;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which features, as it is written on a command line: `pixels`, `inception`, `inception=FILE`, `inception-pytorch-fid=FILE`,
/// `classifier=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureSpec {
    /// The values themselves.
    Pixels,
    /// Inception-v3 with the weights of a file, or the published ones.
    Inception {
        /// The weight file, PyTorch or safetensors; `None` for the published one.
        weights: Option<PathBuf>,
        /// How images are resized.
        resize: Resize,
    },
    /// A classifier that `gmflow features train` made.
    Classifier(PathBuf),
}

impl FromStr for FeatureSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, file) = match text.split_once('=') {
            Some((name, file)) => (name, Some(PathBuf::from(file)).filter(|file| !file.as_os_str().is_empty())),
            None => (text, None),
        };
        match (name, file) {
            ("pixels", None) => Ok(Self::Pixels),
            ("inception", weights) => Ok(Self::Inception { weights, resize: Resize::TorchFidelity }),
            ("inception-pytorch-fid", weights) => Ok(Self::Inception { weights, resize: Resize::PytorchFid }),
            ("classifier", Some(file)) => Ok(Self::Classifier(file)),
            _ => {
                let expected = "pixels, inception, inception=FILE, inception-pytorch-fid, inception-pytorch-fid=FILE or classifier=FILE";
                Err(Error::config("features", expected, text))
            }
        }
    }
}

/// What features were computed with. Only vectors with the same description can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureInfo {
    /// `pixels`, `inception`, `classifier`, or `precomputed` for vectors from another program.
    pub network: String,
    /// SHA-256 of the weight file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<String>,
    /// How images were resized.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resize: Option<Resize>,
}

impl FeatureInfo {
    /// Vectors from another program, of which nothing is known.
    pub fn precomputed() -> Self {
        Self { network: "precomputed".into(), weights: None, resize: None }
    }

    /// Whether a Fréchet distance of these vectors may be called FID.
    pub fn is_inception(&self) -> bool {
        self.network == "inception"
    }

    /// A few words for a table: the network, the beginning of its weights' hash, the resizing.
    pub fn label(&self) -> String {
        let weights = self.weights.as_deref().and_then(|hash| hash.get(..8)).map(|hash| format!(" {hash}"));
        let resize = match self.resize {
            Some(Resize::PytorchFid) => ", pytorch-fid resize",
            Some(Resize::TorchFidelity) => ", torch-fidelity resize",
            None => "",
        };
        format!("{}{}{resize}", self.network, weights.unwrap_or_default())
    }
}

/// Vectors of some images.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// `[n d]`
    pub vectors: Matrix,
    /// Class logits `[n classes]`, of networks that have classes.
    pub logits: Option<Matrix>,
}

#[derive(Clone, Debug)]
enum Kind {
    Pixels,
    Inception(Box<Inception>),
    Classifier(Box<Classifier>),
}

/// A network ready to be used.
#[derive(Clone, Debug)]
pub struct FeatureNetwork {
    /// What it is.
    pub info: FeatureInfo,
    kind: Kind,
}

impl FeatureNetwork {
    /// Loads what `spec` names; `published` says where the published Inception weights are, and is asked only for them.
    ///
    /// # Errors
    /// A file that cannot be read or holds another network; whatever `published` fails with.
    pub fn load(spec: &FeatureSpec, device: &Device, published: impl FnOnce() -> Result<PathBuf>) -> Result<Self> {
        let info = |network: &str, file: Option<&Path>, resize| -> Result<FeatureInfo> {
            Ok(FeatureInfo { network: network.into(), weights: file.map(sha256).transpose()?, resize })
        };
        match spec {
            FeatureSpec::Pixels => Ok(Self { info: info("pixels", None, None)?, kind: Kind::Pixels }),
            FeatureSpec::Inception { weights, resize } => {
                let file = match weights {
                    Some(file) => file.clone(),
                    None => published()?,
                };
                let network = read_inception(&file, *resize, device)?;
                let kind = Kind::Inception(Box::new(network));
                Ok(Self { info: info("inception", Some(&file), Some(*resize))?, kind })
            }
            FeatureSpec::Classifier(file) => {
                let network = Classifier::load(file, device)?;
                let kind = Kind::Classifier(Box::new(network));
                Ok(Self { info: info("classifier", Some(file), None)?, kind })
            }
        }
    }

    /// The names of the classes that its logits are of, where it knows them.
    pub fn class_names(&self) -> &[String] {
        match &self.kind {
            Kind::Classifier(network) => &network.info.classes,
            Kind::Pixels | Kind::Inception(_) => &[],
        }
    }

    /// Features of images `[n c h w]` in [-1, 1], some at a time.
    ///
    /// # Errors
    /// Images that the network does not take.
    pub fn extract(&self, images: &[f32], shape: [usize; 3]) -> Result<Features> {
        let both = |[vectors, logits]: [Matrix; 2]| Features { vectors, logits: Some(logits) };
        match &self.kind {
            Kind::Pixels => {
                let vectors = Matrix::new(images.to_vec(), shape.iter().product())?;
                Ok(Features { vectors, logits: None })
            }
            Kind::Inception(network) => network.extract(images, shape).map(both),
            Kind::Classifier(network) => network.extract(images, shape).map(both),
        }
    }
}

fn read_inception(file: &Path, resize: Resize, device: &Device) -> Result<Inception> {
    let is_safetensors = file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"));
    let tensors = if is_safetensors { read_tensors(file)? } else { PytorchFile::open(file, None)?.read_all()? };
    Inception::from_tensors(tensors, resize, device).map_err(|error| error.in_file(file))
}

/// The SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let failed = |error| Error::io(path, error);
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..read]);
    }
}
