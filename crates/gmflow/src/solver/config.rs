//! The solvers that come with the crate, as files and commands name them.

use super::ddpm::{DdpmLarge, DdpmSmall};
use super::deis::Deis;
use super::dpmpp_2m::Dpmpp2m;
use super::dpmpp_2m_sde::Dpmpp2mSde;
use super::dpmpp_2s::Dpmpp2s;
use super::euler::Euler;
use super::gm_ode::GmOde;
use super::gm_sde::GmSde;
use super::heun::Heun;
use super::interface::{Context, Solver, SolverState, Span};
use super::policy::PolicyConfig;
use super::sa_solver::SaSolver;
use super::unipc::UniPc;
use crate::{Error, Result, limits};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// A solver and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SolverConfig {
    /// Euler sub-steps along the analytic velocity of the mixture.
    GmOde {
        /// 1 or 2.
        #[serde(default = "second")]
        order: u8,
        /// Sub-steps per network call; by default 128 shared among the steps.
        #[serde(default)]
        substeps: Option<usize>,
    },
    /// Exact reverse transitions from draws of the mixture.
    GmSde {
        /// 1 or 2.
        #[serde(default = "second")]
        order: u8,
        /// Whether the draws are shaped by the model's spectrum network; by default where it has one.
        #[serde(default)]
        spectral: Option<bool>,
    },
    /// x + dt u: the vanilla flow's solver, which is DDIM with eta = 0.
    Euler,
    /// Euler with a trapezoidal correction: two network calls per step, one in the last.
    Heun,
    /// The reverse transition from the mean with the posterior variance only.
    DdpmSmall {
        /// 1, or 2 for a mean with the second-order change of the mixture solvers.
        #[serde(default = "first")]
        order: u8,
        /// Sub-steps per network call, the mean moved to each point by the mixture.
        #[serde(default = "one")]
        substeps: usize,
    },
    /// The reverse transition from the mean, its variance enlarged by that of standard normal data.
    DdpmLarge {
        /// As with small variance.
        #[serde(default = "first")]
        order: u8,
        /// As with small variance.
        #[serde(default = "one")]
        substeps: usize,
    },
    /// DPM-Solver++ 2M: multistep of order 2.
    #[serde(rename = "dpmpp-2m")]
    Dpmpp2m,
    /// DPM-Solver++ 2M for the reverse stochastic equation.
    #[serde(rename = "dpmpp-2m-sde")]
    Dpmpp2mSde,
    /// DPM-Solver++ 2S: steps in pairs, of order 2.
    #[serde(rename = "dpmpp-2s")]
    Dpmpp2s,
    /// UniPC-2: the predictor of DPM-Solver++ 2M and a corrector of order 3 that needs no further call.
    #[serde(rename = "unipc")]
    UniPc,
    /// DEIS of order 2; as in diffusers, the last step is of order 1 where there are fewer than 15.
    Deis,
    /// SA-Solver, predictor and corrector of order 2.
    SaSolver {
        /// The share of the noise of the reverse stochastic equation that is added for t in [0.2, 0.8]; 0 is none.
        #[serde(default = "all")]
        tau: f64,
    },
    /// Roll-outs along the policy that the network predicts, as distillation has taught it.
    Policy(PolicyConfig),
}

fn first() -> u8 {
    1
}

fn one() -> usize {
    1
}

fn all() -> f64 {
    1.0
}

fn second() -> u8 {
    2
}

impl SolverConfig {
    /// DDPM with small variance as it is usually meant: first order, no sub-steps.
    pub const DDPM_SMALL: Self = Self::DdpmSmall { order: 1, substeps: 1 };
    /// DDPM with large variance, likewise.
    pub const DDPM_LARGE: Self = Self::DdpmLarge { order: 1, substeps: 1 };
    /// SA-Solver with all the noise.
    pub const SA_SOLVER: Self = Self::SaSolver { tau: 1.0 };

    /// Whether steps of a mixture solver change the prediction by the one before; multistep solvers do so in their own way.
    pub fn is_of_order_2(&self) -> bool {
        match *self {
            Self::GmOde { order, .. }
            | Self::GmSde { order, .. }
            | Self::DdpmSmall { order, .. }
            | Self::DdpmLarge { order, .. } => order == 2,
            _ => false,
        }
    }

    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        if let Self::Policy(policy) = self {
            return policy.validate();
        }
        let (order, substeps) = match *self {
            Self::GmOde { order, substeps } => (order, substeps),
            Self::GmSde { order, .. } => (order, None),
            Self::DdpmSmall { order, substeps } | Self::DdpmLarge { order, substeps } => (order, Some(substeps)),
            Self::SaSolver { tau } if !(tau.is_finite() && tau >= 0.0) => {
                return Err(Error::config("tau", "a number of at least 0", tau));
            }
            _ => (1, None),
        };
        if !(1..=2).contains(&order) {
            return Err(Error::config("order", "1 or 2", order));
        }
        limits::count("substeps", substeps.unwrap_or(1), limits::MOST_STEPS)
    }

    /// Sub-steps of GM-ODE per network call where none are given: 8 for 4 and 6 steps on images, otherwise 128 shared among
    /// the steps and at least 2 on images.
    pub fn default_substeps(steps: usize, points: bool) -> usize {
        match steps {
            _ if points => 128usize.div_ceil(steps.max(1)),
            4 | 6 => 8,
            _ => (128 / steps.max(1)).max(2),
        }
    }

    /// The solver itself.
    pub fn solver(&self) -> Box<dyn Solver> {
        match *self {
            Self::GmOde { order, substeps } => Box::new(GmOde { order, substeps }),
            Self::GmSde { order, spectral } => Box::new(GmSde { order, spectral }),
            Self::Euler => Box::new(Euler),
            Self::Heun => Box::new(Heun),
            Self::DdpmSmall { order, substeps } => Box::new(DdpmSmall { order, substeps }),
            Self::DdpmLarge { order, substeps } => Box::new(DdpmLarge { order, substeps }),
            Self::Dpmpp2m => Box::new(Dpmpp2m),
            Self::Dpmpp2mSde => Box::new(Dpmpp2mSde),
            Self::Dpmpp2s => Box::new(Dpmpp2s),
            Self::UniPc => Box::new(UniPc),
            Self::Deis => Box::new(Deis),
            Self::SaSolver { tau } => Box::new(SaSolver { tau }),
            Self::Policy(policy) => Box::new(policy),
        }
    }

    /// [`Solver::init`].
    pub fn init(&self, x: Tensor<4>) -> SolverState {
        self.solver().init(x)
    }

    /// [`Solver::step`].
    ///
    /// # Errors
    /// As there.
    pub fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        self.solver().step(state, span, context)
    }

    /// [`Solver::order`].
    pub fn order(&self) -> usize {
        self.solver().order()
    }
}

impl Solver for SolverConfig {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        self.solver().step(state, span, context)
    }

    fn order(&self) -> usize {
        self.solver().order()
    }
}
