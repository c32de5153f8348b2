//! A solver of one's own: the midpoint rule. Its samples are held to the exact ones, which are known where the data are Gaussian.
//!
//! ```text
//! cargo run --release --example custom_solver
//! ```

use burn::tensor::{Device, Int, Tensor};
use gmflow::Result;
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::Denoiser;
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::rng::{Purpose, normal_batch};
use gmflow::solver::{Context, Euler, Solver, SolverState, Span};

/// Steps with the velocity in the middle of the step: two network calls each, of order 2.
struct Midpoint;

/// The mean velocity (x - E[x0 | x])/t of the prediction at (x, t).
fn velocity(x: &Tensor<4>, t: f64, context: &mut Context) -> Tensor<4> {
    let x0 = (context.predict)(x, t).mixture().0.mean();
    (x.clone() - x0) / t
}

impl Solver for Midpoint {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let (x, middle) = (state.into_x(), 0.5 * (span.t + span.to));
        let half = x.clone() + velocity(&x, span.t, context) * (middle - span.t);
        Ok(SolverState::new(x + velocity(&half, middle, context) * (span.to - span.t)))
    }

    fn order(&self) -> usize {
        2
    }
}

/// Mean and standard deviation of the data.
const MEAN: f64 = 1.0;
const STD: f64 = 0.5;

/// What a perfect network predicts where every value of the data is normal.
struct Exact;

impl Denoiser for Exact {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, _class: Option<Tensor<1, Int>>) -> VelocityMixture {
        let [b, _, h, w] = x_t.dims();
        let t = t.reshape([b, 1, 1, 1]);
        let alpha = t.clone() * -1.0 + 1.0;
        let variance = (alpha.clone() * STD).powi_scalar(2) + t.clone().powi_scalar(2); // of x_t
        let gain = alpha.clone() * STD.powi(2) / variance.clone();
        let x0 = gain * (x_t.clone() - alpha * MEAN) + MEAN; // E[x0 | x_t]
        VelocityMixture(GaussianMixture {
            means: ((x_t - x0) / t).unsqueeze_dim(1), // [b 1 c h w]
            log_weights: Tensor::zeros([b, 1, 1, h, w], &variance.device()),
            log_std: (variance.sqrt().recip() * STD).log().unsqueeze_dim(1), // [b 1 1 1 1]
        })
    }
}

fn main() -> Result<()> {
    let (seeds, shape, device) = (vec![0, 1, 2, 3], [1, 8, 8], Device::flex());
    let noise = normal_batch(&seeds, Purpose::InitialNoise, 0, shape, &device);
    let exact = noise * STD + MEAN;
    let pipeline = Pipeline { network: &Exact, spectrum: None, device };
    let request = SampleRequest { seeds, classes: None, shape, noise: None };
    for steps in [4, 8, 16, 32] {
        // Of the configuration everything but the solver counts.
        let config = SamplerConfig::new(Euler {}, steps);
        let error = |samples: Tensor<4>| (samples - exact.clone()).powi_scalar(2).mean().sqrt().into_scalar::<f32>();
        let euler = error(pipeline.sample(&config, &request, &mut keep_going)?);
        let midpoint = error(pipeline.sample_by(&Midpoint, &config, &request, &mut keep_going)?);
        println!("{steps:2} steps: Euler is {euler:.1e} off, the midpoint rule {midpoint:.1e}");
    }
    Ok(())
}
