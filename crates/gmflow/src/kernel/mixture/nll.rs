//! The negative log-likelihood of a mixture at every pixel, and its gradient, each in one pass over the means.
//!
//! Pixels are the vector lanes. Where a map has too few of them (2-D points have one), the pixels of several samples are
//! gathered into lanes first, so that one loop serves both.

use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::gather::{gather, scatter};
use crate::kernel::simd::math::{exp, ln};
use crate::kernel::simd::memory::{UninitVec, as_uninit, fill, par_items};
use std::mem::MaybeUninit;

/// Pixels that are worked on at a time.
pub(crate) const LANES: usize = 64;

/// Smaller responsibilities count as 0. Their products with the gradient of a mean over a batch are too small for normal numbers, and
/// processors take many times as long for those.
const NEGLIGIBLE: f32 = 1e-30;

/// Maps with fewer pixels are gathered.
const FEW: usize = 16;

/// The values of a mixture and a target: `[b k c n]`, `[b k n]`, `[b]`, `[b c n]`.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub means: &'a [f32],
    pub log_weights: &'a [f32],
    pub log_std: &'a [f32],
    pub target: &'a [f32],
}

/// Gradients in the order and shapes of [`Inputs`].
pub(crate) struct Grads {
    pub means: Vec<f32>,
    pub log_weights: Vec<f32>,
    pub log_std: Vec<f32>,
    pub target: Vec<f32>,
}

/// The lanes of one block: row r of an input is `[r * stride + start ..][..len]`, `log_std` is one per lane.
#[derive(Clone, Copy)]
struct Tile<'a> {
    pub sizes: Sizes,
    pub stride: usize,
    pub start: usize,
    pub len: usize,
    pub inputs: Inputs<'a>,
}

impl<'a> Tile<'a> {
    #[inline(always)]
    pub fn row(&self, values: &'a [f32], row: usize) -> &'a [f32] {
        &values[row * self.stride + self.start..][..self.len]
    }

    #[inline(always)]
    fn row_mut<'b, T>(&self, values: &'b mut [T], row: usize) -> &'b mut [T] {
        &mut values[row * self.stride + self.start..][..self.len]
    }

    /// 1/s^2 of every lane.
    #[inline(always)]
    fn precision(&self) -> [f32; LANES] {
        let mut precision = [0.0; LANES];
        for (p, &s) in precision.iter_mut().zip(self.inputs.log_std) {
            *p = exp(-2.0 * s);
        }
        precision
    }

    /// Squared distances of component k from the target.
    #[inline(always)]
    fn squares(&self, k: usize) -> [f32; LANES] {
        let mut squares = [0.0; LANES];
        for c in 0..self.sizes.c {
            let means = self.row(self.inputs.means, k * self.sizes.c + c);
            for ((sum, &m), &x) in squares.iter_mut().zip(means).zip(self.row(self.inputs.target, c)) {
                *sum += (m - x) * (m - x);
            }
        }
        squares
    }

    /// log A_k N(target; mean_k, s^2), without the constant.
    #[inline(always)]
    fn log_joint(&self, k: usize, squares: &[f32; LANES], precision: &[f32; LANES]) -> [f32; LANES] {
        let mut joint = [f32::NEG_INFINITY; LANES];
        let (weights, log_std) = (self.row(self.inputs.log_weights, k), &self.inputs.log_std[..self.len]);
        let channels = self.sizes.c as f32;
        for (i, joint) in joint[..self.len].iter_mut().enumerate() {
            *joint = weights[i] - 0.5 * precision[i] * squares[i] - channels * log_std[i];
        }
        joint
    }
}

struct Forward<'a> {
    tile: Tile<'a>,
    /// Room for k rows of lanes.
    joint: &'a mut [[f32; LANES]],
    out: &'a mut [MaybeUninit<f32>],
}

impl Loop for Forward<'_> {
    #[inline(always)]
    fn run(self) {
        let precision = self.tile.precision();
        let mut top = [f32::NEG_INFINITY; LANES];
        for (k, joint) in self.joint.iter_mut().enumerate() {
            *joint = self.tile.log_joint(k, &self.tile.squares(k), &precision);
            for (top, &v) in top.iter_mut().zip(&*joint) {
                *top = top.max(v);
            }
        }
        let mut total = [0.0f32; LANES];
        for joint in &*self.joint {
            for ((total, &v), &top) in total.iter_mut().zip(joint).zip(&top) {
                *total += exp(v - top);
            }
        }
        for ((out, &total), &top) in self.out.iter_mut().zip(&total).zip(&top) {
            out.write(-(top + ln(total)));
        }
    }
}

/// Where the gradients of a tile go: rows like those of the inputs, and one value per lane for `log_std`.
struct TileGrads<'a> {
    means: &'a mut [MaybeUninit<f32>],
    log_weights: &'a mut [MaybeUninit<f32>],
    log_std: &'a mut [f32],
    target: &'a mut [MaybeUninit<f32>],
}

struct Backward<'a> {
    tile: Tile<'a>,
    nll: &'a [f32],
    grad: &'a [f32],
    out: TileGrads<'a>,
}

impl Loop for Backward<'_> {
    /// With the responsibilities r_k = exp(log joint_k + nll) the gradients are -r_k, r_k (mean_k - x)/s^2 and
    /// c - sum_k r_k |mean_k - x|^2/s^2.
    #[inline(always)]
    fn run(self) {
        let Self { tile, nll, grad, out } = self;
        let Sizes { k, c, .. } = tile.sizes;
        let precision = tile.precision();
        for c in 0..c {
            fill(tile.row_mut(out.target, c), 0.0);
        }
        for (out, &g) in out.log_std[..tile.len].iter_mut().zip(grad) {
            *out = c as f32 * g;
        }
        for k in 0..k {
            let squares = tile.squares(k);
            let mut share = tile.log_joint(k, &squares, &precision);
            for (share, (&nll, &g)) in share.iter_mut().zip(nll.iter().zip(grad)) {
                let part = exp(*share + nll);
                *share = if part < NEGLIGIBLE { 0.0 } else { part * g };
            }
            for (out, &share) in tile.row_mut(out.log_weights, k).iter_mut().zip(&share) {
                out.write(-share);
            }
            for (share, &precision) in share.iter_mut().zip(&precision) {
                *share *= precision;
            }
            for ((out, &share), &squares) in out.log_std[..tile.len].iter_mut().zip(&share).zip(&squares) {
                *out -= share * squares;
            }
            for channel in 0..c {
                let (row, x) = (k * c + channel, tile.row(tile.inputs.target, channel));
                let pull = tile.row_mut(out.means, row);
                for (((pull, &m), &x), &share) in
                    pull.iter_mut().zip(tile.row(tile.inputs.means, row)).zip(x).zip(&share)
                {
                    pull.write(share * (m - x));
                }
                // SAFETY: the row was just written, and that of the target was filled above.
                let (pull, out) =
                    unsafe { (pull.assume_init_ref(), tile.row_mut(out.target, channel).assume_init_mut()) };
                for (out, &pull) in out.iter_mut().zip(pull) {
                    *out -= pull;
                }
            }
        }
    }
}

/// Samples that are handled together.
fn group(n: usize) -> usize {
    if n < FEW { LANES / n.max(1) } else { 1 }
}

/// All pixels of samples `[samples rows n]`, in rows of lanes.
fn gathered(values: &[f32], rows: usize, samples: usize, n: usize) -> Vec<[f32; LANES]> {
    let mut lanes = vec![[0.0; LANES]; rows];
    gather(values, [samples, n], 0..n, &mut lanes);
    lanes
}

/// The inputs of the group of samples that starts at `first`.
fn part<'a>(inputs: Inputs<'a>, Sizes { k, c, n }: Sizes, first: usize, samples: usize) -> Inputs<'a> {
    let cut = |values: &'a [f32], width: usize| &values[first * width..][..samples * width];
    Inputs {
        means: cut(inputs.means, k * c * n),
        log_weights: cut(inputs.log_weights, k * n),
        log_std: cut(inputs.log_std, 1),
        target: cut(inputs.target, c * n),
    }
}

/// Calls `f` on the tiles of one group of samples, which are gathered where `gathered` says so.
fn tiles(inputs: Inputs, sizes: Sizes, mut f: impl FnMut(Tile)) {
    let Sizes { k, c, n } = sizes;
    if n < FEW {
        let mut log_std = [0.0; LANES];
        let per_lane = inputs.log_std.iter().flat_map(|&s| std::iter::repeat_n(s, n));
        for (lane, s) in log_std.iter_mut().zip(per_lane) {
            *lane = s;
        }
        let samples = inputs.log_std.len();
        let means = gathered(inputs.means, k * c, samples, n);
        let (log_weights, target) =
            (gathered(inputs.log_weights, k, samples, n), gathered(inputs.target, c, samples, n));
        let len = samples * n;
        let inputs = Inputs {
            means: means.as_flattened(),
            log_weights: log_weights.as_flattened(),
            log_std: &log_std,
            target: target.as_flattened(),
        };
        return f(Tile { sizes, stride: LANES, start: 0, len, inputs });
    }
    let log_std = [inputs.log_std[0]; LANES];
    for start in (0..n).step_by(LANES) {
        let len = LANES.min(n - start);
        f(Tile { sizes, stride: n, start, len, inputs: Inputs { log_std: &log_std, ..inputs } });
    }
}

/// Refuses inputs that are not of the sizes.
fn check(inputs: &Inputs, Sizes { k, c, n }: Sizes) {
    let b = inputs.log_std.len();
    let lengths = [inputs.means.len(), inputs.log_weights.len(), inputs.target.len()];
    assert_eq!(lengths, [b * k * c * n, b * k * n, b * c * n], "nll: sizes of means, log weights and target");
}

/// The negative log-likelihood `[b n]`.
pub(crate) fn nll(inputs: Inputs, sizes: Sizes) -> Vec<f32> {
    let Sizes { k, n, .. } = sizes;
    check(&inputs, sizes);
    let mut out = UninitVec::new(inputs.log_std.len() * n);
    let samples = group(n);
    let groups: Vec<_> = out.room().chunks_mut((samples * n).max(1)).enumerate().collect();
    par_items(groups, inputs.means.len(), |(i, out)| {
        let mut joint = vec![[0.0; LANES]; k];
        tiles(part(inputs, sizes, i * samples, out.len() / n), sizes, |tile| {
            let out = &mut out[tile.start..][..tile.len];
            vectorised(Forward { tile, joint: &mut joint, out });
        });
    });
    // SAFETY: the tiles of a group are its pixels, and every tile of every group was written.
    unsafe { out.assume_init() }
}

/// The gradient of [`nll`], whose result is `nll`, given the gradient `grad` of it.
pub(crate) fn nll_grad(inputs: Inputs, nll: &[f32], grad: &[f32], sizes: Sizes) -> Grads {
    let Sizes { k, c, n } = sizes;
    let samples = group(n);
    check(&inputs, sizes);
    let lengths = [inputs.means.len(), inputs.log_weights.len(), inputs.target.len()];
    let [mut means, mut log_weights, mut target] = lengths.map(UninitVec::new);
    // This adds up.
    let mut log_std = vec![0.0; inputs.log_std.len()];
    let of_means = means.room().chunks_mut((samples * k * c * n).max(1));
    let of_weights = log_weights.room().chunks_mut((samples * k * n).max(1));
    let of_target = target.room().chunks_mut((samples * c * n).max(1));
    let of_log_std = log_std.chunks_mut(samples);
    let groups: Vec<_> = of_means.zip(of_weights).zip(of_log_std.zip(of_target)).enumerate().collect();
    par_items(groups, inputs.means.len(), |(i, ((means, log_weights), (log_std, target)))| {
        let out = TileGrads { means, log_weights, log_std, target };
        let (first, len) = (i * samples, out.log_std.len());
        let at = first * n..(first + len) * n;
        group_grad(part(inputs, sizes, first, len), &nll[at.clone()], &grad[at], sizes, out);
    });
    // SAFETY: the tiles of a group are its pixels, and all rows of every tile of every group were written.
    let [means, log_weights, target] =
        unsafe { [means.assume_init(), log_weights.assume_init(), target.assume_init()] };
    Grads { means, log_weights, log_std, target }
}

/// The gradients of one group of samples.
fn group_grad(inputs: Inputs, nll: &[f32], grad: &[f32], sizes: Sizes, out: TileGrads) {
    let Sizes { k, c, n } = sizes;
    let mut log_std = [0.0; LANES];
    if n < FEW {
        let [mut means, mut log_weights, mut target] = [k * c, k, c].map(|rows| vec![[0.0; LANES]; rows]);
        tiles(inputs, sizes, |tile| {
            let places = [&mut means, &mut log_weights, &mut target];
            // SAFETY: only numbers are written.
            let [means, log_weights, target] = places.map(|rows| unsafe { as_uninit(rows.as_flattened_mut()) });
            vectorised(Backward {
                tile,
                nll,
                grad,
                out: TileGrads { means, log_weights, log_std: &mut log_std, target },
            });
        });
        let samples = out.log_std.len();
        // SAFETY: the lengths were checked, and the samples are this task's.
        unsafe {
            scatter(&means, [samples, n], 0..n, out.means.as_mut_ptr().cast());
            scatter(&log_weights, [samples, n], 0..n, out.log_weights.as_mut_ptr().cast());
            scatter(&target, [samples, n], 0..n, out.target.as_mut_ptr().cast());
        }
        for (out, lanes) in out.log_std.iter_mut().zip(log_std.chunks(n)) {
            *out = lanes.iter().sum();
        }
        return;
    }
    let TileGrads { means, log_weights, log_std: total, target } = out;
    tiles(inputs, sizes, |tile| {
        let at = tile.start..tile.start + tile.len;
        let out = TileGrads { means, log_weights, log_std: &mut log_std, target };
        vectorised(Backward { tile, nll: &nll[at.clone()], grad: &grad[at], out });
        total[0] += log_std[..tile.len].iter().sum::<f32>();
    });
}
