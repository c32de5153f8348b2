//! Training.

use crate::error;
use crate::model::Model;
use burn::tensor::Device;
use gmflow::checkpoint::Precision;
use gmflow::kernel::MatmulPrecision;
use gmflow_eval::LoadedModel;
use gmflow_train::checkpoint;
use gmflow_train::{Config, Observer, Outcome, ResumeOptions, Run, StepReport, Trainer as Training};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Adds class and functions.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Trainer>()?;
    module.add_function(wrap_pyfunction!(train, module)?)
}

/// What is to be trained: the text of a configuration and where its relative paths begin, or a file.
fn configuration(text: Option<&str>, path: &Path, overrides: &[String]) -> PyResult<Config> {
    let config = match text {
        Some(text) => Config::parse(text, path, overrides),
        None => Config::load(path, overrides),
    };
    config.map_err(error::of)
}

fn device(name: &str) -> PyResult<Device> {
    gmflow::device::open(name).map_err(error::of)
}

fn report<'py>(py: Python<'py>, report: &StepReport) -> PyResult<Bound<'py, PyDict>> {
    let StepReport { step, images, loss, spectral_loss, grad_norm, lr, largest_loss, skipped } = *report;
    let dict = PyDict::new(py);
    dict.set_item("step", step)?;
    dict.set_item("images", images)?;
    dict.set_item("loss", loss)?;
    dict.set_item("grad_norm", grad_norm)?;
    dict.set_item("lr", lr)?;
    dict.set_item("skipped", skipped)?;
    if let Some(loss) = spectral_loss {
        dict.set_item("spectral_loss", loss)?;
    }
    if let Some(loss) = largest_loss {
        dict.set_item("largest_loss", loss)?;
    }
    Ok(dict)
}

/// A network in training, without a folder.
#[pyclass(frozen, module = "gmflow._native")]
pub struct Trainer(Mutex<Training>);

#[pymethods]
impl Trainer {
    /// Opens the data and draws the weights.
    #[new]
    fn new(
        py: Python<'_>,
        text: Option<&str>,
        path: PathBuf,
        overrides: Vec<String>,
        device_name: &str,
    ) -> PyResult<Self> {
        py.detach(|| {
            let config = configuration(text, &path, &overrides)?;
            Training::new(config, &device(device_name)?).map_err(error::of)
        })
        .map(|training| Self(Mutex::new(training)))
    }

    /// One optimiser step.
    fn step<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let done = py.detach(|| self.training().step()).map_err(error::of)?;
        py.check_signals()?;
        report(py, &done)
    }

    /// Steps taken, samples seen, and steps in all.
    fn progress(&self, py: Python<'_>) -> (u64, u64, u64) {
        py.detach(|| {
            let training = self.training();
            (training.steps_taken(), training.images(), training.config().total_steps())
        })
    }

    /// The resolved configuration.
    fn config(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| self.training().config().to_toml()).map_err(error::of)
    }

    /// The names of the moving averages.
    fn averages(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.training().config().ema.iter().map(|ema| ema.name.clone()).collect())
    }

    /// The model of the weights as they are, or of a moving average.
    fn model(&self, py: Python<'_>, average: Option<&str>) -> PyResult<Model> {
        py.detach(|| {
            let training = self.training();
            let mut model = checkpoint::model(&training).map_err(error::of)?;
            model.network = training.snapshot(average).map_err(error::of)?;
            let name = "trainer".to_owned();
            let loaded = LoadedModel { name, model, precision: MatmulPrecision::F32 };
            Ok(Model::of(loaded, average.map(str::to_owned)))
        })
    }

    /// Writes a model folder with the weights and all averages.
    fn save(&self, py: Python<'_>, folder: PathBuf) -> PyResult<()> {
        py.detach(|| {
            let training = self.training();
            let model = checkpoint::model(&training).map_err(error::of)?;
            let names: Vec<String> = training.config().ema.iter().map(|ema| ema.name.clone()).collect();
            let averages: Result<Vec<_>, _> = names.iter().map(|name| training.snapshot(Some(name))).collect();
            let averages = averages.map_err(error::of)?;
            let averages: Vec<_> = names.iter().map(String::as_str).zip(&averages).collect();
            model.save(&folder, &averages, Precision::F32).map(|_| ()).map_err(error::of)
        })
    }
}

impl Trainer {
    fn training(&self) -> MutexGuard<'_, Training> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells Python of a run, and stops it where Python says so.
struct Told<'a> {
    on_step: Option<Py<PyAny>>,
    raised: Option<PyErr>,
    stop: &'a AtomicBool,
}

impl Observer for Told<'_> {
    fn on_step(&mut self, done: &StepReport) {
        if self.raised.is_some() {
            return;
        }
        let told = Python::attach(|py| {
            py.check_signals()?;
            match &self.on_step {
                None => Ok(true),
                Some(on_step) => {
                    let answer = on_step.bind(py).call1((report(py, done)?,))?;
                    Ok(answer.is_none() || answer.is_truthy()?)
                }
            }
        });
        let goes_on = told.unwrap_or_else(|error| {
            self.raised = Some(error);
            false
        });
        if !goes_on {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Trains in a folder, as `gmflow train` does; whether all steps were taken. A run that is there already goes on where `resume` says so.
#[pyfunction]
fn train(
    py: Python<'_>,
    config: (Option<String>, PathBuf, Vec<String>),
    folder: PathBuf,
    mode: (bool, bool),
    device_name: &str,
    on_step: Option<Py<PyAny>>,
) -> PyResult<bool> {
    let stop = AtomicBool::new(false);
    let mut told = Told { on_step, raised: None, stop: &stop };
    let ((text, path, overrides), (resume, force)) = (config, mode);
    let outcome = py.detach(|| {
        let device = device(device_name)?;
        let run = match resume {
            true => Run::resume_with(&folder, &overrides, ResumeOptions::default(), &device),
            false => Run::create(configuration(text.as_deref(), &path, &overrides)?, &folder, force, &device),
        };
        run.map_err(error::of)?.run(&stop, &mut told).map_err(error::of)
    });
    told.raised.map_or(outcome, Err).map(|outcome| outcome == Outcome::Finished)
}
