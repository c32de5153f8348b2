//! Losses and their gradients.

use crate::guidance::mixture;
use crate::harness::{Array, Case, Computed, device};
use crate::networks::{named_gradients, network, spectrum_network};
use burn::tensor::{Int, Tensor, TensorData};
use gmflow::loss::{Evaluation, LossBatch, LossConfig, nll, spectral_loss, transition_nll};
use gmflow::mixture::spectral::Bases;
use gmflow::mixture::transport::Axes;
use gmflow::mixture::{DataMixture, GaussianMixture, VelocityMixture};
use gmflow::network::{Denoiser, SpectrumMlp};
use gmflow::path::forward_diffusion;
use gmflow::time::TimeSampling;

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "gaussian_mixture_nll_loss" => Some(mixture_nll(case)),
        "toy.gm_kl_loss" => Some(toy(case)),
        "gaussian_nll_loss" => Some(gaussian(case)),
        "GMFlow.loss" => Some(transition(case)),
        "GMFlow.spectral_loss" => Some(spectral(case)),
        "GMFlow.forward_train" | "GaussianFlow.forward_train" => Some(forward_train(case)),
        _ => None,
    }
}

/// The mixture of the case with gradients recorded, in the shape `[b k c h w]`.
fn tracked(case: &Case) -> GaussianMixture {
    let device = device().autodiff();
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
    Tensor::from_data(TensorData::new(array.values.clone(), shape), &device().autodiff())
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
        log_weights: Tensor::zeros([b, 1, 1, 1, 1], &device()),
        log_std: case.input("logstd").tensor::<4>().unsqueeze_dim(1),
    };
    let loss = nll(&single, &pixel("target"));
    Computed::from([("loss".into(), Array::from(loss))])
}

fn transition(case: &Case) -> Computed {
    let mixture = tracked(case);
    let time = |name: &str| {
        let values: Vec<f32> = case.input(name).values.iter().map(|t| t / 1000.0).collect();
        Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), &device().autodiff())
    };
    let (lo, hi) = (target(case, "x_t_low"), target(case, "x_t_high"));
    let loss = transition_nll(&VelocityMixture(mixture.clone()), (&lo, &time("t_low")), (&hi, &time("t_high")));
    let loss = loss.mean() * case.f64("weight_scale");
    let mut computed = Computed::from([("loss".into(), loss.clone().inner().into())]);
    gradients(&mixture, loss, &mut computed);
    computed
}

/// The loss of a recorded spectrum network `net` on plain data, weighted.
fn spectral_part(case: &Case, net: &SpectrumMlp, prediction: &DataMixture, x0: &Tensor<4>, weight: f64) -> Tensor<1> {
    let basis = case.draws.iter().find(|draw| draw.kind == "eigvecs_desc").map(|draw| draw.array.tensor::<5>());
    let bases = basis.as_ref().map_or(Bases::Shared, |basis| Bases::Given(basis, Axes::Basis));
    spectral_loss(net, prediction, x0, bases).expect("shapes that fit") * weight
}

fn spectral(case: &Case) -> Computed {
    let mixture = mixture(case, "");
    let times: Vec<f32> = case.input("t").values.iter().map(|t| t / 1000.0).collect();
    let t = Tensor::<1>::from_floats(times.as_slice(), &device());
    let prediction = VelocityMixture(mixture).to_data(&case.input("x_t").tensor(), &t);
    let net = spectrum_network(case, &case.params, "spectrum_net");
    let loss = spectral_part(case, &net, &prediction, &case.input("x_0").tensor(), case.f64("spectral_loss_weight"));
    let mut computed = Computed::from([("loss".into(), loss.clone().inner().into())]);
    computed.extend(named_gradients(&net, &loss.backward()));
    computed
}

/// One training step's loss and parameter gradients with the recorded draws.
fn forward_train(case: &Case) -> Computed {
    let device = device().autodiff();
    let network = network(case, &case.params["network"], "denoising", &device);
    let x0 = target(case, "x_0");
    let b = x0.dims()[0];
    let shift = case.f64_or("shift", 1.0) as f32;
    let sampling = if case.flag("logit_normal") {
        TimeSampling::LogitNormal { mean: 0.0, std: 1.0, shift }
    } else {
        TimeSampling::Uniform { shift }
    };
    let times: Vec<f32> = case.draws[0].array.values.iter().map(|&draw| sampling.time(draw)).collect();
    let t = Tensor::<1>::from_data(TensorData::new(times, [b]), &device);
    let array = &case.draws[1].array;
    let noise = Tensor::<4>::from_data(TensorData::new(array.values.clone(), array.shape.clone()), &device);
    let first = noise.clone().slice_dim(0, 0..b);
    let class = case.inputs.get("class_labels").map(|labels| {
        let labels: Vec<i64> = labels.values.iter().map(|&label| label as i64).collect();
        Tensor::<1, Int>::from_data(TensorData::new(labels, [b]), &device)
    });
    let (loss, spectral) = match case.params["trans_ratio"].as_f64() {
        Some(transition_ratio) => {
            let second = noise.slice_dim(0, b..2 * b);
            let config = LossConfig::Transition { transition_ratio, weight_scale: case.f64_or("weight_scale", 1.0) };
            let batch = LossBatch { x0: x0.clone(), class, t: t.clone(), noise: first, transition_noise: second };
            let Evaluation { loss, velocity, x_t } = config.evaluate(&network, batch);
            let spectrum = case.params.get("spectrum").filter(|spectrum| !spectrum.is_null());
            let spectral = spectrum.map(|params| {
                let net = spectrum_network(case, params, "spectrum_net");
                let prediction = velocity.to_data(&x_t, &t).detached();
                let weight = params["weight"].as_f64().unwrap_or(1.0);
                let loss = spectral_part(case, &net, &prediction, &x0.clone().inner(), weight);
                (net, loss)
            });
            (loss, spectral)
        }
        None => {
            let velocity = network.forward(forward_diffusion(&x0, &t, &first), t, class);
            (nll(&velocity.0, &(first - x0)).mean(), None)
        }
    };
    let mut computed = Computed::new();
    let mut total = loss.clone();
    if let Some((_, spectral)) = &spectral {
        total = total + spectral.clone();
        computed.insert("loss_transition".into(), loss.inner().into());
        computed.insert("loss_spectral".into(), spectral.clone().inner().into());
    }
    computed.insert("loss".into(), total.clone().inner().into());
    let gradients = total.backward();
    if let Some((net, _)) = &spectral {
        let named = named_gradients(net, &gradients).into_iter();
        computed.extend(named.map(|(name, array)| (name.replacen("grad_", "grad_spectrum_net.", 1), array)));
        let named = named_gradients(&network, &gradients).into_iter();
        computed.extend(named.map(|(name, array)| (name.replacen("grad_", "grad_denoising.", 1), array)));
    }
    computed.extend(named_gradients(&network, &gradients));
    computed
}
