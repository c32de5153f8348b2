//! The second-order change.

use super::guided::{Guided, centre, guided, natural_of, tilted_mean};
use crate::kernel::gpu::{empty, grid, input, mean_of, output, sizes};
use crate::kernel::mixture::step::ops::GuidedMixtures;
use crate::kernel::mixture::step::types::SecondOrderRule;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// The numbers of a change.
#[derive(CubeType, CubeLaunch)]
struct Rule {
    gain: f32,
    noise_of_var: f32,
    noise_of_power: f32,
    /// Whether the mixtures are moved by the change; otherwise it is added to the shift.
    #[cube(comptime)]
    translate: bool,
}

/// The second-order change from the previous step's posterior mean at the current point, alone or with the shift, `[b c n]`, and its square
/// at every pixel `[b n]`.
#[cube(launch_unchecked)]
fn second_order_kernel(guided: &Guided, previous_mean: &[f32], rule: Rule, out: &mut [f32], squares: &mut [f32]) {
    let b = guided.predicted.mixtures.shape.b;
    let n = guided.predicted.mixtures.shape.n;
    let c = comptime!(guided.predicted.mixtures.shape.c);
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let mut first = Array::<f32>::new(c);
    // The mean of the guided mixture now.
    if comptime!(guided.guided) {
        let mut nu = Array::<f32>::new(c);
        let centre = centre(guided);
        let (factor, zeta) = natural_of(guided, &centre);
        #[unroll]
        for i in 0..c {
            nu[i] = factor * guided.shift[(sample * c + i) * n + pixel];
        }
        tilted_mean(&guided.predicted, &centre, &nu, zeta, &mut first);
    } else {
        #[unroll]
        for i in 0..c {
            first[i] = 0.0f32;
        }
    }
    let noise = rule.noise_of_var * guided.var[sample] + rule.noise_of_power * guided.power[sample];
    let keep = rule.gain * (1.0f32 - noise).max(0.0f32).sqrt();
    let mut square = 0.0f32.runtime();
    #[unroll]
    for i in 0..c {
        let at = (sample * c + i) * n + pixel;
        let mut value = (first[i] + guided.mean[at] - previous_mean[at]) * keep;
        if comptime!(guided.guided && !rule.translate) {
            value += guided.shift[at];
        }
        square += value * value;
        out[at] = value;
    }
    squares[ABSOLUTE_POS] = square / f32::cast_from(c as u32);
}

/// The change and its mean square.
pub(super) fn second_order(
    now: GuidedMixtures<CubeBackend>,
    previous_mean: CubeTensor,
    rule: SecondOrderRule,
) -> (CubeTensor, CubeTensor) {
    let [b, c, h, w] = sizes(&previous_mean);
    let n = h * w;
    let (shift, squares) = (empty(&previous_mean, [b, c, h, w]), empty(&previous_mean, [b, n]));
    let (count, dim) = grid(&previous_mean, b * n);
    // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
    unsafe {
        second_order_kernel::launch_unchecked(
            &previous_mean.client,
            count,
            dim,
            guided(&now),
            input(&previous_mean),
            RuleLaunch::new(rule.gain, rule.noise[0], rule.noise[1], rule.translate),
            output(&shift),
            output(&squares),
        );
    }
    let power = CubeBackend::float_reshape(mean_of(squares, 1), [b, 1, 1, 1].into());
    (shift, power)
}
