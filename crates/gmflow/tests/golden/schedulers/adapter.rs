//! Solvers of variance-preserving diffusions, which the published code runs through an adapter to the flow.
//!
//! The adapter turns the prediction into epsilon, from which the solver works x0 out again. At t = 1 epsilon is x itself and tells nothing
//! of x0: what comes out is rounding around 0, and the first call of the network is lost. Here solvers take x0 as it was predicted; for the
//! replay it is spoiled in the same way. Three of the solvers carry the rounding on, multiplied by 1e6: what they recorded after the
//! first step is noise, and the replay goes on from there.

use super::{Array, Case, Computed};
use burn::tensor::Tensor;
use gmflow::guidance::{Guidance, GuidedPrediction};
use gmflow::mixture::{DataMixture, GaussianMixture};
use gmflow::rng::Purpose;
use gmflow::solver::{Context, Deis, Dpmpp2m, Dpmpp2s, Euler, NoiseSource, SecondOrder, SolverConfig, Span, UniPc};
use gmflow::time;

/// What the adapter takes for alpha at t = 1, and for the last sigma of the solvers that cannot end on 0.
const EPS: f32 = 1e-6;

pub fn run(case: &Case) -> Computed {
    let (solver, ends_on_zero, starts_with_noise) = match case.text("base_scheduler") {
        "DPMSolverMultistep" => (SolverConfig::Dpmpp2m(Dpmpp2m {}), true, false),
        "DPMSolverSinglestep" => (SolverConfig::Dpmpp2s(Dpmpp2s {}), true, false),
        "DEISMultistep" => (SolverConfig::Deis(Deis {}), false, true),
        "SASolver" => (SolverConfig::SA_SOLVER, false, false),
        "UniPCMultistep" => (SolverConfig::UniPc(UniPc {}), true, false),
        "EulerDiscrete" => (SolverConfig::Euler(Euler {}), true, true),
        "EulerAncestralDiscrete" => (SolverConfig::DDPM_SMALL, true, true),
        other => panic!("{}: no solver for {other}", case.id),
    };
    let mut sigmas = time::grid(case.usize("n"), case.f64("shift") as f32).expect("a valid grid");
    let timesteps: Vec<f32> = sigmas[..sigmas.len() - 1].iter().map(|sigma| sigma * 1000.0).collect();
    let data = Gaussian { mu: case.f64("mu"), s2: case.f64("s2") };
    let mut predict = |x: &Tensor<4>, t: f64| known(spoiled(x, data.velocity(x, t), t as f32), x);
    let mut draws = Recorded(case);
    let second_order = SecondOrder::default();
    let mut context =
        Context { predict: &mut predict, draws: &mut draws, spectrum: None, second_order, observe: None };
    let mut state = solver.init(case.input("x").tensor::<4>());
    let mut states: Vec<Tensor<4>> = Vec::new();
    for (index, pair) in sigmas.windows(2).enumerate() {
        let [t, to] = [pair[0], pair[1]].map(f64::from);
        let span = Span { index, t, to, default_substeps: 1, shift: 1.0 };
        state = solver.step(state, span, &mut context).expect("a step");
        if starts_with_noise && index == 0 {
            state.replace_x(case.outputs["x_steps"].array.tensor::<5>().slice_dim(0, 0..1).squeeze_dim::<4>(0));
        }
        states.push(state.x().clone());
    }
    if !ends_on_zero {
        *sigmas.last_mut().expect("a grid") = EPS;
    }
    let array = |values: Vec<f32>| Array { shape: vec![values.len()], values };
    Computed::from([
        ("timesteps".into(), array(timesteps)),
        ("sigmas".into(), array(sigmas)),
        ("x_steps".into(), Tensor::stack::<5>(states, 0).into()),
    ])
}

/// x0 as the solver behind the adapter gets to know it, in f32 as there.
fn spoiled(x: &Tensor<4>, velocity: Tensor<4>, sigma: f32) -> Tensor<4> {
    let alpha = 1.0 - sigma;
    let epsilon = x.clone() + velocity * alpha;
    let ratio = sigma / alpha.max(EPS);
    let rescaled_alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
    let scale = (alpha * alpha + sigma * sigma).sqrt();
    (x.clone() / scale - epsilon * (ratio * rescaled_alpha)) / rescaled_alpha
}

/// Data whose coordinates are N(mu, s2).
struct Gaussian {
    mu: f64,
    s2: f64,
}

impl Gaussian {
    fn velocity(&self, x: &Tensor<4>, sigma: f64) -> Tensor<4> {
        let alpha = 1.0 - sigma;
        let gain = alpha * self.s2 / (alpha * alpha * self.s2 + sigma * sigma);
        let x0 = (x.clone() - alpha * self.mu) * gain + self.mu;
        (x.clone() - x0) / sigma
    }
}

/// A prediction that is certain.
fn known(x0: Tensor<4>, x: &Tensor<4>) -> GuidedPrediction {
    let [b, _, h, w] = x0.dims();
    let log_weights = Tensor::zeros([b, 1, 1, h, w], &x.device());
    let log_std = Tensor::full([b, 1, 1, 1, 1], -20.0, &x.device());
    let mixture = GaussianMixture { means: x0.unsqueeze_dim(1), log_weights, log_std };
    GuidedPrediction::new(Guidance::Off, DataMixture(mixture), None, x)
}

/// The recorded normals, one draw per step.
struct Recorded<'a>(&'a Case);

impl NoiseSource for Recorded<'_> {
    fn normal(&mut self, _: Purpose, index: usize, _: [usize; 4]) -> Tensor<4> {
        self.0.draws[index].array.tensor()
    }

    fn component(&mut self, _: usize, _: &GaussianMixture) -> Tensor<5, burn::tensor::Int> {
        unreachable!("no solver of these draws a component")
    }
}
