//! Stable Diffusion's autoencoder: latents to images; `benchsuite/rival/networks.py` times the same in PyTorch.
#![allow(missing_docs)]

use burn::tensor::Device;
use criterion::{Criterion, criterion_group};
use gmflow::kernel::in_pool;
use gmflow::network::AutoencoderConfig;
use gmflow::rng::{Purpose, normal_batch};
use std::hint::black_box;
use std::time::Duration;

/// The binary's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Latents of 32x32x4 to an image of 256x256x3.
fn decode(c: &mut Criterion) {
    let device = Device::flex();
    let mut group = c.benchmark_group("decode");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    let mut vae = None;
    group.bench_function("32x32x4", |bencher| {
        let vae = vae.get_or_insert_with(|| AutoencoderConfig::default().init(0, &device).expect("a valid network"));
        let latents = normal_batch(&[0], Purpose::Estimate, 0, [4, 32, 32], &device);
        bencher.iter(|| in_pool(|| black_box(vae.decode(latents.clone()))));
    });
}

criterion_group!(benches, decode);

fn main() {
    // SAFETY: an option of the allocator in use: freed memory is kept, as the binary does.
    unsafe { libmimalloc_sys::mi_option_set_default(15, -1) };
    benches();
    Criterion::default().configure_from_args().final_summary();
}
