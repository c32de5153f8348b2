//! What the step of a solver is told, whatever computes it.

use crate::mixture::{DataMixture, IsoGaussian};
use crate::path::Evidence;
use crate::solver::second_order::{SecondOrder, SecondOrderMode};
use burn::tensor::Tensor;

/// How the shift of the mean is found from the conditional and the unconditional prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ShiftRule {
    /// No shift; there is no unconditional prediction.
    Off,
    /// Along the difference of the means, with this share of its part along the conditional mean removed, as long as this share of the
    /// standard deviation.
    Probabilistic {
        /// w~.
        scale: f32,
        /// The share that is removed, 0 to 1.
        orthogonal: f32,
    },
    /// The difference, with this share of its part along the conditional velocity removed, times w - 1. All components move by it.
    Extrapolate {
        /// w.
        scale: f32,
        /// The share that is removed, 0 to 1.
        orthogonal: f32,
    },
}

impl ShiftRule {
    /// The share of the axis that is subtracted, from the products of difference and axis, and of the axis with itself.
    pub(crate) fn along(self, da: f64, aa: f64) -> f64 {
        match self {
            Self::Off => 0.0,
            Self::Probabilistic { orthogonal, .. } | Self::Extrapolate { orthogonal, .. } => {
                if aa > 0.0 {
                    f64::from(orthogonal) * da / aa
                } else {
                    0.0
                }
            }
        }
    }

    /// The factor on what remains, from the variance and the remainder's mean square.
    pub(crate) fn factor(self, var: f64, power: f64) -> f64 {
        match self {
            Self::Off => 0.0,
            Self::Extrapolate { scale, .. } => f64::from(scale) - 1.0,
            Self::Probabilistic { scale, .. } if power > 0.0 => f64::from(scale) * (var / power).sqrt(),
            Self::Probabilistic { .. } => 0.0,
        }
    }
}

/// The smallest share of the variance that a shift leaves.
pub(crate) const MIN_REST: f32 = 1e-6;

/// The smallest variance of a pixel that a shift is divided by, and the squared length of a shift that is nothing.
pub(crate) const SMALLEST_VAR: f32 = 1e-12;

pub(crate) const SMALLEST_LENGTH: f32 = 1e-30;

/// One Euler sub-step along the velocity (x - E[x0 | x])/tau, with what (x, tau) tells beyond (x_t, t): the numbers are the same for all
/// samples. One that keeps nothing of x ends at E[x0 | x].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OdeSubstep {
    /// What multiplies x_tau in the evidence nu.
    pub of_x_tau: f32,
    /// What multiplies x_t, where the mixture was predicted, and is subtracted.
    pub of_x_t: f32,
    /// The evidence's precision zeta; with 0 there is none.
    pub zeta: f32,
    /// to/tau: the share of x_tau in the result.
    pub keep: f32,
}

/// The numbers of a second-order change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecondOrderRule {
    /// h/(2 h_previous).
    pub gain: f32,
    /// The noise of the prediction: these shares of variance and squared shift, both over h_previous^2.
    pub noise: [f32; 2],
    /// Whether the mixtures are moved by the change; otherwise it is added to the shift.
    pub translate: bool,
}

impl OdeSubstep {
    /// The sub-step from a point at tau, of which it keeps `keep`, with a mixture that was predicted at t; where nothing is `known` beyond
    /// the prediction, the mixture stays as it is.
    fn new((t, tau): (f64, f64), known: bool, keep: f64) -> Self {
        let Evidence { of_x_tau, of_x_t, zeta } = Evidence::between(t, tau);
        let [of_x_tau, of_x_t, zeta] = [of_x_tau, of_x_t, zeta].map(|x| if known { x as f32 } else { 0.0 });
        Self { of_x_tau, of_x_t, zeta, keep: keep as f32 }
    }

    /// The one from any point (x, tau) down to `to`, with a mixture that was predicted at t.
    pub(crate) fn from_point(t: f64, tau: f64, to: f64) -> Self {
        if tau <= 0.0 {
            return Self::NOTHING;
        }
        Self::new((t, tau), true, to / tau)
    }

    /// The one that leaves every point where it is.
    pub(crate) const NOTHING: Self = Self { of_x_tau: 0.0, of_x_t: 0.0, zeta: 0.0, keep: 1.0 };

    /// Whether it leaves every point where it is.
    pub(crate) fn changes_nothing(&self) -> bool {
        self.keep == 1.0
    }

    /// The one that ends where a mixture predicted at t has its mean at tau; at t, if it is not to be converted.
    pub(crate) fn to_mean(times: (f64, f64), convert: bool) -> Self {
        Self::new(times, convert, 0.0)
    }

    /// All Euler sub-steps between `times`, at the first of which the mixture was predicted.
    pub(crate) fn all(times: &[f64]) -> Vec<Self> {
        let nth = |(i, ends): (usize, &[f64])| Self::new((times[0], ends[0]), i > 0, ends[1] / ends[0]);
        times.windows(2).enumerate().map(nth).collect()
    }
}

/// The previous step, where its prediction changes the current one.
#[derive(Clone, Debug)]
pub(crate) struct Correction {
    /// The previous step's posterior mean at the current point `[b c h w]`.
    pub(crate) previous_mean: Tensor<4>,
    /// How the change is carried out.
    pub(crate) second_order: SecondOrder,
    /// The length of the previous step.
    pub(crate) h_previous: f64,
    /// The length of the current one.
    pub(crate) h: f64,
}

impl Correction {
    /// The same for passes.
    pub(crate) fn rule(&self) -> SecondOrderRule {
        let SecondOrder { ca, cb, carry, .. } = self.second_order;
        let noise = [ca, cb * cb].map(|share| (share / (self.h_previous * self.h_previous)) as f32);
        let gain = (0.5 * self.h / self.h_previous) as f32;
        SecondOrderRule { gain, noise, translate: carry == SecondOrderMode::Translate }
    }
}

/// A step of GM-ODE.
#[derive(Clone, Debug)]
pub(crate) struct OdeStep<'a> {
    /// Where the prediction was made, `[b c h w]`.
    pub(crate) x: &'a Tensor<4>,
    /// When it was made, and the ends of all sub-steps.
    pub(crate) times: Vec<f64>,
    /// What the previous step adds, in steps of order 2.
    pub(crate) correction: Option<Correction>,
    /// Leads to the posterior mean at the point that the step ends at, where the next step wants to know it.
    pub(crate) to_next_mean: Option<OdeSubstep>,
}

/// Where it ends.
#[derive(Clone, Debug)]
pub(crate) struct OdeEnd {
    /// The samples `[b c h w]`.
    pub(crate) x: Tensor<4>,
    /// The posterior mean there by the guided mixture, before the second-order change, `[b c h w]`: where it was asked for and costs less
    /// now than later.
    pub(crate) mean_at_next: Option<Tensor<4>>,
}

/// What the second-order change makes of a prediction.
#[derive(Clone, Debug)]
pub struct CorrectedPrediction {
    /// The mixture to step with.
    pub mixture: DataMixture,
    /// The Gaussian that it was reweighted to, before corrections, and moved with: what the spectrum network sees.
    pub target: IsoGaussian,
}

/// The sub-steps of a step for the kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct StepPlan {
    /// All of them.
    pub substeps: Vec<OdeSubstep>,
    /// One more that tells the mean there by the mixtures without the second-order change.
    pub to_next_mean: Option<OdeSubstep>,
}
