//! Row-wise and mixture kernels with their own backward pass.
//!
//! Networks call the functions of this module on tensors that are flat (`[rows channels]`) or images. Each is one pass over memory or
//! one matrix product on the CPU, choosing its vector instructions at run time; results do not depend on the number of
//! threads. Gradients are of first order. On GPUs the same functions are kernels of one source for all kinds, around the tensor library's
//! matrix products and convolutions.

mod arch;
mod attention;
mod autodiff;
mod channels;
mod conv;
mod dense;
#[cfg(feature = "gpu")]
mod gpu;
mod group_norm;
mod guide;
mod image_ops;
mod int8;
mod lanes;
mod math;
mod memory;
mod mixture_ops;
mod nll;
mod ops;
mod optim;
mod optim_ops;
mod panel_tiles;
mod panels;
mod rows;
mod simd;
mod softmax;
mod step_ops;
#[cfg(test)]
mod tests;
mod tilt;
mod transport;
mod winograd;
mod winograd_tiles;

pub(crate) use guide::ShiftRule;
pub use memory::in_pool;
pub use optim::{AdamW, lerp, square_sums};
pub use panels::{Arithmetic, Panels};
pub(crate) use tilt::{ChangeRule, OdeSubstep, SMALLEST_LENGTH, SMALLEST_VAR};
pub(crate) use transport::Direction;

use crate::mixture::transport::Axes;
use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor};
use conv::Window;
use dense::Rows;
use image_ops::{GroupNormKind, ImageOps};
use mixture_ops::MixtureOps;
use ops::NetworkOps;
use rows::Unary;
use std::sync::Arc;
use step_ops::StepOps;

/// Whether tensors of this device are in the CPU's memory, where the row kernels work on them.
pub(crate) fn on_cpu(device: &Device) -> bool {
    #[cfg(feature = "gpu")]
    {
        let device = if device.is_autodiff() { device.clone().inner() } else { device.clone() };
        device == Device::flex()
    }
    #[cfg(not(feature = "gpu"))]
    {
        let _ = device;
        true
    }
}

/// Times are at least this, so that a velocity's logarithm of a standard deviation can be turned into that of x0.
const SHORTEST_TIME: f32 = 1e-6;

/// x W^T + bias for `x` `[rows in]`, `weight` `[out in]` and `bias` `[out]`.
///
/// # Panics
/// Where the sizes do not fit each other; so do the other functions of this module.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    linear_in(x, weight, bias, Arithmetic::F32)
}

/// [`linear`], and its gradients, in the arithmetic that is asked for; in f32 where the processor does not have it.
///
/// # Panics
/// As [`linear`].
pub fn linear_in(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, arithmetic: Arithmetic) -> Tensor<2> {
    affine(x, weight, bias, Rows::Together, arithmetic)
}

/// [`linear`] with a weight that was packed for it; a row's result does not depend on the others. No gradients are recorded.
///
/// # Panics
/// As [`linear`], and where the processor does not have the panels' arithmetic.
pub fn linear_packed(x: Tensor<2>, weight: &Arc<Panels>, bias: Tensor<1>) -> Tensor<2> {
    let y = <Dispatch as NetworkOps>::affine_packed(x.into_dispatch(), weight.clone(), bias.into_dispatch());
    Tensor::from_dispatch(y)
}

/// [`linear`] for a batch with one row per sample: a row's result does not depend on the others, to the last bit.
///
/// # Panics
/// As [`linear`].
pub fn linear_by_row(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    affine(x, weight, bias, Rows::Apart, Arithmetic::F32)
}

fn affine(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, rows: Rows, arithmetic: Arithmetic) -> Tensor<2> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NetworkOps>::affine(x, weight, bias, rows, arithmetic))
}

/// x sigmoid(x), element by element.
pub fn silu(x: Tensor<2>) -> Tensor<2> {
    unary(x, Unary::Silu)
}

/// The tanh approximation of GELU: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
pub fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    unary(x, Unary::GeluTanh)
}

/// Sine, element by element, for values up to 2^31.
pub fn sin(x: Tensor<2>) -> Tensor<2> {
    unary(x, Unary::Sin)
}

/// Cosine, element by element, for values up to 2^31.
pub fn cos(x: Tensor<2>) -> Tensor<2> {
    unary(x, Unary::Cos)
}

fn unary(x: Tensor<2>, kind: Unary) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as NetworkOps>::unary(x.into_dispatch(), kind))
}

/// LayerNorm without affine parameters over the channels of `x` `[b*n c]`, then (1 + scale) and shift `[b c]` of the
/// sample that the row belongs to.
pub fn modulate(x: Tensor<2>, shift: Tensor<2>, scale: Tensor<2>, eps: f64) -> Tensor<2> {
    let (x, shift, scale) = (x.into_dispatch(), shift.into_dispatch(), scale.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NetworkOps>::modulate(x, shift, scale, eps as f32))
}

/// x + gate y with `x`, `y` `[b*n c]` and the sample's `gate` `[b c]`.
pub fn gated_add(x: Tensor<2>, y: Tensor<2>, gate: Tensor<2>) -> Tensor<2> {
    let (x, y, gate) = (x.into_dispatch(), y.into_dispatch(), gate.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NetworkOps>::gated_add(x, y, gate))
}

/// Multi-head attention softmax(q k^T / sqrt(d)) v for `q`, `k`, `v` `[b*n heads*d]` of `batch` sequences.
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, batch: usize, heads: usize) -> Tensor<2> {
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(<Dispatch as NetworkOps>::multi_head_attention(q, k, v, batch, heads))
}

/// Log-softmax over the middle axis of `x` `[outer k inner]`.
pub fn log_softmax(x: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as NetworkOps>::plane_log_softmax(x.into_dispatch()))
}

/// -log sum_k exp(log_weights_k) N(target; means_k, s^2) without the constant c/2 log(2 pi), `[b n]`, for `means` `[b k*c n]`,
/// `log_weights` `[b k n]`, `log_std` `[b 1]` and `target` `[b c n]`, (6). Weights need not be normalised.
pub fn mixture_nll(means: Tensor<3>, log_weights: Tensor<3>, log_std: Tensor<2>, target: Tensor<3>) -> Tensor<2> {
    let (means, log_weights) = (means.into_dispatch(), log_weights.into_dispatch());
    let (log_std, target) = (log_std.into_dispatch(), target.into_dispatch());
    Tensor::from_dispatch(<Dispatch as MixtureOps>::mixture_nll(means, log_weights, log_std, target))
}

/// Predicted mixtures and the shift of their mean that they are reweighted by: what the passes of a solver's step work on. Nothing here
/// records gradients.
#[derive(Clone, Debug)]
pub(crate) struct Shifted {
    /// Over the velocity, of b samples or, where guidance doubled the batch, 2b: `[b k c h w]`.
    pub(crate) means: Tensor<5>,
    /// `[b k 1 h w]`.
    pub(crate) log_weights: Tensor<5>,
    /// `[b 1 1 1 1]`.
    pub(crate) log_std: Tensor<5>,
    /// Components over x0 have the means origin - t u, `[b c h w]`.
    pub(crate) origin: Tensor<4>,
    /// When the velocities were predicted.
    pub(crate) t: f32,
    /// The mean of the mixtures over x0 `[b c h w]`.
    pub(crate) mean: Tensor<4>,
    /// Their variance averaged over pixels `[b 1 1 1]`.
    pub(crate) var: Tensor<4>,
    /// `[b c h w]`, or nothing at all.
    pub(crate) shift: Tensor<4>,
    /// The mean square of the shift `[b 1 1 1]`.
    pub(crate) power: Tensor<4>,
    /// Whether a shift is divided by the pixel's own variance along it, and not by `var`.
    pub(crate) pixelwise: bool,
}

impl Shifted {
    /// Whether there are passes for mixtures of so many channels.
    pub(crate) fn has_passes(channels: usize) -> bool {
        channels::COMPILED.contains(&channels)
    }

    /// From velocities `[b k c h w]`, `[b k 1 h w]`, `[b 1 1 1 1]` at `x` `[b c h w]` and t; with guidance they are those of the doubled
    /// batch [conditional, unconditional].
    pub(crate) fn guided(
        [means, log_weights, log_std]: [Tensor<5>; 3],
        x: &Tensor<4>,
        t: f32,
        rule: ShiftRule,
    ) -> Self {
        let t = t.max(SHORTEST_TIME);
        let (mean, var, shift, power) = <Dispatch as StepOps>::step_guide(
            means.clone().into_dispatch(),
            log_weights.clone().into_dispatch(),
            log_std.clone().into_dispatch(),
            x.clone().into_dispatch(),
            t,
            rule,
        );
        let [mean, var, shift, power] = [mean, var, shift, power].map(Tensor::<4>::from_dispatch);
        let all =
            Self { means, log_weights, log_std, origin: x.clone(), t, mean, var, shift, power, pixelwise: false };
        match rule {
            // What has moved the components is no shift that they are still to be reweighted by.
            ShiftRule::Extrapolate { .. } => Self {
                power: all.power.zeros_like(),
                shift: Tensor::zeros([0; 4], &all.shift.device()),
                ..all.clone().moved(&all.shift)
            },
            _ => all,
        }
    }

    /// The same with all components moved by `change` `[b c h w]`.
    fn moved(self, change: &Tensor<4>) -> Self {
        Self { origin: self.origin + change.clone(), mean: self.mean + change.clone(), ..self }
    }

    /// The mixtures over x0 before they are reweighted: means `[b k c h w]`, log weights `[b k 1 h w]` and log standard deviations
    /// `[b 1 1 1 1]`.
    pub(crate) fn unshifted(&self) -> [Tensor<5>; 3] {
        let b = self.origin.dims()[0];
        let first = |x: &Tensor<5>| x.clone().narrow(0, 0, b);
        let origin = self.origin.clone().unsqueeze_dim::<5>(1); // [b 1 c h w]
        let log_std = first(&self.log_std) + f64::from(self.t).ln();
        [origin - first(&self.means) * self.t, first(&self.log_weights), log_std]
    }

    fn into_dispatch(self) -> step_ops::Shifted<Dispatch> {
        step_ops::Shifted {
            means: self.means.into_dispatch(),
            log_weights: self.log_weights.into_dispatch(),
            log_std: self.log_std.into_dispatch(),
            origin: self.origin.into_dispatch(),
            mean: self.mean.into_dispatch(),
            var: self.var.into_dispatch(),
            shift: self.shift.into_dispatch(),
            power: self.power.into_dispatch(),
            t: self.t,
            pixelwise: self.pixelwise,
        }
    }

    /// The same with the second-order change since `before`, of the components or of the shift; both with the points they were
    /// predicted at.
    pub(crate) fn changed(self, x: &Tensor<4>, (before, x_before): (Self, &Tensor<4>), rule: ChangeRule) -> Self {
        let (x, x_before) = (x.clone().into_dispatch(), x_before.clone().into_dispatch());
        let (now, before) = (self.clone().into_dispatch(), before.into_dispatch());
        let (shift, power) = <Dispatch as StepOps>::step_second_order(now, x, before, x_before, rule);
        let shift = Tensor::from_dispatch(shift);
        match rule.alone {
            true => self.moved(&shift),
            false => Self { shift, power: Tensor::from_dispatch(power), ..self },
        }
    }

    /// The samples `[b c h w]` after all sub-steps from `x`, where the mixtures were predicted.
    pub(crate) fn ode(self, x: &Tensor<4>, substeps: Vec<OdeSubstep>) -> Tensor<4> {
        Tensor::from_dispatch(<Dispatch as StepOps>::step_ode(
            self.into_dispatch(),
            x.clone().into_dispatch(),
            substeps,
        ))
    }

    /// Means `[b k c h w]`, log weights `[b k 1 h w]` and log standard deviations of the reweighted mixtures: `[b 1 1 1 1]`, or `[b 1 1 h w]`
    /// where pixels were reweighted by their own variance.
    pub(crate) fn reweighted(self) -> [Tensor<5>; 3] {
        let (means, log_weights, log_std) = <Dispatch as StepOps>::step_reweighted(self.into_dispatch());
        [Tensor::from_dispatch(means), Tensor::from_dispatch(log_weights), Tensor::from_dispatch(log_std)]
    }
}

/// The covariances `[b c c]`, averaged over pixels, of mixtures `[b k c h w]`, `[b k 1 h w]`, `[b 1 1 1 1]` or `[b 1 1 h w]`. No gradients are
/// recorded.
pub(crate) fn covariances([means, log_weights, log_std]: [Tensor<5>; 3]) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as StepOps>::step_covariances(
        means.into_dispatch(),
        log_weights.into_dispatch(),
        log_std.into_dispatch(),
    ))
}

/// The transport of `values` `[b c h w]` between standard normals and such mixtures along `bases` `[b c c]`, one vector per column. No
/// gradients are recorded.
pub(crate) fn transport(
    [means, log_weights, log_std]: [Tensor<5>; 3],
    values: &Tensor<4>,
    bases: Tensor<3>,
    axes: Axes,
    direction: Direction,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as StepOps>::step_transport(
        means.into_dispatch(),
        log_weights.into_dispatch(),
        log_std.into_dispatch(),
        values.clone().into_dispatch(),
        bases.into_dispatch(),
        axes,
        direction,
    ))
}

/// The convolution (correlation) of `x` `[b c h w]` with `weight` `[o c kh kw]`, plus `bias` `[o]`: `[b o h' w']`. `padding` zeros
/// stand above, below, left and right of the image, and h' = (h + top + bottom - kh) / stride + 1, rounded down.
///
/// # Panics
/// Where the sizes do not fit each other, the stride is 0, or the kernel is larger than the padded image.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, stride: usize, padding: [usize; 4]) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(<Dispatch as ImageOps>::image_conv(x, weight, bias, Window { stride, padding }))
}

/// Normalises `groups` groups of neighbouring channels of every sample of `x` `[b c h w]` to mean 0 and variance 1, then scales and
/// shifts each channel by `weight` and `bias` `[c]`; with `silu`, x sigmoid(x) follows.
///
/// # Panics
/// Where the sizes do not fit each other, or `groups` does not divide c.
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let (x, weight, bias) = (x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
    let kind = GroupNormKind { groups, eps, silu };
    Tensor::from_dispatch(<Dispatch as ImageOps>::image_group_norm(x, weight, bias, kind))
}

/// `x` `[b c h w]` plus `shift` `[b c]`, at every pixel.
///
/// # Panics
/// Where the sizes do not fit each other.
pub fn add_channels(x: Tensor<4>, shift: Tensor<2>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as ImageOps>::image_add_channels(x.into_dispatch(), shift.into_dispatch()))
}

/// Every pixel of `x` `[b c h w]` as a block of 2x2: `[b c 2h 2w]`.
pub fn upsample_nearest2(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as ImageOps>::image_upsample2(x.into_dispatch()))
}
