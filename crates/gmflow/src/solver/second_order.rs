//! The second-order change of the prediction (A.2 of the paper).

use super::{Span, substep};
use crate::guidance::{GuidedPrediction, power};
use crate::kernel::{OdeSubstep, SecondOrderRule};
use crate::mixture::{DataMixture, GaussianMixture, IsoGaussian};
use crate::{Error, Result};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// A step's guided mixture, before any second-order change, and where it was predicted.
#[derive(Clone, Debug)]
pub struct PreviousStep {
    /// The mixture over x0.
    pub mixture: DataMixture,
    /// Where it was predicted, `[b c h w]`.
    pub x: Tensor<4>,
    /// At which time.
    pub t: f64,
    /// The length of the step that was made from there.
    pub h: f64,
}

/// A step's guided prediction, from which the next one makes a [`PreviousStep`] where it needs one.
#[derive(Clone, Debug)]
pub(crate) struct PreviousPrediction {
    pub(crate) guided: GuidedPrediction,
    pub(crate) x: Tensor<4>,
    pub(crate) t: f64,
    pub(crate) h: f64,
    /// Where the mixture would have its mean at the point that the step ended at `[b c h w]`, found by this sub-step.
    pub(crate) foreseen: Option<(OdeSubstep, Tensor<4>)>,
}

impl PreviousPrediction {
    pub(crate) fn visit(&self) -> PreviousStep {
        PreviousStep { mixture: self.guided.mixture(), x: self.x.clone(), t: self.t, h: self.h }
    }

    /// Where the mixture would have its mean at (`x`, t) `[b c h w]`, and what the passes need to know to change a later prediction there;
    /// `None` where there are no passes.
    pub(crate) fn change(
        &self,
        x: &Tensor<4>,
        span: Span,
        second_order: SecondOrder,
    ) -> Option<(Tensor<4>, SecondOrderRule)> {
        let substep = second_order.foresight(self.t, span.t);
        let mean = match &self.foreseen {
            Some((by, mean)) if *by == substep => mean.clone(),
            _ => self.guided.passes()?.clone().ode([&self.x, x], vec![substep]),
        };
        Some((mean, second_order.rule(self.h, span.t - span.to)))
    }
}

/// How the second-order change of the mean is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecondOrderMode {
    /// The mixture is reweighted by change and guidance together, as published. Its mean moves by its covariance times what the reweighting
    /// takes for the inverse: where the variance is not the same in all pixels and directions, not by the change.
    #[default]
    Reweight,
    /// The guided mixture is moved by the change: its mean by just that.
    Translate,
}

/// The second-order change and its damping.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecondOrder {
    /// The share of the variance that counts as the prediction's error.
    pub ca: f64,
    /// How much guidance adds to it.
    pub cb: f64,
    /// Corrections of the reweighting, whose mean is near the wanted one and not on it. They need no network call; the first
    /// helps, more of them need not.
    pub corrections: usize,
    /// Whether the previous step's mixture is moved to the new point by (10) before the means are compared. Without it the change
    /// also holds what the mixture itself foresaw, and overshoots: for comparisons only.
    pub convert: bool,
    /// How the change is carried out. Moved mixtures need no corrections.
    pub carry: SecondOrderMode,
}

impl Default for SecondOrder {
    fn default() -> Self {
        Self { ca: 0.005, cb: 1.0, corrections: 0, convert: true, carry: SecondOrderMode::default() }
    }
}

/// What the second-order change makes of a prediction.
#[derive(Clone, Debug)]
pub struct CorrectedPrediction {
    /// The mixture to step with.
    pub mixture: DataMixture,
    /// The Gaussian that it was reweighted euler_step, before corrections, and moved with: what the spectrum network sees.
    pub target: IsoGaussian,
}

impl SecondOrder {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("ca", self.ca), ("cb", self.cb)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(field, "a number of at least 0", value));
            }
        }
        Ok(())
    }

    /// The sub-step from a point at tau that ends where a mixture predicted at t has its mean there.
    pub(crate) fn foresight(&self, t: f64, tau: f64) -> OdeSubstep {
        substep((t, tau), self.convert, 0.0)
    }

    /// The numbers of the change since a step of length `h_before`, for one of length `h`.
    pub(crate) fn rule(&self, h_before: f64, h: f64) -> SecondOrderRule {
        let noise = [self.ca, self.cb * self.cb].map(|share| (share / (h_before * h_before)) as f32);
        SecondOrderRule { gain: (0.5 * h / h_before) as f32, noise, alone: self.carry == SecondOrderMode::Translate }
    }

    /// Reweights the unguided mixture by guidance and second-order change together, for a step of length `h` from (x, t), or moves the
    /// guided one, `first`, by the change. Neither goes by what earlier steps made of their mixtures, so errors do not accumulate.
    ///
    /// A correction adds to the shift what the mixture's mean is short of the mean of `first` plus the change. Where a pixel's mean
    /// moved further than it was asked to, the addition is shortened by that ratio.
    pub fn apply(
        &self,
        guided: &GuidedPrediction,
        first: &DataMixture,
        previous: &PreviousStep,
        here: (&Tensor<4>, f64, f64),
    ) -> CorrectedPrediction {
        let mean = first.0.mean();
        let change = self.change(guided, &mean, previous, here);
        if self.carry == SecondOrderMode::Translate {
            let means = first.0.means.clone() + change.clone().unsqueeze_dim::<5>(1);
            let IsoGaussian { mean, var } = guided.target(guided.shift());
            let mixture = DataMixture(GaussianMixture { means, ..first.0.clone() });
            return CorrectedPrediction { mixture, target: IsoGaussian { mean: mean + change, var } };
        }
        let shift = match guided.shift() {
            Some(shift) => shift.clone() + change.clone(),
            None => change.clone(),
        };
        let mut mixture = guided.shifted(&shift);
        let (target, mut corrected) = (mean + change, guided.bounded(&shift).shift);
        for _ in 0..self.corrections {
            let mean = mixture.0.mean();
            let moved = (mean.clone() - guided.mean().clone()).powi_scalar(2).sum_dim(1).sqrt(); // [b 1 h w]
            let asked = corrected.clone().powi_scalar(2).sum_dim(1).sqrt();
            let gain = (asked / moved.clamp_min(f32::MIN_POSITIVE)).clamp_max(1.0);
            // Not bounded twice: a share at its bound would come out of rounding as another one.
            let wanted = corrected + (target.clone() - mean) * gain;
            mixture = guided.shifted(&wanted);
            corrected = guided.bounded(&wanted).shift;
        }
        CorrectedPrediction { mixture, target: guided.target(Some(&shift)) }
    }

    /// The change of the mean `[b c h w]` since the previous step, extrapolated.
    ///
    /// It is scaled by h/(2 h_prev) and damped by sqrt(max(0, 1 - ((cb w~)^2 + ca) s_c^2/h_prev^2)): where the prediction is
    /// uncertain compared with the step, the change is noise.
    fn change(
        &self,
        guided: &GuidedPrediction,
        mean: &Tensor<4>,
        previous: &PreviousStep,
        (x, t, h): (&Tensor<4>, f64, f64),
    ) -> Tensor<4> {
        let moved = match self.convert {
            true => previous.mixture.mean_at((&previous.x, previous.t), (x, t)),
            false => previous.mixture.0.mean(),
        };
        let mut noise = guided.var().clone() * self.ca;
        if let Some(shift) = guided.shift() {
            noise = noise + power(shift) * (self.cb * self.cb);
        }
        let keep = (noise / (previous.h * previous.h) * -1.0 + 1.0).clamp_min(0.0).sqrt();
        (mean.clone() - moved) * keep * (0.5 * h / previous.h)
    }
}
