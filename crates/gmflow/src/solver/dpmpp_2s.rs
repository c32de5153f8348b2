//! DPM-Solver++ 2S: steps in pairs, of which the second starts again from where the first did.

use super::built_in::BuiltIn;
use super::dpmpp_2m::dpmpp_2m;
use super::interface::{Context, Solver, SolverState, Span};
use super::multistep::{self, Node, Predictor, Rule, floored, lambda};
use crate::Result;
use serde::{Deserialize, Serialize};

/// DPM-Solver++ 2S: steps in pairs, of order 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dpmpp2s {}

impl BuiltIn for Dpmpp2s {
    const DEFAULT: Self = Self {};
}

impl Solver for Dpmpp2s {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        Ok(multistep::step(state, span, context, self))
    }

    fn order(&self) -> usize {
        2
    }
}

impl Rule for Dpmpp2s {
    fn predictor(&self, span: Span, history: &[Node]) -> Predictor {
        if span.to <= 0.0 {
            return Predictor::X0;
        }
        match history.first().map(|node| node.t).filter(|_| span.index % 2 == 1) {
            Some(start) => dpmpp_2s(start, span.t, span.to),
            None => dpmpp_2m(span.t, span.to, None),
        }
    }
}

/// From the start of a pair of steps, with the prediction in its middle.
fn dpmpp_2s(start: f64, middle: f64, to: f64) -> Predictor {
    let h = lambda(to) - lambda(start);
    let weight = -floored(to) * (-h).exp_m1();
    let slope = 0.5 * h / (lambda(middle) - lambda(start));
    Predictor { now: (0.0, weight * slope), before: (to / start, weight * (1.0 - slope)), noise: 0.0 }
}
