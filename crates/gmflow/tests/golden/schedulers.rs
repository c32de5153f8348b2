//! Time grids and the steps of Euler and the reverse transition.

mod adapter;

use crate::harness::{Array, Case, Computed};
use burn::tensor::Tensor;
use gmflow::solver::{ddpm_large_std, euler_step, transition};
use gmflow::time;

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "FlowEulerODEScheduler.set_timesteps" | "GMFlowSDEScheduler.set_timesteps" => Some(table(case)),
        "FlowAdapterScheduler" => Some(adapter::run(case)),
        "FlowEulerODEScheduler.step" | "GMFlowSDEScheduler.step" => Some(steps(case)),
        _ => None,
    }
}

fn grid(case: &Case) -> Vec<f32> {
    time::grid(case.usize("n"), case.f64("shift") as f32).expect("a valid grid")
}

fn table(case: &Case) -> Computed {
    let sigmas = grid(case);
    let timesteps: Vec<f32> = sigmas[..sigmas.len() - 1].iter().map(|sigma| sigma * 1000.0).collect();
    let array = |values: Vec<f32>| Array { shape: vec![values.len()], values };
    Computed::from([("timesteps".into(), array(timesteps)), ("sigmas".into(), array(sigmas))])
}

fn steps(case: &Case) -> Computed {
    let outputs = case.input("model_outputs").tensor::<5>();
    let mut x = case.input("x").tensor::<4>();
    let mut states: Vec<Tensor<4>> = Vec::new();
    for (i, pair) in grid(case).windows(2).enumerate() {
        let (t, to) = (f64::from(pair[0]), f64::from(pair[1]));
        let output = outputs.clone().slice_dim(0, i..i + 1).squeeze_dim::<4>(0);
        let x0 = if case.text("prediction_type") == "u" { x.clone() - output * t } else { output };
        x = match case.params["output_mode"].as_str() {
            None => euler_step(&x, &x0, t, to),
            Some(mode) => {
                let large = mode == "mean" && case.text("variance_mode") == "large";
                let std = if large { ddpm_large_std(t) } else { 0.0 };
                transition(&x, &x0, (t, to), std, &case.draws[i].array.tensor())
            }
        };
        states.push(x.clone());
    }
    Computed::from([("x_steps".into(), Tensor::stack::<5>(states, 0).into())])
}
