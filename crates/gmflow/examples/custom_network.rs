//! A network of one's own: learn points on a ring with it, then draw points from it in four network calls. Takes a few seconds:
//!
//! ```text
//! cargo run --release --example custom_network
//! ```

use burn::module::{Module, Param};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use gmflow::loss::{LossBatch, LossConfig};
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::Denoiser;
use gmflow::optim::{AdamW, Optimizer};
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::rng::{Purpose, normals, uniforms};
use gmflow::solver::GmOde;

const BATCH: usize = 256;
const STEPS: u64 = 600;
/// Mixture components.
const K: usize = 8;
/// Random waves of x, y and t that the network sees, and the width of its hidden layer.
const WAVES: usize = 64;
const WIDTH: usize = 128;

/// One hidden layer over random waves. A network needs nothing but [`Denoiser`]; as a burn module it can be trained.
#[derive(Module, Debug)]
struct Waves {
    frequencies: Tensor<2>,
    hidden: Param<Tensor<2>>,
    out: Param<Tensor<2>>,
}

impl Waves {
    fn new(device: &Device) -> Self {
        let draw = |index: u64, [rows, columns]: [usize; 2], scale: f32| {
            let values = normals(0, Purpose::Weights, index, rows * columns);
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device) * scale
        };
        Self {
            frequencies: draw(0, [3, WAVES], 1.0),
            hidden: Param::from_tensor(draw(1, [2 * WAVES, WIDTH], 0.1)),
            out: Param::from_tensor(draw(2, [WIDTH, 3 * K + 1], 0.1)),
        }
    }
}

impl Denoiser for Waves {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, _class: Option<Tensor<1, Int>>) -> VelocityMixture {
        let [b, _, _, _] = x_t.dims(); // [b 2 1 1]
        let input = Tensor::cat(vec![x_t.reshape([b, 2]), t.reshape([b, 1])], 1); // [b 3]
        let phases = input.matmul(self.frequencies.clone()); // [b waves]
        let waves = Tensor::cat(vec![phases.clone().sin(), phases.cos()], 1);
        let out = relu(waves.matmul(self.hidden.val())).matmul(self.out.val()); // [b 3k+1]
        VelocityMixture(GaussianMixture {
            means: out.clone().narrow(1, 0, 2 * K).reshape([b, K, 2, 1, 1]),
            log_weights: log_softmax(out.clone().narrow(1, 2 * K, K), 1).reshape([b, K, 1, 1, 1]),
            log_std: out.narrow(1, 3 * K, 1).reshape([b, 1, 1, 1, 1]),
        })
    }
}

fn main() -> gmflow::Result<()> {
    let device = Device::flex();
    let recording = device.clone().autodiff();
    let mut network = Waves::new(&recording);
    let mut optimizer = Optimizer::new(AdamW { lr: 3e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 });
    let loss = LossConfig::Transition { transition_ratio: 0.9, weight_scale: 1.0 };
    for step in 0..STEPS {
        let draw = |purpose| normals(0, purpose, step, 2 * BATCH);
        let batch = LossBatch {
            x0: points(ring(step), &recording),
            class: None,
            t: Tensor::from_data(TensorData::new(uniforms(0, Purpose::TrainTime, step, BATCH), [BATCH]), &recording),
            noise: points(draw(Purpose::TrainNoise), &recording),
            transition_noise: points(draw(Purpose::TrainTransition), &recording),
        };
        let value = loss.evaluate(&network, batch).loss;
        network = optimizer.step(network, value.backward());
        if step % 100 == 0 {
            println!("step {step:3}  loss {:.3}", value.into_scalar::<f32>());
        }
    }

    let network = network.valid();
    let pipeline = Pipeline { network: &network, spectrum: None, device };
    let request = SampleRequest { seeds: (0..2000).collect(), classes: None, shape: [2, 1, 1], noise: None };
    let config = SamplerConfig::new(GmOde { order: 2, substeps: None }, 4);
    let samples = pipeline.sample(&config, &request, &mut keep_going)?; // [n 2 1 1]
    let radii = samples.powi_scalar(2).sum_dim(1).sqrt();
    let distance = (radii - 2.0).abs().mean().into_scalar::<f32>();
    println!("GM-ODE 2, 4 steps: {distance:.2} from the ring of radius 2 on average");
    Ok(())
}

/// Points on the ring of radius 2, as x, y, x, y, ...
fn ring(step: u64) -> Vec<f32> {
    let angle = |u: f32| u * std::f32::consts::TAU;
    let angles = uniforms(0, Purpose::Estimate, step, BATCH).into_iter().map(angle);
    angles.flat_map(|angle| [2.0 * angle.cos(), 2.0 * angle.sin()]).collect()
}

/// Points as images of one pixel with two channels.
fn points(values: Vec<f32>, device: &Device) -> Tensor<4> {
    let count = values.len() / 2;
    Tensor::from_data(TensorData::new(values, [count, 2, 1, 1]), device) // [b 2 1 1]
}
