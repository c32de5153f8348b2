//! UniPC-2 (arXiv:2302.04867): UniP-2 followed by UniC, with B(h) = e^h - 1.

use super::built_in::BuiltIn;
use super::dpmpp_2m::dpmpp_2m;
use super::interface::{Context, Solver, SolverState, Span};
use super::multistep::{self, Corrector, Node, Predictor, Rule, floored, lambda};
use crate::Result;
use serde::{Deserialize, Serialize};

/// UniPC-2: the predictor of DPM-Solver++ 2M and a corrector of order 3 that needs no further call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UniPc {}

impl BuiltIn for UniPc {
    const DEFAULT: Self = Self {};
}

impl Solver for UniPc {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        Ok(multistep::step(state, span, context, self))
    }

    fn order(&self) -> usize {
        3
    }
}

impl Rule for UniPc {
    fn predictor(&self, span: Span, history: &[Node]) -> Predictor {
        if span.to <= 0.0 {
            return Predictor::X0;
        }
        dpmpp_2m(span.t, span.to, history.first().map(|node| node.t))
    }

    fn corrector(&self, t: f64, history: &[Node]) -> Option<Corrector> {
        let last = history.first()?;
        Some(unic(t, last.t, history.get(1).map(|node| node.t)))
    }
}

/// UniC-2, or UniC-1 after a first step: the polynomial through the predictions at `t`, `last` and `before`.
fn unic(t: f64, last: f64, before: Option<f64>) -> Corrector {
    let h = lambda(t) - lambda(last);
    let phi = (-h).exp_m1();
    // b_k = k! (phi_k - 1/k!)/..., with B(h) = phi: the right-hand sides of the order conditions.
    let first = phi / -h - 1.0;
    let (b1, b2) = (first / phi, 2.0 * (first / -h - 0.5) / phi);
    let (rho_before, ratio, rho_here) = match before {
        None => (0.0, 1.0, 0.5),
        Some(before) => {
            let ratio = (lambda(before) - lambda(last)) / h;
            let rho = (b1 - b2) / (1.0 - ratio);
            (rho, ratio, b1 - rho)
        }
    };
    let weight = -floored(t) * phi;
    let before = rho_before / ratio;
    Corrector {
        here: weight * rho_here,
        last: weight * (1.0 - before - rho_here),
        before: weight * before,
        x: t / last,
        noise: 0.0,
    }
}
