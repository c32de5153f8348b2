//! Losses and their gradients.

use crate::harness::{Array, Case, Computed};
use crate::networks::{named_gradients, network};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::loss::{LossBatch, LossConfig, nll, transition_nll};
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::Denoiser;
use gmflow::path::forward_diffusion;
use gmflow::time::TimeSampling;

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "gaussian_mixture_nll_loss" => Some(mixture_nll(case)),
        "toy.gm_kl_loss" => Some(toy(case)),
        "gaussian_nll_loss" => Some(gaussian(case)),
        "GMFlow.loss" => Some(transition(case)),
        "GMFlow.forward_train" => forward_train(case),
        "GaussianFlow.forward_train" => forward_train(case),
        _ => None,
    }
}

/// The mixture of the case with gradients recorded, in the shape `[b k c h w]`.
fn tracked(case: &Case) -> GaussianMixture {
    let device = Device::flex().autodiff();
    let leaf = |name: &str| {
        let array = case.input(name);
        let mut shape = array.shape.clone();
        shape.resize(5, 1);
        Tensor::<5>::from_data(TensorData::new(array.values.clone(), shape), &device).require_grad()
    };
    GaussianMixture { means: leaf("means"), log_weights: leaf("logweights"), log_std: leaf("logstds") }
}

/// The gradients of `loss` with respect to the mixture's three tensors.
fn gradients(mixture: &GaussianMixture, loss: Tensor<1>, computed: &mut Computed) {
    let gradients = loss.backward();
    let mut put = |name: &str, leaf: &Tensor<5>| {
        let gradient = leaf.grad(&gradients).expect("a gradient");
        computed.insert(format!("grad_{name}"), gradient.into());
    };
    put("means", &mixture.means);
    put("logweights", &mixture.log_weights);
    put("logstds", &mixture.log_std);
}

/// A recorded sample as `[b c h w]` beside gradients.
fn target(case: &Case, name: &str) -> Tensor<4> {
    let array = case.input(name);
    let mut shape = array.shape.clone();
    shape.resize(4, 1);
    Tensor::from_data(TensorData::new(array.values.clone(), shape), &Device::flex().autodiff())
}

fn mixture_nll(case: &Case) -> Computed {
    let mixture = tracked(case);
    let loss = nll(&mixture, &target(case, "target"));
    let mut computed = Computed::from([("loss".into(), loss.clone().inner().into())]);
    let per_sample = loss.clone().inner().mean_dim(1).mean_dim(2);
    computed.insert("flatmean".into(), per_sample.into());
    gradients(&mixture, loss.sum(), &mut computed);
    computed
}

fn toy(case: &Case) -> Computed {
    let mixture = tracked(case);
    let loss = nll(&mixture, &target(case, "sample"));
    let mut computed = Computed::from([("loss".into(), loss.clone().inner().into())]);
    gradients(&mixture, loss.sum(), &mut computed);
    computed
}

/// Per channel: every channel is a pixel of a one-component mixture with C = 1.
fn gaussian(case: &Case) -> Computed {
    let [b, c, h, w] = case.input("pred").shape[..] else { panic!("{}: not [b c h w]", case.id) };
    let pixel = |name: &str| case.input(name).tensor::<4>().reshape([b, 1, c * h, w]);
    let single = GaussianMixture {
        means: pixel("pred").unsqueeze_dim(1),
        log_weights: Tensor::zeros([b, 1, 1, 1, 1], &Device::flex()),
        log_std: case.input("logstd").tensor::<4>().unsqueeze_dim(1),
    };
    let loss = nll(&single, &pixel("target"));
    Computed::from([("loss".into(), Array::from(loss))])
}

fn transition(case: &Case) -> Computed {
    let mixture = tracked(case);
    let time = |name: &str| {
        let values: Vec<f32> = case.input(name).values.iter().map(|t| t / 1000.0).collect();
        Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), &Device::flex().autodiff())
    };
    let (lo, hi) = (target(case, "x_t_low"), target(case, "x_t_high"));
    let loss = transition_nll(&VelocityMixture(mixture.clone()), (&lo, &time("t_low")), (&hi, &time("t_high")));
    let loss = loss.mean() * case.f64("weight_scale");
    let mut computed = Computed::from([("loss".into(), loss.clone().inner().into())]);
    gradients(&mixture, loss, &mut computed);
    computed
}

/// One training step's loss and parameter gradients with the recorded draws.
fn forward_train(case: &Case) -> Option<Computed> {
    if case.params.get("spectrum").is_some_and(|spectrum| !spectrum.is_null()) {
        return None;
    }
    let device = Device::flex().autodiff();
    let network = network(case, &case.params["network"], "denoising", &device);
    let x0 = target(case, "x_0");
    let b = x0.dims()[0];
    let uniform = TimeSampling::Uniform { shift: case.f64_or("shift", 1.0) as f32 };
    let times: Vec<f32> = case.draws[0].array.values.iter().map(|&draw| uniform.time(draw)).collect();
    let t = Tensor::<1>::from_data(TensorData::new(times, [b]), &device);
    let array = &case.draws[1].array;
    let noise = Tensor::<4>::from_data(TensorData::new(array.values.clone(), array.shape.clone()), &device);
    let first = noise.clone().slice_dim(0, 0..b);
    let loss = match case.params["trans_ratio"].as_f64() {
        Some(transition_ratio) => {
            let second = noise.slice_dim(0, b..2 * b);
            let config = LossConfig::Transition { transition_ratio, weight_scale: case.f64_or("weight_scale", 1.0) };
            let batch = LossBatch { x0, class: None, t, noise: first, transition_noise: second };
            config.evaluate(&network, batch)
        }
        None => {
            let velocity = network.forward(forward_diffusion(&x0, &t, &first), t, None);
            nll(&velocity.0, &(first - x0)).mean()
        }
    };
    let mut computed = Computed::from([("loss".into(), loss.clone().inner().into())]);
    let gradients = loss.backward();
    computed.extend(named_gradients(&network, &gradients));
    Some(computed)
}
