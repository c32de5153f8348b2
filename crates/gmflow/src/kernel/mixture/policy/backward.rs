//! The backward pass of a roll-out: pixel by pixel, every sub-step is computed again and then differentiated.
//!
//! Let m be the mean of the mixture over x0, and y_k = a_k - m its components measured from it. A sub-step is
//!
//! ```text
//! nu = p x - q x_src - zeta m        s = 1/(1 + v zeta)
//! l_k = log A_k + s y_k.(nu - zeta y_k/2)        w = softmax(l)
//! X = m + s (sum_k w_k y_k + v nu)        x' = keep x + (1 - keep) X
//! ```
//!
//! x' does not depend on m, so the gradient takes m for a constant.

use super::RollOut;
use super::forward::{EARLIEST_SOURCE, Inputs};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::mixture::step::types::OdeSubstep;
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::math::exp;
use crate::kernel::simd::memory::par_map;

/// Pixels that are worked on at a time.
const LANES: usize = 64;

/// A number for each of them.
type Row = [f32; LANES];

/// Gradients `[b k c n]`, `[b k n]`, `[b]`, `[b c n]`.
pub(crate) struct Grads {
    pub means: Vec<f32>,
    pub log_weights: Vec<f32>,
    pub log_std: Vec<f32>,
    pub x: Vec<f32>,
}

/// Pixels that are worked on together: some of one sample, or all of several.
#[derive(Clone, Copy)]
struct Span {
    first: usize,
    samples: usize,
    start: usize,
    /// Pixels of each sample.
    width: usize,
}

impl Span {
    fn all(b: usize, n: usize) -> Vec<Self> {
        if n >= LANES {
            let of_sample = |first| {
                (0..n).step_by(LANES).map(move |start| Self { first, samples: 1, start, width: LANES.min(n - start) })
            };
            return (0..b).flat_map(of_sample).collect();
        }
        let together = LANES / n.max(1);
        let group = |first| Self { first, samples: together.min(b - first), start: 0, width: n };
        (0..b).step_by(together).map(group).collect()
    }

    /// `rows` rows of lanes from `[b rows n]`.
    fn gather(&self, values: &[f32], rows: usize, n: usize) -> Vec<Row> {
        let mut lanes = vec![[0.0; LANES]; rows];
        for sample in 0..self.samples {
            for (row, lanes) in lanes.iter_mut().enumerate() {
                let from = ((self.first + sample) * rows + row) * n + self.start;
                lanes[sample * self.width..][..self.width].copy_from_slice(&values[from..][..self.width]);
            }
        }
        lanes
    }

    /// The inverse of [`Span::gather`].
    fn scatter(&self, lanes: &[Row], n: usize, values: &mut [f32]) {
        let rows = lanes.len();
        for sample in 0..self.samples {
            for (row, lanes) in lanes.iter().enumerate() {
                let to = ((self.first + sample) * rows + row) * n + self.start;
                values[to..][..self.width].copy_from_slice(&lanes[sample * self.width..][..self.width]);
            }
        }
    }

    /// A number of each sample in its lanes.
    fn per_sample(&self, value: impl Fn(usize) -> f32) -> Row {
        let mut row = [0.0; LANES];
        for sample in 0..self.samples {
            row[sample * self.width..][..self.width].fill(value(self.first + sample));
        }
        row
    }
}

/// The numbers of a sub-step in lanes.
struct Numbers {
    of_x: Row,
    of_source: Row,
    zeta: Row,
    keep: Row,
}

/// The lanes of a span, and what the way back adds up.
struct Lanes {
    k: usize,
    c: usize,
    substeps: Vec<Numbers>,
    /// y_k, `[k c]`, and log A_k.
    components: Vec<Row>,
    log_weights: Vec<Row>,
    /// m, x_src and v.
    mean: Vec<Row>,
    source: Vec<Row>,
    var: Row,
    /// x before every sub-step, `[count c]`.
    path: Vec<Row>,
    /// Room for w_k.
    weights: Vec<Row>,
    /// The gradients of y_k, of log A_k, of v and of x.
    grad_components: Vec<Row>,
    grad_log_weights: Vec<Row>,
    grad_var: Row,
    grad_x: Vec<Row>,
}

/// What a sub-step finds on the way.
struct Moved {
    nu: Vec<Row>,
    /// s and sum_k w_k y_k.
    scale: Row,
    mean: Vec<Row>,
}

impl Lanes {
    fn new(span: Span, inputs: Inputs, grad: &[f32], plan: &RollOut, Sizes { k, c, n }: Sizes) -> Self {
        let times = span.per_sample(|sample| plan.sources[sample].max(EARLIEST_SOURCE));
        let source = span.gather(inputs.source, c, n);
        let mut components = span.gather(inputs.means, k * c, n);
        let log_weights = span.gather(inputs.log_weights, k, n);
        let mut mean = vec![[0.0; LANES]; c];
        for (k, log_weights) in log_weights.iter().enumerate() {
            for (i, mean) in mean.iter_mut().enumerate() {
                let component = &mut components[k * c + i];
                for lane in 0..LANES {
                    component[lane] = source[i][lane] - times[lane] * component[lane];
                    mean[lane] += log_weights[lane].exp() * component[lane];
                }
            }
        }
        for (row, component) in components.iter_mut().enumerate() {
            component.iter_mut().zip(&mean[row % c]).for_each(|(x, mean)| *x -= mean);
        }
        let of = |sample: usize, i: usize| &plan.substeps[sample * plan.count + i];
        let samples = span.first..span.first + span.samples;
        let needed = |i: &usize| samples.clone().any(|sample| !of(sample, *i).changes_nothing());
        let count = (0..plan.count).rev().find(needed).map_or(0, |last| last + 1);
        let row = |i: usize, number: fn(&OdeSubstep) -> f32| span.per_sample(|sample| number(of(sample, i)));
        let numbers = |i| Numbers {
            of_x: row(i, |s| s.of_x_tau),
            of_source: row(i, |s| s.of_x_t),
            zeta: row(i, |s| s.zeta),
            keep: row(i, |s| s.keep),
        };
        let var = span.per_sample(|sample| {
            let std = inputs.log_std[sample].exp() * plan.sources[sample].max(EARLIEST_SOURCE);
            std * std
        });
        let mut path = span.gather(inputs.x, c, n);
        path.resize((count + 1) * c, [0.0; LANES]);
        Self {
            k,
            c,
            substeps: (0..count).map(numbers).collect(),
            mean,
            source,
            var,
            path,
            weights: vec![[0.0; LANES]; k],
            grad_components: vec![[0.0; LANES]; k * c],
            grad_log_weights: vec![[0.0; LANES]; k],
            grad_var: [0.0; LANES],
            grad_x: span.gather(grad, c, n),
            components,
            log_weights,
        }
    }

    /// nu, s, w and their mean at sub-step `i`.
    #[inline(always)]
    fn moved(&mut self, i: usize) -> Moved {
        let Self { k, c, substeps, components, log_weights, mean, source, var, path, weights, .. } = self;
        let (k, c, numbers) = (*k, *c, &substeps[i]);
        let mut scale = [0.0; LANES];
        for lane in 0..LANES {
            scale[lane] = 1.0 / (1.0 + var[lane] * numbers.zeta[lane]);
        }
        let mut nu = vec![[0.0; LANES]; c];
        for (j, nu) in nu.iter_mut().enumerate() {
            let x = &path[i * c + j];
            for lane in 0..LANES {
                nu[lane] = numbers.of_x[lane] * x[lane]
                    - numbers.of_source[lane] * source[j][lane]
                    - numbers.zeta[lane] * mean[j][lane];
            }
        }
        let mut top = [f32::NEG_INFINITY; LANES];
        for (k, weight) in weights.iter_mut().enumerate() {
            let mut gain = [0.0; LANES];
            for (j, nu) in nu.iter().enumerate() {
                let y = &components[k * c + j];
                for lane in 0..LANES {
                    gain[lane] += y[lane] * (nu[lane] - 0.5 * numbers.zeta[lane] * y[lane]);
                }
            }
            for lane in 0..LANES {
                weight[lane] = log_weights[k][lane] + gain[lane] * scale[lane];
                top[lane] = top[lane].max(weight[lane]);
            }
        }
        let (mut total, mut mean) = ([0.0; LANES], vec![[0.0; LANES]; c]);
        for weight in weights.iter_mut() {
            for lane in 0..LANES {
                weight[lane] = exp(weight[lane] - top[lane]);
                total[lane] += weight[lane];
            }
        }
        for (k, weight) in weights.iter_mut().enumerate().take(k) {
            for lane in 0..LANES {
                weight[lane] /= total[lane];
            }
            for (j, mean) in mean.iter_mut().enumerate() {
                for lane in 0..LANES {
                    mean[lane] += weight[lane] * components[k * c + j][lane];
                }
            }
        }
        Moved { nu, scale, mean }
    }

    /// x after sub-step `i`, into the path.
    #[inline(always)]
    fn forward(&mut self, i: usize) {
        let Moved { nu, scale, mean } = self.moved(i);
        let (c, keep) = (self.c, &self.substeps[i].keep);
        let (before, after) = self.path.split_at_mut((i + 1) * c);
        for (j, after) in after[..c].iter_mut().enumerate() {
            for lane in 0..LANES {
                let x0 = self.mean[j][lane] + scale[lane] * (mean[j][lane] + self.var[lane] * nu[j][lane]);
                after[lane] = keep[lane] * before[i * c + j][lane] + (1.0 - keep[lane]) * x0;
            }
        }
    }

    /// Takes sub-step `i` back: from the gradient of x after it to that of x before it, and adds to the others.
    #[inline(always)]
    fn backward(&mut self, i: usize) {
        let Moved { nu, scale, mean } = self.moved(i);
        let (c, numbers) = (self.c, &self.substeps[i]);
        let (mut grad_scale, mut grad_nu) = ([0.0; LANES], vec![[0.0; LANES]; c]);
        // The gradient of sum_k w_k y_k.
        let mut pull = vec![[0.0; LANES]; c];
        for j in 0..c {
            for lane in 0..LANES {
                let grad_x0 = (1.0 - numbers.keep[lane]) * self.grad_x[j][lane];
                pull[j][lane] = scale[lane] * grad_x0;
                grad_nu[j][lane] = scale[lane] * self.var[lane] * grad_x0;
                grad_scale[lane] += grad_x0 * (mean[j][lane] + self.var[lane] * nu[j][lane]);
                self.grad_var[lane] += scale[lane] * nu[j][lane] * grad_x0;
                self.grad_x[j][lane] *= numbers.keep[lane];
            }
        }
        for (k, weight) in self.weights.iter().enumerate() {
            let (mut grad, mut gain) = ([0.0; LANES], [0.0; LANES]);
            for j in 0..c {
                let y = &self.components[k * c + j];
                for lane in 0..LANES {
                    grad[lane] += weight[lane] * (y[lane] - mean[j][lane]) * pull[j][lane];
                    gain[lane] += y[lane] * (nu[j][lane] - 0.5 * numbers.zeta[lane] * y[lane]);
                }
            }
            for lane in 0..LANES {
                self.grad_log_weights[k][lane] += grad[lane];
                grad_scale[lane] += grad[lane] * gain[lane];
            }
            for j in 0..c {
                let y = &self.components[k * c + j];
                let grad_y = &mut self.grad_components[k * c + j];
                for lane in 0..LANES {
                    let along = grad[lane] * scale[lane];
                    grad_y[lane] +=
                        weight[lane] * pull[j][lane] + along * (nu[j][lane] - numbers.zeta[lane] * y[lane]);
                    grad_nu[j][lane] += along * y[lane];
                }
            }
        }
        for lane in 0..LANES {
            self.grad_var[lane] -= numbers.zeta[lane] * scale[lane] * scale[lane] * grad_scale[lane];
        }
        for (grad_x, grad_nu) in self.grad_x.iter_mut().zip(&grad_nu) {
            for lane in 0..LANES {
                grad_x[lane] += numbers.of_x[lane] * grad_nu[lane];
            }
        }
    }
}

/// The whole way there and back.
struct ThereAndBack<'a>(&'a mut Lanes);

impl Loop for ThereAndBack<'_> {
    #[inline(always)]
    fn run(self) {
        let count = self.0.substeps.len();
        for i in 0..count.saturating_sub(1) {
            self.0.forward(i);
        }
        for i in (0..count).rev() {
            self.0.backward(i);
        }
    }
}

/// The gradients, from that of the ends `[b c n]`.
pub(crate) fn roll_out_grad(inputs: Inputs, grad: &[f32], plan: &RollOut, sizes: Sizes) -> Grads {
    let Sizes { k, c, n } = sizes;
    let b = plan.sources.len();
    let work = inputs.means.len() * (4 + 2 * plan.count);
    let lanes = par_map(
        Span::all(b, n),
        work,
        || (),
        |(), span| {
            let mut lanes = Lanes::new(span, inputs, grad, plan, sizes);
            vectorised(ThereAndBack(&mut lanes));
            (span, lanes)
        },
    );
    let mut grads = Grads {
        means: vec![0.0; inputs.means.len()],
        log_weights: vec![0.0; inputs.log_weights.len()],
        log_std: vec![0.0; b],
        x: vec![0.0; inputs.x.len()],
    };
    debug_assert_eq!(grads.means.len(), b * k * c * n);
    for (span, mut lanes) in lanes {
        // y_k = x_src - t_src mu_k - m and v = (t_src s)^2.
        let times = span.per_sample(|sample| -plan.sources[sample].max(EARLIEST_SOURCE));
        for row in &mut lanes.grad_components {
            row.iter_mut().zip(&times).for_each(|(grad, t)| *grad *= t);
        }
        span.scatter(&lanes.grad_components, n, &mut grads.means);
        span.scatter(&lanes.grad_log_weights, n, &mut grads.log_weights);
        span.scatter(&lanes.grad_x, n, &mut grads.x);
        for sample in 0..span.samples {
            let at = sample * span.width..(sample + 1) * span.width;
            let of_pixels = lanes.grad_var[at.clone()].iter().zip(&lanes.var[at]);
            grads.log_std[span.first + sample] += of_pixels.map(|(grad, var)| 2.0 * var * grad).sum::<f32>();
        }
    }
    grads
}
