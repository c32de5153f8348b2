//! Samples of a Python function.

use crate::array::{Array, Buffer};
use crate::function::Function;
use crate::interrupt::Follower;
use crate::model::Model;
use crate::noise::Draws;
use crate::{error, settings};
use burn::tensor::{Device, Tensor};
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig};
use pyo3::prelude::*;
use serde::Deserialize;
use std::ops::ControlFlow;

/// What is asked for, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    sampler: SamplerConfig,
    seeds: Vec<u64>,
    shape: [usize; 3],
    classes: Option<Vec<usize>>,
    num_classes: Option<usize>,
}

/// Adds the functions.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sample, module)?)?;
    module.add_function(wrap_pyfunction!(solvers, module)?)?;
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)
}

/// Samples `[b c h w]` of `function`, on the thread that calls; random numbers in place of those of the seeds, and
/// the model with the spectrum network that shapes draws of GM-SDE, may be given.
#[pyfunction]
#[pyo3(signature = (function, request, noise, draws, progress))]
fn sample(
    py: Python<'_>,
    function: Py<PyAny>,
    request: &str,
    noise: Option<Bound<'_, PyAny>>,
    draws: (Option<Py<PyAny>>, Option<Bound<'_, Model>>),
    progress: Option<Py<PyAny>>,
) -> PyResult<Buffer> {
    let Request { sampler, seeds, shape, classes, num_classes } = settings::read(request)?;
    let noise = noise.map(|noise| Array::new("noise", &noise)?.finite_tensor()).transpose()?;
    let network = Function::new(function, num_classes);
    let request = SampleRequest { seeds, classes, shape, noise };
    let (draws, spectrum) = (draws.0, draws.1.as_ref().map(Bound::get));
    let spectrum = spectrum.map(Model::spectrum).transpose()?;
    let mut follower = Follower::new(progress);
    let samples = py.detach(|| {
        let pipeline = Pipeline { network: &network, spectrum, device: Device::flex() };
        let mut told = |done, of| match network.has_failed() {
            true => ControlFlow::Break(()),
            false => follower.progress(done, of),
        };
        let failed = |error| network.fail(error);
        let mut draws = Draws::new(draws, request.seeds.clone(), shape[0], &failed);
        pipeline.run(&sampler, &request, &mut draws, &mut told, None)
    });
    let samples = match samples {
        Ok(samples) => network.checked(samples),
        // What the function raised has stopped it.
        Err(error) => network.checked(Tensor::zeros([1; 4], &Device::flex())).and(Err(error::of(error))),
    };
    follower.result(samples).and_then(Buffer::of)
}

/// The names of the solvers with a few words about each.
#[pyfunction]
fn solvers() -> Vec<(&'static str, &'static str)> {
    gmflow::solver::SolverConfig::ALL.iter().map(|(name, _, words)| (*name, *words)).collect()
}

/// Computes on so many threads. This has to come before the first computation.
#[pyfunction]
fn set_num_threads(threads: usize) -> PyResult<()> {
    let set = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    set.map_err(|error| error::new("GmflowError", format!("threads: {error}")))
}
