//! Solvers that use the means of earlier network calls: DPM-Solver++ (arXiv:2211.01095), UniPC (2302.04867), DEIS (2204.13902)
//! and SA-Solver (2305.19947).
//!
//! They were made for variance-preserving diffusions. Every one of them is a linear rule in (alpha, sigma) that does not change when x,
//! alpha and sigma are multiplied by the same number, so the rules apply to the flow's alpha = 1 - t, sigma = t as they stand, and no
//! rescaled schedule appears. A step is one linear combination of samples and predictions.
//!
//! The coefficients are in f64. With lambda = log(alpha/sigma) and h the step's length in lambda, the deterministic rules approximate
//!
//! x_to = (sigma_to/sigma) x + sigma_to integral of e^lambda x0(lambda) over the step,
//!
//! by a polynomial for x0 through the predictions at hand.

use super::interface::{Context, SolverState, Span, SubStep};
use crate::rng::Purpose;
use burn::tensor::Tensor;

/// alpha at t = 1 in these rules: lambda has to be finite.
const LEAST_ALPHA: f64 = 1e-6;

/// A solver that goes by the means of earlier calls.
pub(super) trait Rule {
    /// The step of `span`; `history` are the nodes before the one it starts from, the newest first. Landing on 0 most rules end at the
    /// predicted x0.
    fn predictor(&self, span: Span, history: &[Node]) -> Predictor;

    /// The correction of the sample at `t`, for the rules that have one; `history` are the nodes before, the newest first.
    fn corrector(&self, _t: f64, _history: &[Node]) -> Option<Corrector> {
        None
    }
}

/// What a step leaves behind for the next one.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The time at which the network was called.
    pub t: f64,
    /// The sample there, after its correction, `[b c h w]`.
    x: Tensor<4>,
    /// The predicted mean of x0 `[b c h w]`.
    x0: Tensor<4>,
    /// The noise that the step from here used `[b c h w]`.
    noise: Option<Tensor<4>>,
}

/// One step.
pub(super) fn step(state: SolverState, span: Span, context: &mut Context, rule: &impl Rule) -> SolverState {
    let (x, history) = state.into_parts::<Vec<Node>>();
    let mut history = history.unwrap_or_default();
    let mixture = (context.predict)(&x, span.t).mixture();
    let x0 = mixture.0.mean();
    let x = match rule.corrector(span.t, &history) {
        Some(corrector) => corrected(&corrector, &history, &x0),
        None => x,
    };
    let step = rule.predictor(span, &history);
    let noisy = span.to > 0.0 && step.noise > 0.0;
    let noise = noisy.then(|| context.draws.normal(Purpose::Transition, span.index, x.dims()));
    history.insert(0, Node { t: span.t, x, x0, noise });
    history.truncate(2);
    let next = stepped(&step, &history);
    if let Some(observe) = &mut context.observe {
        let x0 = &history[0].x0;
        observe(&SubStep { step: span.index, substep: 0, last: true, mixture: &mixture, x0, x: &next });
    }
    SolverState::with_memory(next, history)
}

/// The step's combination of the newest two nodes, the newest first.
fn stepped(step: &Predictor, history: &[Node]) -> Tensor<4> {
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
fn corrected(corrector: &Corrector, history: &[Node], x0: &Tensor<4>) -> Tensor<4> {
    let mut sum = Some(x0.clone() * corrector.here);
    for (node, weight) in history.iter().zip([corrector.last, corrector.before]) {
        add(&mut sum, &node.x0, weight);
    }
    let last = &history[0];
    add(&mut sum, &last.x, corrector.x);
    if let Some(noise) = &last.noise {
        add(&mut sum, noise, corrector.noise);
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

/// alpha = 1 - t with the floor that keeps lambda finite at t = 1.
pub(super) fn floored(t: f64) -> f64 {
    (1.0 - t).max(LEAST_ALPHA)
}

pub(super) fn lambda(t: f64) -> f64 {
    (floored(t) / t).ln()
}

/// x_to as a sum over the newest node and the one before: (weight of x, weight of x0) each, and the noise's deviation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Predictor {
    pub now: (f64, f64),
    pub before: (f64, f64),
    pub noise: f64,
}

/// The sample at the newest call, as a sum over the prediction there, those of the last two nodes, and the last node's x and noise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Corrector {
    pub here: f64,
    pub last: f64,
    pub before: f64,
    pub x: f64,
    pub noise: f64,
}

impl Predictor {
    /// The predicted x0.
    pub const X0: Self = Self { now: (0.0, 1.0), before: (0.0, 0.0), noise: 0.0 };
}

/// h over twice the distance to the prediction before, 0 where there is none.
pub(super) fn slope(t: f64, before: Option<f64>, h: f64) -> f64 {
    before.map_or(0.0, |before| 0.5 * h / (lambda(t) - lambda(before)))
}

/// keep x + weight (x0 + slope (x0 - x0 before)).
pub(super) fn extrapolated(keep: f64, weight: f64, slope: f64) -> Predictor {
    Predictor { now: (keep, weight * (1.0 + slope)), before: (0.0, -weight * slope), noise: 0.0 }
}
