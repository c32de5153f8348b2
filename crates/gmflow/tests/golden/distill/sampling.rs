//! Time grids, fresh noise between steps, and whole runs of students through the pipeline that users call.

use super::networks::network;
use super::number_or_word;
use crate::harness::{Array, Case, Computed, device};
use burn::tensor::{Int, Tensor, TensorData};
use gmflow::mixture::GaussianMixture;
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::policy::{Renoising, Segments, SubstepGrid, raw_time};
use gmflow::rng::Purpose;
use gmflow::solver::{NoiseSource, PiFlow, SolverConfig, SubStep};
use std::collections::VecDeque;
use std::ops::ControlFlow;

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "FlowMapSDEScheduler.set_timesteps" => Some(grid(case)),
        "FlowMapSDEScheduler.step" => Some(steps(case)),
        "PiFlowImitation.forward_test" => Some(sampled(case)),
        _ => None,
    }
}

fn segments(case: &Case) -> Segments {
    let final_step_scale = case.f64("final_step_size_scale");
    Segments { steps: case.usize("steps"), final_step_scale, shift: case.f64("shift") }
}

fn row(values: impl IntoIterator<Item = f64>) -> Array {
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    Array { shape: vec![values.len()], values }
}

/// How each step is followed and comes back.
fn renoisings(case: &Case) -> Vec<Renoising> {
    let h = number_or_word(case, "h");
    segments(case).times().windows(2).map(|ends| Renoising::new((ends[0], ends[1]), h)).collect()
}

fn grid(case: &Case) -> Computed {
    let renoisings = renoisings(case);
    Computed::from([
        ("t".into(), row(segments(case).times())),
        ("t_dst".into(), row(renoisings.iter().map(|renoising| renoising.to))),
        ("m".into(), row(renoisings.iter().map(|renoising| renoising.kept))),
    ])
}

fn steps(case: &Case) -> Computed {
    let x = case.input("x_dst").tensor::<5>();
    let next = renoisings(case).into_iter().enumerate().map(|(i, renoising)| {
        let (at, noise) = (x.clone().narrow(0, i, 1).squeeze_dim::<4>(0), case.draws[i].array.tensor::<4>());
        at * renoising.scale + noise * renoising.noise
    });
    Computed::from([("x_next".into(), Tensor::stack::<5>(next.collect(), 0).into())])
}

/// The recorded normals; a step without fresh noise asks for none.
pub struct Replay(VecDeque<Array>);

impl Replay {
    pub fn of(case: &Case) -> Self {
        Self(case.draws.iter().map(|draw| draw.array.clone()).collect())
    }
}

impl NoiseSource for Replay {
    fn normal(&mut self, _: Purpose, _: usize, shape: [usize; 4]) -> Tensor<4> {
        let draw = self.0.pop_front().expect("another recorded draw");
        Tensor::from_data(TensorData::new(draw.values, shape), &device())
    }

    fn component(&mut self, _: usize, _: &GaussianMixture) -> Tensor<5, Int> {
        panic!("a policy draws no components")
    }
}

/// How a case follows its policy.
pub fn settings(case: &Case) -> PiFlow {
    PiFlow {
        final_step_scale: case.f64("final_step_size_scale"),
        substeps: case.usize("total_substeps"),
        temperature: case.f64("temperature"),
        renoise: number_or_word(case, "h"),
        grid_segment: case.params["policy_kwargs"]["segment_size"].as_f64(),
    }
}

/// The classes that a case asks for.
pub fn classes_of(case: &Case) -> Option<Vec<usize>> {
    let labels = case.inputs.get("class_labels")?;
    Some(labels.values.iter().map(|class| *class as usize).collect())
}

fn sampled(case: &Case) -> Computed {
    let (network, policy) = (network(case, "student", &device()), settings(case));
    let config = SamplerConfig {
        shift: case.f64("shift") as f32,
        ..SamplerConfig::new(SolverConfig::PiFlow(policy), case.usize("steps"))
    };
    let noise = case.input("noise").tensor::<4>();
    let [b, c, h, w] = noise.dims();
    let (classes, shape) = (classes_of(case), [c, h, w]);
    let request = SampleRequest { seeds: vec![0; b], classes, shape, noise: Some(noise) };
    let draws = || Replay::of(case);
    let pipeline = Pipeline { network: &network, spectrum: None, device: device() };
    // Without an observer the fused passes compute it; with one, tensor operations do, which also tell where each step came to.
    let out = pipeline.run(&config, &request, &mut draws(), &mut keep_going, None).expect("samples");
    let mut ends: Vec<Tensor<4>> = Vec::new();
    let mut observe = |done: &SubStep| {
        if done.last {
            ends.push(done.x.clone());
        }
        ControlFlow::Continue(())
    };
    pipeline.run(&config, &request, &mut draws(), &mut keep_going, Some(&mut observe)).expect("samples");
    let (renoisings, times) = (renoisings(case), segments(case).times());
    let substep_grid = SubstepGrid { shift: case.f64("shift"), substeps: case.f64("total_substeps") };
    let counts = renoisings.iter().zip(&times).map(|(renoising, t)| {
        substep_grid.count(raw_time(*t, substep_grid.shift), raw_time(renoising.to, substep_grid.shift)) as f64
    });
    let counts = row(counts);
    let fresh = |i: usize, x: &Tensor<4>| match case.draws.get(i) {
        Some(draw) => x.clone() * renoisings[i].scale + draw.array.tensor::<4>() * renoisings[i].noise,
        None => x.clone(),
    };
    let after: Vec<Tensor<4>> = ends.iter().enumerate().map(|(i, x)| fresh(i, x)).collect();
    Computed::from([
        ("out".into(), out.into()),
        ("x_steps".into(), Tensor::stack::<5>(after, 0).into()),
        ("x_dst".into(), Tensor::stack::<5>(ends, 0).into()),
        ("substeps".into(), counts),
    ])
}
