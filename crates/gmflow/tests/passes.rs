//! A step in passes over pixels is the step in tensor operations.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::guidance::{Guidance, GuidedPrediction, ReweightScale};
use gmflow::mixture::{DataMixture, GaussianMixture, VelocityMixture};
use gmflow::rng::{Purpose, normals};
use gmflow::solver::{Context, GmOde, GmSde, SecondOrder, SecondOrderMode, SeededNoise, SolverConfig, Span, SubStep};
use std::sync::LazyLock;

/// Where to compute: `GMFLOW_TEST_DEVICE`, a name for `gmflow::device::open`, or the CPU.
fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        gmflow::device::from_env("GMFLOW_TEST_DEVICE").unwrap_or_else(|error| panic!("GMFLOW_TEST_DEVICE: {error}"))
    });
    DEVICE.clone()
}

const STEPS: usize = 3;
const OFF: Guidance = Guidance::Off;
const PROBABILISTIC: Guidance = Guidance::Probabilistic { scale: 0.4, orthogonal: 0.7 };
const ALONG: Guidance = Guidance::Probabilistic { scale: 0.9, orthogonal: 0.0 };
const ACROSS: Guidance = Guidance::Probabilistic { scale: 0.4, orthogonal: 1.0 };
const CFG: Guidance = Guidance::ClassifierFree { scale: 2.5, orthogonal: 0.5 };

fn noise<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    let data = normals(seed, Purpose::Estimate, 0, shape.iter().product());
    Tensor::from_data(TensorData::new(data, shape), &device())
}

/// Components, then the samples' batch, channels, height and width.
type Shape = (usize, [usize; 4]);

/// Velocities for the doubled batch, as networks predict them.
fn velocity(seed: u64, (k, [b, c, h, w]): Shape) -> VelocityMixture {
    let log_std = noise::<5>(seed + 2, [2 * b, 1, 1, 1, 1]) * 0.3 - 1.0;
    VelocityMixture(GaussianMixture {
        means: noise(seed, [2 * b, k, c, h, w]),
        log_weights: log_softmax(noise::<5>(seed + 1, [2 * b, k, 1, h, w]) * 2.0, 1),
        log_std,
    })
}

/// Guidance, and what reweighting goes by.
type Rule = (Guidance, ReweightScale);

/// The prediction by tensor operations.
fn reference(rule: Rule, velocity: &VelocityMixture, x: &Tensor<4>, t: f64) -> GuidedPrediction {
    let b = x.dims()[0];
    let both = Tensor::cat(vec![x.clone(), x.clone()], 0);
    let times = Tensor::<1>::full([2 * b], t as f32, &x.device());
    let GaussianMixture { means, log_weights, log_std } = velocity.to_data(&both, &times).0;
    let half = |i: usize| GaussianMixture {
        means: means.clone().narrow(0, i * b, b),
        log_weights: log_weights.clone().narrow(0, i * b, b),
        log_std: log_std.clone().narrow(0, i * b, b),
    };
    GuidedPrediction::new(rule, DataMixture(half(0)), Some(half(1).mean()), x)
}

/// How changes are carried out, and what reweighting goes by.
type How = (SecondOrder, ReweightScale);

/// A run in passes, or in tensor operations; after the step `replaced` the sample is halved.
fn run(
    solver: SolverConfig,
    guidance: Guidance,
    how: How,
    shape: Shape,
    passes: bool,
    replaced: Option<usize>,
) -> Vec<f32> {
    let (second_order, variance) = how;
    let device = device();
    let x = noise::<4>(1, shape.1);
    let mut draws = SeededNoise { seeds: (0..shape.1[0] as u64).collect(), device };
    let mut state = solver.init(x);
    for index in 0..STEPS {
        let velocity = velocity(100 * index as u64, shape);
        let mut predict = |x: &Tensor<4>, t: f64| match passes {
            true => GuidedPrediction::from_velocity((guidance, variance), velocity.clone(), x, t),
            false => reference((guidance, variance), &velocity, x, t),
        };
        // Somebody who looks on.
        let mut observe = |_: &SubStep| {};
        let mut context = Context {
            predict: &mut predict,
            draws: &mut draws,
            spectrum: None,
            second_order,
            observe: if passes { None } else { Some(&mut observe) },
        };
        let at = |i: usize| [1.0, 0.7, 0.35, 0.0][i];
        let span = Span { index, t: at(index), to: at(index + 1), default_substeps: 4, shift: 3.2 };
        state = solver.step(state, span, &mut context).expect("a step");
        if replaced == Some(index) {
            state.replace_x(state.x().clone() * 0.5);
        }
    }
    state.into_x().into_data().try_into_vec().expect("f32 data")
}

fn agree(solver: SolverConfig, guidance: Guidance, how: How, shape: Shape) {
    agree_replaced(solver, guidance, how, shape, None);
}

fn agree_replaced(solver: SolverConfig, guidance: Guidance, how: How, shape: Shape, replaced: Option<usize>) {
    let run = |passes| run(solver, guidance, how, shape, passes, replaced);
    let (passes, tensors) = (run(true), run(false));
    let worst = passes.iter().zip(&tensors).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(passes.iter().all(|x| x.is_finite()), "{solver:?} {guidance:?} {how:?} {shape:?}: not finite");
    assert!(worst < 2e-4, "{solver:?} {guidance:?} {how:?} {shape:?}: off by {worst}");
}

/// Whole blocks, ragged ones, maps that share a block, single points, and more channels than there are passes for.
const SHAPES: [Shape; 7] = [
    (8, [2, 4, 16, 16]),
    (3, [2, 1, 28, 28]),
    (5, [7, 3, 3, 4]),
    (64, [70, 2, 1, 1]),
    (1, [1, 3, 5, 13]),
    (3, [2, 16, 4, 6]),
    (2, [1, 5, 4, 4]),
];

#[test]
fn steps_agree_for_every_solver_guidance_and_shape() {
    let ode = |order, substeps| SolverConfig::GmOde(GmOde { order, substeps: Some(substeps) });
    let sde = |order| SolverConfig::GmSde(GmSde { order, spectral: Some(false) });
    for solver in [ode(1, 1), ode(1, 5), ode(2, 1), ode(2, 16), sde(1), sde(2)] {
        for guidance in [OFF, PROBABILISTIC, ALONG, CFG] {
            for shape in SHAPES {
                for variance in [ReweightScale::Image, ReweightScale::Pixel] {
                    agree(solver, guidance, (SecondOrder::default(), variance), shape);
                }
            }
        }
    }
}

/// Not of single points: of two channels there may be nothing left across the mean but rounding.
#[test]
fn steps_agree_with_guidance_across_the_mean() {
    for shape in [SHAPES[0], SHAPES[1], SHAPES[2]] {
        agree(
            SolverConfig::GmOde(GmOde { order: 2, substeps: Some(4) }),
            ACROSS,
            (SecondOrder::default(), ReweightScale::Image),
            shape,
        );
    }
}

#[test]
fn steps_agree_where_mixtures_are_moved() {
    let second_order = SecondOrder { carry: SecondOrderMode::Translate, ..SecondOrder::default() };
    let sde = SolverConfig::GmSde(GmSde { order: 2, spectral: Some(false) });
    for solver in [SolverConfig::GmOde(GmOde { order: 2, substeps: Some(4) }), sde] {
        for guidance in [OFF, PROBABILISTIC, CFG] {
            for shape in SHAPES {
                for variance in [ReweightScale::Image, ReweightScale::Pixel] {
                    agree(solver, guidance, (second_order, variance), shape);
                }
            }
        }
    }
}

#[test]
fn steps_agree_without_the_posterior_conversion() {
    let second_order = SecondOrder { convert: false, ..SecondOrder::default() };
    let solver = SolverConfig::GmOde(GmOde { order: 2, substeps: Some(4) });
    for shape in SHAPES {
        agree(solver, PROBABILISTIC, (second_order, ReweightScale::Image), shape);
    }
}

#[test]
fn a_sample_that_is_replaced_between_steps_is_what_the_next_one_goes_by() {
    let solver = SolverConfig::GmOde(GmOde { order: 2, substeps: Some(4) });
    for shape in SHAPES {
        agree_replaced(solver, PROBABILISTIC, (SecondOrder::default(), ReweightScale::Image), shape, Some(1));
    }
}
