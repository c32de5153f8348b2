//! Every multistep solver walks as that of diffusers does, which data/diffusers_solvers.py recorded: few steps and many, with a shift and
//! without, whatever the network predicts.

use burn::tensor::{Device, Int, Tensor};
use gmflow::guidance::{Guidance, GuidedPrediction};
use gmflow::mixture::{DataMixture, GaussianMixture};
use gmflow::rng::Purpose;
use gmflow::solver::{
    Context, Deis, Dpmpp2m, Dpmpp2mSde, Dpmpp2s, NoiseSource, SecondOrder, SolverConfig, Span, UniPc,
};
use gmflow::time;
use serde::Deserialize;

#[derive(Deserialize)]
struct Record {
    made_with: std::collections::BTreeMap<String, String>,
    start: Vec<f32>,
    mean: f64,
    std: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    solver: String,
    steps: usize,
    shift: f32,
    results: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    predictions: Vec<String>,
    /// The last states, the final one last.
    states: Vec<Vec<f64>>,
}

/// An even mixture of N(-mean, std^2) and N(mean, std^2).
struct Data {
    mean: f64,
    std: f64,
}

impl Data {
    /// E[x0 | x_t = x].
    fn denoised(&self, x: f64, t: f64) -> f64 {
        let (a, s2) = (1.0 - t, self.std * self.std);
        let var = a * a * s2 + t * t;
        let weight = (a * self.mean * x / var).tanh();
        weight * self.mean + a * s2 / var * (x - a * self.mean * weight)
    }

    /// The certain prediction of it.
    fn predict(&self, x: &Tensor<4>, t: f64) -> GuidedPrediction {
        let values: Vec<f32> = values(x).into_iter().map(|x| self.denoised(f64::from(x), t) as f32).collect();
        let dims = x.dims();
        let x0 = Tensor::<1>::from_floats(values.as_slice(), &x.device()).reshape(dims);
        let log_weights = Tensor::zeros([dims[0], 1, 1, dims[2], dims[3]], &x.device());
        let log_std = Tensor::full([dims[0], 1, 1, 1, 1], -20.0, &x.device());
        let mixture = GaussianMixture { means: x0.unsqueeze_dim(1), log_weights, log_std };
        GuidedPrediction::new(Guidance::Off, DataMixture(mixture), None, x)
    }
}

/// The noise of the script: a sine of the step.
struct Sines;

impl NoiseSource for Sines {
    fn normal(&mut self, _: Purpose, index: usize, shape: [usize; 4]) -> Tensor<4> {
        let noise = |j: usize| 1.4 * (1.3 * (index + 1) as f64 + 2.1 * (j + 1) as f64).sin();
        let values: Vec<f32> = (0..shape.iter().product()).map(|j| noise(j) as f32).collect();
        Tensor::<1>::from_floats(values.as_slice(), &Device::flex()).reshape(shape)
    }

    fn component(&mut self, _: usize, _: &GaussianMixture) -> Tensor<5, Int> {
        unreachable!("no solver of these draws a component")
    }
}

fn values(x: &Tensor<4>) -> Vec<f32> {
    x.clone().into_data().try_into_vec().expect("f32")
}

fn solver(name: &str) -> SolverConfig {
    match name {
        "dpmpp-2m" => SolverConfig::Dpmpp2m(Dpmpp2m {}),
        "dpmpp-2m-sde" => SolverConfig::Dpmpp2mSde(Dpmpp2mSde {}),
        "dpmpp-2s" => SolverConfig::Dpmpp2s(Dpmpp2s {}),
        "unipc" => SolverConfig::UniPc(UniPc {}),
        "deis" => SolverConfig::Deis(Deis {}),
        "sa-solver" => SolverConfig::SA_SOLVER,
        other => panic!("{other}: no such solver"),
    }
}

/// The state after every step.
fn walk(solver: SolverConfig, (steps, shift): (usize, f32), start: &[f32], data: &Data) -> Vec<Vec<f32>> {
    let mut predict = |x: &Tensor<4>, t: f64| data.predict(x, t);
    let second_order = SecondOrder::default();
    let mut context =
        Context { predict: &mut predict, draws: &mut Sines, spectrum: None, second_order, observe: None };
    let x = Tensor::<1>::from_floats(start, &Device::flex()).reshape([start.len(), 1, 1, 1]);
    let mut state = solver.init(x);
    let mut states = Vec::new();
    for (index, pair) in time::grid(steps, shift).expect("a grid").windows(2).enumerate() {
        let [t, to] = [pair[0], pair[1]].map(f64::from);
        let span = Span { index, t, to, default_substeps: 1, shift };
        state = solver.step(state, span, &mut context).expect("a step");
        states.push(values(state.x()));
    }
    states
}

#[test]
fn multistep_solvers_walk_as_those_of_diffusers() {
    let record: Record = serde_json::from_str(include_str!("data/diffusers_solvers.json")).expect("the record");
    assert_eq!(record.made_with["diffusers"], "0.42.1");
    let data = Data { mean: record.mean, std: record.std };
    let mut compared = 0;
    for Case { solver: name, steps, shift, results } in &record.cases {
        let ours = walk(solver(name), (*steps, *shift), &record.start, &data);
        for Found { predictions, states } in results {
            assert_eq!(states.len(), 3.min(*steps));
            for (back, theirs) in states.iter().rev().enumerate() {
                let step = steps - 1 - back;
                for (a, b) in ours[step].iter().zip(theirs) {
                    // Flow sigmas begin at 1 - 1e-6; states are f32 here.
                    let off = (f64::from(*a) - b).abs();
                    assert!(
                        off < 1e-5,
                        "{name}, {steps} steps, shift {shift}, {predictions:?}, step {step}: {a}, diffusers has {b}"
                    );
                }
            }
            compared += predictions.len();
        }
    }
    // Six solvers, eight numbers of steps, two shifts, four kinds of prediction.
    assert_eq!(compared, 6 * 8 * 2 * 4);
}
