//! The velocity of a frozen network with its guidance.

use crate::guidance::{Guidance, GuidedPrediction, ReweightScale, interval};
use crate::kernel::mixture::step::types::OdeStep;
use crate::mixture::{GaussianMixture, VelocityMixture};
use crate::network::Denoiser;
use crate::path::per_sample;
use burn::tensor::{Int, Tensor, TensorData};

/// The smallest time that a velocity is divided by.
const EARLIEST: f64 = 1e-6;

/// A frozen network and the guidance that its student is to have built in.
#[derive(Clone, Copy)]
pub struct Teacher<'a> {
    /// The network, on a device without gradients. Of a mixture the mean velocity counts.
    pub network: &'a dyn Denoiser,
    /// How it is guided. Classifier-free guidance is that of the velocity, u_c + (w - 1)(u_c - u_u); `orthogonal` is the share of the change
    /// along the conditional x0 = x - t u_c that is taken away. With probabilistic guidance it is the mean of the reweighted mixture.
    pub guidance: Guidance,
    /// The times between which there is guidance, both ends included.
    pub interval: Option<[f64; 2]>,
    /// What probabilistic guidance divides by.
    pub reweight_by: ReweightScale,
}

impl<'a> Teacher<'a> {
    /// A network without guidance.
    pub fn unguided(network: &'a dyn Denoiser) -> Self {
        Self { network, guidance: Guidance::Off, interval: None, reweight_by: ReweightScale::default() }
    }

    /// The guided velocity `[b c h w]` at `x` `[b c h w]` and each sample's time, for its class `[b]` where the network has classes. It takes
    /// one call, in which the samples with guidance stand twice.
    pub fn velocity(&self, x: &Tensor<4>, t: &[f64], class: Option<&Tensor<1, Int>>) -> Tensor<4> {
        let is_guided = |t: &f64| interval::at(self.guidance, self.interval, *t).is_active();
        let null = self.network.null_class().filter(|null| *null > 0);
        let guided: Vec<i64> = match (class, null) {
            (Some(_), Some(_)) => (0..).zip(t).filter(|(_, t)| is_guided(t)).map(|(i, _)| i).collect(),
            _ => Vec::new(),
        };
        let (b, m, device) = (t.len(), guided.len(), x.device());
        let times: Vec<f32> = t.iter().map(|t| t.max(EARLIEST) as f32).collect();
        let times = Tensor::<1>::from_data(TensorData::new(times, [b]), &device);
        if m == 0 {
            return self.network.forward(x.clone(), times, class.cloned()).0.mean();
        }
        let index = Tensor::<1, Int>::from_data(TensorData::new(guided.clone(), [m]), &device);
        let (x_guided, t_guided) = (x.clone().select(0, index.clone()), times.clone().select(0, index));
        let nulls = Tensor::<1, Int>::full([m], null.unwrap_or(0) as i64, &device);
        let prediction = self.network.forward(
            Tensor::cat(vec![x.clone(), x_guided.clone()], 0),
            Tensor::cat(vec![times, t_guided.clone()], 0),
            class.map(|class| Tensor::cat(vec![class.clone(), nulls], 0)),
        );
        let rows = |from: Vec<i64>| {
            let index = Tensor::<1, Int>::from_data(TensorData::new(from.clone(), [from.len()]), &device);
            selected(&prediction, &index)
        };
        let behind: Vec<i64> = (b as i64..(b + m) as i64).collect();
        let doubled = rows(guided.iter().copied().chain(behind).collect());
        let strong = match self.guidance {
            Guidance::Probabilistic { .. } => self.reweighted(doubled, &x_guided, &t_guided),
            Guidance::ClassifierFree { scale, orthogonal } => {
                extrapolated(&doubled, (&x_guided, &t_guided), scale, orthogonal)
            }
            Guidance::Off => doubled.0.mean().narrow(0, 0, m),
        };
        if m == b {
            return strong;
        }
        // Guided ones stand behind all the others, from where every sample takes its own.
        let plain = rows((0..b as i64).collect()).0.mean();
        let mut place: Vec<i64> = (0..b as i64).collect();
        for (i, &sample) in guided.iter().enumerate() {
            if let Some(place) = place.get_mut(sample as usize) {
                *place = (b + i) as i64;
            }
        }
        let place = Tensor::<1, Int>::from_data(TensorData::new(place, [b]), &device);
        Tensor::cat(vec![plain, strong], 0).select(0, place)
    }

    /// The mean velocity of the mixtures after probabilistic guidance. A velocity u at time t and t u at time 1 stand for the same x0.
    fn reweighted(&self, doubled: VelocityMixture, x: &Tensor<4>, t: &Tensor<1>) -> Tensor<4> {
        let both = Tensor::cat(vec![t.clone(), t.clone()], 0);
        let GaussianMixture { means, log_weights, log_std } = doubled.0;
        let scaled = GaussianMixture {
            means: means * per_sample::<5>(&both),
            log_weights,
            log_std: log_std + per_sample::<5>(&both.log()),
        };
        let rule = (self.guidance, self.reweight_by);
        let guided = GuidedPrediction::from_velocity(rule, VelocityMixture(scaled), x, 1.0);
        let to_mean = OdeStep { x, times: vec![1.0, 0.0], correction: None, to_next_mean: None };
        (x.clone() - guided.ode(&to_mean).x) / per_sample::<4>(t)
    }
}

/// The samples of a prediction that `index` names.
fn selected(prediction: &VelocityMixture, index: &Tensor<1, Int>) -> VelocityMixture {
    let select = |x: &Tensor<5>| x.clone().select(0, index.clone());
    let GaussianMixture { means, log_weights, log_std } = &prediction.0;
    VelocityMixture(GaussianMixture {
        means: select(means),
        log_weights: select(log_weights),
        log_std: select(log_std),
    })
}

/// Classifier-free guidance of the velocity of the doubled batch [conditional, unconditional].
fn extrapolated(
    doubled: &VelocityMixture,
    (x, t): (&Tensor<4>, &Tensor<1>),
    scale: f64,
    orthogonal: f64,
) -> Tensor<4> {
    let [m, c, h, w] = x.dims();
    let mean = doubled.0.mean();
    let (conditional, unconditional) = (mean.clone().narrow(0, 0, m), mean.narrow(0, m, m));
    let mut change = conditional.clone() - unconditional;
    if orthogonal > 0.0 {
        let x0 = x.clone() - conditional.clone() * per_sample::<4>(t);
        let sum = |x: Tensor<4>| x.reshape([m, c * h * w]).sum_dim(1).reshape([m, 1, 1, 1]);
        let along = sum(change.clone() * x0.clone()) / sum(x0.clone().powi_scalar(2)).clamp_min(f32::MIN_POSITIVE);
        change = change - x0 * along * orthogonal;
    }
    conditional + change * (scale - 1.0)
}

impl std::fmt::Debug for Teacher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teacher").field("guidance", &self.guidance).finish_non_exhaustive()
    }
}
