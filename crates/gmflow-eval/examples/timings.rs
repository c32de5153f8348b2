//! How long the metrics take: `cargo run --release --example timings`. The figures are in book/src/benchmarks/metrics.md.

use burn::tensor::Device;
use gmflow::kernel;
use gmflow::network::HostTensor;
use gmflow::pipeline::keep_going;
use gmflow_eval::features::inception::Inception;
use gmflow_eval::features::resize::Resize;
use gmflow_eval::{KernelDistanceConfig, Matrix, Moments, Neighbours, frechet_distance, kernel_distance, manifolds};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;

/// Numbers in an Inception feature vector.
const D: usize = 2048;

fn features(seed: u64, rows: usize) -> gmflow_eval::Result<Matrix> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Matrix::new((0..rows * D).map(|_| rng.random::<f32>()).collect(), D)
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:.2} s", start.elapsed().as_secs_f64());
    result
}

fn main() -> gmflow_eval::Result<()> {
    kernel::in_pool(run)
}

fn run() -> gmflow_eval::Result<()> {
    let (real, fake) = (features(1, 10_000)?, features(2, 10_000)?);
    let moments = |matrix: &Matrix| -> gmflow_eval::Result<Moments> {
        let mut moments = Moments::new(D)?;
        moments.add(matrix)?;
        Ok(moments)
    };
    let first = timed("moments of 10,000 vectors", || moments(&real))?;
    let second = moments(&fake)?;
    timed("Fréchet distance of 2,048 dimensions", || frechet_distance(&first, &second))?;
    let subsets = KernelDistanceConfig { subsets: 10, ..KernelDistanceConfig::default() };
    timed("kernel distance, 10 subsets of 1,000", || kernel_distance(&fake, &real, subsets))?;
    timed("precision, recall, density, coverage of 10,000 and 10,000", || {
        manifolds(&real, &fake, Neighbours::default(), &mut keep_going)
    })?;
    let weights = Inception::parameters().into_iter().map(|(name, shape)| {
        let n = shape.iter().product();
        (name, HostTensor { shape, values: vec![0.01; n] })
    });
    let network = Inception::from_tensors(weights.collect(), Resize::TorchFidelity, &Device::flex())?;
    let images = vec![0.1; 32 * 3 * 32 * 32];
    network.extract(&images[..3 * 32 * 32], [3, 32, 32])?;
    for _ in 0..3 {
        timed("Inception features of 32 images of 32 x 32", || network.extract(&images, [3, 32, 32]))?;
    }
    Ok(())
}
