//! The mixture arithmetic around the network: guided sampling with recorded predictions, and the transition loss.
#![allow(missing_docs)]

use burn::tensor::{Device, Tensor, TensorData, activation::log_softmax};
use criterion::{Bencher, BenchmarkId, Criterion, criterion_group, criterion_main};
use gmflow::guidance::{Guidance, GuidedPrediction};
use gmflow::kernel::in_pool;
use gmflow::loss::transition_nll;
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::{SpectrumMlp, SpectrumMlpConfig};
use gmflow::rng::{Purpose, normal_batch};
use gmflow::solver::{Context, GmOde, GmSde, SecondOrder, SeededNoise, SolverConfig, Span};
use std::hint::black_box;
use std::time::Duration;

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Steps of a run, components, channels, height and width: those of the published ImageNet model.
const STEPS: usize = 8;
const K: usize = 8;
const SHAPE: [usize; 3] = [4, 32, 32];
const GUIDANCE: Guidance = Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 };

/// Where to compute: `GMFLOW_BENCH_DEVICE`, a name for `gmflow::device::open`, or the CPU.
fn device() -> Device {
    gmflow::device::from_env("GMFLOW_BENCH_DEVICE").unwrap_or_else(|error| panic!("GMFLOW_BENCH_DEVICE: {error}"))
}

fn normal(seed: u64, b: usize, shape: [usize; 3], device: &Device) -> Tensor<4> {
    let seeds: Vec<u64> = (0..b as u64).map(|i| seed + i).collect();
    normal_batch(&seeds, Purpose::Estimate, 0, shape, device)
}

/// What a network may predict for `b` samples.
fn prediction(seed: u64, b: usize, k: usize, [c, h, w]: [usize; 3], device: &Device) -> VelocityMixture {
    let log_weights = normal(seed + 1000, b, [k, h, w], device).reshape([b, k, 1, h, w]);
    VelocityMixture(GaussianMixture {
        means: normal(seed, b, [k * c, h, w], device).reshape([b, k, c, h, w]),
        log_weights: log_softmax(log_weights, 1),
        log_std: Tensor::full([b, 1, 1, 1, 1], -1.5, device),
    })
}

/// A guided run of 8 steps, the network's outputs given.
struct Run {
    solver: SolverConfig,
    predictions: Vec<VelocityMixture>,
    x: Tensor<4>,
    spectrum: SpectrumMlp,
    device: Device,
}

impl Run {
    fn new(solver: SolverConfig, b: usize) -> Self {
        let device = device();
        let predictions = (0..STEPS as u64).map(|i| prediction(10_000 * i, 2 * b, K, SHAPE, &device)).collect();
        let spectrum = SpectrumMlpConfig { base_size: SHAPE, layers: vec![64, 8] };
        let spectrum = spectrum.init(0, &device).expect("a valid network");
        Self { solver, predictions, x: normal(1, b, SHAPE, &device), spectrum, device }
    }

    fn sample(&self) -> Tensor<4> {
        let b = self.x.dims()[0];
        let seeds = (0..b as u64).collect();
        let mut draws = SeededNoise { seeds, device: self.device.clone() };
        let mut state = self.solver.init(self.x.clone());
        for (index, velocity) in self.predictions.iter().enumerate() {
            let mut predict =
                |x: &Tensor<4>, t: f64| GuidedPrediction::from_velocity(GUIDANCE, velocity.clone(), x, t);
            let mut context = Context {
                predict: &mut predict,
                draws: &mut draws,
                spectrum: Some(&self.spectrum),
                second_order: SecondOrder::default(),
                observe: None,
            };
            let at = |i: usize| 1.0 - i as f64 / STEPS as f64;
            let span = Span { index, t: at(index), to: at(index + 1), default_substeps: 1, shift: 1.0 };
            state = self.solver.step(state, span, &mut context).expect("a step");
        }
        state.into_x()
    }
}

fn timed(bencher: &mut Bencher, mut step: impl FnMut() + Send) {
    let device = device();
    in_pool(|| {
        bencher.iter(|| {
            step();
            device.sync().expect("a device that computes");
        });
    });
}

fn sampling(c: &mut Criterion) {
    let mut group = c.benchmark_group("sampling");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500)).sample_size(20);
    let batches = if device() == Device::flex() { [1, 8] } else { [8, 125] };
    let ode = |substeps| SolverConfig::GmOde(GmOde { order: 2, substeps: Some(substeps) });
    let sde = SolverConfig::GmSde(GmSde { order: 2, spectral: Some(true) });
    for (name, solver) in [("ode2-n1", ode(1)), ("ode2-n4", ode(4)), ("ode2-n16", ode(16)), ("sde2-spectral", sde)] {
        for b in batches {
            let mut run = None;
            group.bench_function(BenchmarkId::new(name, b), |bencher| {
                let run = run.get_or_insert_with(|| Run::new(solver, b));
                timed(bencher, || {
                    black_box(run.sample());
                });
            });
        }
    }
}

/// Forward and backward of the transition loss of 32 images of 3x32x32, K = 8.
fn transition_loss(c: &mut Criterion) {
    let (b, shape) = (32, [3, 32, 32]);
    let device = device().autodiff();
    let VelocityMixture(mixture) = prediction(0, b, K, shape, &device);
    let (x_lo, x_hi) = (normal(100, b, shape, &device), normal(200, b, shape, &device));
    let t: Vec<f32> = (0..b).map(|i| (i as f32 + 0.5) / b as f32).collect();
    let t_hi = Tensor::<1>::from_data(TensorData::new(t, [b]), &device);
    let t_lo = t_hi.clone() * 0.5;
    c.benchmark_group("loss").sample_size(20).bench_function("transition", |bencher| {
        timed(bencher, || {
            let velocity = VelocityMixture(GaussianMixture {
                means: mixture.means.clone().require_grad(),
                log_weights: mixture.log_weights.clone().require_grad(),
                log_std: mixture.log_std.clone().require_grad(),
            });
            black_box(transition_nll(&velocity, (&x_lo, &t_lo), (&x_hi, &t_hi)).mean().backward());
        });
    });
}

criterion_group!(benches, sampling, transition_loss);
criterion_main!(benches);
