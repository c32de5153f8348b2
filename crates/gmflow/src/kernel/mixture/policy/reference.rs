//! Roll-outs in tensor operations: the definition, for mixtures of any shape on any device.

use super::RollOut;
use crate::kernel::mixture::step::types::OdeSubstep;
use crate::mixture::{GaussianMixture, VelocityMixture};
use burn::tensor::{Device, Tensor, TensorData};

/// One number of a sub-step for every sample, `[b 1 1 1]`.
fn numbers(plan: &RollOut, i: usize, number: fn(&OdeSubstep) -> f32, device: &Device) -> Tensor<4> {
    let of_samples: Vec<f32> = plan.substeps.iter().skip(i).step_by(plan.count.max(1)).map(number).collect();
    let b = of_samples.len();
    Tensor::from_data(TensorData::new(of_samples, [b, 1, 1, 1]), device)
}

/// As [`super::roll_out`]: with the mixtures over x0 = x_src - t_src u, every sub-step goes along the line from x to their mean under
/// (10), which is measured from the mean at the source.
pub(crate) fn roll_out(velocity: &GaussianMixture, source: &Tensor<4>, x: &Tensor<4>, plan: &RollOut) -> Tensor<4> {
    let device = x.device();
    let times = Tensor::<1>::from_data(TensorData::new(plan.sources.clone(), [plan.sources.len()]), &device);
    let mixture = VelocityMixture(velocity.clone()).to_data(source, &times).0;
    let center = mixture.mean().detach(); // the result does not depend on it
    let mut x = x.clone();
    for i in 0..plan.count {
        let of = |number| numbers(plan, i, number, &device);
        let (of_x, of_source, zeta) = (of(|s| s.of_x_tau), of(|s| s.of_x_t), of(|s| s.zeta));
        let nu = x.clone() * of_x - source.clone() * of_source - center.clone() * zeta.clone();
        let x0 = mixture.tilted_about(&center, &nu, &zeta).mean();
        let keep = of(|s| s.keep);
        x = x * keep.clone() + x0 * (keep * -1.0 + 1.0);
    }
    x
}
