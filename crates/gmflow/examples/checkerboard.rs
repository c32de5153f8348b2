//! The whole method on one page: learn a checkerboard of points with a mixture of Gaussians, then draw points from it in
//! one, two, four and eight network evaluations. Takes about half a minute:
//!
//! ```text
//! cargo run --release --example checkerboard
//! ```

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::loss::{LossBatch, LossConfig};
use gmflow::network::{Mlp2dConfig, NetworkConfig};
use gmflow::optim::{AdamW, Optimizer};
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::rng::{Purpose, normals, uniforms};
use gmflow::solver::{GmOde, SolverConfig};

const BATCH: usize = 512;
const STEPS: u64 = 1500;
const POINTS: u64 = 10_000;

fn main() -> gmflow::Result<()> {
    let device = Device::flex();
    let recording = device.clone().autodiff();
    let mlp =
        Mlp2dConfig { num_gaussians: 32, hidden_dim: 128, embed_dim: 64, pos_min_period: 0.5, ..Default::default() };
    let mut network = NetworkConfig::Mlp2d(mlp).init(0, &recording)?;
    let loss = LossConfig::Transition { transition_ratio: 0.9, weight_scale: 1.0 };
    let mut optimizer = Optimizer::new(AdamW { lr: 3e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 });

    // Training. The network sees x_t = (1 - t) x0 + t noise and predicts a mixture for the velocity noise - x0.
    for step in 0..STEPS {
        let batch = LossBatch {
            x0: points(checkerboard(step), &recording),
            class: None,
            t: Tensor::from_data(TensorData::new(uniforms(0, Purpose::TrainTime, step, BATCH), [BATCH]), &recording),
            noise: points(normals(0, Purpose::TrainNoise, step, 2 * BATCH), &recording),
            transition_noise: points(normals(0, Purpose::TrainTransition, step, 2 * BATCH), &recording),
        };
        let value = loss.evaluate(&network, batch).loss;
        optimizer.rule.lr = 3e-3 * (1.0 - step as f64 / STEPS as f64);
        network = optimizer.step(network, value.backward());
        if step % 250 == 0 {
            println!("step {step:4}  loss {:.3}", value.into_scalar::<f32>());
        }
    }

    // Sampling. GM-ODE 2 follows the mixture's analytic velocity between the network's evaluations.
    let network = network.valid();
    let pipeline = Pipeline { network: &network, spectrum: None, device };
    let request = SampleRequest { seeds: (0..POINTS).collect(), classes: None, shape: [2, 1, 1], noise: None };
    for steps in [1, 2, 4, 8] {
        let solver = SolverConfig::GmOde(GmOde { order: 2, substeps: None });
        let config = SamplerConfig::new(solver, steps);
        let samples = pipeline.sample(&config, &request, &mut keep_going)?; // [n 2 1 1]
        let values: Vec<f32> = samples.into_data().iter::<f32>().collect();
        let outside = values.chunks(2).filter(|point| !is_dark(point)).count();
        println!("GM-ODE 2, {steps} steps: {:.1} % outside the squares", 100.0 * outside as f64 / POINTS as f64);
        if steps == 8 {
            print_picture(&values);
        }
    }
    Ok(())
}

/// Uniform points on the dark squares of a 4x4 board over [-4, 4]^2, as x, y, x, y, ...
fn checkerboard(step: u64) -> Vec<f32> {
    let draws = uniforms(0, Purpose::Estimate, step, 3 * BATCH);
    let point = |draw: &[f32]| {
        let square = (draw[0] * 8.0) as usize;
        let (row, column) = (square / 2, 2 * (square % 2) + square / 2 % 2);
        [column as f32 * 2.0 - 4.0 + 2.0 * draw[1], row as f32 * 2.0 - 4.0 + 2.0 * draw[2]]
    };
    draws.chunks(3).flat_map(point).collect()
}

fn is_dark(point: &[f32]) -> bool {
    let on_board = point.iter().all(|x| (-4.0..4.0).contains(x));
    let squares: i32 = point.iter().map(|x| ((x + 4.0) / 2.0).floor() as i32).sum();
    on_board && squares % 2 == 0
}

/// Points as images of one pixel with two channels.
fn points(values: Vec<f32>, device: &Device) -> Tensor<4> {
    let count = values.len() / 2;
    Tensor::from_data(TensorData::new(values, [count, 2, 1, 1]), device) // [b 2 1 1]
}

/// A histogram in characters, two to a cell.
fn print_picture(values: &[f32]) {
    let mut counts = [[0; 24]; 24];
    for point in values.chunks(2).filter(|point| point.iter().all(|x| (-4.0..4.0).contains(x))) {
        counts[((point[1] + 4.0) * 3.0) as usize][((point[0] + 4.0) * 3.0) as usize] += 1;
    }
    let shade = |count: &i32| ["  ", "..", "::", "**", "##"][(count / 7).min(4) as usize];
    counts.iter().rev().for_each(|row| println!("{}", row.iter().map(shade).collect::<String>()));
}
