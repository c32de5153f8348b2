//! Log-softmax over the components of a mixture, with its gradient.

use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::math::{exp, max, sum};
use crate::kernel::simd::memory::{UninitVec, par_rows};
use std::mem::MaybeUninit;

/// Log-softmax, or with `grad` its gradient from the output in `x`, of k planes of `inner` values.
struct LogSoftmax<'a> {
    out: &'a mut [MaybeUninit<f32>],
    x: &'a [f32],
    grad: Option<&'a [f32]>,
    inner: usize,
}

impl Loop for LogSoftmax<'_> {
    #[inline(always)]
    fn run(self) {
        match (self.inner, self.grad) {
            (1, None) => {
                let top = max(self.x);
                let total = sum(
                    self.x.len(),
                    #[inline(always)]
                    |i| exp(self.x[i] - top),
                );
                let log_total = top + total.ln();
                for (out, &x) in self.out.iter_mut().zip(self.x) {
                    out.write(x - log_total);
                }
            }
            (1, Some(grad)) => {
                let total = sum(
                    grad.len(),
                    #[inline(always)]
                    |i| grad[i],
                );
                for ((out, &y), &g) in self.out.iter_mut().zip(self.x).zip(grad) {
                    out.write(g - exp(y) * total);
                }
            }
            (inner, None) => {
                let (mut top, mut total) = (vec![f32::MIN; inner], vec![0.0f32; inner]);
                for plane in self.x.chunks(inner) {
                    for (top, &x) in top.iter_mut().zip(plane) {
                        *top = top.max(x);
                    }
                }
                for plane in self.x.chunks(inner) {
                    for ((total, &x), &top) in total.iter_mut().zip(plane).zip(&top) {
                        *total += exp(x - top);
                    }
                }
                for (total, &top) in total.iter_mut().zip(&top) {
                    *total = top + total.ln();
                }
                for (out, plane) in self.out.chunks_mut(inner).zip(self.x.chunks(inner)) {
                    for ((out, &x), &total) in out.iter_mut().zip(plane).zip(&total) {
                        out.write(x - total);
                    }
                }
            }
            (inner, Some(grad)) => {
                let mut total = vec![0.0f32; inner];
                for plane in grad.chunks(inner) {
                    for (total, &g) in total.iter_mut().zip(plane) {
                        *total += g;
                    }
                }
                for ((out, y), g) in self.out.chunks_mut(inner).zip(self.x.chunks(inner)).zip(grad.chunks(inner)) {
                    for (((out, &y), &g), &total) in out.iter_mut().zip(y).zip(g).zip(&total) {
                        out.write(g - exp(y) * total);
                    }
                }
            }
        }
    }
}

/// Log-softmax over k of `[outer k inner]`.
pub(crate) fn log_softmax(x: &[f32], k: usize, inner: usize) -> Vec<f32> {
    log_softmax_or_grad(x, None, k, inner)
}

/// The gradient of [`log_softmax`] from its output `y`.
pub(crate) fn log_softmax_grad(y: &[f32], grad: &[f32], k: usize, inner: usize) -> Vec<f32> {
    log_softmax_or_grad(y, Some(grad), k, inner)
}

fn log_softmax_or_grad(x: &[f32], grad: Option<&[f32]>, k: usize, inner: usize) -> Vec<f32> {
    let width = k * inner;
    let mut out = UninitVec::new(x.len());
    par_rows(out.room(), width, |first, piece| {
        for (i, out) in piece.chunks_mut(width).enumerate() {
            let at = (first + i) * width..(first + i + 1) * width;
            vectorised(LogSoftmax { out, x: &x[at.clone()], grad: grad.map(|g| &g[at]), inner });
        }
    });
    // SAFETY: every piece was written.
    unsafe { out.assume_init() }
}
