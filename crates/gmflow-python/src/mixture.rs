//! What is known of mixtures in closed form, on arrays.
//!
//! A mixture is a tuple of arrays: means `[b k c h w]`, logweights `[b k 1 h w]`, logstds `[b 1 1 1 1]`.

use crate::array::{Array, Buffer};
use crate::error;
use crate::function::finite_mixture as read;
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::mixture::spectral::Bases;
use gmflow::mixture::{DataMixture, GaussianMixture, IsoGaussian, VelocityMixture};
use gmflow::rng::{self, Purpose};
use pyo3::prelude::*;

/// A mixture as arrays.
type Parts = (Buffer, Buffer, Buffer);

/// Adds the functions.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(mixture_check, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_mean, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_surrogate, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_covariance, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_log_prob, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_sample, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_entropy, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_kl, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_to_data, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_at, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_conflate, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_product, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_tempered, module)?)?;
    module.add_function(wrap_pyfunction!(mixture_transport, module)?)
}

fn parts(GaussianMixture { means, log_weights, log_std }: GaussianMixture) -> PyResult<Parts> {
    Ok((Buffer::of(means)?, Buffer::of(log_weights)?, Buffer::of(log_std)?))
}

/// An array of shape `[b c h w]`, as the mixture's.
fn image(what: &'static str, array: &Bound<'_, PyAny>, mixture: &GaussianMixture) -> PyResult<Tensor<4>> {
    let [b, _, c, h, w] = mixture.means.dims();
    let array = Array::new(what, array)?;
    array.expect(&[b, c, h, w])?;
    array.finite_tensor()
}

/// An array of shape `[b n c h w]`, as the mixture's.
fn draws(what: &'static str, array: &Bound<'_, PyAny>, mixture: &GaussianMixture) -> PyResult<Tensor<5>> {
    let [b, _, c, h, w] = mixture.means.dims();
    let array = Array::new(what, array)?;
    let n = array.dims::<5>()?[1];
    array.expect(&[b, n, c, h, w])?;
    array.finite_tensor()
}

/// Refuses what is no mixture.
#[pyfunction]
fn mixture_check(mixture: Bound<'_, PyAny>) -> PyResult<()> {
    read(&mixture).map(|_| ())
}

/// The mean `[b c h w]`, (11); with every weight raised to `power`.
#[pyfunction]
fn mixture_mean(py: Python<'_>, mixture: Bound<'_, PyAny>, power: f64) -> PyResult<Buffer> {
    let mixture = read(&mixture)?;
    Buffer::of(py.detach(|| if power == 1.0 { mixture.mean() } else { mixture.mean_with_power(power) }))
}

/// The mean `[b c h w]` and the variance `[b 1 h w]` of the isotropic Gaussian with the mixture's moments, (11), (12).
#[pyfunction]
fn mixture_surrogate(py: Python<'_>, mixture: Bound<'_, PyAny>) -> PyResult<(Buffer, Buffer)> {
    let mixture = read(&mixture)?;
    let IsoGaussian { mean, var } = py.detach(|| mixture.to_iso_gaussian());
    Ok((Buffer::of(mean)?, Buffer::of(var)?))
}

/// The covariance `[b h w c c]`.
#[pyfunction]
fn mixture_covariance(py: Python<'_>, mixture: Bound<'_, PyAny>) -> PyResult<Buffer> {
    let mixture = read(&mixture)?;
    Buffer::of(py.detach(|| mixture.covariance()))
}

/// The log density `[b n h w]` at samples `[b n c h w]`.
#[pyfunction]
fn mixture_log_prob(py: Python<'_>, mixture: Bound<'_, PyAny>, samples: Bound<'_, PyAny>) -> PyResult<Buffer> {
    let mixture = read(&mixture)?;
    let samples = draws("samples", &samples, &mixture)?;
    Buffer::of(py.detach(|| mixture.log_prob(&samples)))
}

/// Draws `[b n c h w]`, `n` for each sample of the batch: a function of its seed and the draw's number.
#[pyfunction]
fn mixture_sample(py: Python<'_>, mixture: Bound<'_, PyAny>, seeds: Vec<u64>, n: usize) -> PyResult<Buffer> {
    let mixture = read(&mixture)?;
    let [b, _, c, h, w] = mixture.means.dims();
    if seeds.len() != b {
        return Err(error::of(gmflow::Error::shape("seeds", [b], [seeds.len()])));
    }
    if n == 0 {
        return Err(error::of(gmflow::Error::config("n", "at least 1", n)));
    }
    Buffer::of(py.detach(|| {
        let device = Device::flex();
        let draw = |index: usize| {
            let uniform = |&seed: &u64| rng::uniforms(seed, Purpose::Component, index as u64, h * w);
            let uniforms: Vec<f32> = seeds.iter().flat_map(uniform).collect();
            let uniforms = Tensor::from_data(TensorData::new(uniforms, [b, 1, h, w]), &device);
            let normals = rng::normal_batch(&seeds, Purpose::WithinComponent, index as u64, [c, h, w], &device);
            mixture.sample(&uniforms, &normals).unsqueeze_dim::<5>(1) // [b 1 c h w]
        };
        Tensor::cat((0..n).map(draw).collect(), 1)
    }))
}

/// The entropy `[b 1 h w]`, estimated from draws `[b n c h w]`.
#[pyfunction]
fn mixture_entropy(py: Python<'_>, mixture: Bound<'_, PyAny>, samples: Bound<'_, PyAny>) -> PyResult<Buffer> {
    let mixture = read(&mixture)?;
    let samples = draws("samples", &samples, &mixture)?;
    Buffer::of(py.detach(|| mixture.entropy(&samples)))
}

/// The Kullback-Leibler divergence `[b 1 h w]` from another mixture, estimated from draws `[b n c h w]` of the first.
#[pyfunction]
fn mixture_kl(
    py: Python<'_>,
    mixture: Bound<'_, PyAny>,
    other: Bound<'_, PyAny>,
    samples: Bound<'_, PyAny>,
) -> PyResult<Buffer> {
    let (mixture, other) = (read(&mixture)?, read(&other)?);
    let samples = draws("samples", &samples, &mixture)?;
    draws_fit(&other, &mixture)?;
    Buffer::of(py.detach(|| mixture.kl_divergence(&other, &samples)))
}

/// Whether another mixture has the same batch, channels and pixels.
fn draws_fit(other: &GaussianMixture, mixture: &GaussianMixture) -> PyResult<()> {
    let [b, _, c, h, w] = mixture.means.dims();
    let k = other.means.dims()[1];
    match other.means.dims() == [b, k, c, h, w] {
        true => Ok(()),
        false => Err(error::of(gmflow::Error::shape("means of the other", [b, k, c, h, w], other.means.dims()))),
    }
}

/// A mixture over the velocity at `x_t` `[b c h w]` and times `[b]` as one over the data.
#[pyfunction]
fn mixture_to_data(
    py: Python<'_>,
    mixture: Bound<'_, PyAny>,
    x_t: Bound<'_, PyAny>,
    t: Bound<'_, PyAny>,
) -> PyResult<Parts> {
    let mixture = read(&mixture)?;
    let x_t = image("x_t", &x_t, &mixture)?;
    let t = Array::new("t", &t)?;
    t.expect(&[x_t.dims()[0]])?;
    let t = t.finite_tensor()?;
    parts(py.detach(|| VelocityMixture(mixture).to_data(&x_t, &t).0))
}

/// The posterior of x0 at the point `to` and the time `tau`, of a mixture that was predicted at `x_t` and `t`, (10).
#[pyfunction]
fn mixture_at(
    py: Python<'_>,
    mixture: Bound<'_, PyAny>,
    start: (Bound<'_, PyAny>, f64),
    end: (Bound<'_, PyAny>, f64),
) -> PyResult<Parts> {
    let mixture = read(&mixture)?;
    let (x_t, x) = (image("x_t", &start.0, &mixture)?, image("x", &end.0, &mixture)?);
    let (t, tau) = (start.1, end.1);
    if !(t > 0.0 && t <= 1.0) {
        return Err(error::of(gmflow::Error::config("t", "a time in (0, 1]", t)));
    }
    if !(tau >= 0.0 && tau <= t) {
        return Err(error::of(gmflow::Error::config("tau", format!("a time in [0, {t}]"), tau)));
    }
    parts(py.detach(|| DataMixture(mixture).at((&x_t, t), (&x, tau)).0))
}

/// The mixture m with m^power = mixture^power times the Gaussian (mean `[b c h w]`, variance `[b 1 h w]`)^gaussian_power, (43)-(50).
#[pyfunction]
fn mixture_conflate(
    py: Python<'_>,
    mixture: Bound<'_, PyAny>,
    gaussian: (Bound<'_, PyAny>, Bound<'_, PyAny>),
    power: f64,
    gaussian_power: f64,
) -> PyResult<Parts> {
    let mixture = read(&mixture)?;
    let mean = image("mean", &gaussian.0, &mixture)?;
    let var = Array::new("variance", &gaussian.1)?;
    let ([b, _, h, w], of_var) = (mean.dims(), var.dims::<4>()?);
    if of_var != [b, 1, h, w] && of_var != [b, 1, 1, 1] {
        return Err(error::of(gmflow::Error::shape("variance", [b, 1, h, w], of_var)));
    }
    if let Some(wrong) = var.values().iter().find(|&&var| !(var > 0.0 && var.is_finite())) {
        return Err(error::of(gmflow::Error::config("variance", "positive numbers", wrong)));
    }
    if !(power > 0.0 && power.is_finite() && gaussian_power.is_finite()) {
        return Err(error::of(gmflow::Error::config("power", "a number above 0", power)));
    }
    let gaussian = IsoGaussian { mean, var: var.tensor()? };
    parts(py.detach(|| mixture.conflate(&gaussian, power, gaussian_power)))
}

/// The product with another mixture, renormalised.
#[pyfunction]
fn mixture_product(py: Python<'_>, mixture: Bound<'_, PyAny>, other: Bound<'_, PyAny>) -> PyResult<Parts> {
    let (mixture, other) = (read(&mixture)?, read(&other)?);
    draws_fit(&other, &mixture)?;
    parts(py.detach(|| mixture.product(&other)))
}

/// The mixture at a temperature in (0, 1].
#[pyfunction]
fn mixture_tempered(py: Python<'_>, mixture: Bound<'_, PyAny>, temperature: f64) -> PyResult<Parts> {
    let mixture = read(&mixture)?;
    if !(temperature > 0.0 && temperature <= 1.0) {
        return Err(error::of(gmflow::Error::config("temperature", "a number in (0, 1]", temperature)));
    }
    parts(py.detach(|| mixture.tempered(temperature)))
}

/// The Knothe-Rosenblatt transport of values `[b c h w]`: standard normals to points of the mixture, or back where `inverse` says so. The
/// basis is one of each sample, or of each pixel.
#[pyfunction]
fn mixture_transport(
    py: Python<'_>,
    mixture: Bound<'_, PyAny>,
    values: Bound<'_, PyAny>,
    inverse: bool,
    per_pixel: bool,
) -> PyResult<Buffer> {
    let mixture = read(&mixture)?;
    let values = image("values", &values, &mixture)?;
    let bases = if per_pixel { Bases::PerPixel } else { Bases::Shared };
    let moved = py.detach(|| match inverse {
        false => mixture.from_normals(&values, bases),
        true => mixture.to_normals(&values, bases),
    });
    moved.map_err(error::of).and_then(Buffer::of)
}
