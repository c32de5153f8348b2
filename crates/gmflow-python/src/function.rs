//! A Python function as a network.

use crate::array::{Array, Buffer};
use crate::error;
use burn::tensor::{Int, Tensor};
use gmflow::kernel::log_softmax;
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::Denoiser;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Calls `function(x, t, class_labels)` for a mixture over the velocity: `means` `[b k c h w]`, `logweights` `[b k 1 h w]` and `logstds`
/// `[b 1 1 1 1]`.
///
/// A network cannot fail. What the function raises is kept, nothing is called any more, and the predictions from there on mean nothing; who
/// samples asks [`Function::raised`] after every step.
pub struct Function {
    function: Py<PyAny>,
    /// The label for no class, where the function has classes.
    null_class: Option<usize>,
    raised: Mutex<Option<PyErr>>,
}

impl Function {
    /// `classes` is the number of classes.
    pub fn new(function: Py<PyAny>, classes: Option<usize>) -> Self {
        Self { function, null_class: classes, raised: Mutex::new(None) }
    }

    /// Whether the function has failed.
    pub fn has_failed(&self) -> bool {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What the function raised.
    pub fn raised(self) -> Option<PyErr> {
        self.raised.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn predict(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> PyResult<VelocityMixture> {
        let dims = x_t.dims();
        let class: Option<Vec<i64>> = class.map(|class| class.into_data().iter::<i64>().collect());
        let (x_t, t) = (Buffer::of(x_t)?, Buffer::of(t)?);
        let GaussianMixture { means, log_weights, log_std } = Python::attach(|py| {
            py.check_signals()?;
            mixture(&self.function.bind(py).call1((x_t, t, class))?)
        })?;
        let ([b, k, ..], [_, c, h, w]) = (means.dims(), dims);
        if means.dims() != [dims[0], k, c, h, w] {
            return Err(error::of(gmflow::Error::shape("means", [dims[0], k, c, h, w], means.dims())));
        }
        // Of any logits.
        let log_weights = log_softmax(log_weights.reshape([b, k, h * w])).reshape([b, k, 1, h, w]);
        Ok(VelocityMixture(GaussianMixture { means, log_weights, log_std }))
    }
}

impl Denoiser for Function {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        let blank = |x: &Tensor<4>| {
            let ([b, _, h, w], device) = (x.dims(), x.device());
            VelocityMixture(GaussianMixture {
                means: x.clone().unsqueeze_dim(1),
                log_weights: Tensor::zeros([b, 1, 1, h, w], &device),
                log_std: Tensor::zeros([b, 1, 1, 1, 1], &device),
            })
        };
        if self.has_failed() {
            return blank(&x_t);
        }
        match self.predict(x_t.clone(), t, class) {
            Ok(prediction) => prediction,
            Err(error) => {
                *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                blank(&x_t)
            }
        }
    }

    fn null_class(&self) -> Option<usize> {
        self.null_class
    }
}

/// A mixture from a tuple of arrays (means `[b k c h w]`, logweights `[b k 1 h w]`, logstds `[b 1 1 1 1]` or with full axes k, h, w), whose
/// numbers are finite.
pub fn mixture(parts: &Bound<'_, PyAny>) -> PyResult<GaussianMixture> {
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
    Ok(GaussianMixture {
        means: means.expect_finite()?.tensor()?,
        log_weights: log_weights.expect_finite()?.tensor()?,
        log_std: log_std.expect_finite()?.tensor()?,
    })
}
