//! Every solver converges with the order it declares, on data whose flow is known in closed form.

use burn::tensor::{Device, Int, Tensor};
use gmflow::guidance::{Guidance, GuidedPrediction};
use gmflow::mixture::{DataMixture, GaussianMixture};
use gmflow::rng::Purpose;
use gmflow::solver::{Context, NoiseSource, SecondOrder, SecondOrderMode, SolverConfig, Span};

/// Data N(0, 2) per coordinate.
const VAR: f64 = 2.0;
/// The steps lead from here to there: away from both ends, where alpha/sigma is 0 or infinite and no order can be seen.
const ENDS: [f64; 2] = [0.8, 0.2];

/// The certain prediction of the posterior mean: a solver knows nothing of the width of the posterior.
fn posterior_mean(x: &Tensor<4>, t: f64) -> GuidedPrediction {
    let a = 1.0 - t;
    let mean = x.clone() * (a * VAR / (a * a * VAR + t * t));
    let [b, _, h, w] = x.dims();
    let log_std = Tensor::full([b, 1, 1, 1, 1], -20.0, &x.device());
    let log_weights = Tensor::zeros([b, 1, 1, h, w], &x.device());
    let mixture = GaussianMixture { means: mean.unsqueeze_dim(1), log_weights, log_std };
    GuidedPrediction::new(Guidance::Off, DataMixture(mixture), None, x)
}

/// Noise of 1 in one step, and none in the others.
struct Impulse(Option<usize>);

impl NoiseSource for Impulse {
    fn normal(&mut self, _: Purpose, index: usize, shape: [usize; 4]) -> Tensor<4> {
        Tensor::full(shape, if self.0 == Some(index) { 1.0 } else { 0.0 }, &Device::flex())
    }

    fn component(&mut self, _: usize, _: &GaussianMixture) -> Tensor<5, Int> {
        unreachable!("no solver of these draws a component")
    }
}

/// Where `steps` steps take the point `x` with the noise `draws`.
fn solved(solver: SolverConfig, steps: usize, x: f64, mut draws: Impulse) -> f64 {
    let mut state = solver.init(Tensor::full([1, 1, 1, 1], x, &Device::flex()));
    let at = |i: usize| ENDS[0] + (ENDS[1] - ENDS[0]) * i as f64 / steps as f64;
    for index in 0..steps {
        let mut context = Context {
            predict: &mut posterior_mean,
            draws: &mut draws,
            spectrum: None,
            second_order: SecondOrder { carry: SecondOrderMode::Translate, ..SecondOrder::default() },
            observe: None,
        };
        let span = Span { index, t: at(index), to: at(index + 1), default_substeps: 1, shift: 1.0 };
        state = solver.step(state, span, &mut context).expect("a step");
    }
    f64::from(state.into_x().into_scalar::<f32>())
}

/// The variance of x_t.
fn var(t: f64) -> f64 {
    (1.0 - t).powi(2) * VAR + t * t
}

/// The order seen between `steps` and twice as many.
fn order(error: impl Fn(usize) -> f64, steps: usize) -> f64 {
    (error(steps) / error(2 * steps)).abs().log2()
}

#[test]
fn deterministic_solvers_have_their_order() {
    // The flow keeps the quantile.
    let exact = (var(ENDS[1]) / var(ENDS[0])).sqrt();
    // Few steps for the higher orders: f32 ends at about 1e-6.
    for (name, solver, declared, steps) in [
        ("euler", SolverConfig::Euler, 1.0, 32),
        ("heun", SolverConfig::Heun, 2.0, 16),
        ("gm-ode of order 1", SolverConfig::GmOde { order: 1, substeps: Some(1) }, 1.0, 32),
        // What is certain cannot be reweighted, only moved.
        ("gm-ode", SolverConfig::GmOde { order: 2, substeps: Some(1) }, 2.0, 16),
        ("dpmpp-2m", SolverConfig::Dpmpp2m, 2.0, 16),
        ("dpmpp-2s", SolverConfig::Dpmpp2s, 2.0, 16),
        ("deis", SolverConfig::Deis, 2.0, 16),
        ("unipc", SolverConfig::UniPc, 3.0, 8),
        ("sa-solver", SolverConfig::SaSolver { tau: 0.0 }, 2.0, 32),
    ] {
        assert_eq!(solver.order() as f64, declared, "{name}");
        let error = |steps| solved(solver, steps, 1.0, Impulse(None)) - exact;
        let seen = order(error, steps);
        println!("{name}: order {seen:.2}, error {:.1e}", error(steps));
        assert!((declared - 0.25..declared + 0.4).contains(&seen), "{name}: order {seen}, declared {declared}");
    }
}

#[test]
fn stochastic_solvers_reach_the_variance_with_their_order() {
    // The data is Gaussian and every rule linear: the variance is the sum of the squares of what each independent number becomes.
    let variance = |solver: SolverConfig, steps: usize| {
        let start = solved(solver, steps, 1.0, Impulse(None)).powi(2) * var(ENDS[0]);
        (0..steps).map(|i| solved(solver, steps, 0.0, Impulse(Some(i))).powi(2)).sum::<f64>() + start
    };
    for (name, solver, declared, steps) in [
        ("ddpm-small", SolverConfig::DDPM_SMALL, 1.0, 32),
        ("ddpm-large", SolverConfig::DDPM_LARGE, 1.0, 32),
        ("dpmpp-2m-sde", SolverConfig::Dpmpp2mSde, 2.0, 16),
        ("sa-solver", SolverConfig::SA_SOLVER, 2.0, 16),
    ] {
        assert_eq!(solver.order() as f64, declared, "{name}");
        let error = |steps| variance(solver, steps) - var(ENDS[1]);
        let seen = order(error, steps);
        println!("{name}: order {seen:.2}, error {:.1e}", error(steps));
        assert!((declared - 0.25..declared + 0.4).contains(&seen), "{name}: order {seen}, declared {declared}");
    }
}
