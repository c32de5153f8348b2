//! Predicted mixtures with the shift that they are reweighted by, and the means of the reweighted ones: see the same file of the CPU.

use crate::kernel::gpu::args::{Mixtures, MixturesLaunch, mixtures};
use crate::kernel::gpu::{LOWEST, input, sizes};
use crate::kernel::mixture::step::ops::{GuidedMixtures, Velocity};
use crate::kernel::mixture::step::types::{MIN_REST, SMALLEST_LENGTH, SMALLEST_VAR};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// Predicted mixtures over the velocity.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Predicted {
    pub mixtures: Mixtures,
    /// When they were predicted.
    pub t: f32,
}

/// Predicted mixtures and the shift of the mean that they are reweighted by.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Guided {
    pub predicted: Predicted,
    /// Components over x0 have the means origin - t u, `[b c n]`.
    pub origin: Box<[f32]>,
    /// The mean over x0 `[b c n]`.
    pub mean: Box<[f32]>,
    /// The variance averaged over pixels `[b]`.
    pub var: Box<[f32]>,
    /// `[b c n]`; not read where there is none.
    pub shift: Box<[f32]>,
    /// The mean square of the shift `[b]`.
    pub power: Box<[f32]>,
    /// Whether there is a shift.
    #[cube(comptime)]
    pub guided: bool,
    /// Whether it is divided by the pixel's own variance.
    #[cube(comptime)]
    pub pixelwise: bool,
}

/// A pixel's components.
#[derive(CubeType)]
pub(super) struct Centre {
    /// What is added to minus t times a component's velocity, to measure it from the mixture's mean, `[c]`.
    pub from_mean: Array<f32>,
    /// Their variance.
    pub var: f32,
}

/// The components of the pixel that a thread is for.
#[cube]
pub(super) fn centre(guided: &Guided) -> Centre {
    let n = guided.predicted.mixtures.shape.n;
    let c = comptime!(guided.predicted.mixtures.shape.c);
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let t = guided.predicted.t;
    let mut from_mean = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        from_mean[i] = guided.origin[at] - guided.mean[at];
    }
    let var = (guided.predicted.mixtures.log_std[sample] * 2.0f32).exp() * t * t;
    Centre { from_mean, var }
}

/// What multiplies a shift to give nu, and zeta: see [`crate::kernel::mixture::step::cpu::tilt`].
#[cube]
pub(super) fn natural(var: f32, power: f32) -> (f32, f32) {
    let var = var.max(1.2e-38f32);
    let share = power / var;
    let bounded = share.min(1.0f32 - MIN_REST);
    let rest = (1.0f32 - share).max(MIN_REST) * var;
    let mut shorten = 1.0f32;
    if bounded > 0.0f32 {
        shorten = (bounded / share).sqrt().min(1.0f32);
    }
    (shorten / rest, bounded / rest)
}

/// The same from the variance of a pixel's mixture along its shift.
#[cube]
fn own_natural(guided: &Guided, centre: &Centre) -> (f32, f32) {
    let n = guided.predicted.mixtures.shape.n;
    let k = comptime!(guided.predicted.mixtures.shape.k);
    let c = comptime!(guided.predicted.mixtures.shape.c);
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let minus_time = 0.0f32 - guided.predicted.t;
    let mut length = SMALLEST_LENGTH.runtime();
    #[unroll]
    for i in 0..c {
        let shift = guided.shift[(sample * c + i) * n + pixel];
        length += shift * shift;
    }
    let mut spread = 0.0f32.runtime();
    for j in 0..k {
        let mut product = 0.0f32.runtime();
        #[unroll]
        for i in 0..c {
            let mean = guided.predicted.mixtures.means[((sample * k + j) * c + i) * n + pixel];
            let offset = mean * minus_time + centre.from_mean[i];
            product += offset * guided.shift[(sample * c + i) * n + pixel];
        }
        let weight = guided.predicted.mixtures.log_weights[(sample * k + j) * n + pixel].exp();
        spread += weight * product * product;
    }
    let var = (spread / length + centre.var).max(SMALLEST_VAR);
    let share = length / var;
    let bounded = share.min(1.0f32 - MIN_REST);
    let rest = (1.0f32 - share).max(MIN_REST) * var;
    ((bounded / share).sqrt() / rest, bounded / rest)
}

/// [`natural`] by sample or by pixel; without a shift nothing is multiplied and nothing is known.
#[cube]
pub(super) fn natural_of(guided: &Guided, centre: &Centre) -> (f32, f32) {
    let mut factor = 0.0f32.runtime();
    let mut zeta = 0.0f32.runtime();
    if comptime!(guided.guided && guided.pixelwise) {
        let (of_shift, precision) = own_natural(guided, centre);
        factor = of_shift;
        zeta = precision;
    } else if comptime!(guided.guided) {
        let sample = ABSOLUTE_POS / guided.predicted.mixtures.shape.n;
        let (of_shift, precision) = natural(guided.var[sample], guided.power[sample]);
        factor = of_shift;
        zeta = precision;
    }
    (factor, zeta)
}

/// The mean, from the mixture's, of the mixture times exp(nu . y - zeta |y|^2 / 2), with y measured from the mixture's mean.
#[cube]
pub(super) fn tilted_mean(predicted: &Predicted, centre: &Centre, nu: &Array<f32>, zeta: f32, out: &mut Array<f32>) {
    let n = predicted.mixtures.shape.n;
    let k = comptime!(predicted.mixtures.shape.k);
    let c = comptime!(predicted.mixtures.shape.c);
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let minus_time = 0.0f32 - predicted.t;
    let scale = 1.0f32 / (centre.var * zeta + 1.0f32);
    let mut top = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    let mut component = Array::<f32>::new(c);
    #[unroll]
    for i in 0..c {
        out[i] = 0.0f32;
    }
    for j in 0..k {
        let mut gain = 0.0f32.runtime();
        let mut square = 0.0f32.runtime();
        #[unroll]
        for i in 0..c {
            let mean = predicted.mixtures.means[((sample * k + j) * c + i) * n + pixel];
            let offset = mean * minus_time + centre.from_mean[i];
            component[i] = offset;
            gain += offset * nu[i];
            square += offset * offset;
        }
        let log_weight = predicted.mixtures.log_weights[(sample * k + j) * n + pixel];
        let value = (gain - 0.5f32 * zeta * square) * scale + log_weight;
        let higher = value.max(top);
        let keep = (top - higher).exp();
        let share = (value - higher).exp();
        total = total * keep + share;
        #[unroll]
        for i in 0..c {
            out[i] = out[i] * keep + component[i] * share;
        }
        top = higher;
    }
    #[unroll]
    for i in 0..c {
        out[i] = (out[i] / total + centre.var * nu[i]) * scale;
    }
}

/// The first `b` predictions as an argument.
pub(super) fn predicted(velocity: &Velocity<CubeBackend>, b: usize) -> PredictedLaunch {
    let Velocity { means, log_weights, log_std, t } = velocity;
    let mixtures: MixturesLaunch = mixtures([means, log_weights, log_std], b);
    PredictedLaunch::new(mixtures, *t)
}

/// Guided mixtures as an argument.
pub(super) fn guided(mixtures: &GuidedMixtures<CubeBackend>) -> GuidedLaunch {
    let [b, ..] = sizes::<4>(&mixtures.mean);
    let predicted = predicted(&mixtures.velocity, b);
    let [origin, mean, var] = [&mixtures.origin, &mixtures.mean, &mixtures.var].map(input);
    let (shift, power) = (shift_of(mixtures), input(&mixtures.power));
    let is_guided = is_guided(mixtures);
    GuidedLaunch::new(predicted, origin, mean, var, shift, power, is_guided, mixtures.pixelwise)
}

/// Whether there is a shift.
pub(super) fn is_guided(mixtures: &GuidedMixtures<CubeBackend>) -> bool {
    sizes::<1>(&mixtures.shift)[0] > 0
}

/// The shift's buffer; without one, some other, which is not read.
fn shift_of(mixtures: &GuidedMixtures<CubeBackend>) -> BufferArg {
    input(if is_guided(mixtures) { &mixtures.shift } else { &mixtures.mean })
}
