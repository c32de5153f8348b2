//! What the step of a solver is told, whatever computes it.

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
    pub here: f32,
    /// What multiplies x_t, where the mixture was predicted, and is subtracted.
    pub there: f32,
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
    /// Whether the change stands alone, for the mixtures to be moved by; otherwise it is added to the shift.
    pub alone: bool,
}
