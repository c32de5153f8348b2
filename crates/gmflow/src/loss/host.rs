//! The likelihood of mixtures and its gradient on numbers of the host, for programs with a differentiation of their own.
//!
//! ```
//! use gmflow::loss::host::{NllInputs, nll, nll_gradient};
//!
//! // One Gaussian with standard deviation 1 at one pixel of one channel: half the squared distance.
//! let inputs =
//!     NllInputs { means: &[1.0], log_weights: &[0.0], log_std: &[0.0], target: &[3.0], dims: [1, 1, 1, 1] };
//! let values = nll(inputs)?;
//! let gradient = nll_gradient(inputs, &values, &[1.0])?;
//! assert!((values[0] - 2.0).abs() < 1e-6 && (gradient.target[0] - 2.0).abs() < 1e-5);
//! # Ok::<(), gmflow::Error>(())
//! ```

use crate::kernel::mixture::nll as kernel;
use crate::kernel::mixture::sizes::Sizes;
use crate::{Error, Result};

/// What a likelihood is computed from, the last axis fastest.
#[derive(Clone, Copy, Debug)]
pub struct NllInputs<'a> {
    /// Component means `[b k c n]`.
    pub means: &'a [f32],
    /// Log weights `[b k n]`, which need not be normalised.
    pub log_weights: &'a [f32],
    /// The log of the one standard deviation of a sample `[b]`.
    pub log_std: &'a [f32],
    /// Where the likelihood is asked for `[b c n]`.
    pub target: &'a [f32],
    /// Samples b, components k, channels c and pixels n.
    pub dims: [usize; 4],
}

/// Gradients, in the order and shapes of [`NllInputs`].
#[derive(Clone, Debug, PartialEq)]
pub struct NllGradient {
    /// `[b k c n]`.
    pub means: Vec<f32>,
    /// `[b k n]`.
    pub log_weights: Vec<f32>,
    /// `[b]`.
    pub log_std: Vec<f32>,
    /// `[b c n]`.
    pub target: Vec<f32>,
}

impl<'a> NllInputs<'a> {
    fn of_kernel(&self) -> kernel::Inputs<'a> {
        let Self { means, log_weights, log_std, target, .. } = *self;
        kernel::Inputs { means, log_weights, log_std, target }
    }

    fn sizes(&self) -> Result<Sizes> {
        let [b, k, c, n] = self.dims;
        for (what, values, shape) in [
            ("means", self.means, &[b, k, c, n][..]),
            ("log_weights", self.log_weights, &[b, k, n]),
            ("log_std", self.log_std, &[b]),
            ("target", self.target, &[b, c, n]),
        ] {
            expect(what, values, shape)?;
        }
        Ok(Sizes { k, c, n })
    }
}

fn expect(what: &str, values: &[f32], shape: &[usize]) -> Result<()> {
    match values.len() == shape.iter().product::<usize>() {
        true => Ok(()),
        false => Err(Error::shape(what, shape, [values.len()])),
    }
}

/// -log q(target) `[b n]` without the constant C/2 log(2 pi), (6). Unlike in [`nll`](super::nll), `log_std` is not bounded.
///
/// # Errors
/// [`Error::Shape`] where there are not as many numbers as `dims` says.
pub fn nll(inputs: NllInputs) -> Result<Vec<f32>> {
    let sizes = inputs.sizes()?;
    Ok(kernel::nll(inputs.of_kernel(), sizes))
}

/// The gradients of [`nll`], whose result is `result` `[b n]`, from the gradient of it `[b n]`.
///
/// # Errors
/// As [`nll`].
pub fn nll_gradient(inputs: NllInputs, result: &[f32], gradient: &[f32]) -> Result<NllGradient> {
    let sizes = inputs.sizes()?;
    let [b, _, _, n] = inputs.dims;
    expect("result", result, &[b, n])?;
    expect("gradient", gradient, &[b, n])?;
    let kernel::Grads { means, log_weights, log_std, target } =
        kernel::nll_grad(inputs.of_kernel(), result, gradient, sizes);
    Ok(NllGradient { means, log_weights, log_std, target })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::GaussianMixture;
    use crate::rng::{Purpose, normals};
    use burn::tensor::{Device, Tensor, TensorData, Tolerance};

    #[test]
    fn values_and_gradients_are_those_of_tensors() {
        let [b, k, c, h, w] = [3, 4, 2, 5, 7];
        let draw = |index, n| normals(1, Purpose::Estimate, index, n);
        let (means, weights) = (draw(0, b * k * c * h * w), draw(1, b * k * h * w));
        let (target, upstream) = (draw(2, b * c * h * w), draw(3, b * h * w));
        let log_std = [0.3, -1.0, -2.5];
        let device = Device::flex().autodiff();
        let tensor = |values: &[f32], shape: &[usize]| {
            Tensor::<5>::from_data(TensorData::new(values.to_vec(), shape.to_vec()), &device).require_grad()
        };
        let mixture = GaussianMixture {
            means: tensor(&means, &[b, k, c, h, w]),
            log_weights: tensor(&weights, &[b, k, 1, h, w]),
            log_std: tensor(&log_std, &[b, 1, 1, 1, 1]),
        };
        let at = tensor(&target, &[b, 1, c, h, w]);
        let values = super::super::nll(&mixture, &at.clone().squeeze_dim::<4>(1));
        let factor = Tensor::<3>::from_data(TensorData::new(upstream.clone(), [b, h, w]), &device);
        let mut gradients = (values.clone() * factor).sum().backward();

        let dims = [b, k, c, h * w];
        let inputs = NllInputs { means: &means, log_weights: &weights, log_std: &log_std, target: &target, dims };
        let got = nll(inputs).unwrap();
        let near = Tolerance::relative(1e-4).set_absolute(1e-4);
        let data = |values: &[f32], shape: &[usize]| TensorData::new(values.to_vec(), shape.to_vec());
        data(&got, &[b, h, w]).assert_approx_eq::<f32>(&values.into_data(), near);
        let of = nll_gradient(inputs, &got, &upstream).unwrap();
        for (got, tensor) in [
            (of.means, &mixture.means),
            (of.log_weights, &mixture.log_weights),
            (of.log_std, &mixture.log_std),
            (of.target, &at),
        ] {
            let expected = tensor.grad_remove(&mut gradients).unwrap().into_data();
            data(&got, &tensor.dims()).assert_approx_eq::<f32>(&expected, near);
        }
    }

    #[test]
    fn a_component_that_explains_nothing_has_no_gradient() {
        // Two components of equal weight, the second so far away that its responsibility is about exp(-distance^2/2).
        let gradient = |distance: f32| {
            let (means, target) = ([0.0, distance], [0.0]);
            let inputs = NllInputs {
                means: &means,
                log_weights: &[0.0, 0.0],
                log_std: &[0.0],
                target: &target,
                dims: [1, 2, 1, 1],
            };
            let result = nll(inputs).unwrap();
            nll_gradient(inputs, &result, &[1e-5]).unwrap().means[1]
        };
        let expected = 1e-5 * 11.0 * (-60.5f32).exp();
        assert!((gradient(11.0) / expected - 1.0).abs() < 1e-3, "{}", gradient(11.0));
        assert_eq!(gradient(12.0), 0.0);
    }

    #[test]
    fn too_few_numbers_are_refused_by_name() {
        let inputs =
            NllInputs { means: &[1.0], log_weights: &[0.0], log_std: &[0.0], target: &[], dims: [1, 1, 1, 1] };
        let message = nll(inputs).unwrap_err().to_string();
        assert_eq!(message, "target: expected shape [1, 1, 1], got [0]");
        let inputs = NllInputs { target: &[1.0], ..inputs };
        assert!(nll_gradient(inputs, &[], &[1.0]).unwrap_err().to_string().starts_with("result: "));
    }
}
