//! Guidance: a shift of the predicted mean, carried out by reweighting the mixture or by extrapolating its mean.

use crate::kernel::{
    GuidanceInputs, GuidedMixtures, OdeSubstep, SMALLEST_LENGTH, SMALLEST_VAR, SecondOrderRule, ShiftRule,
};
use crate::mixture::{DataMixture, GaussianMixture, IsoGaussian, VelocityMixture};
use crate::{Error, Result};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// How the class-conditional prediction is strengthened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Guidance {
    /// The conditional prediction as it is; the unconditional one is not computed.
    #[default]
    Off,
    /// Probabilistic guidance (7), (8): the mixture is reweighted, nothing is extrapolated.
    Probabilistic {
        /// w~ in [0, 1).
        scale: f64,
        /// How much of the shift's part along the conditional mean is removed, 0 to 1.
        orthogonal: f64,
    },
    /// Classifier-free guidance: every component moves by (w - 1)(mu_c - mu_u).
    ClassifierFree {
        /// w >= 1.
        scale: f64,
        /// How much of the shift's part along the conditional mean velocity is removed, 0 to 1.
        orthogonal: f64,
    },
}

impl Guidance {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        let orthogonal = match *self {
            Self::Off => return Ok(()),
            Self::Probabilistic { scale, .. } if !(0.0..1.0).contains(&scale) => {
                return Err(Error::config("guidance", "a number in [0, 1)", scale));
            }
            Self::ClassifierFree { scale, .. } if !(scale.is_finite() && scale >= 1.0) => {
                return Err(Error::config("cfg", "a number of at least 1", scale));
            }
            Self::Probabilistic { orthogonal, .. } | Self::ClassifierFree { orthogonal, .. } => orthogonal,
        };
        if !(0.0..=1.0).contains(&orthogonal) {
            return Err(Error::config("orthogonal", "a number in [0, 1]", orthogonal));
        }
        Ok(())
    }

    /// The same for the passes of a step.
    fn rule(&self) -> ShiftRule {
        match *self {
            Self::Probabilistic { scale, orthogonal } if self.is_active() => {
                ShiftRule::Probabilistic { scale: scale as f32, orthogonal: orthogonal as f32 }
            }
            Self::ClassifierFree { scale, orthogonal } if self.is_active() => {
                ShiftRule::Extrapolate { scale: scale as f32, orthogonal: orthogonal as f32 }
            }
            _ => ShiftRule::Off,
        }
    }

    /// Whether the unconditional prediction is needed.
    pub fn is_active(&self) -> bool {
        match *self {
            Self::Off => false,
            Self::Probabilistic { scale, .. } => scale > 0.0,
            Self::ClassifierFree { scale, .. } => scale > 1.0,
        }
    }
}

/// The variance that a shift of the mean is divided by to reweight a mixture, whose mean then moves by its own covariance times the
/// quotient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReweightScale {
    /// That of the image, averaged over pixels and channels, as published. Where a pixel's own is n times as large, its mean moves n times as
    /// far as it was asked to.
    #[default]
    Image,
    /// The pixel's own along the shift: its mean moves as far as it was asked to, as long as its components reach.
    Pixel,
}

impl ReweightScale {
    pub(crate) fn is_image(&self) -> bool {
        *self == Self::Image
    }
}

/// The conditional prediction at one point with what guidance and second-order steps need to know of it.
#[derive(Clone, Debug)]
pub struct GuidedPrediction {
    source: Source,
    /// What the shift is divided by.
    variance: ReweightScale,
}

/// What it is known from.
#[derive(Clone, Debug)]
enum Source {
    /// A mixture over x0.
    Data(Box<Worked>),
    /// A network's prediction, and what the passes of a step read of it: worked out when somebody asks for it first.
    Velocity(Box<(GuidanceInputs, OnceLock<GuidedMixtures>)>),
}

/// A mixture over x0 and what is known of it.
#[derive(Clone, Debug)]
struct Worked {
    mixture: DataMixture,
    mean: Tensor<4>,
    var: Tensor<4>,
    shift: Option<Tensor<4>>,
}

impl GuidedPrediction {
    /// Works out the shift from the conditional mixture at `x_t` `[b c h w]` and the unconditional mean `[b c h w]`.
    pub fn new(
        guidance: Guidance,
        conditional: DataMixture,
        unconditional_mean: Option<Tensor<4>>,
        x_t: &Tensor<4>,
    ) -> Self {
        let surrogate = conditional.0.to_iso_gaussian();
        let (mean, var) = (surrogate.mean, surrogate.var.mean_dim(2).mean_dim(3));
        let worked = |mixture, mean, var, shift| Self {
            source: Source::Data(Box::new(Worked { mixture, mean, var, shift })),
            variance: ReweightScale::default(),
        };
        let Some(unconditional) = unconditional_mean.filter(|_| guidance.is_active()) else {
            return worked(conditional, mean, var, None);
        };
        let probabilistic = matches!(guidance, Guidance::Probabilistic { .. });
        // Minus t times the velocity: the same line.
        let axis = if probabilistic { mean.clone() } else { x_t.clone() - mean.clone() };
        let shift = shift(guidance, &mean, &unconditional, &var, &axis);
        if probabilistic {
            return worked(conditional, mean, var, Some(shift));
        }
        let means = conditional.0.means + shift.clone().unsqueeze_dim::<5>(1); // [b k c h w]
        worked(DataMixture(GaussianMixture { means, ..conditional.0 }), mean + shift, var, None)
    }

    /// The same, with shifts divided by another variance.
    #[must_use]
    pub fn reweighted_by(mut self, variance: ReweightScale) -> Self {
        self.variance = variance;
        if let Source::Velocity(prediction) = &mut self.source
            && let Some(shifted) = prediction.1.get_mut()
        {
            shifted.pixelwise = variance == ReweightScale::Pixel;
        }
        self
    }

    /// The conditional mixture's mean over x0 `[b c h w]`; where guidance extrapolates, with its shift.
    pub fn mean(&self) -> &Tensor<4> {
        match &self.source {
            Source::Data(worked) => &worked.mean,
            Source::Velocity(prediction) => &self.worked(prediction).mean,
        }
    }

    /// Its isotropic variance averaged over the image, s_c^2, `[b 1 1 1]`.
    pub fn var(&self) -> &Tensor<4> {
        match &self.source {
            Source::Data(worked) => &worked.var,
            Source::Velocity(prediction) => &self.worked(prediction).var,
        }
    }

    /// The shift of the mean that probabilistic guidance asks for `[b c h w]`; `None` for none.
    pub fn shift(&self) -> Option<&Tensor<4>> {
        match &self.source {
            Source::Data(worked) => worked.shift.as_ref(),
            Source::Velocity(prediction) => {
                let shift = &self.worked(prediction).shift;
                (shift.dims()[0] > 0).then_some(shift)
            }
        }
    }

    fn worked<'a>(&self, (asked, shifted): &'a (GuidanceInputs, OnceLock<GuidedMixtures>)) -> &'a GuidedMixtures {
        shifted.get_or_init(|| asked.guided(self.variance == ReweightScale::Pixel))
    }

    /// The conditional mixture that reweighting starts from; extrapolation is already in it.
    pub fn base(&self) -> DataMixture {
        match &self.source {
            Source::Data(worked) => worked.mixture.clone(),
            Source::Velocity(prediction) => {
                let [means, log_weights, log_std] = self.worked(prediction).unshifted();
                DataMixture(GaussianMixture { means, log_weights, log_std })
            }
        }
    }

    /// As [`GuidedPrediction::new`], from velocities predicted at `x_t` `[b c h w]` and t. With guidance they are those of the doubled batch
    /// [conditional, unconditional].
    pub fn from_velocity(guidance: Guidance, velocity: VelocityMixture, x_t: &Tensor<4>, t: f64) -> Self {
        let b = x_t.dims()[0];
        let doubled = velocity.0.means.dims()[0] == 2 * b && b > 0;
        let guidance = if doubled { guidance } else { Guidance::Off };
        let time = |n: usize| Tensor::<1>::full([n], t as f32, &x_t.device());
        let both = || Tensor::cat(vec![x_t.clone(), x_t.clone()], 0);
        if velocity.0.is_plain() && GuidanceInputs::has_passes(x_t.dims()[1]) {
            let GaussianMixture { means, log_weights, log_std } = velocity.0;
            let asked = GuidanceInputs::new([means, log_weights, log_std], x_t, t as f32, guidance.rule());
            let source = Source::Velocity(Box::new((asked, OnceLock::new())));
            return Self { source, variance: ReweightScale::default() };
        }
        if !doubled {
            return Self::new(guidance, velocity.to_data(x_t, &time(b)), None, x_t);
        }
        let (conditional, unconditional) = velocity.to_data(&both(), &time(2 * b)).split(b);
        Self::new(guidance, conditional, Some(unconditional.0.mean()), x_t)
    }

    /// What the passes of a solver's step work on, where the mixture has the shapes that networks predict.
    pub(crate) fn passes(&self) -> Option<&GuidedMixtures> {
        match &self.source {
            Source::Data(_) => None,
            Source::Velocity(prediction) => Some(self.worked(prediction)),
        }
    }

    /// The samples `[b c h w]` after sub-steps of GM-ODE from `x`, with the change from where the prediction before would have the mean now,
    /// `[b c h w]`, and what the sub-step `ahead` makes of them without the change; `None` where there are no passes for it.
    pub(crate) fn ode(
        &self,
        x: &Tensor<4>,
        before: Option<(&Tensor<4>, SecondOrderRule)>,
        substeps: Vec<OdeSubstep>,
        ahead: Option<OdeSubstep>,
    ) -> Option<(Tensor<4>, Option<Tensor<4>>)> {
        let Source::Velocity(prediction) = &self.source else { return None };
        let (asked, shifted) = &**prediction;
        if shifted.get().is_none()
            && let Some(stepped) = asked.step(self.variance == ReweightScale::Pixel, before, substeps.clone(), ahead)
        {
            return Some(stepped);
        }
        let guided = self.worked(prediction).clone();
        let now = match before {
            None => guided.clone(),
            Some((mean, rule)) => guided.clone().changed(mean.clone(), rule),
        };
        let end = now.ode([x, x], substeps);
        let foreseen = ahead.map(|substep| guided.ode([x, &end], vec![substep]));
        Some((end, foreseen))
    }

    /// The guided mixture, (7), (8).
    pub fn mixture(&self) -> DataMixture {
        self.shift().map_or_else(|| self.base(), |shift| self.shifted(shift))
    }

    /// The conditional mixture reweighted so that its surrogate's mean moves by `shift` `[b c h w]`.
    ///
    /// With q = |shift|^2/s^2, the shift's share of the variance, the target N(mu + shift, (1 - q) s^2) divided by N(mu, s^2)
    /// has the precision q/((1 - q) s^2) and, measured from mu, the precision-weighted mean shift/((1 - q) s^2). Nothing is
    /// subtracted, so q = 0 is the identity and small q is exact. q is kept below 1 by shortening the shift.
    ///
    /// With [`ReweightScale::Pixel`] this is done in every pixel with its own variance along its shift in place of s^2, and q = |shift|^2/s^2 of
    /// all channels: a pixel that is certain stays where it is. The components' standard deviations then differ between pixels.
    pub fn shifted(&self, shift: &Tensor<4>) -> DataMixture {
        if self.variance == ReweightScale::Pixel {
            let base = self.base().0;
            let length = shift.clone().powi_scalar(2).sum_dim(1) + SMALLEST_LENGTH; // [b 1 h w]
            let var = base.var_along(self.mean(), shift, &length).clamp_min(SMALLEST_VAR);
            let share = length / var.clone();
            let bounded = share.clone().clamp_max(1.0 - MIN_REST);
            let rest = (share.clone() * -1.0 + 1.0).clamp_min(MIN_REST) * var;
            let nu = shift.clone() * ((bounded.clone() / share).sqrt() / rest.clone());
            return DataMixture(base.tilted_about(self.mean(), &nu, &(bounded / rest)));
        }
        let Bounded { share, rest, shift } = self.bounded(shift);
        let rest = rest * self.var().clone().clamp_min(f32::MIN_POSITIVE);
        DataMixture(self.base().0.tilted_about(self.mean(), &(shift / rest.clone()), &(share / rest)))
    }

    /// Mean `[b c h w]` and variance `[b 1 1 1]` of the Gaussian that a shift `[b c h w]` reweights the mixture towards;
    /// without one, of the mixture itself.
    pub fn target(&self, shift: Option<&Tensor<4>>) -> IsoGaussian {
        let Some(shift) = shift else { return IsoGaussian { mean: self.mean().clone(), var: self.var().clone() } };
        let Bounded { rest, shift, .. } = self.bounded(shift);
        IsoGaussian { mean: self.mean().clone() + shift, var: self.var().clone() * rest }
    }

    pub(crate) fn bounded(&self, shift: &Tensor<4>) -> Bounded {
        let share = power(shift) / self.var().clone().clamp_min(f32::MIN_POSITIVE);
        let bounded = share.clone().clamp_max(1.0 - MIN_REST);
        // From the share itself, because 1 - 1e-6 is not a number that f32 can hold.
        let rest = (share.clone() * -1.0 + 1.0).clamp_min(MIN_REST);
        let shorten = (bounded.clone() / share.clamp_min(f32::MIN_POSITIVE)).sqrt().clamp_max(1.0);
        let shorten = shorten.mask_fill(bounded.clone().equal_elem(0.0), 1.0);
        Bounded { share: bounded, rest, shift: shift.clone() * shorten }
    }
}

/// A shift that leaves its target a positive variance.
pub(crate) struct Bounded {
    /// The shift's share of the variance `[b 1 1 1]`.
    share: Tensor<4>,
    /// The rest of the variance as a share.
    rest: Tensor<4>,
    /// The shift `[b c h w]`, shortened where its share would be too large.
    pub(crate) shift: Tensor<4>,
}

/// The smallest share of the variance that a shift leaves.
const MIN_REST: f64 = 1e-6;

/// The shift of the mean `[b c h w]` that guidance asks for: the direction mu_c - mu_u, less `orthogonal` times its projection
/// on `axis` (per sample, over c, h, w), then rescaled to the root-mean-square w~ s_c, or multiplied by w - 1.
pub fn shift(
    guidance: Guidance,
    conditional: &Tensor<4>,
    unconditional: &Tensor<4>,
    var: &Tensor<4>,
    axis: &Tensor<4>,
) -> Tensor<4> {
    let difference = conditional.clone() - unconditional.clone();
    let across = |orthogonal: f64| match orthogonal {
        0.0 => difference.clone(),
        _ => {
            let along = power_of(&difference, axis) / power(axis).clamp_min(f32::MIN_POSITIVE);
            difference.clone() - axis.clone() * along * orthogonal
        }
    };
    match guidance {
        Guidance::Off => difference.zeros_like(),
        Guidance::Probabilistic { scale, orthogonal } => {
            let direction = across(orthogonal);
            let rms = power(&direction).sqrt().clamp_min(f32::MIN_POSITIVE);
            direction * (var.clone().sqrt() * scale / rms)
        }
        Guidance::ClassifierFree { scale, orthogonal } => across(orthogonal) * (scale - 1.0),
    }
}

/// The mean square over c, h, w, `[b 1 1 1]`.
pub(crate) fn power(x: &Tensor<4>) -> Tensor<4> {
    power_of(x, x)
}

fn power_of(x: &Tensor<4>, y: &Tensor<4>) -> Tensor<4> {
    (x.clone() * y.clone()).mean_dim(1).mean_dim(2).mean_dim(3)
}
