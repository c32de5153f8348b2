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

use super::{LOWEST, SHARPNESS, SMALLEST_STEP, SMALLEST_VARIANCE};
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

/// -log q(target) `[b n]` without the constant C/2 log(2 pi), (6). Unlike in [`nll`](super::nll), `log_std` is not bounded: see
/// [`bounded_log_std`].
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

/// The log standard deviation that losses are evaluated with, and its derivative: bounded from below at -10 with a smooth knee, so that a
/// network which is certain of everything gets a finite loss.
pub fn bounded_log_std(log_std: f32) -> (f32, f32) {
    let (value, slope) = bounded(f64::from(log_std));
    (value as f32, slope as f32)
}

/// [`bounded_log_std`] in f64.
fn bounded(log_std: f64) -> (f64, f64) {
    let x = SHARPNESS * (log_std - LOWEST);
    // log(1 + e^x), which is x from about here on.
    let softplus = if x > 30.0 { x } else { x.exp().ln_1p() };
    // 1/(1 + e^-x); far below it is 0 rather than 1/infinity.
    (LOWEST + softplus / SHARPNESS, 1.0 / (1.0 + (-x).exp()))
}

/// What the transition loss is computed from, the last axis fastest.
#[derive(Clone, Copy, Debug)]
pub struct TransitionInputs<'a> {
    /// Means of the velocity, predicted at (x_hi, t_hi), `[b k c n]`.
    pub means: &'a [f32],
    /// Log weights `[b k n]`.
    pub log_weights: &'a [f32],
    /// The log of the one standard deviation of a sample `[b]`, which is bounded here.
    pub log_std: &'a [f32],
    /// The sample at the earlier time `[b c n]`.
    pub x_lo: &'a [f32],
    /// The sample that the network has seen `[b c n]`.
    pub x_hi: &'a [f32],
    /// The earlier time `[b]`, in [0, t_hi].
    pub t_lo: &'a [f32],
    /// The later time `[b]`, in (0, 1].
    pub t_hi: &'a [f32],
    /// Samples b, components k, channels c and pixels n.
    pub dims: [usize; 4],
}

/// Gradients, in the order and shapes of [`TransitionInputs`]. There is none of times.
#[derive(Clone, Debug, PartialEq)]
pub struct TransitionGradient {
    /// `[b k c n]`.
    pub means: Vec<f32>,
    /// `[b k n]`.
    pub log_weights: Vec<f32>,
    /// `[b]`.
    pub log_std: Vec<f32>,
    /// `[b c n]`.
    pub x_lo: Vec<f32>,
    /// `[b c n]`.
    pub x_hi: Vec<f32>,
}

/// The numbers of a sample's transition.
struct Transition {
    /// What multiplies x_hi in the velocity that leads to x_lo.
    of_hi: f64,
    /// What multiplies x_lo there, and is subtracted.
    of_lo: f64,
    /// The log standard deviation of the velocity that leads to x_lo.
    log_std: f64,
    /// Its derivative with respect to that of the prediction.
    slope: f64,
    /// The logarithm of how far x_lo moves with the velocity.
    log_step: f64,
}

impl Transition {
    /// See [`transition_nll`](super::transition_nll).
    fn new(log_std: f32, t_lo: f32, t_hi: f32) -> Self {
        let (log_std, lo, hi) = (f64::from(log_std), f64::from(t_lo), f64::from(t_hi));
        let (alpha_lo, alpha_hi) = (1.0 - lo, 1.0 - hi);
        let a = if alpha_lo <= 0.0 { 1.0 } else { alpha_hi / alpha_lo };
        let r = lo / hi.max(f64::MIN_POSITIVE);
        let b = (1.0 - (r * a).powi(2)).max(0.0);
        let (c1, c2, c3) = (r * r * a, b * alpha_lo, b * lo * lo);
        let step = (c2 * hi).max(SMALLEST_STEP);
        let own = (2.0 * log_std).exp() * step * step;
        let var = own + c3.max(SMALLEST_VARIANCE);
        let (bounded, slope) = bounded(0.5 * var.ln());
        let log_step = step.ln();
        Self {
            of_hi: (c1 + c2) / step,
            of_lo: 1.0 / step,
            log_std: bounded - log_step,
            slope: slope * own / var,
            log_step,
        }
    }
}

/// What is handed on to the likelihood of the velocity.
struct Prepared {
    transitions: Vec<Transition>,
    log_std: Vec<f32>,
    target: Vec<f32>,
}

impl TransitionInputs<'_> {
    fn prepare(&self) -> Result<Prepared> {
        let [b, _, c, n] = self.dims;
        for (what, values, shape) in [
            ("log_std", self.log_std, &[b][..]),
            ("x_lo", self.x_lo, &[b, c, n]),
            ("x_hi", self.x_hi, &[b, c, n]),
            ("t_lo", self.t_lo, &[b]),
            ("t_hi", self.t_hi, &[b]),
        ] {
            expect(what, values, shape)?;
        }
        let times = self.t_lo.iter().zip(self.t_hi);
        let transitions: Vec<_> =
            self.log_std.iter().zip(times).map(|(&std, (&lo, &hi))| Transition::new(std, lo, hi)).collect();
        let log_std = transitions.iter().map(|transition| transition.log_std as f32).collect();
        let mut target = Vec::with_capacity(self.x_lo.len());
        let samples = self.x_lo.chunks((c * n).max(1)).zip(self.x_hi.chunks((c * n).max(1)));
        for ((lo, hi), transition) in samples.zip(&transitions) {
            let (of_hi, of_lo) = (transition.of_hi as f32, transition.of_lo as f32);
            target.extend(lo.iter().zip(hi).map(|(lo, hi)| hi * of_hi - lo * of_lo));
        }
        Ok(Prepared { transitions, log_std, target })
    }

    fn likelihood<'b>(&'b self, prepared: &'b Prepared) -> NllInputs<'b> {
        let Self { means, log_weights, dims, .. } = *self;
        NllInputs { means, log_weights, log_std: &prepared.log_std, target: &prepared.target, dims }
    }
}

/// -log q(x_lo | x_hi) `[b n]` of the reverse transition (9), without the constant C/2 log(2 pi): see
/// [`transition_nll`](super::transition_nll) of tensors.
///
/// # Errors
/// [`Error::Shape`] where there are not as many numbers as `dims` says.
pub fn transition_nll(inputs: TransitionInputs) -> Result<Vec<f32>> {
    let prepared = inputs.prepare()?;
    let mut values = nll(inputs.likelihood(&prepared))?;
    let [_, _, c, n] = inputs.dims;
    for (values, transition) in values.chunks_mut(n.max(1)).zip(&prepared.transitions) {
        let scale = (c as f64 * transition.log_step) as f32;
        values.iter_mut().for_each(|value| *value += scale);
    }
    Ok(values)
}

/// The gradients of [`transition_nll`] from the gradient of its result `[b n]`.
///
/// # Errors
/// As [`transition_nll`].
pub fn transition_nll_gradient(inputs: TransitionInputs, gradient: &[f32]) -> Result<TransitionGradient> {
    let prepared = inputs.prepare()?;
    let likelihood = inputs.likelihood(&prepared);
    // The likelihood of the velocity itself: what was added to it is too coarse to be subtracted again.
    let result = nll(likelihood)?;
    let NllGradient { means, log_weights, mut log_std, target } = nll_gradient(likelihood, &result, gradient)?;
    log_std.iter_mut().zip(&prepared.transitions).for_each(|(of_std, by)| *of_std *= by.slope as f32);
    let [_, _, c, n] = inputs.dims;
    let (mut x_lo, mut x_hi) = (target.clone(), target);
    let samples = x_lo.chunks_mut((c * n).max(1)).zip(x_hi.chunks_mut((c * n).max(1)));
    for ((lo, hi), transition) in samples.zip(&prepared.transitions) {
        lo.iter_mut().for_each(|value| *value *= -transition.of_lo as f32);
        hi.iter_mut().for_each(|value| *value *= transition.of_hi as f32);
    }
    Ok(TransitionGradient { means, log_weights, log_std, x_lo, x_hi })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixture::{GaussianMixture, VelocityMixture};
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
    fn the_transition_loss_and_its_gradients_are_those_of_tensors() {
        let [b, k, c, h, w] = [4, 3, 2, 3, 6];
        let draw = |index, n| normals(2, Purpose::Estimate, index, n);
        let (means, weights) = (draw(0, b * k * c * h * w), draw(1, b * k * h * w));
        let (x_lo, x_hi) = (draw(2, b * c * h * w), draw(3, b * c * h * w));
        let upstream = draw(4, b * h * w);
        // The last one is at the knee of the bound.
        let (log_std, t_lo, t_hi) = ([0.3, -1.0, -2.5, -9.9], [0.4, 0.0, 0.2, 0.0], [0.9, 0.7, 0.3, 0.9]);
        let device = Device::flex().autodiff();
        let tensor = |values: &[f32], shape: &[usize]| {
            Tensor::<5>::from_data(TensorData::new(values.to_vec(), shape.to_vec()), &device).require_grad()
        };
        let mixture = VelocityMixture(GaussianMixture {
            means: tensor(&means, &[b, k, c, h, w]),
            log_weights: tensor(&weights, &[b, k, 1, h, w]),
            log_std: tensor(&log_std, &[b, 1, 1, 1, 1]),
        });
        let [lo, hi] = [&x_lo, &x_hi].map(|x| tensor(x, &[b, 1, c, h, w]));
        let [at_lo, at_hi] = [t_lo, t_hi].map(|t| Tensor::<1>::from_data(TensorData::new(t.to_vec(), [b]), &device));
        let [flat_lo, flat_hi] = [&lo, &hi].map(|x| x.clone().squeeze_dim::<4>(1));
        let values = super::super::transition_nll(&mixture, (&flat_lo, &at_lo), (&flat_hi, &at_hi));
        let factor = Tensor::<3>::from_data(TensorData::new(upstream.clone(), [b, h, w]), &device);
        let mut gradients = (values.clone() * factor).sum().backward();

        let inputs = TransitionInputs {
            means: &means,
            log_weights: &weights,
            log_std: &log_std,
            x_lo: &x_lo,
            x_hi: &x_hi,
            t_lo: &t_lo,
            t_hi: &t_hi,
            dims: [b, k, c, h * w],
        };
        let near = Tolerance::relative(1e-4).set_absolute(2e-4);
        let data = |values: &[f32], shape: &[usize]| TensorData::new(values.to_vec(), shape.to_vec());
        let got = transition_nll(inputs).unwrap();
        data(&got, &[b, h, w]).assert_approx_eq::<f32>(&values.into_data(), near);
        let of = transition_nll_gradient(inputs, &upstream).unwrap();
        for (got, tensor) in [
            (of.means, &mixture.0.means),
            (of.log_weights, &mixture.0.log_weights),
            (of.log_std, &mixture.0.log_std),
            (of.x_lo, &lo),
            (of.x_hi, &hi),
        ] {
            let expected = tensor.grad_remove(&mut gradients).unwrap().into_data();
            data(&got, &tensor.dims()).assert_approx_eq::<f32>(&expected, near);
        }
        let wrong = transition_nll(TransitionInputs { t_lo: &[], ..inputs }).unwrap_err().to_string();
        assert_eq!(wrong, "t_lo: expected shape [4], got [0]");
    }

    #[test]
    fn the_bound_is_that_of_tensors() {
        for log_std in [-400.0f32, -50.0, -10.0, -9.5, -3.0, 0.0, 5.0] {
            let x = Tensor::<5>::full([1; 5], log_std, &Device::flex().autodiff()).require_grad();
            let bounded = super::super::bounded_log_std(&x);
            let gradient = x.grad(&bounded.clone().sum().backward()).unwrap().into_scalar::<f32>();
            let (value, slope) = bounded_log_std(log_std);
            assert!((value - bounded.into_scalar::<f32>()).abs() < 2e-6, "{log_std}: {value}");
            assert!((slope - gradient).abs() < 2e-6, "{log_std}: {slope} {gradient}");
        }
        assert!(bounded_log_std(f32::NAN).0.is_nan());
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
