//! DPM-Solver++ 2M for the reverse stochastic equation.

use super::built_in::BuiltIn;
use super::interface::{Context, Solver, SolverState, Span};
use super::multistep::{self, Node, Predictor, Rule, extrapolated, floored, lambda, slope};
use crate::Result;
use serde::{Deserialize, Serialize};

/// DPM-Solver++ 2M for the reverse stochastic equation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dpmpp2mSde {}

impl BuiltIn for Dpmpp2mSde {
    const DEFAULT: Self = Self {};
}

impl Solver for Dpmpp2mSde {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        Ok(multistep::step(state, span, context, self))
    }

    fn order(&self) -> usize {
        2
    }
}

impl Rule for Dpmpp2mSde {
    fn predictor(&self, span: Span, history: &[Node]) -> Predictor {
        if span.to <= 0.0 {
            return Predictor::X0;
        }
        dpmpp_2m_sde(span.t, span.to, history.first().map(|node| node.t))
    }
}

fn dpmpp_2m_sde(t: f64, to: f64, before: Option<f64>) -> Predictor {
    let h = lambda(to) - lambda(t);
    let share = -(-2.0 * h).exp_m1();
    let step = extrapolated(to / t * (-h).exp(), floored(to) * share, slope(t, before, h));
    Predictor { noise: to * share.sqrt(), ..step }
}
