//! Features of images, and what sets of them are compared by.

use crate::array::{Array, Buffer};
use crate::interrupt::Follower;
use crate::{error, settings};
use burn::tensor::Device;
use gmflow_data::{FolderDataset, ImageSettings};
use gmflow_eval::arrays::{SampleReading, Samples, read_features, read_samples};
use gmflow_eval::features::download::INCEPTION;
use gmflow_eval::features::{FeatureNetwork, FeatureSpec};
use gmflow_eval::images::RealImages;
use gmflow_eval::{CompareConfig, Matrix, Progress, SampleSet, compare, inception_score};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Adds classes and functions.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Features>()?;
    module.add_class::<Set>()?;
    module.add_function(wrap_pyfunction!(set_of_vectors, module)?)?;
    module.add_function(wrap_pyfunction!(compare_sets, module)?)?;
    module.add_function(wrap_pyfunction!(score_of_logits, module)?)
}

/// What is read of a folder or a file.
struct Reading {
    size: Option<usize>,
    limit: Option<usize>,
    /// The shape of what it is compared with.
    like: Option<[usize; 3]>,
}

/// Stops a measurement at Ctrl-C.
struct Signals(Follower);

impl Progress for Signals {
    fn goes_on(&mut self) -> bool {
        self.0.progress(0, 0).is_continue()
    }
}

/// What is computed detached from the interpreter, or what a signal raised meanwhile.
fn interrupted_by<R: Send>(
    py: Python<'_>,
    compute: impl FnOnce(&mut Signals) -> gmflow_eval::Result<R> + Send,
) -> PyResult<R> {
    let mut signals = Signals(Follower::new(None));
    let result = py.detach(|| compute(&mut signals)).map_err(error::of);
    signals.0.result(result)
}

/// A network that turns images into vectors.
#[pyclass(frozen, module = "gmflow._native")]
pub struct Features(FeatureNetwork);

/// What is known of a set of images.
#[pyclass(frozen, module = "gmflow._native")]
pub struct Set(SampleSet);

#[pymethods]
impl Features {
    /// The network that `name` stands for, as for `gmflow eval --features`; published weights are kept in `cache`.
    #[new]
    fn new(py: Python<'_>, name: &str, cache: PathBuf) -> PyResult<Self> {
        let spec: FeatureSpec = name.parse().map_err(error::of)?;
        let published = || INCEPTION.fetch(&cache, false, &mut |_| {});
        py.detach(|| FeatureNetwork::load(&spec, &Device::flex(), published)).map(Self).map_err(error::of)
    }

    /// The set of images `[n c h w]` in [-1, 1].
    fn of_images(&self, py: Python<'_>, images: Bound<'_, PyAny>, name: &str) -> PyResult<Set> {
        let images = Array::new("images", &images)?;
        let [_, c, h, w] = images.dims()?;
        let samples = Samples { values: images.expect_finite()?.values().to_vec(), shape: [c, h, w] };
        interrupted_by(py, |progress| samples.features(&self.0, name, (None, true), progress)).map(Set)
    }

    /// The set of the first `limit` images of a folder, or of an array file; images of a folder are brought to `size`, where it is given.
    /// What is to be compared with images of a shape is read as `like` them, as `gmflow eval` does.
    fn of_path(
        &self,
        py: Python<'_>,
        path: PathBuf,
        size: Option<usize>,
        limit: Option<usize>,
        like: Option<[usize; 3]>,
    ) -> PyResult<Set> {
        let what = Reading { size, limit, like };
        interrupted_by(py, |progress| self.set_of_path(&path, what, progress)).map(Set)
    }
}

impl Features {
    fn set_of_path(
        &self,
        path: &Path,
        Reading { size, limit, like }: Reading,
        progress: &mut Signals,
    ) -> gmflow_eval::Result<SampleSet> {
        let name = path.display().to_string();
        if !path.is_dir() {
            if SampleSet::is_saved(path) {
                return SampleSet::load(path);
            }
            let samples = read_samples(path, &SampleReading { like, ..SampleReading::default() })?;
            return samples.features(&self.0, &name, (limit, true), progress);
        }
        let channels = like.map(|[channels, ..]| channels).filter(|&channels| channels == 1);
        let settings = ImageSettings { size, channels, ..ImageSettings::default() };
        let images = match size {
            Some(_) => FolderDataset::open(path, &settings)?,
            None => FolderDataset::open_exact(path, &settings)?,
        };
        RealImages::new(Arc::new(images), settings.corrupt, limit).features(&self.0, &name, true, progress)
    }
}

#[pymethods]
impl Set {
    fn __len__(&self) -> usize {
        usize::try_from(self.0.info.count).unwrap_or(usize::MAX)
    }

    /// What it is, as JSON.
    fn info(&self) -> PyResult<String> {
        serde_json::to_string(&self.0.info).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    /// The feature vectors `[n d]`, where they were kept.
    fn vectors(&self) -> Option<Buffer> {
        let matrix = self.0.vectors.as_ref()?;
        Some(Buffer::floats(matrix.values().to_vec(), &[matrix.rows(), matrix.columns()]))
    }

    /// Writes the set, for later comparisons.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.save(&path)).map_err(error::of)
    }
}

fn matrix(what: &'static str, array: &Bound<'_, PyAny>) -> PyResult<Matrix> {
    let array = Array::new(what, array)?;
    let [_, columns] = array.dims()?;
    Matrix::new(array.values().to_vec(), columns).map_err(error::of)
}

/// The set of feature vectors `[n d]` from another program, an array or a file.
#[pyfunction]
fn set_of_vectors(py: Python<'_>, vectors: Bound<'_, PyAny>, name: &str) -> PyResult<Set> {
    let matrix = match vectors.extract::<PathBuf>() {
        Ok(path) => py.detach(|| read_features(&path)).map_err(error::of)?,
        Err(_) => matrix("features", &vectors)?,
    };
    py.detach(|| SampleSet::of_vectors(matrix, name.to_owned())).map(Set).map_err(error::of)
}

/// All figures of a set of fake samples against a real one, as JSON.
#[pyfunction]
fn compare_sets(py: Python<'_>, real: &Set, fake: &Set, config: &str) -> PyResult<String> {
    let config: CompareConfig = settings::read(config)?;
    let (real, fake) = (&real.0, &fake.0);
    let metrics =
        interrupted_by(py, |signals| compare(real, fake, config, &mut |done, of| signals.0.progress(done, of)))?;
    serde_json::to_string(&metrics).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Mean and standard deviation of the Inception Score of logits `[n classes]`.
#[pyfunction]
fn score_of_logits(py: Python<'_>, logits: Bound<'_, PyAny>, splits: usize, seed: u32) -> PyResult<(f64, f64)> {
    let logits = matrix("logits", &logits)?;
    let score = py.detach(|| inception_score(&logits, splits, seed)).map_err(error::of)?;
    Ok((score.mean, score.std))
}
