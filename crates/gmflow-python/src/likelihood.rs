//! The likelihood of a mixture and its gradient, for PyTorch's own differentiation, and what the spectral loss is made of.

use crate::array::{Array, Buffer};
use crate::error;
use crate::function::finite_mixture as read;
use gmflow::loss::host::{self, NllInputs, TransitionInputs};
use gmflow::mixture::spectral::Bases;
use pyo3::prelude::*;

/// Adds the functions.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(nll, module)?)?;
    module.add_function(wrap_pyfunction!(nll_gradient, module)?)?;
    module.add_function(wrap_pyfunction!(transition_nll, module)?)?;
    module.add_function(wrap_pyfunction!(transition_nll_gradient, module)?)?;
    module.add_function(wrap_pyfunction!(spectral_power, module)?)
}

/// The arrays of a likelihood: means `[b k c h w]`, logweights `[b k 1 h w]`, logstds `[b 1 1 1 1]`, target `[b c h w]`.
struct Arrays {
    means: Array,
    log_weights: Array,
    /// Bounded.
    log_std: Vec<f32>,
    /// Its derivative with respect to what was given.
    slopes: Vec<f32>,
    target: Array,
    dims: [usize; 5],
}

impl Arrays {
    fn new(arrays: [Bound<'_, PyAny>; 4]) -> PyResult<Self> {
        let [means, log_weights, log_std, target] = arrays;
        let means = Array::new("means", &means)?;
        let dims = means.dims()?;
        let [b, k, c, h, w] = dims;
        let log_weights = Array::new("logweights", &log_weights)?;
        log_weights.expect(&[b, k, 1, h, w])?;
        let log_std = Array::new("logstds", &log_std)?;
        log_std.expect(&[b, 1, 1, 1, 1])?;
        let target = Array::new("target", &target)?;
        target.expect(&[b, c, h, w])?;
        let (log_std, slopes) = log_std.values().iter().map(|&log_std| host::bounded_log_std(log_std)).unzip();
        Ok(Self { means, log_weights, log_std, slopes, target, dims })
    }

    fn inputs(&self) -> NllInputs<'_> {
        let [b, k, c, h, w] = self.dims;
        NllInputs {
            means: self.means.values(),
            log_weights: self.log_weights.values(),
            log_std: &self.log_std,
            target: self.target.values(),
            dims: [b, k, c, h * w],
        }
    }
}

/// -log q(target) `[b h w]` without the constant C/2 log(2 pi), (6), with a bounded standard deviation.
#[pyfunction]
fn nll(py: Python<'_>, arrays: [Bound<'_, PyAny>; 4]) -> PyResult<Buffer> {
    let arrays = Arrays::new(arrays)?;
    let values = py.detach(|| host::nll(arrays.inputs())).map_err(error::of)?;
    let [b, _, _, h, w] = arrays.dims;
    Ok(Buffer::floats(values, &[b, h, w]))
}

/// The gradients of [`nll`], whose result is `result`, in the shapes of the arrays, from that of the result, both `[b h w]`.
#[pyfunction]
fn nll_gradient(
    py: Python<'_>,
    arrays: [Bound<'_, PyAny>; 4],
    result: Bound<'_, PyAny>,
    gradient: Bound<'_, PyAny>,
) -> PyResult<(Buffer, Buffer, Buffer, Buffer)> {
    let arrays = Arrays::new(arrays)?;
    let [b, k, c, h, w] = arrays.dims;
    let result = Array::new("result", &result)?;
    result.expect(&[b, h, w])?;
    let gradient = Array::new("gradient", &gradient)?;
    gradient.expect(&[b, h, w])?;
    let of = py.detach(|| host::nll_gradient(arrays.inputs(), result.values(), gradient.values()));
    let mut of = of.map_err(error::of)?;
    of.log_std.iter_mut().zip(&arrays.slopes).for_each(|(of_std, slope)| *of_std *= slope);
    Ok((
        Buffer::floats(of.means, &[b, k, c, h, w]),
        Buffer::floats(of.log_weights, &[b, k, 1, h, w]),
        Buffer::floats(of.log_std, &[b, 1, 1, 1, 1]),
        Buffer::floats(of.target, &[b, c, h, w]),
    ))
}

/// The arrays of a transition: means `[b k c h w]`, logweights `[b k 1 h w]`, logstds `[b 1 1 1 1]`, x_lo and x_hi `[b c h w]`, t_lo and
/// t_hi `[b]`.
struct TransitionArrays {
    arrays: [Array; 7],
    dims: [usize; 5],
}

impl TransitionArrays {
    fn new(arrays: [Bound<'_, PyAny>; 7]) -> PyResult<Self> {
        let [means, log_weights, log_std, x_lo, x_hi, t_lo, t_hi] = arrays;
        let means = Array::new("means", &means)?;
        let dims = means.dims()?;
        let [b, k, c, h, w] = dims;
        let array = |what, array: Bound<'_, PyAny>, shape: &[usize]| {
            let array = Array::new(what, &array)?;
            array.expect(shape).map(|()| array)
        };
        let arrays = [
            array("logweights", log_weights, &[b, k, 1, h, w])?,
            array("logstds", log_std, &[b, 1, 1, 1, 1])?,
            array("x_lo", x_lo, &[b, c, h, w])?,
            array("x_hi", x_hi, &[b, c, h, w])?,
            array("t_lo", t_lo, &[b])?,
            array("t_hi", t_hi, &[b])?,
        ];
        let [log_weights, log_std, x_lo, x_hi, t_lo, t_hi] = arrays;
        Ok(Self { arrays: [means, log_weights, log_std, x_lo, x_hi, t_lo, t_hi], dims })
    }

    fn inputs(&self) -> TransitionInputs<'_> {
        let [b, k, c, h, w] = self.dims;
        let [means, log_weights, log_std, x_lo, x_hi, t_lo, t_hi] = self.arrays.each_ref().map(Array::values);
        TransitionInputs { means, log_weights, log_std, x_lo, x_hi, t_lo, t_hi, dims: [b, k, c, h * w] }
    }
}

/// -log q(x_lo | x_hi) `[b h w]` of the reverse transition (9), without the constant C/2 log(2 pi).
#[pyfunction]
fn transition_nll(py: Python<'_>, arrays: [Bound<'_, PyAny>; 7]) -> PyResult<Buffer> {
    let arrays = TransitionArrays::new(arrays)?;
    let values = py.detach(|| host::transition_nll(arrays.inputs())).map_err(error::of)?;
    let [b, _, _, h, w] = arrays.dims;
    Ok(Buffer::floats(values, &[b, h, w]))
}

/// The gradients of [`transition_nll`] in the shapes of the arrays, but for the times, from that of its result `[b h w]`.
#[pyfunction]
fn transition_nll_gradient(
    py: Python<'_>,
    arrays: [Bound<'_, PyAny>; 7],
    gradient: Bound<'_, PyAny>,
) -> PyResult<(Buffer, Buffer, Buffer, Buffer, Buffer)> {
    let arrays = TransitionArrays::new(arrays)?;
    let [b, k, c, h, w] = arrays.dims;
    let gradient = Array::new("gradient", &gradient)?;
    gradient.expect(&[b, h, w])?;
    let of = py.detach(|| host::transition_nll_gradient(arrays.inputs(), gradient.values()));
    let of = of.map_err(error::of)?;
    Ok((
        Buffer::floats(of.means, &[b, k, c, h, w]),
        Buffer::floats(of.log_weights, &[b, k, 1, h, w]),
        Buffer::floats(of.log_std, &[b, 1, 1, 1, 1]),
        Buffer::floats(of.x_lo, &[b, c, h, w]),
        Buffer::floats(of.x_hi, &[b, c, h, w]),
    ))
}

/// The squared frequencies `[b c h w]` of the normals that data `[b c h w]` comes from under a mixture: what the spectral loss (20) compares a
/// power spectrum with.
#[pyfunction]
fn spectral_power(py: Python<'_>, mixture: Bound<'_, PyAny>, x0: Bound<'_, PyAny>) -> PyResult<Buffer> {
    let mixture = read(&mixture)?;
    let [b, _, c, h, w] = mixture.means.dims();
    let x0 = Array::new("x0", &x0)?;
    x0.expect(&[b, c, h, w])?;
    let x0 = x0.finite_tensor()?;
    py.detach(|| gmflow::loss::spectral_power(&mixture, &x0, Bases::Shared)).map_err(error::of).and_then(Buffer::of)
}
