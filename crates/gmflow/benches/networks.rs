//! Forward passes and training steps of the networks; `benchsuite/rival/networks.py` is the same in PyTorch.
#![allow(missing_docs)]

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData, module, ops::ConvOptions};
use criterion::{Bencher, BenchmarkId, Criterion, criterion_group};
use gmflow::kernel::{self, AdamW, MatmulPrecision, PackedWeight};
use gmflow::loss;
use gmflow::network::{Denoiser, GmDitConfig, Mlp2dConfig, NetworkConfig, UnetConfig};
use gmflow::rng::{Purpose, normal_batch};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where to compute: `GMFLOW_BENCH_DEVICE`, a name for `gmflow::device::open`, or the CPU.
fn device() -> Device {
    gmflow::device::from_env("GMFLOW_BENCH_DEVICE").unwrap_or_else(|error| panic!("GMFLOW_BENCH_DEVICE: {error}"))
}

/// Times one call at a time and prints the fastest: on a shared machine it is the figure that repeats.
fn measure(bencher: &mut Bencher, fastest: &mut Duration, mut step: impl FnMut()) {
    let device = device();
    bencher.iter_custom(|n| {
        let mut total = Duration::ZERO;
        for _ in 0..n {
            let start = Instant::now();
            step();
            device.sync().expect("a device that computes");
            let taken = start.elapsed();
            *fastest = taken.min(*fastest);
            total += taken;
        }
        total
    });
}

/// Prints the fastest call of a case that ran.
fn report(fastest: Duration) {
    if fastest < Duration::MAX {
        println!("fastest: {fastest:?}");
    }
}

fn images(seed: u64, b: usize, shape: [usize; 3], device: &Device) -> Tensor<4> {
    let seeds: Vec<u64> = (0..b as u64).map(|i| seed + i).collect();
    normal_batch(&seeds, Purpose::Estimate, 0, shape, device)
}

fn times(b: usize, device: &Device) -> Tensor<1> {
    let t: Vec<f32> = (0..b).map(|i| (i as f32 + 0.5) / b as f32).collect();
    Tensor::from_data(TensorData::new(t, [b]), device)
}

fn classes(b: usize, device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = (0..b).map(|i| (i % 10) as i64).collect();
    Tensor::from_data(TensorData::new(labels, [b]), device)
}

/// AdamW's step over the parameters of a module, with the moments in the order of traversal.
struct Optimizer<'a> {
    /// Of every part of the batch.
    gradients: &'a mut [Gradients],
    before: std::vec::IntoIter<[Tensor<1>; 2]>,
    moments: Vec<[Tensor<1>; 2]>,
    step: u64,
}

impl ModuleMapper for Optimizer<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        const ADAMW: AdamW = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
        let parts = self.gradients.iter_mut().filter_map(|gradients| param.val().grad_remove(gradients));
        let Some(gradient) = parts.reduce(|sum, part| sum + part) else { return param };
        let gradient = gradient.flatten::<1>(0, D - 1);
        let moments = self.before.next().unwrap_or_else(|| [gradient.zeros_like(), gradient.zeros_like()]);
        param.map(|value| {
            let (shape, value) = (value.dims(), value.inner().flatten::<1>(0, D - 1));
            let (value, moments) = ADAMW.update_tensors(self.step, 1.0, value, gradient, moments);
            self.moments.push(moments);
            value.reshape(shape).autodiff().require_grad()
        })
    }
}

/// A training step: forward, likelihood, backward, AdamW.
fn training(config: NetworkConfig, b: usize, shape: [usize; 3], arithmetic: MatmulPrecision) -> impl FnMut() {
    let device = device().autodiff();
    let mut network = config.init(0, &device).expect("a valid network");
    network.compute_in(arithmetic);
    let mut network = Some(network);
    let (x, target) = (images(0, b, shape, &device), images(1000, b, shape, &device));
    let (t, class) = (times(b, &device), classes(b, &device));
    let (mut moments, mut step) = (Vec::<[Tensor<1>; 2]>::new(), 0);
    move || {
        let Some(net) = network.take() else { return };
        let pass = net.fastest_pass(&device).unwrap_or(b);
        let part = |start: usize| {
            let len = pass.min(b - start);
            let (x, target) = (x.clone().narrow(0, start, len), target.clone().narrow(0, start, len));
            let (t, class) = (t.clone().narrow(0, start, len), class.clone().narrow(0, start, len));
            let mixture = net.forward(x, t, Some(class));
            (loss::nll(&mixture.0, &target).sum() / b as f64).backward()
        };
        let mut gradients: Vec<Gradients> = kernel::in_pool(|| (0..b).step_by(pass).map(part).collect());
        step += 1;
        let before = std::mem::take(&mut moments).into_iter();
        let mut optimizer = Optimizer { gradients: &mut gradients, before, moments: Vec::new(), step };
        network = Some(net.map(&mut optimizer));
        moments = optimizer.moments;
    }
}

/// `GMFLOW_BF16=widened` measures bf16 as on processors with a slow dot product.
fn forced_products(_: &mut Criterion) {
    if let Ok("widened") = std::env::var("GMFLOW_BF16").as_deref() {
        kernel::force_bf16_products(Some(kernel::Bf16Products::Widened));
    }
}

/// How a network was made ready.
const FORMS: [(&str, Option<MatmulPrecision>); 4] = [
    ("f32 as loaded", None),
    ("f32", Some(MatmulPrecision::F32)),
    ("bf16", Some(MatmulPrecision::Bf16)),
    ("int8", Some(MatmulPrecision::Int8)),
];

/// GM-DiT-XL/2 on 32x32x4 latents, in what the device computes in.
fn xl_forward(c: &mut Criterion) {
    let device = device();
    let batches = if device == Device::flex() { [1, 2, 8] } else { [1, 32, 125] };
    let mut group = c.benchmark_group("xl_forward");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    let has = |arithmetic: &Option<MatmulPrecision>| {
        arithmetic.is_none_or(|arithmetic| arithmetic.is_available_on(&device))
    };
    for (form, arithmetic) in FORMS.into_iter().filter(|(_, arithmetic)| has(arithmetic)) {
        let mut network = None;
        for b in batches {
            let (x, t, class) = (images(0, b, [4, 32, 32], &device), times(b, &device), classes(b, &device));
            let mut fastest = Duration::MAX;
            group.bench_function(BenchmarkId::new(form, b), |bencher| {
                let network = network.get_or_insert_with(|| {
                    let config = NetworkConfig::GmDit(GmDitConfig::default());
                    let mut network = config.init(0, &device).expect("a valid network");
                    arithmetic.into_iter().for_each(|arithmetic| network.pack(arithmetic));
                    network
                });
                measure(bencher, &mut fastest, || {
                    kernel::in_pool(|| black_box(network.forward(x.clone(), t.clone(), Some(class.clone()))));
                });
            });
            report(fastest);
        }
    }
}

/// The linear layers of a block of GM-DiT-XL/2 with packed weights, for the 256 tokens of one sample and the 512 of a guided one;
/// `benchsuite/rival/onednn.cpp` does the same with oneDNN.
fn linear(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("linear");
    group.sample_size(50).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for (name, arithmetic) in
        [("f32", MatmulPrecision::F32), ("bf16", MatmulPrecision::Bf16), ("int8", MatmulPrecision::Int8)]
    {
        if arithmetic.is_available() {
            for [m, k, n] in [[256, 1152, 1152], [512, 1152, 1152], [512, 1152, 4608], [512, 4608, 1152]] {
                let normals = |seed: u64, shape: [usize; 2]| {
                    normal_batch(&[seed], Purpose::Estimate, 0, [1, shape[0], shape[1]], &device).reshape(shape)
                };
                let weight = normals(1, [n, k]).into_data();
                let weight = weight.as_slice::<f32>().expect("f32");
                let mut ready = None;
                let mut fastest = Duration::MAX;
                group.bench_function(BenchmarkId::new(name, format!("{m}x{k}x{n}")), |bencher| {
                    let (x, panels, bias) = ready.get_or_insert_with(|| {
                        let panels = Arc::new(PackedWeight::of_weight(weight, [n, k], arithmetic));
                        (normals(0, [m, k]), panels, normals(2, [1, n]).reshape([n]))
                    });
                    measure(bencher, &mut fastest, || {
                        kernel::in_pool(|| black_box(kernel::linear_packed(x.clone(), panels, bias.clone())));
                    });
                });
                report(fastest);
            }
        }
    }
}

/// 12 layers of 6 heads of 64 channels on 64 tokens, batch 32.
fn small_dit_training(c: &mut Criterion) {
    let config = GmDitConfig {
        num_attention_heads: 6,
        attention_head_dim: 64,
        num_layers: 12,
        sample_size: 16,
        in_channels: 3,
        num_embeds_ada_norm: 10,
        ..GmDitConfig::default()
    };
    let mut group = c.benchmark_group("small_dit_training");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    for (name, arithmetic) in [("f32", MatmulPrecision::F32), ("bf16", MatmulPrecision::Bf16)] {
        let mut step = None;
        let mut fastest = Duration::MAX;
        group.bench_function(name, |bencher| {
            let build = || training(NetworkConfig::GmDit(config.clone()), 32, [3, 16, 16], arithmetic);
            measure(bencher, &mut fastest, step.get_or_insert_with(build));
        });
        report(fastest);
    }
}

/// Five hidden layers and 64 components, on points in the plane.
fn mlp_training(c: &mut Criterion) {
    let mut group = c.benchmark_group("mlp_training");
    group.measurement_time(Duration::from_secs(5));
    let (f32, bf16) = (("", MatmulPrecision::F32), ("-bf16", MatmulPrecision::Bf16));
    for (hidden_dim, b, (name, arithmetic)) in
        [(512, 256, f32), (512, 4096, f32), (512, 4096, bf16), (256, 1024, f32)]
    {
        let config = Mlp2dConfig { num_gaussians: 64, hidden_dim, ..Mlp2dConfig::default() };
        let mut step = None;
        let mut fastest = Duration::MAX;
        group.bench_function(format!("{hidden_dim}x{b}{name}"), |bencher| {
            let build = || training(NetworkConfig::Mlp2d(config.clone()), b, [2, 1, 1], arithmetic);
            measure(bencher, &mut fastest, step.get_or_insert_with(build));
        });
        report(fastest);
    }
}

/// The U-Net of Ho et al. for CIFAR-10, K = 2, batch 8.
fn unet_training(c: &mut Criterion) {
    let mut step = None;
    let mut group = c.benchmark_group("unet_training");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    let mut fastest = Duration::MAX;
    group.bench_function("8", |bencher| {
        let build = || training(NetworkConfig::Unet(UnetConfig::default()), 8, [3, 32, 32], MatmulPrecision::F32);
        measure(bencher, &mut fastest, step.get_or_insert_with(build));
    });
    report(fastest);
}

/// A class-conditional U-Net of 6.5 million parameters for CIFAR-10, K = 1, with attention at 8x8.
fn small_unet_training(c: &mut Criterion) {
    let config = UnetConfig {
        num_gaussians: 1,
        block_out_channels: vec![64, 128, 128],
        attention_levels: vec![2],
        num_classes: 10,
        constant_logstd: Some(0.0),
        ..UnetConfig::default()
    };
    let mut group = c.benchmark_group("small_unet_training");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    for (name, arithmetic) in [("f32", MatmulPrecision::F32), ("bf16", MatmulPrecision::Bf16)] {
        let mut step = None;
        let mut fastest = Duration::MAX;
        group.bench_function(name, |bencher| {
            let build = || training(NetworkConfig::Unet(config.clone()), 64, [3, 32, 32], arithmetic);
            measure(bencher, &mut fastest, step.get_or_insert_with(build));
        });
        report(fastest);
    }
}

/// One 3x3 convolution and, as `burn`, the tensor library's own.
fn conv(c: &mut Criterion) {
    type Conv = fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>;
    let ours: Conv = |x, weight, bias| kernel::conv2d(x, weight, bias, 1, [1; 4]);
    let burn: Conv =
        |x, weight, bias| module::conv2d(x, weight, Some(bias), ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
    let mut group = c.benchmark_group("conv");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    for (name, b, channels, size, train) in [
        ("128x32x32x32 training", 32, 128, 32, true),
        ("256x8x8x32 training", 32, 256, 8, true),
        ("512x64x64", 1, 512, 64, false),
        ("128x256x256", 1, 128, 256, false),
    ] {
        let device = if train { Device::flex().autodiff() } else { Device::flex() };
        let track = |x: Tensor<4>| if train { x.require_grad() } else { x };
        let x = track(images(0, b, [channels, size, size], &device));
        let weight = track(images(1000, channels, [channels, 3, 3], &device));
        let (bias, grad) = (Tensor::zeros([channels], &device), images(2000, b, [channels, size, size], &device));
        for (whose, run) in [("gmflow", ours), ("burn", burn)] {
            let mut fastest = Duration::MAX;
            group.bench_function(format!("{name} {whose}"), |bencher| {
                measure(bencher, &mut fastest, || {
                    kernel::in_pool(|| {
                        let y = run(x.clone(), weight.clone(), bias.clone());
                        if train {
                            black_box((y * grad.clone()).sum().backward());
                        } else {
                            black_box(y);
                        }
                    });
                });
            });
            report(fastest);
        }
    }
}

criterion_group!(
    benches,
    forced_products,
    xl_forward,
    linear,
    small_dit_training,
    mlp_training,
    unet_training,
    small_unet_training,
    conv
);

fn main() {
    // SAFETY: an option of the allocator in use: freed memory is kept, as the binary does.
    unsafe { libmimalloc_sys::mi_option_set_default(15, -1) };
    benches();
    Criterion::default().configure_from_args().final_summary();
}
