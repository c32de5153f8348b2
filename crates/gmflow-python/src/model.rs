//! Models, and what is drawn from them.

use crate::array::{Array, Buffer};
use crate::interrupt::Follower;
use crate::{error, settings};
use burn::tensor::{Device, Int, Tensor, TensorData};
use gmflow::checkpoint::ModelInfo;
use gmflow::checkpoint::hub::{DownloadProgress, HubId, HubSettings, fetch};
use gmflow::kernel::PrecisionChoice;
use gmflow::mixture::GaussianMixture;
use gmflow::network::{Denoiser, SpectrumMlp};
use gmflow::samples::{Picture, Samples};
use gmflow_eval::models::model_folder;
use gmflow_eval::sampler::{Source, describe};
use gmflow_eval::{LoadedModel, ModelOptions, SamplerOptions};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Which weights of a model, as JSON.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    ema: Option<String>,
    precision: PrecisionChoice,
    variant: Option<String>,
    vae: Option<PathBuf>,
    revision: Option<String>,
    device: Option<String>,
}

/// What is drawn, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    sampler: SamplerOptions,
    /// Labels, synonyms or numbers, which samples take in turn.
    classes: Option<Vec<String>>,
    seeds: Option<Vec<u64>>,
    batch: Option<usize>,
    latents: bool,
}

/// Downloads are noted in the log.
struct Logged;

impl DownloadProgress for Logged {
    fn start(&mut self, file: &str, bytes: u64) {
        log::info!(target: gmflow_data::FOUND, "downloading {file}, {bytes} bytes");
    }

    fn advance(&mut self, _bytes: u64) {}

    fn finish(&mut self) {}
}

/// A model, ready to sample from.
#[pyclass(frozen, module = "gmflow._native")]
pub struct Model {
    loaded: LoadedModel,
    folder: PathBuf,
    ema: Option<String>,
    variant: Option<String>,
}

#[pymethods]
impl Model {
    /// Opens a folder, a training run, or a repository on the hub.
    #[staticmethod]
    fn open(py: Python<'_>, name: &str, options: &str) -> PyResult<Self> {
        let options: Options = settings::read(options)?;
        py.detach(|| Self::opened(name, options))
    }

    /// What is known of the model but its weights, as JSON.
    fn info(&self) -> PyResult<String> {
        json_of(&self.loaded.model.info)
    }

    /// The folder of the weights.
    #[getter]
    fn folder(&self) -> &Path {
        &self.folder
    }

    /// What its large layers are computed in, as JSON.
    fn precision(&self) -> PyResult<String> {
        json_of(&self.loaded.precision)
    }

    /// The mixture over the velocity that the network predicts at `x` `[b c h w]` and times `[b]`: means, logweights, logstds. Without classes
    /// all are the null class.
    fn predict(
        &self,
        py: Python<'_>,
        x: Bound<'_, PyAny>,
        t: Bound<'_, PyAny>,
        classes: Option<Vec<usize>>,
    ) -> PyResult<(Buffer, Buffer, Buffer)> {
        let info = self.info_of();
        let (x, t) = (Array::new("x", &x)?, Array::new("t", &t)?);
        let [b, c, h, w] = x.dims()?;
        t.expect(&[b])?;
        info.network.validate_data([c, h, w]).map_err(error::of)?;
        let null = self.loaded.model.network.null_class().unwrap_or_default();
        if let Some(classes) = &classes {
            if classes.len() != b {
                return Err(error::of(gmflow::Error::shape("class_labels", [b], [classes.len()])));
            }
            if let Some(wrong) = classes.iter().find(|&&class| class > null) {
                return Err(error::of(gmflow::Error::config("class_labels", format!("0 to {null}"), wrong)));
            }
        }
        let (x, t) = (x.finite_tensor::<4>()?, t.finite_tensor::<1>()?);
        let GaussianMixture { means, log_weights, log_std } = py.detach(|| {
            let class = classes.map(|classes| {
                let classes: Vec<i64> = classes.into_iter().map(|class| class as i64).collect();
                Tensor::<1, Int>::from_data(TensorData::new(classes, [b]), &Device::flex())
            });
            self.loaded.model.network.forward(x, t, class).0
        });
        Ok((Buffer::of(means)?, Buffer::of(log_weights)?, Buffer::of(log_std)?))
    }

    /// Draws samples, from `noise` `[n c h w]` where it is given; `on_step` is called as [`Follower::step`] says.
    fn draw(
        &self,
        py: Python<'_>,
        request: &str,
        noise: Option<Bound<'_, PyAny>>,
        on_step: Option<Py<PyAny>>,
    ) -> PyResult<Drawn> {
        let request: Request = settings::read(request)?;
        let noise = noise.map(|noise| Array::new("noise", &noise)?.finite_tensor()).transpose()?;
        let mut follower = Follower::new(on_step);
        let drawn = py.detach(|| self.drawn(request, noise, &mut follower));
        follower.result(drawn).map(Drawn)
    }
}

impl Model {
    /// A model that is in no folder; `ema` is the moving average that its weights are.
    pub fn of(loaded: LoadedModel, ema: Option<String>) -> Self {
        Self { loaded, folder: PathBuf::new(), ema, variant: None }
    }

    /// Its spectrum network.
    pub fn spectrum(&self) -> PyResult<&SpectrumMlp> {
        self.loaded.model.spectrum.as_ref().ok_or_else(|| {
            let expected = "a pipeline of a model that has a spectrum network";
            error::of(gmflow::Error::config("spectrum", expected, "one without"))
        })
    }

    fn opened(name: &str, options: Options) -> PyResult<Self> {
        let path = Path::new(name);
        let id = HubId::parse(name).filter(|_| !path.exists());
        let folder = match (id, &options.revision) {
            (Some(id), revision) => {
                let id = revision.as_ref().map_or(Ok(id.clone()), |revision| id.at(revision)).map_err(error::of)?;
                let settings = HubSettings::from_env().map_err(error::of)?;
                fetch(&id, options.variant.as_deref(), &settings, &mut Logged)
            }
            (None, Some(revision)) => {
                let expected = "a repository on the hub, such as owner/name, beside it";
                Err(gmflow::Error::config("revision", expected, revision))
            }
            (None, None) => model_folder(path),
        };
        let folder = folder.map_err(error::of)?;
        let device = gmflow::device::open(options.device.as_deref().unwrap_or("cpu")).map_err(error::of)?;
        let ema = gmflow_eval::models::average(&folder, options.ema.as_deref()).map_err(error::of)?;
        let Options { precision, variant, vae, .. } = options;
        let of_model = ModelOptions { ema: options.ema, precision, variant: variant.clone(), vae, unverified: false };
        let loaded = LoadedModel::open(name, &folder, &of_model, &device).map_err(error::of)?;
        Ok(Self { loaded, folder, ema, variant })
    }

    fn info_of(&self) -> &ModelInfo {
        &self.loaded.model.info
    }

    fn drawn(&self, request: Request, noise: Option<Tensor<4>>, follower: &mut Follower) -> PyResult<Samples> {
        let info = self.info_of();
        let config = request.sampler.config(info).map_err(error::of)?;
        let mut sampler = self.loaded.model.sampler().config(config);
        if let Some(classes) = request.classes {
            if info.network.num_classes() == 0 {
                let expected = "none, because the model has no classes";
                return Err(error::of(gmflow::Error::config("class_labels", expected, classes.join(", "))));
            }
            let names = info.class_names();
            let found: Result<Vec<_>, _> = classes.iter().map(|class| names.find_all(class)).collect();
            let found = found.map_err(error::of)?.concat();
            if let Some(seeds) = request.seeds.as_ref().filter(|seeds| found.len() > seeds.len()) {
                let expected = format!("at most {}, one for each sample", seeds.len());
                return Err(error::of(gmflow::Error::config("class_labels", expected, found.len())));
            }
            sampler = sampler.classes(found);
        }
        if let Some(seeds) = request.seeds {
            sampler = sampler.seeds(seeds);
        }
        if let Some(batch) = request.batch {
            sampler = sampler.batch(batch);
        }
        if request.latents {
            sampler = sampler.latents();
        }
        let given = noise.is_some().then_some(Path::new("an array"));
        if let Some(noise) = noise {
            sampler = sampler.noise(noise);
        }
        let samples = sampler.sample_steps(&mut |end| follower.step(end)).map_err(error::of)?;
        let source = Source {
            checkpoint: &self.folder,
            ema: self.ema.as_deref(),
            variant: self.variant.as_deref(),
            vae: None,
            noise: given,
            latents: request.latents,
            precision: self.loaded.precision,
        };
        Ok(Samples { made_by: source.made_by(describe(&config, info.data.kind)), ..samples })
    }
}

fn json_of(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Samples with what is known of them.
#[pyclass(frozen, module = "gmflow._native")]
pub struct Drawn(Samples);

#[pymethods]
impl Drawn {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// One seed for each sample.
    #[getter]
    fn seeds(&self) -> Vec<u64> {
        self.0.seeds.clone()
    }

    /// One class for each sample; none of models without classes.
    #[getter]
    fn classes(&self) -> Option<Vec<usize>> {
        self.0.classes.clone()
    }

    /// Points rather than images.
    #[getter]
    fn points(&self) -> bool {
        self.0.points
    }

    /// How they were made, as JSON.
    fn made_by(&self) -> String {
        json!(self.0.made_by_all()).to_string()
    }

    /// The values `[n c h w]`.
    fn values(&self) -> Buffer {
        let [c, h, w] = self.0.shape;
        Buffer::floats(self.0.values.clone(), &[self.0.len(), c, h, w])
    }

    /// The picture of one sample, `[h w c]` in bytes.
    fn picture(&self, index: usize) -> PyResult<Buffer> {
        let Picture { channels, width, height, pixels } = self.0.picture(index).map_err(error::of)?;
        Ok(Buffer::bytes(pixels, &[height, width, channels]))
    }

    /// The PNG file of one sample.
    fn png(&self, index: usize) -> PyResult<Vec<u8>> {
        if index >= self.0.len() {
            return Err(PyIndexError::new_err(format!("sample {index} of {}", self.0.len())));
        }
        self.0.image_png(index).map_err(error::of)
    }

    /// The PNG file of all of them.
    fn grid_png(&self) -> PyResult<Vec<u8>> {
        self.0.grid_png().map_err(error::of)
    }

    /// Writes files as `gmflow sample` does: by the ending, one of arrays, or a folder of pictures; `grid` writes one picture.
    fn save(&self, py: Python<'_>, path: PathBuf, grid: bool) -> PyResult<()> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let saved = py.detach(|| match ending {
            _ if grid => self.0.save_grid(&path),
            "npz" => self.0.save_npz(&path),
            "safetensors" => self.0.save_safetensors(&path),
            _ => self.0.save_images(&path),
        });
        saved.map_err(error::of)
    }
}
