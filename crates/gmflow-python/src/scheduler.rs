//! Steps of a solver, one at a time, between predictions that are made elsewhere.

use crate::array::{Array, Buffer, same};
use crate::function::finite_mixture;
use crate::{error, settings};
use burn::tensor::{Device, Tensor};
use gmflow::guidance::{GuidanceRule, GuidedPrediction, interval};
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::pipeline::SamplerConfig;
use gmflow::rng::{self, Purpose};
use gmflow::solver::{Context, SeededNoise, SolverConfig, SolverState, Span};
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Adds class and functions.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Stepper>()?;
    module.add_function(wrap_pyfunction!(time_grid, module)?)?;
    module.add_function(wrap_pyfunction!(initial_noise, module)?)
}

/// The falling times at which `steps` steps begin, and 0.
#[pyfunction]
fn time_grid(steps: usize, shift: f32) -> PyResult<Vec<f64>> {
    let times = gmflow::time::grid(steps, shift).map_err(error::of)?;
    Ok(times.into_iter().map(f64::from).collect())
}

/// The noise `[b c h w]` that samples with these seeds start from.
#[pyfunction]
fn initial_noise(py: Python<'_>, seeds: Vec<u64>, shape: [usize; 3]) -> PyResult<Buffer> {
    Buffer::of(py.detach(|| rng::normal_batch(&seeds, Purpose::InitialNoise, 0, shape, &Device::flex())))
}

/// A run of a solver. What the solver remembers from step to step is in it.
#[pyclass(frozen, module = "gmflow._native")]
pub struct Stepper {
    config: SamplerConfig,
    /// The falling times at which steps begin, and the end of the last.
    times: Vec<f64>,
    seeds: Vec<u64>,
    state: Mutex<Option<(usize, SolverState)>>,
}

#[pymethods]
impl Stepper {
    /// A run with these settings on these times. One seed for each sample, for solvers that draw.
    #[new]
    fn new(config: &str, times: Vec<f64>, seeds: Vec<u64>) -> PyResult<Self> {
        let config: SamplerConfig = settings::read(config)?;
        config.validate().map_err(error::of)?;
        let falling = times.windows(2).all(|pair| pair[1] < pair[0]);
        let within = times.first().is_some_and(|&t| t <= 1.0) && times.last().is_some_and(|&t| t >= 0.0);
        if times.len() < 2 || !falling || !within {
            return Err(error::of(gmflow::Error::config("sigmas", "falling times in [0, 1]", format!("{times:?}"))));
        }
        if matches!(config.solver, SolverConfig::PiFlow(_)) {
            return Err(error::of(gmflow::Error::config("solver", "one without a policy", "pi-flow")));
        }
        Ok(Self { config, times, seeds, state: Mutex::new(None) })
    }

    /// The sample `[b c h w]` at the end of step `index`, from `sample` `[b c h w]` and the mixture over the velocity that was predicted there;
    /// with guidance it is that of the doubled batch [conditional, unconditional].
    fn step(
        &self,
        py: Python<'_>,
        index: usize,
        prediction: Bound<'_, PyAny>,
        sample: Bound<'_, PyAny>,
    ) -> PyResult<Buffer> {
        let prediction = finite_mixture(&prediction)?;
        let x = Array::new("sample", &sample)?;
        let dims: [usize; 4] = x.dims()?;
        let (b, [rows, k, c, h, w]) = (dims[0], prediction.means.dims());
        if (rows != b && rows != 2 * b) || dims != [b, c, h, w] {
            return Err(error::of(gmflow::Error::shape(
                "means",
                [b, k, dims[1], dims[2], dims[3]],
                [rows, k, c, h, w],
            )));
        }
        let x = x.finite_tensor()?;
        py.detach(|| self.stepped(index, prediction, x)).map_err(error::of).and_then(Buffer::of)
    }
}

impl Stepper {
    fn state(&self) -> MutexGuard<'_, Option<(usize, SolverState)>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stepped(&self, index: usize, prediction: GaussianMixture, x: Tensor<4>) -> gmflow::Result<Tensor<4>> {
        let (Some(&t), Some(&to)) = (self.times.get(index), self.times.get(index + 1)) else {
            let expected = format!("one of {}", self.times.len() - 1);
            return Err(gmflow::Error::config("step", expected, index));
        };
        let [b, c, h, w] = x.dims();
        let guidance = interval::at(self.config.guidance, self.config.guidance_interval, t);
        let doubled = prediction.means.dims()[0] == 2 * b;
        if guidance.is_active() && !doubled {
            let expected = "a prediction of the doubled batch, the conditional half first";
            return Err(gmflow::Error::config("guidance_scale", expected, format!("one of {b} samples")));
        }
        let prediction = match doubled && !guidance.is_active() {
            true => first(&prediction, b),
            false => prediction,
        };
        let rule = GuidanceRule { guidance, scale: self.config.reweight_by };
        let solver = self.config.solver.solver();
        let seeds = if self.seeds.len() == b { self.seeds.clone() } else { (0..b as u64).collect() };
        let mut state = self.state();
        let from = match state.take() {
            Some((next, mut kept)) if next == index && kept.x().dims() == x.dims() => {
                if !same(kept.x(), &x) {
                    kept.replace_x(x);
                }
                kept
            }
            _ => solver.init(x),
        };
        let mut calls = 0;
        let mut predict = |x: &Tensor<4>, t: f64| {
            calls += 1;
            GuidedPrediction::from_velocity(rule, VelocityMixture(prediction.clone()), x, t)
        };
        let mut draws = SeededNoise { seeds, device: Device::flex() };
        let second_order = self.config.second_order;
        let mut context =
            Context { predict: &mut predict, draws: &mut draws, spectrum: None, second_order, observe: None };
        let default_substeps = SolverConfig::default_substeps(self.times.len() - 1, [c, h, w] == [2, 1, 1]);
        let span = Span { index, t, to, default_substeps, shift: self.config.shift };
        let end = solver.step(from, span, &mut context)?;
        if calls > 1 {
            let expected = "one with a single network call in a step";
            return Err(gmflow::Error::config("solver", expected, self.config.solver.name()));
        }
        let x = end.x().clone();
        *state = Some((index + 1, end));
        Ok(x)
    }
}

/// The first `b` mixtures of a batch.
fn first(mixture: &GaussianMixture, b: usize) -> GaussianMixture {
    let cut = |x: &Tensor<5>| x.clone().narrow(0, 0, b);
    GaussianMixture {
        means: cut(&mixture.means),
        log_weights: cut(&mixture.log_weights),
        log_std: cut(&mixture.log_std),
    }
}
