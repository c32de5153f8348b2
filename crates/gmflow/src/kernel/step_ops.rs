//! The passes of a solver's step as operations of a backend, and the CPU backend's implementation. No gradients are recorded.

use super::guide::{GuidedParts, ShiftRule, guide};
use super::nll::Sizes;
use super::ops::{tensor, values};
use super::tilt::{self, ChangeRule, Mixture, OdeSubstep};
use super::transport::{Direction, covariances, transport};
use crate::mixture::transport::Axes;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, ExtensionType, Flex, TensorMetadata, backend_extension};

/// Predicted mixtures and the shift of the mean that they are reweighted by.
#[derive(ExtensionType)]
pub struct Shifted<B: Backend> {
    /// Over the velocity, of `b` samples or more: `[b k c h w]`.
    pub means: FloatTensor<B>,
    /// `[b k 1 h w]`.
    pub log_weights: FloatTensor<B>,
    /// `[b 1 1 1 1]`.
    pub log_std: FloatTensor<B>,
    /// Components over x0 have the means origin - t u, `[b c h w]`.
    pub origin: FloatTensor<B>,
    /// The mean over x0 `[b c h w]`.
    pub mean: FloatTensor<B>,
    /// The variance averaged over pixels `[b 1 1 1]`.
    pub var: FloatTensor<B>,
    /// `[b c h w]`; nothing where there is none.
    pub shift: FloatTensor<B>,
    /// The mean square of the shift `[b 1 1 1]`.
    pub power: FloatTensor<B>,
    /// When the velocities were predicted.
    pub t: f32,
    /// Whether a shift is divided by the pixel's own variance along it, and not by `var`.
    pub pixelwise: bool,
}

/// The passes; see [`super::tilt`].
#[allow(clippy::type_complexity, reason = "the macro reads the tuples of tensors that methods return")]
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait StepOps: Backend {
    /// From velocities `[b k c h w]`, `[b k 1 h w]`, `[b 1 1 1 1]`, with guidance of the doubled batch, at `x` `[b c h w]`: mean over
    /// x0, variance, shift and its mean square, as in [`Shifted`].
    fn step_guide(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        x: FloatTensor<Self>,
        t: f32,
        rule: ShiftRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// The second-order change since `before`, alone or with the shift of `now`, and its mean square.
    fn step_second_order(
        #[extension_type] now: Shifted<Self>,
        x: FloatTensor<Self>,
        #[extension_type] before: Shifted<Self>,
        x_before: FloatTensor<Self>,
        rule: ChangeRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// The samples after all sub-steps from `x`.
    fn step_ode(
        #[extension_type] mixture: Shifted<Self>,
        x: FloatTensor<Self>,
        substeps: Vec<OdeSubstep>,
    ) -> FloatTensor<Self>;
    /// Means, log weights and log standard deviations of the reweighted mixtures, the last for each pixel where it goes by pixels.
    fn step_reweighted(
        #[extension_type] mixture: Shifted<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
    /// The covariances `[b c c]` of mixtures, averaged over pixels.
    fn step_covariances(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    /// The transport of `values` `[b c h w]` along `bases` `[b c c]`.
    fn step_transport(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bases: FloatTensor<Self>,
        axes: Axes,
        direction: Direction,
    ) -> FloatTensor<Self>;
}

type Tensor = FloatTensor<Flex>;

impl Shifted<Flex> {
    fn contiguous(self) -> Self {
        Self {
            means: self.means.to_contiguous(),
            log_weights: self.log_weights.to_contiguous(),
            log_std: self.log_std.to_contiguous(),
            origin: self.origin.to_contiguous(),
            mean: self.mean.to_contiguous(),
            var: self.var.to_contiguous(),
            shift: self.shift.to_contiguous(),
            power: self.power.to_contiguous(),
            t: self.t,
            pixelwise: self.pixelwise,
        }
    }

    fn borrow(&self) -> tilt::Shifted<'_> {
        tilt::Shifted {
            velocity: Mixture {
                means: values(&self.means),
                log_weights: values(&self.log_weights),
                log_std: values(&self.log_std),
            },
            origin: values(&self.origin),
            t: self.t,
            mean: values(&self.mean),
            shift: values(&self.shift),
            var: values(&self.var),
            power: values(&self.power),
            pixelwise: self.pixelwise,
        }
    }
}

/// Components, channels and pixels of `[b k c h w]`.
fn sizes(means: &Tensor) -> Sizes {
    let shape = means.shape();
    Sizes { k: shape[1], c: shape[2], n: shape[3] * shape[4] }
}

impl StepOps for Flex {
    fn step_guide(
        means: Tensor,
        log_weights: Tensor,
        log_std: Tensor,
        x: Tensor,
        t: f32,
        rule: ShiftRule,
    ) -> (Tensor, Tensor, Tensor, Tensor) {
        let [means, log_weights, log_std, x] = [means, log_weights, log_std, x].map(|x| x.to_contiguous());
        let (sizes, shape) = (sizes(&means), x.shape().to_vec());
        let velocity =
            Mixture { means: values(&means), log_weights: values(&log_weights), log_std: values(&log_std) };
        let GuidedParts { mean, shift, var, power } = guide(velocity, values(&x), sizes, t, rule);
        let per_sample = [shape[0], 1, 1, 1];
        let of_shift = if shift.is_empty() { vec![0; 4] } else { shape.clone() };
        (tensor(mean, shape), tensor(var, per_sample), tensor(shift, of_shift), tensor(power, per_sample))
    }

    fn step_second_order(
        now: Shifted<Self>,
        x: Tensor,
        before: Shifted<Self>,
        x_before: Tensor,
        rule: ChangeRule,
    ) -> (Tensor, Tensor) {
        let (now, before) = (now.contiguous(), before.contiguous());
        let (x, x_before) = (x.to_contiguous(), x_before.to_contiguous());
        let (now_at, before_at) = ((now.borrow(), values(&x)), (before.borrow(), values(&x_before)));
        let (shift, power) = tilt::second_order(now_at, before_at, sizes(&now.means), rule);
        (tensor(shift, x.shape().to_vec()), tensor(power, now.var.shape().to_vec()))
    }

    fn step_ode(mixture: Shifted<Self>, x: Tensor, substeps: Vec<OdeSubstep>) -> Tensor {
        let (mixture, x) = (mixture.contiguous(), x.to_contiguous());
        let shape = x.shape().to_vec();
        tensor(tilt::ode_substeps(mixture.borrow(), values(&x), sizes(&mixture.means), &substeps), shape)
    }

    fn step_reweighted(mixture: Shifted<Self>) -> (Tensor, Tensor, Tensor) {
        let mixture = mixture.contiguous();
        let (Sizes { k, c, .. }, x) = (sizes(&mixture.means), mixture.mean.shape());
        let [means, log_weights, log_std] = tilt::reweighted(mixture.borrow(), sizes(&mixture.means));
        let [b, h, w] = [x[0], x[2], x[3]];
        let of_std = if log_std.len() == b { [b, 1, 1, 1, 1] } else { [b, 1, 1, h, w] };
        (tensor(means, [b, k, c, h, w]), tensor(log_weights, [b, k, 1, h, w]), tensor(log_std, of_std))
    }

    fn step_covariances(means: Tensor, log_weights: Tensor, log_std: Tensor) -> Tensor {
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(|x| x.to_contiguous());
        let sizes = sizes(&means);
        let mixture = Mixture { means: values(&means), log_weights: values(&log_weights), log_std: values(&log_std) };
        tensor(covariances(mixture, sizes), [means.shape()[0], sizes.c, sizes.c])
    }

    fn step_transport(
        means: Tensor,
        log_weights: Tensor,
        log_std: Tensor,
        from: Tensor,
        bases: Tensor,
        axes: Axes,
        direction: Direction,
    ) -> Tensor {
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(|x| x.to_contiguous());
        let [from, bases] = [from, bases].map(|x| x.to_contiguous());
        let mixture = Mixture { means: values(&means), log_weights: values(&log_weights), log_std: values(&log_std) };
        let mapped = transport(mixture, values(&from), values(&bases), sizes(&means), axes, direction);
        tensor(mapped, from.shape().to_vec())
    }
}

/// The same without autodiff.
fn inner<B: Backend, C: CheckpointStrategy>(mixture: Shifted<Autodiff<B, C>>) -> Shifted<B> {
    let Shifted { means, log_weights, log_std, origin, mean, var, shift, power, t, pixelwise } = mixture;
    let [means, log_weights, log_std, origin] = [means, log_weights, log_std, origin].map(Autodiff::<B, C>::inner);
    let [mean, var, shift, power] = [mean, var, shift, power].map(Autodiff::<B, C>::inner);
    Shifted { means, log_weights, log_std, origin, mean, var, shift, power, t, pixelwise }
}

impl<B: StepOps, C: CheckpointStrategy> StepOps for Autodiff<B, C> {
    fn step_guide(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        x: FloatTensor<Self>,
        t: f32,
        rule: ShiftRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let [means, log_weights, log_std, x] = [means, log_weights, log_std, x].map(Self::inner);
        let (mean, var, shift, power) = B::step_guide(means, log_weights, log_std, x, t, rule);
        let [mean, var, shift, power] = [mean, var, shift, power].map(Self::from_inner);
        (mean, var, shift, power)
    }

    fn step_second_order(
        now: Shifted<Self>,
        x: FloatTensor<Self>,
        before: Shifted<Self>,
        x_before: FloatTensor<Self>,
        rule: ChangeRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let [x, x_before] = [x, x_before].map(Self::inner);
        let (shift, power) = B::step_second_order(inner(now), x, inner(before), x_before, rule);
        (Self::from_inner(shift), Self::from_inner(power))
    }

    fn step_ode(mixture: Shifted<Self>, x: FloatTensor<Self>, substeps: Vec<OdeSubstep>) -> FloatTensor<Self> {
        Self::from_inner(B::step_ode(inner(mixture), Self::inner(x), substeps))
    }

    fn step_reweighted(mixture: Shifted<Self>) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (means, log_weights, log_std) = B::step_reweighted(inner(mixture));
        (Self::from_inner(means), Self::from_inner(log_weights), Self::from_inner(log_std))
    }

    fn step_covariances(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(Self::inner);
        Self::from_inner(B::step_covariances(means, log_weights, log_std))
    }

    fn step_transport(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bases: FloatTensor<Self>,
        axes: Axes,
        direction: Direction,
    ) -> FloatTensor<Self> {
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(Self::inner);
        let [values, bases] = [values, bases].map(Self::inner);
        Self::from_inner(B::step_transport(means, log_weights, log_std, values, bases, axes, direction))
    }
}
