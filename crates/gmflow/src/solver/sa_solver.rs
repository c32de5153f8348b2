//! SA-Solver (arXiv:2305.19947): a stochastic Adams predictor and corrector of order 2.

use super::built_in::BuiltIn;
use super::interface::{Context, Solver, SolverState, Span};
use super::multistep::{self, Corrector, Node, Predictor, Rule, floored, lambda};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// SA-Solver, predictor and corrector of order 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SaSolver {
    /// The share of the noise of the reverse stochastic equation that is added for t in [0.2, 0.8]; 0 is none.
    pub tau: f64,
}

impl BuiltIn for SaSolver {
    const DEFAULT: Self = Self { tau: 1.0 };

    fn validate(&self) -> Result<()> {
        if !(self.tau.is_finite() && self.tau >= 0.0) {
            return Err(Error::config("tau", "a number of at least 0", self.tau));
        }
        Ok(())
    }
}

impl Solver for SaSolver {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        Ok(multistep::step(state, span, context, self))
    }

    fn order(&self) -> usize {
        2
    }
}

/// SA-Solver adds noise between these times.
const NOISY: [f32; 2] = [0.2, 0.8];

impl Rule for SaSolver {
    fn predictor(&self, span: Span, history: &[Node]) -> Predictor {
        if span.to <= 0.0 {
            return Predictor::X0;
        }
        sa_predictor(span.t, span.to, history.first().map(|node| node.t), noise_share(self.tau, span.t))
    }

    fn corrector(&self, t: f64, history: &[Node]) -> Option<Corrector> {
        let last = history.first()?;
        Some(sa_corrector(t, last.t, noise_share(self.tau, last.t)))
    }
}

fn noise_share(tau: f64, t: f64) -> f64 {
    // In f32, as grids are made: a grid that has the time 0.8 has it within.
    if (NOISY[0]..=NOISY[1]).contains(&(t as f32)) { tau } else { 0.0 }
}

/// Integrals over a step of SA-Solver of length h, with a = 1 + tau^2 and v = lambda - lambda_to.
struct Stochastic {
    a: f64,
    /// Of e^(a v).
    zeroth: f64,
    /// Of v e^(a v).
    first: f64,
    /// (a h - 1 + e^(-a h))/a^2.
    remainder: f64,
    /// The deviation of the noise, for sigma_to = 1.
    noise: f64,
    /// What is kept of x, for sigma_to = sigma.
    keep: f64,
}

impl Stochastic {
    fn new(tau: f64, h: f64) -> Self {
        let a = 1.0 + tau * tau;
        let decay = (-a * h).exp();
        Self {
            a,
            zeroth: -(-a * h).exp_m1() / a,
            first: -1.0 / (a * a) + decay * (h / a + 1.0 / (a * a)),
            remainder: (a * h - 1.0 + decay) / (a * a),
            noise: (-(-2.0 * tau * tau * h).exp_m1()).sqrt(),
            keep: (-tau * tau * h).exp(),
        }
    }
}

/// Adams-Bashforth. The published form adds a term of third order in h that is kept here.
fn sa_predictor(t: f64, to: f64, before: Option<f64>, tau: f64) -> Predictor {
    let h = lambda(to) - lambda(t);
    let s = Stochastic::new(tau, h);
    let (now, earlier) = match before {
        None => (s.zeroth, 0.0),
        Some(before) => {
            let gap = lambda(t) - lambda(before);
            let extra = (h * h / 2.0 - s.remainder) / gap;
            let from_before = (lambda(to) - lambda(before)) * s.zeroth + s.first;
            (from_before / gap + extra, (-h * s.zeroth - s.first) / gap - extra)
        }
    };
    let weight = s.a * floored(to);
    Predictor { now: (s.keep * to / t, weight * now), before: (0.0, weight * earlier), noise: to * s.noise }
}

/// Adams-Moulton through the predictions at `t` and `last`, with a term of third order in h as in the predictor.
fn sa_corrector(t: f64, last: f64, tau: f64) -> Corrector {
    let h = lambda(t) - lambda(last);
    let s = Stochastic::new(tau, h);
    let extra = h / 2.0 - s.remainder / h;
    let weight = s.a * floored(t);
    Corrector {
        here: weight * (s.zeroth + s.first / h + extra),
        last: weight * (-s.first / h - extra),
        before: 0.0,
        x: s.keep * t / last,
        noise: t * s.noise,
    }
}
