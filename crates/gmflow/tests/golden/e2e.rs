//! Whole sampling runs with the recorded noise and draws, state by state, through the same pipeline that users call.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::harness::{Array, Case, Computed, Draw, device};
use crate::networks::network;
use burn::tensor::{Int, Tensor, TensorData};
use gmflow::checkpoint::{LatentInfo, load_diffusers_spectrum, load_diffusers_transformer, load_diffusers_vae};
use gmflow::guidance::Guidance;
use gmflow::mixture::GaussianMixture;
use gmflow::network::{Denoiser, Network, SpectrumMlp, Tiling};
use gmflow::pipeline::{Decoder, Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::rng::Purpose;
use gmflow::solver::{
    DdpmLarge, DdpmSmall, GmOde, GmSde, NoiseSource, SecondOrder, SolverConfig, SubStep, ddpm_large_std, transition,
};
use gmflow::time;

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "GMDiTPipeline" => Some(sampled(case, "order", "num_inference_steps", "num_inference_substeps")),
        "GMFlow.forward_test" | "GaussianFlow.forward_test" => {
            Some(sampled(case, "order", "num_timesteps", "num_substeps"))
        }
        "checkpoint_tiny" => Some(forward(case)),
        _ => None,
    }
}

/// The recorded draws, handed out in the order in which they were made.
struct Replay {
    draws: VecDeque<Draw>,
    /// The sign of a draw within a component: -1 where the recorded run drew the velocity, of which x0 is minus t times.
    sign: f64,
}

impl Replay {
    fn next(&mut self, kind: &str) -> Array {
        let draw = self.draws.pop_front().unwrap_or_else(|| panic!("no {kind} is left"));
        assert_eq!(draw.kind, kind, "the next recorded draw");
        draw.array
    }
}

impl NoiseSource for Replay {
    fn normal(&mut self, purpose: Purpose, _: usize, shape: [usize; 4]) -> Tensor<4> {
        let normal = Tensor::from_data(TensorData::new(self.next("randn").values, shape), &device());
        if purpose == Purpose::WithinComponent { normal * self.sign } else { normal }
    }

    fn component(&mut self, _: usize, mixture: &GaussianMixture) -> Tensor<5, Int> {
        let [b, _, _, h, w] = mixture.means.dims();
        let index: Vec<i64> = self.next("multinomial").values.iter().map(|&index| index as i64).collect();
        Tensor::from_data(TensorData::new(index, [b, 1, 1, h, w]), &device())
    }

    fn basis(&mut self, _: usize) -> Option<Tensor<5>> {
        Some(self.next("eigvecs_desc").tensor())
    }
}

/// The denoising network and, where the case uses it, the spectrum network.
fn networks(case: &Case) -> (Network, Option<SpectrumMlp>) {
    let device = device();
    let Some(dir) = case.checkpoints.get("transformer") else {
        return (network(case, &case.params["network"], "denoising", &device), None);
    };
    let transformer = load_diffusers_transformer(dir, None, &device).expect("the recorded transformer");
    let used = case.params["use_spectrum_net"].as_bool().unwrap_or(case.op == "GMDiTPipeline");
    let spectrum = case.checkpoints.get("spectrum_net").filter(|_| used);
    let load = |dir: &PathBuf| load_diffusers_spectrum(dir, None, &device).expect("the recorded spectrum network");
    (Network::GmDit(transformer), spectrum.map(load))
}

fn solver(case: &Case, order: &str, substeps: &str) -> SolverConfig {
    let order = case.f64_or(order, 1.0) as u8;
    let substeps = case.f64_or(substeps, 1.0) as usize;
    let kind = ["scheduler", "sampler"].iter().find_map(|name| case.params[*name].as_str());
    match (kind, case.text("output_mode"), case.params["variance_mode"].as_str()) {
        (Some("FlowEulerODE"), "mean", _) => SolverConfig::GmOde(GmOde { order, substeps: Some(substeps) }),
        (Some("GMFlowSDE"), "sample", _) => SolverConfig::GmSde(GmSde { order, spectral: None }),
        (Some("GMFlowSDE"), "mean", Some("large") | None) => SolverConfig::DdpmLarge(DdpmLarge { order, substeps }),
        (Some("GMFlowSDE"), "mean", _) => SolverConfig::DdpmSmall(DdpmSmall { order, substeps }),
        other => panic!("{}: sampler {other:?}", case.id),
    }
}

fn guidance(case: &Case) -> Guidance {
    let scale = case.f64_or("guidance_scale", 0.0);
    if case.op == "GaussianFlow.forward_test" {
        let orthogonal = if case.flag("orthogonal_guidance") { 1.0 } else { 0.0 };
        return Guidance::ClassifierFree { scale, orthogonal };
    }
    Guidance::Probabilistic { scale, orthogonal: case.f64_or("orthogonal_guidance", 1.0) }
}

fn second_order(case: &Case) -> SecondOrder {
    let SecondOrder { ca, cb, .. } = SecondOrder::default();
    let coefficient = |i: usize, default: f64| case.params["gm2_coefs"][i].as_f64().unwrap_or(default);
    let corrections = case.f64_or("gm2_correction_steps", 0.0) as usize;
    SecondOrder { ca: coefficient(0, ca), cb: coefficient(1, cb), corrections, ..SecondOrder::default() }
}

/// The classes of the samples; recorded either alone or behind as many null labels.
fn classes(case: &Case, batch: usize) -> Option<Vec<usize>> {
    let labels = &case.inputs.get("class_labels")?.values;
    Some(labels[labels.len() - batch..].iter().map(|&label| label as usize).collect())
}

/// What a run went through.
#[derive(Default)]
struct Trace {
    x: Vec<Tensor<4>>,
    x0: Vec<Tensor<4>>,
    /// Where every step ended, and the x0 of its last sub-step and its mixture.
    ends: Vec<(Tensor<4>, Tensor<4>, GaussianMixture)>,
}

impl Trace {
    fn note(&mut self, done: &SubStep) {
        self.x.push(done.x.clone());
        self.x0.push(done.x0.clone());
        if done.last {
            self.ends.push((done.x.clone(), done.x0.clone(), done.mixture.0.clone()));
        }
    }
}

fn sampled(case: &Case, order: &str, steps: &str, substeps: &str) -> Computed {
    let sign = if case.op == "GaussianFlow.forward_test" { -1.0 } else { 1.0 };
    let mut replay = Replay { draws: case.draws.iter().cloned().collect(), sign };
    let noise: Tensor<4> = match case.inputs.get("noise") {
        Some(noise) => noise.tensor(),
        None => replay.next("randn").tensor(),
    };
    let [b, c, h, w] = noise.dims();
    let (network, spectrum) = networks(case);
    let config = SamplerConfig {
        solver: solver(case, order, substeps),
        steps: case.usize(steps),
        guidance: guidance(case),
        guidance_interval: None,
        shift: case.f64_or("shift", 1.0) as f32,
        reweight_by: gmflow::guidance::ReweightScale::Image,
        second_order: second_order(case),
    };
    let request =
        SampleRequest { seeds: vec![0; b], classes: classes(case, b), shape: [c, h, w], noise: Some(noise.clone()) };
    let pipeline = Pipeline { network: &network, spectrum: spectrum.as_ref(), device: device() };
    let mut trace = Trace::default();
    let mut note = |done: &SubStep| {
        trace.note(done);
        ControlFlow::Continue(())
    };
    let result = pipeline.run(&config, &request, &mut replay, &mut keep_going, Some(&mut note));
    let out = result.unwrap_or_else(|error| panic!("{}: {error}", case.id));
    let times = substep_times(&config, case.f64_or(substeps, 1.0) as usize);
    let out = with_recorded_last_noise(&config, &times, &mut trace, &mut replay).unwrap_or(out);
    let image = decode(case, out.clone()).map(|image| image.permute([0, 2, 3, 1])); // [b h w c]
    let mut computed = outputs(noise, &times, trace, out);
    computed.extend(image.map(|image| ("image".to_owned(), Array::from(image))));
    computed
}

/// The times at which sub-steps start: they are even before the shift.
fn substep_times(config: &SamplerConfig, substeps: usize) -> Vec<f64> {
    let grid = time::grid(config.steps * substeps, config.shift).expect("a valid grid");
    grid[..grid.len() - 1].iter().map(|&t| f64::from(t)).collect()
}

/// The recorded runs with large variance add noise in their very last step, where ours lands on the mean. The noise is put
/// on here, so that everything that leads to it is compared.
fn with_recorded_last_noise(
    config: &SamplerConfig,
    times: &[f64],
    trace: &mut Trace,
    replay: &mut Replay,
) -> Option<Tensor<4>> {
    let SolverConfig::DdpmLarge(DdpmLarge { .. }) = config.solver else { return None };
    let (before, t) = (trace.x.iter().rev().nth(1)?.clone(), *times.last()?);
    let noise = replay.normal(Purpose::Transition, 0, before.dims());
    let noisy = transition(&before, trace.x0.last()?, (t, 0.0), ddpm_large_std(t), &noise);
    trace.x.pop();
    trace.x.push(noisy.clone());
    Some(noisy)
}

fn outputs(noise: Tensor<4>, times: &[f64], trace: Trace, out: Tensor<4>) -> Computed {
    let array = |stack: Vec<Tensor<4>>| Array::from(Tensor::stack::<5>(stack, 0));
    let last = trace.ends.len().saturating_sub(1);
    let starts = std::iter::once(noise).chain(trace.ends[..last].iter().map(|(x, ..)| x.clone())).collect();
    let mixtures = |part: fn(&GaussianMixture) -> &Tensor<5>| {
        let parts = trace.ends.iter().map(|(_, _, mixture)| part(mixture).clone()).collect();
        Array::from(Tensor::stack::<6>(parts, 0))
    };
    let timesteps: Vec<f32> = times.iter().map(|t| (t * 1000.0) as f32).collect();
    Computed::from([
        ("timesteps".into(), Array { shape: vec![timesteps.len()], values: timesteps }),
        ("latents".into(), out.clone().into()),
        ("out".into(), out.into()),
        ("x_t_inputs".into(), array(starts)),
        ("x_0".into(), array(trace.ends.iter().map(|(_, x0, _)| x0.clone()).collect())),
        ("gm_x_0_means".into(), mixtures(|mixture| &mixture.means)),
        ("gm_x_0_logstds".into(), mixtures(|mixture| &mixture.log_std)),
        ("gm_x_0_logweights".into(), mixtures(|mixture| &mixture.log_weights)),
        ("x_steps".into(), array(trace.x)),
        ("model_outputs".into(), array(trace.x0)),
    ])
}

/// The images `[b c h w]` in [0, 1] of latents, where the case has an autoencoder.
fn decode(case: &Case, latents: Tensor<4>) -> Option<Tensor<4>> {
    let vae = load_diffusers_vae(case.checkpoints.get("vae")?, None, &device()).expect("the recorded autoencoder");
    let config = vae.config();
    let latent = LatentInfo {
        scaling_factor: config.scaling_factor,
        shift_factor: config.shift_factor.unwrap_or(0.0),
        downsampling: config.downsampling(),
        vae: None,
    };
    let decoder = Decoder { vae: &vae, latent: &latent, tiling: Tiling::default() };
    let images = decoder.decode(latents, &mut keep_going).expect("latents of this autoencoder");
    Some((images * 0.5 + 0.5).clamp(0.0, 1.0))
}

/// One prediction of the recorded checkpoint.
fn forward(case: &Case) -> Computed {
    let (network, _) = networks(case);
    let x = case.input("latents").tensor::<4>();
    let b = x.dims()[0];
    let labels: Vec<i64> = case.input("class_labels").values.iter().map(|&label| label as i64).collect();
    let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [b]), &device());
    let GaussianMixture { means, log_weights, log_std } =
        network.forward(x, case.input("t").tensor::<1>() / 1000.0, Some(labels)).0;
    let image = decode(case, case.input("latents").tensor()).expect("an autoencoder");
    Computed::from([
        ("means".into(), means.into()),
        ("logweights".into(), log_weights.into()),
        ("logstds".into(), log_std.into()),
        ("image_chw".into(), image.into()),
    ])
}
