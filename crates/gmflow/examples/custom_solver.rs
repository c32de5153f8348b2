//! A solver of one's own: the midpoint rule, whose samples are held to those of many steps. Takes a few seconds:
//!
//! ```text
//! cargo run --release --example custom_solver
//! ```

use burn::tensor::{Device, Tensor};
use gmflow::Result;
use gmflow::checkpoint::Model;
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::solver::{Context, Solver, SolverConfig, SolverState, Span};

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

fn main() -> Result<()> {
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mnist"))?;
    let pipeline = Pipeline { network: &model.network, spectrum: None, device: Device::flex() };
    let classes = Some(vec![2, 3, 5, 7]);
    let request = SampleRequest { seeds: vec![0, 1, 2, 3], classes, shape: [1, 28, 28], noise: None };
    // Of the configuration everything but the solver counts.
    let sample = |steps: usize| {
        let config = SamplerConfig::new(SolverConfig::Euler, steps);
        pipeline.sample_by(&Midpoint, &config, &request, &mut keep_going)
    };
    let reference = sample(128)?;
    for steps in [4, 8, 16, 32] {
        let error = (sample(steps)? - reference.clone()).powi_scalar(2).mean().sqrt().into_scalar::<f32>();
        println!("midpoint, {steps:2} steps: {error:.4} from 128 steps");
    }
    Ok(())
}
