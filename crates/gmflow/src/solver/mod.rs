//! Solvers: stateless values with `init` and `step`, and explicit state.
//!
//! Every solver stands in a file of its own and implements [`Solver`]; [`SolverConfig`] is the front of those that come with the crate, as
//! files and commands name them, and is made from the list at the end of this file. A solver of one's own needs nothing but the trait:
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::Result;
//! use gmflow::guidance::{Guidance, GuidedPrediction};
//! use gmflow::mixture::{DataMixture, GaussianMixture};
//! use gmflow::solver::{Context, SecondOrder, SeededNoise, Solver, SolverState, Span, euler_step};
//!
//! /// The midpoint rule: two network calls per step.
//! struct Midpoint;
//!
//! impl Solver for Midpoint {
//!     fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
//!         let middle = 0.5 * (span.t + span.to);
//!         let x0 = (context.predict)(state.x(), span.t).mixture().0.mean();
//!         let x = euler_step(state.x(), &x0, span.t, middle);
//!         let velocity = (x.clone() - (context.predict)(&x, middle).mixture().0.mean()) / middle;
//!         Ok(SolverState::new(state.into_x() + velocity * (span.to - span.t)))
//!     }
//!
//!     fn order(&self) -> usize {
//!         2
//!     }
//! }
//!
//! // A prediction that knows the data: it is 1 everywhere.
//! let mut predict = |x: &Tensor<4>, _: f64| {
//!     let (device, [b, _, h, w]) = (x.device(), x.dims());
//!     let mixture = GaussianMixture {
//!         means: Tensor::ones_like(x).unsqueeze_dim(1),
//!         log_weights: Tensor::zeros([b, 1, 1, h, w], &device),
//!         log_std: Tensor::full([b, 1, 1, 1, 1], -5.0, &device),
//!     };
//!     GuidedPrediction::new(Guidance::Off, DataMixture(mixture), None, x)
//! };
//! let device = Device::flex();
//! let mut noise = SeededNoise { seeds: vec![0], device: device.clone() };
//! let second_order = SecondOrder::default();
//! let mut context =
//!     Context { predict: &mut predict, draws: &mut noise, spectrum: None, second_order, observe: None };
//! let mut state = Midpoint.init(Tensor::zeros([1, 1, 2, 2], &device));
//! for index in 0..4 {
//!     let at = |i: usize| 1.0 - i as f64 / 4.0;
//!     let span = Span { index, t: at(index), to: at(index + 1), default_substeps: 1, shift: 1.0 };
//!     state = Midpoint.step(state, span, &mut context)?;
//! }
//! let worst: f32 = (state.into_x() - 1.0).abs().max().into_scalar();
//! assert!(worst < 1e-6);
//! # Ok::<(), gmflow::Error>(())
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod built_in;
mod config;
mod interface;
mod mixture_step;
mod multistep;
mod noise;
mod previous;
pub(crate) mod second_order;
pub(crate) mod transition;

pub use crate::kernel::mixture::step::types::CorrectedPrediction;
pub use ddpm_large::ddpm_large_std;
pub use interface::{Context, Solver, SolverState, Span, SubStep};
pub use noise::{NoiseSource, SeededNoise};
pub use previous::PreviousStep;
pub use second_order::{SecondOrder, SecondOrderMode};
pub use transition::{euler_step, transition};

use crate::Result;
use built_in::{BuiltIn, solvers};

// The solvers that come with the crate, in the order of the help: file and type, name, and a few words. Nothing else lists them.
solvers! {
    gm_ode::GmOde = "gm-ode", "Deterministic, along the mixture's analytic velocity";
    gm_sde::GmSde = "gm-sde", "Stochastic, with draws from the mixture";
    euler::Euler = "euler", "Euler steps along the mean velocity (DDIM)";
    heun::Heun = "heun", "Heun's second-order steps";
    ddpm_small::DdpmSmall = "ddpm-small", "Ancestral sampling with the smaller variance";
    ddpm_large::DdpmLarge = "ddpm-large", "Ancestral sampling with the larger variance";
    dpmpp_2m::Dpmpp2m = "dpmpp-2m", "DPM-Solver++ 2M, multistep of order 2";
    dpmpp_2m_sde::Dpmpp2mSde = "dpmpp-2m-sde", "DPM-Solver++ 2M for the stochastic equation";
    dpmpp_2s::Dpmpp2s = "dpmpp-2s", "DPM-Solver++ 2S, steps in pairs";
    unipc::UniPc = "unipc", "UniPC-2, a multistep predictor and corrector";
    deis::Deis = "deis", "DEIS of order 2";
    sa_solver::SaSolver = "sa-solver", "SA-Solver, a stochastic multistep predictor and corrector";
    pi_flow::PiFlow = "policy", "Along the policy of a distilled student (pi-Flow)";
}
