//! Solvers that use the means of earlier network calls: DPM-Solver++ (arXiv:2211.01095), UniPC (2302.04867), DEIS (2204.13902)
//! and SA-Solver (2305.19947).
//!
//! They were made for variance-preserving diffusions. Every one of them is a linear rule in (alpha, sigma) that does not change when x,
//! alpha and sigma are multiplied by the same number, so the rules apply to the flow's alpha = 1 - t, sigma = t as they stand, and no
//! rescaled schedule appears. A step is one linear combination of samples and predictions; [`rules`] holds the coefficients.

mod rules;

use super::{Context, SolverState, Span, SubStep};
use crate::rng::Purpose;
use burn::tensor::Tensor;
use rules::{Correction, Step};

/// Which rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Multistep {
    /// DPM-Solver++ 2M, the midpoint form.
    Dpmpp2m,
    /// The same for the reverse stochastic equation.
    Dpmpp2mSde,
    /// DPM-Solver++ 2S: steps in pairs, of which the second starts again from where the first did.
    Dpmpp2s,
    /// UniP-2 followed by UniC, with B(h) = e^h - 1.
    UniPc,
    /// DEIS of order 2 in the logarithm of sigma/alpha. The last step is of order 1 in fewer than 15 steps, as in diffusers.
    Deis,
    /// A stochastic Adams predictor and corrector of order 2 with the noise tau for t in [0.2, 0.8], and none elsewhere.
    SaSolver {
        /// The share of the noise of the reverse stochastic equation; 1 is all of it.
        tau: f64,
    },
}

/// What a step leaves behind for the next one.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The time at which the network was called.
    t: f64,
    /// The sample there, after its correction, `[b c h w]`.
    x: Tensor<4>,
    /// The predicted mean of x0 `[b c h w]`.
    x0: Tensor<4>,
    /// The noise that the step from here used `[b c h w]`.
    noise: Option<Tensor<4>>,
}

/// One step. The last one, which lands on 0, is the predicted x0 in every rule but [`Multistep::Deis`] in 15 steps or more.
pub(super) fn step(state: SolverState, span: Span, context: &mut Context, rule: Multistep) -> SolverState {
    let SolverState { x, mut history, .. } = state;
    let mixture = (context.predict)(&x, span.t).mixture();
    let x0 = mixture.0.mean();
    let x = match rule.correction(span.t, &history) {
        Some(correction) => corrected(&correction, &history, &x0),
        None => x,
    };
    let step = rule.step(span, &history);
    let noisy = span.to > 0.0 && step.noise > 0.0;
    let noise = noisy.then(|| context.draws.normal(Purpose::Transition, span.index, x.dims()));
    history.insert(0, Node { t: span.t, x, x0, noise });
    history.truncate(2);
    let next = stepped(&step, &history);
    if let Some(observe) = &mut context.observe {
        let x0 = &history[0].x0;
        observe(&SubStep { step: span.index, substep: 0, last: true, mixture: &mixture, x0, x: &next });
    }
    SolverState { x: next, previous: None, history }
}

/// The step's combination of the newest two nodes, the newest first.
fn stepped(step: &Step, history: &[Node]) -> Tensor<4> {
    let mut next = None;
    for (node, (x, x0)) in history.iter().zip([step.now, step.before]) {
        add(&mut next, &node.x, x);
        add(&mut next, &node.x0, x0);
    }
    if let Some(noise) = &history[0].noise {
        add(&mut next, noise, step.noise);
    }
    next.unwrap_or_else(|| history[0].x0.zeros_like())
}

/// The sample at the newest prediction `x0`, computed again from the step that led to it.
fn corrected(correction: &Correction, history: &[Node], x0: &Tensor<4>) -> Tensor<4> {
    let mut sum = Some(x0.clone() * correction.here);
    for (node, weight) in history.iter().zip([correction.last, correction.before]) {
        add(&mut sum, &node.x0, weight);
    }
    let last = &history[0];
    add(&mut sum, &last.x, correction.x);
    if let Some(noise) = &last.noise {
        add(&mut sum, noise, correction.noise);
    }
    sum.unwrap_or_else(|| x0.clone())
}

fn add(sum: &mut Option<Tensor<4>>, term: &Tensor<4>, weight: f64) {
    if weight == 0.0 {
        return;
    }
    let term = term.clone() * weight;
    *sum = Some(match sum.take() {
        Some(sum) => sum + term,
        None => term,
    });
}
