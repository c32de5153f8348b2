//! Loops over rows: activations, modulated layer norm, gates.

use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::math::{sigmoid, sin_cos, sum};
use crate::kernel::simd::memory::{UninitVec, par_rows};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// 2 sqrt(2/pi), the slope of the logistic that equals the tanh approximation of GELU.
pub(crate) const GELU_SLOPE: f32 = 1.595_769;

/// The cubic term of the tanh approximation of GELU.
pub(crate) const GELU_CUBIC: f32 = 0.044_715;

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    /// x sigmoid(x).
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// Sine.
    Sin,
    /// Cosine.
    Cos,
}

impl Unary {
    #[inline(always)]
    pub(crate) fn value(self, x: f32) -> f32 {
        match self {
            Self::Silu => x * sigmoid(x),
            Self::GeluTanh => x * sigmoid(GELU_SLOPE * (x + GELU_CUBIC * x * x * x)),
            Self::Sin => sin_cos(x).0,
            Self::Cos => sin_cos(x).1,
        }
    }

    #[inline(always)]
    pub(crate) fn slope(self, x: f32) -> f32 {
        match self {
            Self::Silu => {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Self::GeluTanh => {
                let s = sigmoid(GELU_SLOPE * (x + GELU_CUBIC * x * x * x));
                s + x * s * (1.0 - s) * GELU_SLOPE * (1.0 + 3.0 * GELU_CUBIC * x * x)
            }
            Self::Sin => sin_cos(x).1,
            Self::Cos => -sin_cos(x).0,
        }
    }
}

/// A function of every element or, with `grad`, its slope times the gradient.
struct Elementwise<'a> {
    out: &'a mut [MaybeUninit<f32>],
    x: &'a [f32],
    grad: Option<&'a [f32]>,
    kind: Unary,
}

impl Elementwise<'_> {
    /// One specialised loop per kind: `kind` is a constant at every call.
    #[inline(always)]
    fn run_as(self, kind: Unary) {
        // Loops and not `for_each`, whose closure may be compiled apart and then for the oldest processor.
        match self.grad {
            None => {
                for (out, &x) in self.out.iter_mut().zip(self.x) {
                    out.write(kind.value(x));
                }
            }
            Some(grad) => {
                for ((out, &x), &g) in self.out.iter_mut().zip(self.x).zip(grad) {
                    out.write(g * kind.slope(x));
                }
            }
        }
    }
}

impl Loop for Elementwise<'_> {
    #[inline(always)]
    fn run(self) {
        match self.kind {
            Unary::Silu => self.run_as(Unary::Silu),
            Unary::GeluTanh => self.run_as(Unary::GeluTanh),
            Unary::Sin => self.run_as(Unary::Sin),
            Unary::Cos => self.run_as(Unary::Cos),
        }
    }
}

/// The function of every element.
pub(crate) fn unary(x: &[f32], kind: Unary) -> Vec<f32> {
    let mut out = UninitVec::new(x.len());
    par_rows(out.room(), 1, |first, out| {
        let x = &x[first..first + out.len()];
        vectorised(Elementwise { out, x, grad: None, kind });
    });
    // SAFETY: every piece was written.
    unsafe { out.assume_init() }
}

/// The gradient with respect to x.
pub(crate) fn unary_grad(x: &[f32], grad: &[f32], kind: Unary) -> Vec<f32> {
    let mut out = UninitVec::new(x.len());
    par_rows(out.room(), 1, |first, out| {
        let range = first..first + out.len();
        vectorised(Elementwise { out, x: &x[range.clone()], grad: Some(&grad[range]), kind });
    });
    // SAFETY: every piece was written.
    unsafe { out.assume_init() }
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(
        x.len(),
        #[inline(always)]
        |i| x[i],
    ) / n;
    let var = sum(
        x.len(),
        #[inline(always)]
        |i| (x[i] - mean) * (x[i] - mean),
    ) / n;
    (mean, 1.0 / (var + eps).sqrt())
}

struct Modulate<'a> {
    out: &'a mut [MaybeUninit<f32>],
    x: &'a [f32],
    shift: &'a [f32],
    scale: &'a [f32],
    eps: f32,
}

impl Loop for Modulate<'_> {
    #[inline(always)]
    fn run(self) {
        let (mean, inv) = moments(self.x, self.eps);
        for (((out, &x), &shift), &scale) in self.out.iter_mut().zip(self.x).zip(self.shift).zip(self.scale) {
            out.write((x - mean) * inv * (1.0 + scale) + shift);
        }
    }
}

/// LayerNorm, scale and shift of rows of `c`, `n` rows to a sample.
pub(crate) fn modulate(x: &[f32], shift: &[f32], scale: &[f32], [n, c]: [usize; 2], eps: f32) -> Vec<f32> {
    let mut out = UninitVec::new(x.len());
    par_rows(out.room(), c, |first, piece| {
        for (i, out) in piece.chunks_mut(c).enumerate() {
            let row = first + i;
            let sample = row / n * c..row / n * c + c;
            let (shift, scale) = (&shift[sample.clone()], &scale[sample]);
            vectorised(Modulate { out, x: &x[row * c..row * c + c], shift, scale, eps });
        }
    });
    // SAFETY: every row was written.
    unsafe { out.assume_init() }
}

struct ModulateGrad<'a> {
    dx: &'a mut [MaybeUninit<f32>],
    dshift: &'a mut [f32],
    dscale: &'a mut [f32],
    x: &'a [f32],
    scale: &'a [f32],
    grad: &'a [f32],
    eps: f32,
}

impl Loop for ModulateGrad<'_> {
    #[inline(always)]
    fn run(self) {
        let c = self.scale.len();
        let n = c as f32;
        for ((dx, x), grad) in self.dx.chunks_mut(c).zip(self.x.chunks(c)).zip(self.grad.chunks(c)) {
            let scale = &self.scale[..c];
            let (dx, x, grad) = (&mut dx[..c], &x[..c], &grad[..c]);
            let (mean, inv) = moments(x, self.eps);
            let mean_g = sum(
                c,
                #[inline(always)]
                |i| grad[i] * (1.0 + scale[i]),
            ) / n;
            let mean_gx = sum(
                c,
                #[inline(always)]
                |i| grad[i] * (1.0 + scale[i]) * ((x[i] - mean) * inv),
            ) / n;
            let (dshift, dscale) = (&mut self.dshift[..c], &mut self.dscale[..c]);
            for i in 0..c {
                let normal = (x[i] - mean) * inv;
                dshift[i] += grad[i];
                dscale[i] += grad[i] * normal;
                dx[i].write(inv * (grad[i] * (1.0 + scale[i]) - mean_g - normal * mean_gx));
            }
        }
    }
}

/// Gradients with respect to x, shift and scale.
pub(crate) fn modulate_grad(x: &[f32], scale: &[f32], grad: &[f32], [n, c]: [usize; 2], eps: f32) -> [Vec<f32>; 3] {
    let (mut dshift, mut dscale) = (vec![0.0; scale.len()], vec![0.0; scale.len()]);
    assert_eq!(x.len(), n * scale.len(), "modulate: sizes of x and scale");
    let mut dx = UninitVec::new(x.len());
    let outputs = dx.room().par_chunks_mut(n * c).zip(dshift.par_chunks_mut(c)).zip(dscale.par_chunks_mut(c));
    outputs.enumerate().for_each(|(i, ((dx, dshift), dscale))| {
        let (rows, sample) = (i * n * c..(i + 1) * n * c, i * c..(i + 1) * c);
        let (x, grad, scale) = (&x[rows.clone()], &grad[rows], &scale[sample]);
        vectorised(ModulateGrad { dx, dshift, dscale, x, scale, grad, eps });
    });
    // SAFETY: every row of every sample was written.
    [unsafe { dx.assume_init() }, dshift, dscale]
}

struct GatedAdd<'a> {
    out: &'a mut [MaybeUninit<f32>],
    x: &'a [f32],
    y: &'a [f32],
    gate: &'a [f32],
}

impl Loop for GatedAdd<'_> {
    #[inline(always)]
    fn run(self) {
        for (((out, &x), &y), &gate) in self.out.iter_mut().zip(self.x).zip(self.y).zip(self.gate) {
            out.write(x + gate * y);
        }
    }
}

/// x + gate y for rows of `c`, `n` rows to a sample.
pub(crate) fn gated_add(x: &[f32], y: &[f32], gate: &[f32], [n, c]: [usize; 2]) -> Vec<f32> {
    let mut out = UninitVec::new(x.len());
    par_rows(out.room(), c, |first, piece| {
        for (i, out) in piece.chunks_mut(c).enumerate() {
            let row = first + i;
            let (at, sample) = (row * c..row * c + c, row / n * c..row / n * c + c);
            vectorised(GatedAdd { out, x: &x[at.clone()], y: &y[at], gate: &gate[sample] });
        }
    });
    // SAFETY: every row was written.
    unsafe { out.assume_init() }
}

struct GatedAddGrad<'a> {
    dy: &'a mut [MaybeUninit<f32>],
    dgate: &'a mut [f32],
    y: &'a [f32],
    gate: &'a [f32],
    grad: &'a [f32],
}

impl Loop for GatedAddGrad<'_> {
    #[inline(always)]
    fn run(self) {
        let c = self.gate.len();
        for ((dy, y), grad) in self.dy.chunks_mut(c).zip(self.y.chunks(c)).zip(self.grad.chunks(c)) {
            let (dgate, gate) = (&mut self.dgate[..c], &self.gate[..c]);
            let (dy, y, grad) = (&mut dy[..c], &y[..c], &grad[..c]);
            for i in 0..c {
                dy[i].write(gate[i] * grad[i]);
                dgate[i] += y[i] * grad[i];
            }
        }
    }
}

/// Gradients with respect to y and gate; that of x is the incoming one.
pub(crate) fn gated_add_grad(y: &[f32], gate: &[f32], grad: &[f32], [n, c]: [usize; 2]) -> [Vec<f32>; 2] {
    let mut dgate = vec![0.0; gate.len()];
    assert_eq!(y.len(), n * gate.len(), "gated add: sizes of y and gate");
    let mut dy = UninitVec::new(y.len());
    let outputs = dy.room().par_chunks_mut(n * c).zip(dgate.par_chunks_mut(c));
    outputs.enumerate().for_each(|(i, (dy, dgate))| {
        let (rows, sample) = (i * n * c..(i + 1) * n * c, i * c..(i + 1) * c);
        let (y, grad, gate) = (&y[rows.clone()], &grad[rows], &gate[sample]);
        vectorised(GatedAddGrad { dy, dgate, y, gate, grad });
    });
    // SAFETY: every row of every sample was written.
    [unsafe { dy.assume_init() }, dgate]
}
