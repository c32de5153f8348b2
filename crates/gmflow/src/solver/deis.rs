//! DEIS (arXiv:2204.13902) of order 2 in the logarithm of sigma/alpha.

use super::built_in::BuiltIn;
use super::dpmpp_2m::dpmpp_2m;
use super::interface::{Context, Solver, SolverState, Span};
use super::multistep::{self, Node, Predictor, Rule, floored};
use crate::Result;
use serde::{Deserialize, Serialize};

/// DEIS of order 2; as in diffusers, the last step is of order 1 where there are fewer than 15.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deis {}

impl BuiltIn for Deis {
    const DEFAULT: Self = Self {};
}

impl Solver for Deis {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        Ok(multistep::step(state, span, context, self))
    }

    fn order(&self) -> usize {
        2
    }
}

/// The last step of DEIS is of order 2 where there are as many steps as this: the rule of diffusers.
const DEIS_ORDER_2_TO_THE_END: usize = 15;

impl Rule for Deis {
    fn predictor(&self, span: Span, history: &[Node]) -> Predictor {
        let keeps_order = span.index + 1 >= DEIS_ORDER_2_TO_THE_END;
        if span.to <= 0.0 && !keeps_order {
            return Predictor::X0;
        }
        deis(span.t, span.to, history.first().map(|node| node.t))
    }
}

/// The first-order step plus alpha_to c (eps_before - eps), where c integrates, over rho = sigma/alpha, the line in log rho that is 0 at
/// t and 1 before it, and eps = (x - alpha x0)/sigma. c has a limit where `to` is 0.
fn deis(t: f64, to: f64, before: Option<f64>) -> Predictor {
    let first = dpmpp_2m(t, to, None);
    let Some(before) = before else { return first };
    let rho = |t: f64| t / floored(t);
    let (from, earlier) = (rho(t), rho(before));
    let antiderivative = |at: f64| match at {
        0.0 => 0.0,
        _ => at * ((at / from).ln() - 1.0) / (earlier / from).ln(),
    };
    let c = floored(to) * (antiderivative(rho(to)) - antiderivative(from));
    let eps = |t: f64| (1.0 / t, -floored(t) / t);
    let ((x, x0), (x_before, x0_before)) = (eps(t), eps(before));
    Predictor { now: (first.now.0 - c * x, first.now.1 - c * x0), before: (c * x_before, c * x0_before), noise: 0.0 }
}
