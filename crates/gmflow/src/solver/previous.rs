//! The previous step, which a step of order 2 compares its prediction with.

use super::interface::Span;
use super::second_order::SecondOrder;
use crate::guidance::GuidedPrediction;
use crate::kernel::mixture::step::reference;
use crate::kernel::mixture::step::types::{CorrectedPrediction, Correction, OdeSubstep};
use crate::mixture::DataMixture;
use burn::tensor::Tensor;

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

/// A step's guided prediction, as a solver carries it to the next step.
#[derive(Clone, Debug)]
pub(super) struct PreviousPrediction {
    pub prediction: GuidedPrediction,
    /// Where it was made, `[b c h w]`.
    pub x: Tensor<4>,
    /// At which time.
    pub t: f64,
    /// The length of the step that was made from there.
    pub h: f64,
    /// Its posterior mean at the point that the step ended at `[b c h w]`, and the sub-step that led there.
    pub mean_at_next: Option<(OdeSubstep, Tensor<4>)>,
}

impl PreviousPrediction {
    /// What it adds to a step from `x` `[b c h w]`.
    pub fn correction(&self, x: &Tensor<4>, span: Span, second_order: SecondOrder) -> Correction {
        let convert = second_order.convert;
        let previous_mean = match &self.mean_at_next {
            Some((by, mean)) if *by == OdeSubstep::to_mean((self.t, span.t), convert) => mean.clone(),
            _ => self.prediction.mean_at((&self.x, self.t), (x, span.t), convert),
        };
        Correction { previous_mean, second_order, h_previous: self.h, h: span.t - span.to }
    }
}

impl SecondOrder {
    /// Reweights the unguided mixture by guidance and second-order change together, for a step of length `h` from (x, t), or moves the
    /// guided one, `first`, by the change. Neither goes by what earlier steps made of their mixtures, so errors do not accumulate.
    pub fn apply(
        &self,
        guided: &GuidedPrediction,
        first: &DataMixture,
        previous: &PreviousStep,
        (x, t, h): (&Tensor<4>, f64, f64),
    ) -> CorrectedPrediction {
        let from = (&previous.x, previous.t);
        let previous_mean = reference::mean_at(&previous.mixture, from, (x, t), self.convert);
        let correction = Correction { previous_mean, second_order: *self, h_previous: previous.h, h };
        reference::second_order(&guided.in_tensors(), first, &correction)
    }
}
