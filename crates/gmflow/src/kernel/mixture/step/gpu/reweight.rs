//! The reweighted mixtures themselves, for steps that draw from them.

use super::guided::{Guided, centre, guided, is_guided, natural_of};
use crate::kernel::gpu::{LOWEST, empty, grid, mixture_sizes, output, sizes};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::ops::GuidedMixtures;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// The reweighted mixtures over x0: `[b k c n]`, `[b k n]`, `[b]` or, by pixels, `[b n]`.
#[cube(launch_unchecked)]
fn reweight_kernel(guided: &Guided, out_means: &mut [f32], out_weights: &mut [f32], out_std: &mut [f32]) {
    let b = guided.predicted.mixtures.shape.b;
    let n = guided.predicted.mixtures.shape.n;
    let k = comptime!(guided.predicted.mixtures.shape.k);
    let c = comptime!(guided.predicted.mixtures.shape.c);
    let t = guided.predicted.t;
    if ABSOLUTE_POS >= b * n {
        terminate!();
    }
    let sample = ABSOLUTE_POS / n;
    let pixel = ABSOLUTE_POS % n;
    let centre = centre(guided);
    let variance = centre.var;
    let (factor, zeta) = natural_of(guided, &centre);
    let scale = 1.0f32 / (variance * zeta + 1.0f32);
    let mut top = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    for j in 0..k {
        let mut gain = 0.0f32.runtime();
        #[unroll]
        for i in 0..c {
            let at = (sample * c + i) * n + pixel;
            let at_mean = ((sample * k + j) * c + i) * n + pixel;
            let offset = centre.from_mean[i] - guided.predicted.mixtures.means[at_mean] * t;
            let mut nu = 0.0f32.runtime();
            if comptime!(guided.guided) {
                nu = factor * guided.shift[at];
            }
            gain += offset * (nu - 0.5f32 * zeta * offset);
            out_means[at_mean] = (offset + variance * nu) * scale + guided.mean[at];
        }
        let at_weight = (sample * k + j) * n + pixel;
        let value = gain * scale + guided.predicted.mixtures.log_weights[at_weight];
        out_weights[at_weight] = value;
        let higher = value.max(top);
        total = total * (top - higher).exp() + (value - higher).exp();
        top = higher;
    }
    let norm = top + total.ln();
    for j in 0..k {
        out_weights[(sample * k + j) * n + pixel] -= norm;
    }
    let log_std = guided.predicted.mixtures.log_std[sample] + t.ln() - 0.5f32 * (variance * zeta + 1.0f32).ln();
    if comptime!(guided.guided && guided.pixelwise) {
        out_std[ABSOLUTE_POS] = log_std;
    } else if pixel == 0 {
        out_std[sample] = log_std;
    }
}

/// Means, log weights and log standard deviations.
pub(super) fn reweighted(mixture: GuidedMixtures<CubeBackend>) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (Sizes { k, c, n }, [b, _, h, w]) = (mixture_sizes(&mixture.velocity.means), sizes(&mixture.mean));
    let like = &mixture.mean;
    let (means, log_weights) = (empty(like, [b, k, c, h, w]), empty(like, [b, k, 1, h, w]));
    let pixelwise = mixture.pixelwise && is_guided(&mixture);
    let log_std = empty(like, if pixelwise { [b, 1, 1, h, w] } else { [b, 1, 1, 1, 1] });
    let (count, dim) = grid(like, b * n);
    // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
    unsafe {
        reweight_kernel::launch_unchecked(
            &like.client,
            count,
            dim,
            guided(&mixture),
            output(&means),
            output(&log_weights),
            output(&log_std),
        );
    }
    (means, log_weights, log_std)
}
