//! How cost grows with batch, components, image size, sub-steps and steps; `benchsuite/run.py` draws it.
#![allow(missing_docs)]

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group};
use gmflow::guidance::{Guidance, GuidedPrediction};
use gmflow::kernel::{MatmulPrecision, in_pool};
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::{Denoiser, GmDitConfig, Network, NetworkConfig};
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::rng::{Purpose, normal_batch};
use gmflow::solver::{Context, GmOde, SecondOrder, SeededNoise, SolverConfig, Span};
use std::hint::black_box;
use std::time::Duration;

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GUIDANCE: Guidance = Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 };
/// Network calls of the arithmetic that is timed without a network.
const STEPS: usize = 8;

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    group
}

fn normal(seed: u64, b: usize, shape: [usize; 3], device: &Device) -> Tensor<4> {
    let seeds: Vec<u64> = (0..b as u64).map(|i| seed + i).collect();
    normal_batch(&seeds, Purpose::Estimate, 0, shape, device)
}

/// Four layers of 4 heads of 64 channels on patches of 4x4 pixels.
fn network(k: usize, size: usize) -> Network {
    let config = GmDitConfig {
        num_gaussians: k,
        num_attention_heads: 4,
        attention_head_dim: 64,
        num_layers: 4,
        sample_size: size,
        patch_size: 4,
        in_channels: 3,
        num_embeds_ada_norm: 10,
        ..GmDitConfig::default()
    };
    let mut network = NetworkConfig::GmDit(config).init(0, &Device::flex()).expect("a valid network");
    network.pack(MatmulPrecision::F32);
    network
}

/// Times a prediction for `b` images of `size` x `size` pixels.
fn forward(group: &mut BenchmarkGroup<WallTime>, name: usize, b: usize, k: usize, size: usize) {
    let mut made = None;
    group.bench_function(name.to_string(), |bencher| {
        let device = Device::flex();
        let net = made.get_or_insert_with(|| network(k, size));
        let x = normal(0, b, [3, size, size], &device);
        let t = Tensor::<1>::full([b], 0.5, &device);
        let class = Tensor::<1, Int>::from_data(TensorData::new(vec![1_i64; b], [b]), &device);
        bencher.iter(|| in_pool(|| black_box(net.forward(x.clone(), t.clone(), Some(class.clone())))));
    });
}

fn batch(c: &mut Criterion) {
    let mut group = group(c, "scaling-batch");
    for b in [1, 2, 4, 8, 16, 32, 64] {
        forward(&mut group, b, b, 8, 32);
    }
}

fn components(c: &mut Criterion) {
    let mut group = group(c, "scaling-k-network");
    for k in [1, 2, 4, 8, 16, 32] {
        forward(&mut group, k, 8, k, 32);
    }
}

/// Pixels to a side; 64 to 4,096 tokens.
fn image(c: &mut Criterion) {
    let mut group = group(c, "scaling-image");
    for size in [32, 64, 128, 256] {
        forward(&mut group, size, 1, 8, size);
    }
}

/// The mixture arithmetic of a guided GM-ODE 2 of eight images of 4x32x32, the network's outputs given.
fn arithmetic(group: &mut BenchmarkGroup<WallTime>, name: usize, k: usize, substeps: usize) {
    let device = Device::flex();
    let (b, [c, h, w]) = (8, [4, 32, 32]);
    let predict = |seed: u64| {
        let weights = normal(seed + 1000, 2 * b, [k, h, w], &device).reshape([2 * b, k, 1, h, w]);
        VelocityMixture(GaussianMixture {
            means: normal(seed, 2 * b, [k * c, h, w], &device).reshape([2 * b, k, c, h, w]),
            log_weights: log_softmax(weights, 1),
            log_std: Tensor::full([2 * b, 1, 1, 1, 1], -1.5, &device),
        })
    };
    let solver = SolverConfig::GmOde(GmOde { order: 2, substeps: Some(substeps) });
    let mut predictions = None;
    group.bench_function(name.to_string(), |bencher| {
        let predictions: &mut Vec<_> =
            predictions.get_or_insert_with(|| (0..STEPS as u64).map(|i| predict(10_000 * i)).collect());
        let start = normal(1, b, [c, h, w], &device);
        let run = || {
            let mut draws = SeededNoise { seeds: (0..b as u64).collect(), device: device.clone() };
            let mut state = solver.init(start.clone());
            for (index, velocity) in predictions.iter().enumerate() {
                let mut predict =
                    |x: &Tensor<4>, t: f64| GuidedPrediction::from_velocity(GUIDANCE, velocity.clone(), x, t);
                let mut context = Context {
                    predict: &mut predict,
                    draws: &mut draws,
                    spectrum: None,
                    second_order: SecondOrder::default(),
                    observe: None,
                };
                let at = |i: usize| 1.0 - i as f64 / STEPS as f64;
                let span = Span { index, t: at(index), to: at(index + 1), default_substeps: 1, shift: 1.0 };
                state = solver.step(state, span, &mut context).expect("a step");
            }
            state.into_x()
        };
        bencher.iter(|| in_pool(|| black_box(run())));
    });
}

fn mixture_components(c: &mut Criterion) {
    let mut group = group(c, "scaling-k-mixture");
    for k in [1, 2, 4, 8, 16, 32] {
        arithmetic(&mut group, k, k, 4);
    }
}

fn substeps(c: &mut Criterion) {
    let mut group = group(c, "scaling-substeps");
    for n in [1, 2, 4, 8, 16, 32, 64, 128] {
        arithmetic(&mut group, n, 8, n);
    }
}

/// Guided samples of four images of 32x32 pixels, network and arithmetic.
fn steps(c: &mut Criterion) {
    let mut group = group(c, "scaling-steps");
    let device = Device::flex();
    let net = network(8, 32);
    for steps in [1, 2, 4, 8, 16, 32] {
        let solver = SolverConfig::GmOde(GmOde { order: 2, substeps: Some(4) });
        let sampler = SamplerConfig { guidance: GUIDANCE, ..SamplerConfig::new(solver, steps) };
        let request =
            SampleRequest { seeds: (0..4).collect(), classes: Some(vec![1; 4]), shape: [3, 32, 32], noise: None };
        let pipeline = Pipeline { network: &net, spectrum: None, device: device.clone() };
        group.bench_function(steps.to_string(), |bencher| {
            let sample = || pipeline.sample(&sampler, &request, &mut keep_going).expect("samples");
            bencher.iter(|| in_pool(|| black_box(sample())));
        });
    }
}

criterion_group!(benches, batch, components, mixture_components, image, substeps, steps);

fn main() {
    // SAFETY: an option of the allocator in use: freed memory is kept, as the binary does.
    unsafe { libmimalloc_sys::mi_option_set_default(15, -1) };
    benches();
    Criterion::default().configure_from_args().final_summary();
}
