//! What a solver gets at a network call: the conditional prediction with what guidance asks for.

use super::config::Guidance;
use super::probabilistic::ReweightScale;
use crate::kernel::mixture::step::passes;
use crate::kernel::mixture::step::reference;
use crate::kernel::mixture::step::types::{CorrectedPrediction, Correction, OdeEnd, OdeStep, OdeSubstep};
use crate::mixture::{DataMixture, GaussianMixture, IsoGaussian, VelocityMixture};
use burn::tensor::Tensor;
use std::borrow::Cow;

/// Guidance, and what it divides by where it reweights mixtures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GuidanceRule {
    /// How the prediction is strengthened.
    pub guidance: Guidance,
    /// The variance that shifts are divided by, also those of steps of order 2.
    pub scale: ReweightScale,
}

impl From<Guidance> for GuidanceRule {
    fn from(guidance: Guidance) -> Self {
        Self { guidance, scale: ReweightScale::default() }
    }
}

impl From<(Guidance, ReweightScale)> for GuidanceRule {
    fn from((guidance, scale): (Guidance, ReweightScale)) -> Self {
        Self { guidance, scale }
    }
}

/// The conditional prediction at one point with what guidance and second-order steps need to know of it.
#[derive(Clone, Debug)]
pub struct GuidedPrediction(Form);

/// How it is computed.
#[derive(Clone, Debug)]
enum Form {
    /// In tensor operations.
    Reference(Box<reference::GuidedMixtures>),
    /// In passes over a network's prediction, none of which has begun: a step of GM-ODE is one pass.
    Predicted(Box<passes::GuidanceInputs>),
    /// In passes, with the mean and the shift of guidance.
    Guided(Box<passes::GuidedMixtures>),
}

impl GuidedPrediction {
    /// Works out the shift from the conditional mixture at `x_t` `[b c h w]` and the unconditional mean `[b c h w]`.
    pub fn new(
        rule: impl Into<GuidanceRule>,
        conditional: DataMixture,
        unconditional_mean: Option<Tensor<4>>,
        x_t: &Tensor<4>,
    ) -> Self {
        let GuidanceRule { guidance, scale } = rule.into();
        let guided = reference::guide((guidance, scale), conditional, unconditional_mean, x_t);
        Self(Form::Reference(Box::new(guided)))
    }

    /// As [`GuidedPrediction::new`], from velocities predicted at `x_t` `[b c h w]` and t. With guidance they are those of the doubled batch
    /// [conditional, unconditional].
    pub fn from_velocity(rule: impl Into<GuidanceRule>, velocity: VelocityMixture, x_t: &Tensor<4>, t: f64) -> Self {
        let GuidanceRule { guidance, scale } = rule.into();
        let b = x_t.dims()[0];
        let doubled = velocity.0.means.dims()[0] == 2 * b && b > 0;
        let guidance = if doubled { guidance } else { Guidance::Off };
        if velocity.0.is_plain() && passes::are_compiled_for(x_t.dims()[1]) {
            let GaussianMixture { means, log_weights, log_std } = velocity.0;
            let velocity = passes::Velocity::new([means, log_weights, log_std], t as f32);
            let inputs = passes::GuidanceInputs::new(velocity, x_t, guidance.rule(), scale == ReweightScale::Pixel);
            return Self(Form::Predicted(Box::new(inputs)));
        }
        let time = |n: usize| Tensor::<1>::full([n], t as f32, &x_t.device());
        if !doubled {
            return Self::new((guidance, scale), velocity.to_data(x_t, &time(b)), None, x_t);
        }
        let both = Tensor::cat(vec![x_t.clone(), x_t.clone()], 0);
        let (conditional, unconditional) = velocity.to_data(&both, &time(2 * b)).split(b);
        Self::new((guidance, scale), conditional, Some(unconditional.0.mean()), x_t)
    }

    /// The conditional mixture's mean over x0 `[b c h w]`; where guidance extrapolates, with its shift.
    pub fn mean(&self) -> Tensor<4> {
        match &self.0 {
            Form::Reference(guided) => guided.mean.clone(),
            Form::Predicted(inputs) => inputs.guided().mean,
            Form::Guided(guided) => guided.mean.clone(),
        }
    }

    /// The shift of the mean that probabilistic guidance asks for `[b c h w]`; `None` for none.
    pub fn shift(&self) -> Option<Tensor<4>> {
        self.in_tensors().shift.clone()
    }

    /// The guided mixture, (7), (8).
    pub fn mixture(&self) -> DataMixture {
        self.in_tensors().reweighted()
    }

    /// Mean `[b c h w]` and variance `[b 1 1 1]` of the Gaussian that a shift `[b c h w]` reweights the mixture to; without one, of the
    /// mixture itself.
    pub fn target(&self, shift: Option<&Tensor<4>>) -> IsoGaussian {
        self.in_tensors().target(shift)
    }

    /// What tensor operations need.
    pub(crate) fn in_tensors(&self) -> Cow<'_, reference::GuidedMixtures> {
        match &self.0 {
            Form::Reference(guided) => Cow::Borrowed(guided),
            Form::Predicted(inputs) => Cow::Owned(inputs.guided().into_reference()),
            Form::Guided(guided) => Cow::Owned((**guided).clone().into_reference()),
        }
    }

    /// The same, to be computed in tensor operations from here on.
    pub(crate) fn into_reference(self) -> Self {
        Self(Form::Reference(Box::new(self.in_tensors().into_owned())))
    }

    /// The mixture at a temperature, before guidance: see [`GaussianMixture::tempered`].
    pub(crate) fn tempered(self, temperature: f64) -> Self {
        match self.0 {
            _ if temperature >= 1.0 => self,
            Form::Predicted(inputs) => Self(Form::Predicted(Box::new(inputs.tempered(temperature)))),
            form => {
                let guided = Self(form).in_tensors().into_owned();
                let mixture = DataMixture(guided.mixture.0.tempered(temperature));
                let mean = mixture.0.mean();
                Self(Form::Reference(Box::new(reference::GuidedMixtures { mixture, mean, ..guided })))
            }
        }
    }

    /// The same with mean and shift, which several methods need.
    pub(crate) fn guided(self) -> Self {
        match self.0 {
            Form::Predicted(inputs) => Self(Form::Guided(Box::new(inputs.guided()))),
            form => Self(form),
        }
    }

    /// A step of GM-ODE.
    pub(crate) fn ode(&self, step: &OdeStep) -> OdeEnd {
        match &self.0 {
            Form::Reference(guided) => {
                let mixture = guided.corrected(step.correction.as_ref()).mixture;
                OdeEnd { x: reference::ode_substeps(&mixture, step.x, &step.times), mean_at_next: None }
            }
            Form::Predicted(inputs) => inputs.ode(step),
            Form::Guided(guided) => guided.ode(step),
        }
    }

    /// The mixture to step with: guided, and with the second-order change.
    pub(crate) fn corrected(&self, correction: Option<&Correction>) -> CorrectedPrediction {
        match &self.0 {
            Form::Reference(guided) => guided.corrected(correction),
            Form::Predicted(inputs) => inputs.guided().corrected(correction),
            Form::Guided(guided) => guided.corrected(correction),
        }
    }

    /// The mean of the guided mixture, predicted at (`x_t`, t), at the point (`x`, tau), `[b c h w]`; as it was where the mixture was
    /// predicted, if it is not to be converted.
    pub(crate) fn mean_at(
        &self,
        (x_t, t): (&Tensor<4>, f64),
        (x, tau): (&Tensor<4>, f64),
        convert: bool,
    ) -> Tensor<4> {
        let in_passes = |guided: &passes::GuidedMixtures| {
            let substep = OdeSubstep::to_mean((t, tau), convert);
            guided.clone().ode_substeps([x_t, x], vec![substep])
        };
        match &self.0 {
            Form::Reference(guided) => reference::mean_at(&guided.reweighted(), (x_t, t), (x, tau), convert),
            Form::Predicted(inputs) => in_passes(&inputs.guided()),
            Form::Guided(guided) => in_passes(guided),
        }
    }
}
