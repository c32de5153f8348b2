//! A Python function as a network.

use crate::array::{Array, Buffer};
use crate::error;
use burn::tensor::{Device, Int, Tensor};
use gmflow::kernel::{all_finite, log_softmax};
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::Denoiser;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls `function(x, t, class_labels)` for a mixture over the velocity: `means` `[b k c h w]`, `logweights` `[b k 1 h w]` and `logstds`
/// `[b 1 1 1 1]`.
///
/// A network cannot fail. What the function raises is kept, nothing is called any more, and the predictions from there on mean nothing; who
/// samples asks [`Function::has_failed`] after every step, and for [`Function::checked`] samples at the end.
pub struct Function {
    function: Py<PyAny>,
    /// The label for no class, where the function has classes.
    null_class: Option<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    raised: Option<PyErr>,
    /// What the function returned last.
    predicted: Option<Py<PyAny>>,
}

impl Function {
    /// `classes` is the number of classes.
    pub fn new(function: Py<PyAny>, classes: Option<usize>) -> Self {
        Self { function, null_class: classes, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the function has failed.
    pub fn has_failed(&self) -> bool {
        self.state().raised.is_some()
    }

    /// Something else has failed that the function's predictions depend on.
    pub fn fail(&self, error: PyErr) {
        self.state().raised.get_or_insert(error);
    }

    /// Samples that are finite, or else what the function raised, or where its last prediction was not finite.
    pub fn checked(&self, samples: Tensor<4>) -> PyResult<Tensor<4>> {
        if let Some(error) = self.state().raised.take() {
            return Err(error);
        }
        // Numbers that are not finite go from predictions to samples, which are much smaller.
        let data = samples.into_data();
        if all_finite(data.as_slice().unwrap_or_default()) {
            return Ok(Tensor::from_data(data, &Device::flex()));
        }
        let predicted = self.state().predicted.take();
        Python::attach(|py| predicted.map_or(Ok(()), |predicted| finite_mixture(predicted.bind(py)).map(drop)))?;
        Err(PyValueError::new_err("samples: expected finite numbers, got others of predictions that are finite"))
    }

    fn predict(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> PyResult<VelocityMixture> {
        let dims = x_t.dims();
        let class: Option<Vec<i64>> = class.map(|class| class.into_data().iter::<i64>().collect());
        let (x_t, t) = (Buffer::of(self.checked(x_t)?)?, Buffer::of(t)?);
        let (mixture, predicted) = Python::attach(|py| {
            py.check_signals()?;
            let predicted = self.function.bind(py).call1((x_t, t, class))?;
            Ok::<_, PyErr>((mixture(&predicted)?, predicted.unbind()))
        })?;
        self.state().predicted = Some(predicted);
        let (got, [_, c, h, w]) = (mixture.means.dims(), dims);
        if got != [dims[0], got[1], c, h, w] {
            return Err(error::of(gmflow::Error::shape("means", [dims[0], got[1], c, h, w], got)));
        }
        Ok(VelocityMixture(mixture))
    }
}

impl Denoiser for Function {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        let [b, c, h, w] = x_t.dims();
        let result = if self.has_failed() { None } else { Some(self.predict(x_t, t, class)) };
        match result {
            Some(Ok(prediction)) => return prediction,
            Some(Err(error)) => self.fail(error),
            None => {}
        }
        let device = Device::flex();
        VelocityMixture(GaussianMixture {
            means: Tensor::zeros([b, 1, c, h, w], &device),
            log_weights: Tensor::zeros([b, 1, 1, h, w], &device),
            log_std: Tensor::zeros([b, 1, 1, 1, 1], &device),
        })
    }

    fn null_class(&self) -> Option<usize> {
        self.null_class
    }
}

/// Whether log weights `[b k 1 h w]` are logits that are still to be normalised. The first pixels of the first sample tell: logits that add up
/// to 1 in all of them are weights.
fn are_logits(log_weights: &Array) -> PyResult<bool> {
    /// Pixels that are looked at.
    const PIXELS: usize = 64;
    /// How far the logarithm of a sum of weights in 16 bits is from 0 at most.
    const NEAR: f32 = 1e-4;
    let [_, k, _, h, w] = log_weights.dims()?;
    let n = h * w;
    let mut sums = [0.0f32; PIXELS];
    for row in log_weights.values().chunks(n).take(k) {
        sums.iter_mut().zip(row).for_each(|(sum, log_weight)| *sum += log_weight.exp());
    }
    Ok(!sums[..PIXELS.min(n)].iter().all(|sum| sum.ln().abs() < NEAR))
}

/// The mixture with normalised weights.
fn normalised(mixture: GaussianMixture) -> GaussianMixture {
    let [b, k, _, h, w] = mixture.log_weights.dims();
    let log_weights = log_softmax(mixture.log_weights.reshape([b, k, h * w])).reshape([b, k, 1, h, w]);
    GaussianMixture { log_weights, ..mixture }
}

/// A mixture from a tuple of arrays, whose numbers are finite: means `[b k c h w]`, logweights `[b k 1 h w]`, logstds `[b 1 1 1 1]` or with
/// full axes k, h, w.
pub fn finite_mixture(parts: &Bound<'_, PyAny>) -> PyResult<GaussianMixture> {
    let arrays = arrays(parts)?;
    for array in &arrays {
        array.expect_finite()?;
    }
    of_arrays(arrays)
}

/// The same with normalised weights, where they are logits, but that its means, which are most of the numbers, may be anything: those that are
/// not finite are seen in the samples.
fn mixture(parts: &Bound<'_, PyAny>) -> PyResult<GaussianMixture> {
    let arrays = arrays(parts)?;
    let [_, log_weights, log_std] = &arrays;
    log_weights.expect_finite()?;
    log_std.expect_finite()?;
    let logits = are_logits(log_weights)?;
    let mixture = of_arrays(arrays)?;
    Ok(if logits { normalised(mixture) } else { mixture })
}

fn of_arrays([means, log_weights, log_std]: [Array; 3]) -> PyResult<GaussianMixture> {
    Ok(GaussianMixture { means: means.tensor()?, log_weights: log_weights.tensor()?, log_std: log_std.tensor()? })
}

fn arrays(parts: &Bound<'_, PyAny>) -> PyResult<[Array; 3]> {
    let (means, log_weights, log_std): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) = parts.extract()?;
    let means = Array::new("means", &means)?;
    let [b, k, c, h, w] = means.dims()?;
    if b * k * c * h * w == 0 {
        return Err(error::new("ShapeError", format!("means: expected no empty axis, got {:?}", means.shape())));
    }
    let log_weights = Array::new("logweights", &log_weights)?;
    log_weights.expect(&[b, k, 1, h, w])?;
    let log_std = Array::new("logstds", &log_std)?;
    let of_std: [usize; 5] = log_std.dims()?;
    let full = [b, k, 1, h, w];
    let fits = of_std[0] == b && of_std.iter().zip(full).all(|(&got, full)| got == 1 || got == full);
    if !fits {
        return Err(error::of(gmflow::Error::shape("logstds", [b, 1, 1, 1, 1], of_std)));
    }
    Ok([means, log_weights, log_std])
}
