//! The step of a solver in tensor operations: the definition, for mixtures of any shape. `cpu` and `gpu` compute the same in passes over
//! pixels.

use crate::guidance::classifier_free;
use crate::guidance::config::Guidance;
use crate::guidance::power::power;
use crate::guidance::probabilistic::ReweightScale;
use crate::guidance::shift::shift;
use crate::kernel::mixture::step::types::{CorrectedPrediction, Correction, MIN_REST, SMALLEST_LENGTH, SMALLEST_VAR};
use crate::mixture::{DataMixture, GaussianMixture, IsoGaussian};
use crate::solver::second_order::SecondOrderMode;
use crate::solver::transition::euler_step;
use burn::tensor::Tensor;

/// The conditional mixtures over x0 and the shift of their mean that guidance asks for.
#[derive(Clone, Debug)]
pub(crate) struct GuidedMixtures {
    /// The conditional mixtures that reweighting starts from; extrapolation is already in them.
    pub(crate) mixture: DataMixture,
    /// Their means `[b c h w]`.
    pub(crate) mean: Tensor<4>,
    /// The variance averaged over the image, s_c^2, `[b 1 1 1]`.
    pub(crate) var: Tensor<4>,
    /// The shift of the mean that they are still to be reweighted by, `[b c h w]`.
    pub(crate) shift: Option<Tensor<4>>,
    /// What the shift is divided by.
    pub(crate) scale: ReweightScale,
}

/// A shift that leaves its target a positive variance.
struct BoundedShift {
    /// The shift's share of the variance `[b 1 1 1]`.
    share: Tensor<4>,
    /// The rest of the variance as a share.
    rest: Tensor<4>,
    /// The shift `[b c h w]`, shortened where its share would be too large.
    shift: Tensor<4>,
}

/// Works out the shift from the conditional mixture at `x_t` `[b c h w]` and the unconditional mean `[b c h w]`.
pub(crate) fn guide(
    (guidance, scale): (Guidance, ReweightScale),
    conditional: DataMixture,
    unconditional_mean: Option<Tensor<4>>,
    x_t: &Tensor<4>,
) -> GuidedMixtures {
    let surrogate = conditional.0.to_iso_gaussian();
    let (mean, var) = (surrogate.mean, surrogate.var.mean_dim(2).mean_dim(3));
    let Some(unconditional) = unconditional_mean.filter(|_| guidance.is_active()) else {
        return GuidedMixtures { mixture: conditional, mean, var, shift: None, scale };
    };
    let probabilistic = matches!(guidance, Guidance::Probabilistic { .. });
    // Minus t times the velocity: the same line.
    let axis = if probabilistic { mean.clone() } else { x_t.clone() - mean.clone() };
    let shift = shift(guidance, &mean, &unconditional, &var, &axis);
    if probabilistic {
        return GuidedMixtures { mixture: conditional, mean, var, shift: Some(shift), scale };
    }
    let mixture = classifier_free::moved(conditional, &shift);
    GuidedMixtures { mixture, mean: mean + shift, var, shift: None, scale }
}

impl GuidedMixtures {
    /// The guided mixtures, (7), (8).
    pub(crate) fn reweighted(&self) -> DataMixture {
        self.shift.as_ref().map_or_else(|| self.mixture.clone(), |shift| self.reweighted_by(shift))
    }

    /// The conditional mixtures reweighted so that the mean of their surrogate moves by `shift` `[b c h w]`.
    ///
    /// With q = |shift|^2/s^2, the shift's share of the variance, the target N(mu + shift, (1 - q) s^2) divided by N(mu, s^2)
    /// has the precision q/((1 - q) s^2) and, measured from mu, the precision-weighted mean shift/((1 - q) s^2). Nothing is
    /// subtracted, so q = 0 is the identity and small q is exact. q is kept below 1 by shortening the shift.
    ///
    /// With [`ReweightScale::Pixel`] this is done in every pixel with its own variance along its shift in place of s^2, and q =
    /// |shift|^2/s^2 of all channels: a pixel that is certain stays where it is. The components' standard deviations then differ between
    /// pixels.
    pub(crate) fn reweighted_by(&self, shift: &Tensor<4>) -> DataMixture {
        let base = &self.mixture.0;
        if self.scale == ReweightScale::Pixel {
            let length = shift.clone().powi_scalar(2).sum_dim(1) + SMALLEST_LENGTH; // [b 1 h w]
            let var = base.var_along(&self.mean, shift, &length).clamp_min(SMALLEST_VAR);
            let share = length / var.clone();
            let bounded = share.clone().clamp_max(1.0 - f64::from(MIN_REST));
            let rest = (share.clone() * -1.0 + 1.0).clamp_min(MIN_REST) * var;
            let nu = shift.clone() * ((bounded.clone() / share).sqrt() / rest.clone());
            return DataMixture(base.tilted_about(&self.mean, &nu, &(bounded / rest)));
        }
        let BoundedShift { share, rest, shift } = self.bounded(shift);
        let rest = rest * self.var.clone().clamp_min(f32::MIN_POSITIVE);
        DataMixture(base.tilted_about(&self.mean, &(shift / rest.clone()), &(share / rest)))
    }

    /// [`target`] of these mixtures.
    pub(crate) fn target(&self, shift: Option<&Tensor<4>>) -> IsoGaussian {
        target((&self.mean, &self.var), shift)
    }

    fn bounded(&self, shift: &Tensor<4>) -> BoundedShift {
        BoundedShift::new(&self.var, shift)
    }

    /// The mixtures to step with: guided, and with the second-order change.
    pub(crate) fn corrected(&self, correction: Option<&Correction>) -> CorrectedPrediction {
        let first = self.reweighted();
        match correction {
            Some(correction) => second_order(self, &first, correction),
            None => CorrectedPrediction { mixture: first, target: self.target(self.shift.as_ref()) },
        }
    }
}

impl BoundedShift {
    /// Of a shift `[b c h w]` of mixtures with the variance `[b 1 1 1]`.
    fn new(var: &Tensor<4>, shift: &Tensor<4>) -> Self {
        let share = power(shift) / var.clone().clamp_min(f32::MIN_POSITIVE);
        let bounded = share.clone().clamp_max(1.0 - f64::from(MIN_REST));
        // From the share itself, because 1 - 1e-6 is not a number that f32 can hold.
        let rest = (share.clone() * -1.0 + 1.0).clamp_min(MIN_REST);
        let shorten = (bounded.clone() / share.clamp_min(f32::MIN_POSITIVE)).sqrt().clamp_max(1.0);
        let shorten = shorten.mask_fill(bounded.clone().equal_elem(0.0), 1.0);
        Self { share: bounded, rest, shift: shift.clone() * shorten }
    }
}

/// Mean `[b c h w]` and variance `[b 1 1 1]` of the Gaussian that a shift `[b c h w]` reweights mixtures to; without one, of the mixtures
/// themselves.
pub(crate) fn target((mean, var): (&Tensor<4>, &Tensor<4>), shift: Option<&Tensor<4>>) -> IsoGaussian {
    let Some(shift) = shift else { return IsoGaussian { mean: mean.clone(), var: var.clone() } };
    let BoundedShift { rest, shift, .. } = BoundedShift::new(var, shift);
    IsoGaussian { mean: mean.clone() + shift, var: var.clone() * rest }
}

/// The change of the mean `[b c h w]` since the previous step, extrapolated, from the guided mean `[b c h w]` and the previous step's at the
/// current point.
///
/// It is scaled by h/(2 h_prev) and damped by sqrt(max(0, 1 - ((cb w~)^2 + ca) s_c^2/h_prev^2)): where the prediction is
/// uncertain compared with the step, the change is noise.
fn change(guided: &GuidedMixtures, mean: &Tensor<4>, correction: &Correction) -> Tensor<4> {
    let Correction { previous_mean, second_order, h_previous, h } = correction;
    let mut noise = guided.var.clone() * second_order.ca;
    if let Some(shift) = &guided.shift {
        noise = noise + power(shift) * (second_order.cb * second_order.cb);
    }
    let keep = (noise / (h_previous * h_previous) * -1.0 + 1.0).clamp_min(0.0).sqrt();
    (mean.clone() - previous_mean.clone()) * keep * (0.5 * h / h_previous)
}

/// Reweights the unguided mixtures by guidance and second-order change together, or moves the guided ones, `first`, by the change. Neither
/// goes by what earlier steps made of their mixtures, so errors do not accumulate.
///
/// A correction adds to the shift what the mixture's mean is short of the mean of `first` plus the change. Where a pixel's mean
/// moved further than it was asked to, the addition is shortened by that ratio.
pub(crate) fn second_order(
    guided: &GuidedMixtures,
    first: &DataMixture,
    correction: &Correction,
) -> CorrectedPrediction {
    let mean = first.0.mean();
    let change = change(guided, &mean, correction);
    if correction.second_order.carry == SecondOrderMode::Translate {
        let means = first.0.means.clone() + change.clone().unsqueeze_dim::<5>(1);
        let IsoGaussian { mean, var } = guided.target(guided.shift.as_ref());
        let mixture = DataMixture(GaussianMixture { means, ..first.0.clone() });
        return CorrectedPrediction { mixture, target: IsoGaussian { mean: mean + change, var } };
    }
    let shift = match &guided.shift {
        Some(shift) => shift.clone() + change.clone(),
        None => change.clone(),
    };
    let mut mixture = guided.reweighted_by(&shift);
    let (target, mut corrected) = (mean + change, guided.bounded(&shift).shift);
    for _ in 0..correction.second_order.corrections {
        let mean = mixture.0.mean();
        let moved = (mean.clone() - guided.mean.clone()).powi_scalar(2).sum_dim(1).sqrt(); // [b 1 h w]
        let asked = corrected.clone().powi_scalar(2).sum_dim(1).sqrt();
        let gain = (asked / moved.clamp_min(f32::MIN_POSITIVE)).clamp_max(1.0);
        // Not bounded twice: a share at its bound would come out of rounding as another one.
        let wanted = corrected + (target.clone() - mean) * gain;
        mixture = guided.reweighted_by(&wanted);
        corrected = guided.bounded(&wanted).shift;
    }
    CorrectedPrediction { mixture, target: guided.target(Some(&shift)) }
}

/// The samples `[b c h w]` after the Euler sub-steps between `times` from `start` `[b c h w]`, where the mixtures were predicted. The
/// mixtures are moved to each point by (10); landing on 0, the mean of x0 is the sample.
pub(crate) fn ode_substeps(mixture: &DataMixture, start: &Tensor<4>, times: &[f64]) -> Tensor<4> {
    let mut x = start.clone();
    for (i, ends) in times.windows(2).enumerate() {
        let (t, to) = (ends[0], ends[1]);
        let x0 = if i == 0 { mixture.0.mean() } else { mixture.mean_at((start, times[0]), (&x, t)) };
        x = if to == 0.0 { x0 } else { euler_step(&x, &x0, t, to) };
    }
    x
}

/// The mean `[b c h w]` of mixtures, predicted at (`x_t`, t), at the point (`x`, tau), (10); where they were predicted, if they are not to be
/// converted.
pub(crate) fn mean_at(
    mixture: &DataMixture,
    from: (&Tensor<4>, f64),
    to: (&Tensor<4>, f64),
    convert: bool,
) -> Tensor<4> {
    if convert { mixture.mean_at(from, to) } else { mixture.0.mean() }
}
