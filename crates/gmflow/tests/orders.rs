//! Every solver converges with the order it declares, on data whose flow is known in closed form.

use burn::tensor::{Device, Int, Tensor, TensorData};
use gmflow::guidance::{Guidance, GuidedPrediction};
use gmflow::mixture::{DataMixture, GaussianMixture};
use gmflow::rng::Purpose;
use gmflow::solver::{
    Context, DdpmLarge, DdpmSmall, Deis, Dpmpp2m, Dpmpp2mSde, Dpmpp2s, Euler, GmOde, GmSde, Heun, NoiseSource,
    PiFlow, SaSolver, SecondOrder, SecondOrderMode, SolverConfig, Span, UniPc,
};
use std::collections::BTreeSet;

/// Data N(0, 2) per coordinate.
const VAR: f64 = 2.0;
/// The steps lead from here to there: away from both ends, where alpha/sigma is 0 or infinite and no order can be seen.
const ENDS: [f64; 2] = [0.8, 0.2];

/// The variance of x_t.
fn var(t: f64) -> f64 {
    (1.0 - t).powi(2) * VAR + t * t
}

/// A prediction with the mean of the posterior, and `width` times its standard deviation.
fn prediction(x: &Tensor<4>, t: f64, width: f64) -> GuidedPrediction {
    let mean = x.clone() * ((1.0 - t) * VAR / var(t));
    let [b, _, h, w] = x.dims();
    let std = width * (VAR / var(t)).sqrt() * t;
    let log_std = Tensor::full([b, 1, 1, 1, 1], std.max(1e-9).ln(), &x.device());
    let log_weights = Tensor::zeros([b, 1, 1, h, w], &x.device());
    let mixture = GaussianMixture { means: mean.unsqueeze_dim(1), log_weights, log_std };
    GuidedPrediction::new(Guidance::Off, DataMixture(mixture), None, x)
}

/// A unit for each random number of a run: with linear rules, sample i becomes what the result has of number i. The first sample has no
/// noise; then there are two for each step, of the transition and of the draw from the mixture.
struct Units;

impl NoiseSource for Units {
    fn normal(&mut self, purpose: Purpose, index: usize, [b, c, h, w]: [usize; 4]) -> Tensor<4> {
        let which = match purpose {
            Purpose::Transition => 1 + 2 * index,
            Purpose::WithinComponent => 2 + 2 * index,
            other => unreachable!("no solver of these draws {other:?}"),
        };
        let values: Vec<f32> = (0..b).map(|sample| f32::from(u8::from(sample == which))).collect();
        Tensor::from_data(TensorData::new(values, [b, c, h, w]), &Device::flex())
    }

    fn component(&mut self, _: usize, mixture: &GaussianMixture) -> Tensor<5, Int> {
        let [b, _, _, h, w] = mixture.means.dims();
        Tensor::zeros([b, 1, 1, h, w], &Device::flex())
    }
}

/// The variance after `steps` steps from the exact one, less the exact one.
fn error(solver: SolverConfig, width: f64, steps: usize) -> f64 {
    let samples = 1 + 2 * steps;
    let mut start = vec![0.0; samples];
    start[0] = var(ENDS[0]).sqrt() as f32;
    let mut state = solver.init(Tensor::from_data(TensorData::new(start, [samples, 1, 1, 1]), &Device::flex()));
    let at = |i: usize| ENDS[0] + (ENDS[1] - ENDS[0]) * i as f64 / steps as f64;
    // What is certain cannot be reweighted, only moved; and not less where the mixture is wide, which is for networks that err.
    let second_order = SecondOrder { carry: SecondOrderMode::Translate, ca: 0.0, cb: 0.0, ..SecondOrder::default() };
    for index in 0..steps {
        let mut predict = |x: &Tensor<4>, t: f64| prediction(x, t, width);
        let mut context =
            Context { predict: &mut predict, draws: &mut Units, spectrum: None, second_order, observe: None };
        let span = Span { index, t: at(index), to: at(index + 1), default_substeps: 1, shift: 1.0 };
        state = solver.step(state, span, &mut context).expect("a step");
    }
    let parts: Vec<f32> = state.into_x().into_data().try_into_vec().expect("numbers");
    parts.iter().map(|part| f64::from(*part).powi(2)).sum::<f64>() - var(ENDS[1])
}

/// A solver, the width of the predictions, the order it declares, and steps from which on the order is seen: few for the higher orders,
/// because f32 ends at about 1e-6.
type Case = (SolverConfig, f64, f64, usize);

fn cases() -> Vec<Case> {
    let gm_ode = |order| GmOde { order, substeps: Some(1) }.into();
    let gm_sde = |order| GmSde { order, spectral: Some(false) }.into();
    vec![
        (Euler {}.into(), 0.0, 1.0, 32),
        (Heun {}.into(), 0.0, 2.0, 16),
        (gm_ode(1), 0.0, 1.0, 32),
        (gm_ode(2), 0.0, 2.0, 16),
        (Dpmpp2m {}.into(), 0.0, 2.0, 16),
        (Dpmpp2s {}.into(), 0.0, 2.0, 16),
        (Deis {}.into(), 0.0, 2.0, 16),
        (UniPc {}.into(), 0.0, 3.0, 8),
        (SaSolver { tau: 0.0 }.into(), 0.0, 2.0, 32),
        // One sub-step for each step.
        (PiFlow { substeps: 1, ..PiFlow::default() }.into(), 0.0, 1.0, 32),
        // The reverse transition of these is exact in the mean and misses the posterior's variance.
        (DdpmSmall { order: 1, substeps: 1 }.into(), 0.0, 1.0, 32),
        (DdpmSmall { order: 2, substeps: 1 }.into(), 0.0, 2.0, 32),
        (DdpmLarge { order: 1, substeps: 1 }.into(), 0.0, 1.0, 32),
        (DdpmLarge { order: 2, substeps: 1 }.into(), 0.0, 1.0, 32),
        (Dpmpp2mSde {}.into(), 0.0, 2.0, 16),
        (SaSolver { tau: 1.0 }.into(), 0.0, 2.0, 16),
        (gm_sde(1), 0.0, 1.0, 32),
        (gm_sde(2), 0.0, 2.0, 32),
        // Half of the posterior's width, of which a draw has its share.
        (gm_sde(1), 0.5, 1.0, 32),
        (gm_sde(2), 0.5, 2.0, 32),
    ]
}

#[test]
fn solvers_reach_the_variance_with_the_order_they_declare() {
    for (solver, width, declared, steps) in cases() {
        let what = format!("{solver:?} with {width} of the width");
        assert_eq!(solver.order() as f64, declared, "{what}");
        let [first, second] = [steps, 2 * steps].map(|steps| error(solver, width, steps));
        let seen = (first / second).abs().log2();
        println!("{what}: order {seen:.2}, error {first:.1e}");
        assert!((declared - 0.25..declared + 0.4).contains(&seen), "{what}: order {seen}, declared {declared}");
    }
}

#[test]
fn every_solver_that_comes_with_the_crate_is_measured() {
    let measured: BTreeSet<&str> = cases().iter().map(|(solver, ..)| solver.name()).collect();
    assert_eq!(measured, SolverConfig::ALL.iter().map(|(name, ..)| *name).collect());
}

#[test]
fn with_the_posterior_itself_gm_sde_is_exact_in_any_number_of_steps() {
    for (order, steps) in [(1, 1), (1, 2), (1, 7), (2, 1), (2, 2), (2, 7)] {
        let error = error(GmSde { order, spectral: Some(false) }.into(), 1.0, steps);
        assert!(error.abs() < 1e-5, "order {order}, {steps} steps: the variance is {error} off");
    }
}
