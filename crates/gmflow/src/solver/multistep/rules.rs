//! The coefficients, in f64. With lambda = log(alpha/sigma) and h the step's length in lambda, the deterministic rules approximate
//!
//! x_to = (sigma_to/sigma) x + sigma_to integral of e^lambda x0(lambda) over the step,
//!
//! by a polynomial for x0 through the predictions at hand.

use super::{Multistep, Node};
use crate::solver::Span;

/// alpha at t = 1 in these rules: lambda has to be finite.
const LEAST_ALPHA: f64 = 1e-6;
/// The last step of DEIS is of order 2 where there are as many steps as this: the rule of diffusers.
const DEIS_ORDER_2_TO_THE_END: usize = 15;
/// SA-Solver adds noise between these times.
const NOISY: [f32; 2] = [0.2, 0.8];

/// alpha = 1 - t with the floor that keeps lambda finite at t = 1.
fn floored(t: f64) -> f64 {
    (1.0 - t).max(LEAST_ALPHA)
}

fn lambda(t: f64) -> f64 {
    (floored(t) / t).ln()
}

/// x_to as a sum over the newest node and the one before: (weight of x, weight of x0) each, and the noise's deviation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    pub now: (f64, f64),
    pub before: (f64, f64),
    pub noise: f64,
}

/// The sample at the newest call, as a sum over the prediction there, those of the last two nodes, and the last node's x and noise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Correction {
    pub here: f64,
    pub last: f64,
    pub before: f64,
    pub x: f64,
    pub noise: f64,
}

impl Multistep {
    /// The step of `span`; `history` are the nodes before the one it starts from, the newest first.
    pub(super) fn step(self, span: Span, history: &[Node]) -> Step {
        let (t, to) = (span.t, span.to);
        let before = history.first().map(|node| node.t);
        let keeps_order = self == Self::Deis && span.index + 1 >= DEIS_ORDER_2_TO_THE_END;
        match self {
            _ if to <= 0.0 && !keeps_order => Step { now: (0.0, 1.0), ..Step::default() },
            Self::Dpmpp2m | Self::UniPc => dpmpp_2m(t, to, before),
            Self::Dpmpp2mSde => dpmpp_2m_sde(t, to, before),
            Self::Dpmpp2s => match before.filter(|_| span.index % 2 == 1) {
                Some(start) => dpmpp_2s(start, t, to),
                None => dpmpp_2m(t, to, None),
            },
            Self::Deis => deis(t, to, before),
            Self::SaSolver { tau } => sa_predictor(t, to, before, noise_share(tau, t)),
        }
    }

    /// The correction of the sample at `t`, for the rules that have one; `history` are the nodes before, the newest first.
    pub(super) fn correction(self, t: f64, history: &[Node]) -> Option<Correction> {
        let last = history.first()?;
        match self {
            Self::UniPc => Some(unic(t, last.t, history.get(1).map(|node| node.t))),
            Self::SaSolver { tau } => Some(sa_corrector(t, last.t, noise_share(tau, last.t))),
            _ => None,
        }
    }
}

/// The line through the predictions at `t` and `before`, continued by half of the step.
fn dpmpp_2m(t: f64, to: f64, before: Option<f64>) -> Step {
    let h = lambda(to) - lambda(t);
    extrapolated(to / t, -floored(to) * (-h).exp_m1(), slope(t, before, h))
}

fn dpmpp_2m_sde(t: f64, to: f64, before: Option<f64>) -> Step {
    let h = lambda(to) - lambda(t);
    let share = -(-2.0 * h).exp_m1();
    let step = extrapolated(to / t * (-h).exp(), floored(to) * share, slope(t, before, h));
    Step { noise: to * share.sqrt(), ..step }
}

/// h over twice the distance to the prediction before, 0 where there is none.
fn slope(t: f64, before: Option<f64>, h: f64) -> f64 {
    before.map_or(0.0, |before| 0.5 * h / (lambda(t) - lambda(before)))
}

/// keep x + weight (x0 + slope (x0 - x0 before)).
fn extrapolated(keep: f64, weight: f64, slope: f64) -> Step {
    Step { now: (keep, weight * (1.0 + slope)), before: (0.0, -weight * slope), noise: 0.0 }
}

/// From the start of a pair of steps, with the prediction in its middle.
fn dpmpp_2s(start: f64, middle: f64, to: f64) -> Step {
    let h = lambda(to) - lambda(start);
    let weight = -floored(to) * (-h).exp_m1();
    let slope = 0.5 * h / (lambda(middle) - lambda(start));
    Step { now: (0.0, weight * slope), before: (to / start, weight * (1.0 - slope)), noise: 0.0 }
}

/// The first-order step plus alpha_to c (eps_before - eps), where c integrates, over rho = sigma/alpha, the line in log rho that is 0 at
/// t and 1 before it, and eps = (x - alpha x0)/sigma. c has a limit where `to` is 0.
fn deis(t: f64, to: f64, before: Option<f64>) -> Step {
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
    Step { now: (first.now.0 - c * x, first.now.1 - c * x0), before: (c * x_before, c * x0_before), noise: 0.0 }
}

/// UniC-2, or UniC-1 after a first step: the polynomial through the predictions at `t`, `last` and `before`.
fn unic(t: f64, last: f64, before: Option<f64>) -> Correction {
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
    Correction {
        here: weight * rho_here,
        last: weight * (1.0 - before - rho_here),
        before: weight * before,
        x: t / last,
        noise: 0.0,
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
fn sa_predictor(t: f64, to: f64, before: Option<f64>, tau: f64) -> Step {
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
    Step { now: (s.keep * to / t, weight * now), before: (0.0, weight * earlier), noise: to * s.noise }
}

/// Adams-Moulton through the predictions at `t` and `last`, with a term of third order in h as in the predictor.
fn sa_corrector(t: f64, last: f64, tau: f64) -> Correction {
    let h = lambda(t) - lambda(last);
    let s = Stochastic::new(tau, h);
    let extra = h / 2.0 - s.remainder / h;
    let weight = s.a * floored(t);
    Correction {
        here: weight * (s.zeroth + s.first / h + extra),
        last: weight * (-s.first / h - extra),
        before: 0.0,
        x: s.keep * t / last,
        noise: t * s.noise,
    }
}
