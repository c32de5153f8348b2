//! All Euler sub-steps of a GM-ODE step in one pass: the mixture is read into the cache once.

use super::arch::{Loop, vectorised};
use super::math::exp;
use super::memory::{build, par_items};
use super::nll::{Inputs, LANES, Sizes, Tile, group, part, tiles};

/// The numbers of one sub-step from (x_tau, tau) to `to`; they are the same for all samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OdeSubstep {
    /// What multiplies x_tau in the evidence nu.
    pub here: f32,
    /// What multiplies x_t, where the mixture was predicted, and is subtracted.
    pub there: f32,
    /// The evidence's precision zeta; with 0 the mean is the mixture's own.
    pub zeta: f32,
    /// to/tau: the share of x_tau in the result.
    pub keep: f32,
}

/// The sub-steps of one tile.
struct Steps<'a> {
    tile: Tile<'a>,
    substeps: &'a [OdeSubstep],
    scratch: &'a mut Scratch,
}

/// Rows of lanes that a tile needs.
struct Scratch {
    /// log A_k plus the gain of the evidence, `[k]`.
    joint: Vec<[f32; LANES]>,
    /// |mean_k|^2, `[k]`.
    squares: Vec<[f32; LANES]>,
    /// The sample, `[c]`.
    x: Vec<[f32; LANES]>,
    /// nu, `[c]`.
    nu: Vec<[f32; LANES]>,
    /// The sum of weighted means, `[c]`.
    sum: Vec<[f32; LANES]>,
}

impl Scratch {
    fn new(k: usize, c: usize) -> Self {
        let rows = |n: usize| vec![[0.0; LANES]; n];
        Self { joint: rows(k), squares: rows(k), x: rows(c), nu: rows(c), sum: rows(c) }
    }
}

impl Loop for Steps<'_> {
    #[inline(always)]
    fn run(self) {
        let Self { tile, substeps, scratch } = self;
        let Sizes { k, c, .. } = tile.sizes;
        let mut var = [1.0; LANES];
        for (v, &s) in var.iter_mut().zip(tile.inputs.log_std) {
            *v = exp(2.0 * s);
        }
        for channel in 0..c {
            scratch.x[channel][..tile.len].copy_from_slice(tile.row(tile.inputs.target, channel));
        }
        for (component, squares) in scratch.squares[..k].iter_mut().enumerate() {
            *squares = [0.0; LANES];
            for channel in 0..c {
                for (sum, &m) in squares.iter_mut().zip(tile.row(tile.inputs.means, component * c + channel)) {
                    *sum += m * m;
                }
            }
        }
        for step in substeps {
            substep(&tile, step, &var, scratch);
        }
    }
}

/// x <- keep x + (1 - keep) E[x0 | x] with the posterior mean of (10).
#[inline(always)]
fn substep(tile: &Tile, step: &OdeSubstep, var: &[f32; LANES], scratch: &mut Scratch) {
    let c = tile.sizes.c;
    let Scratch { joint, squares, x, nu, sum } = scratch;
    let mut scale = [1.0; LANES];
    for (scale, &v) in scale.iter_mut().zip(var) {
        *scale = 1.0 / (1.0 + v * step.zeta);
    }
    for channel in 0..c {
        let start = tile.row(tile.inputs.target, channel);
        for ((nu, &x), &start) in nu[channel].iter_mut().zip(&x[channel]).zip(start) {
            *nu = x * step.here - start * step.there;
        }
        sum[channel] = [0.0; LANES];
    }
    let mut top = [f32::NEG_INFINITY; LANES];
    for (component, joint) in joint.iter_mut().enumerate() {
        let mut gain = [0.0; LANES];
        for channel in 0..c {
            let means = tile.row(tile.inputs.means, component * c + channel);
            for ((gain, &m), &nu) in gain.iter_mut().zip(means).zip(&nu[channel]) {
                *gain += m * nu;
            }
        }
        let weights = tile.row(tile.inputs.log_weights, component);
        for (i, &weight) in weights.iter().enumerate() {
            joint[i] = weight + (gain[i] - 0.5 * step.zeta * squares[component][i]) * scale[i];
        }
        for (top, &joint) in top.iter_mut().zip(&*joint) {
            *top = top.max(joint);
        }
    }
    let mut total = [0.0; LANES];
    for (component, &joint) in joint.iter().enumerate() {
        let mut share = joint;
        for ((share, &top), total) in share.iter_mut().zip(&top).zip(&mut total) {
            *share = exp(*share - top);
            *total += *share;
        }
        for channel in 0..c {
            let means = tile.row(tile.inputs.means, component * c + channel);
            for ((sum, &m), &share) in sum[channel].iter_mut().zip(means).zip(&share) {
                *sum += share * m;
            }
        }
    }
    for channel in 0..c {
        let (sum, nu) = (&sum[channel], &nu[channel]);
        for (i, x) in x[channel].iter_mut().enumerate() {
            let mean = (sum[i] / total[i] + var[i] * nu[i]) * scale[i];
            *x = *x * step.keep + mean * (1.0 - step.keep);
        }
    }
}

/// The samples `[b c n]` after all sub-steps, from mixtures over x0 that were predicted at the target of `inputs`.
pub(super) fn ode_substeps(inputs: Inputs, sizes: Sizes, substeps: &[OdeSubstep]) -> Vec<f32> {
    let Sizes { k, c, n } = sizes;
    build(inputs.target.len(), |out| {
        let samples = group(n);
        let groups: Vec<_> = out.chunks_mut((samples * c * n).max(1)).enumerate().collect();
        par_items(groups, inputs.means.len() * substeps.len(), |(i, out)| {
            let mut scratch = Scratch::new(k, c);
            let count = out.len() / (c * n);
            tiles(part(inputs, sizes, i * samples, count), sizes, |tile| {
                vectorised(Steps { tile, substeps, scratch: &mut scratch });
                // Lanes are pixels of one sample, or all pixels of several.
                let per_sample = tile.len / if tile.stride == n { 1 } else { count };
                for (channel, x) in scratch.x.iter().enumerate() {
                    for (sample, lanes) in x[..tile.len].chunks(per_sample).enumerate() {
                        out[(sample * c + channel) * n + tile.start..][..lanes.len()].copy_from_slice(lanes);
                    }
                }
            });
        });
    })
}
