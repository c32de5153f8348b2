//! Limits that tie losses, guidance and solvers to what is known in closed form.

#[path = "support/reverse.rs"]
mod reverse;

use burn::tensor::{Device, Tensor, TensorData};
use gmflow::guidance::{Guidance, GuidedPrediction, ReweightScale};
use gmflow::loss::{nll, transition_nll};
use gmflow::mixture::{DataMixture, GaussianMixture, VelocityMixture};
use gmflow::network::{GmDitConfig, HostTensor, Network, NetworkConfig, load_named, named_tensors};
use gmflow::path::{ReverseTransition, forward_diffusion, forward_transition};
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::rng::{Purpose, normals};
use gmflow::solver::{
    Context, Dpmpp2mSde, Euler, GmOde, GmSde, Heun, PreviousStep, SecondOrder, SecondOrderMode, SeededNoise,
    SolverConfig, Span, SubStep, UniPc,
};
use reverse::reverse_transition;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("f32 data")
}

fn close<const D: usize>(a: Tensor<D>, b: Tensor<D>, tolerance: f32) {
    let (a, b) = (values(a), values(b));
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "off by {worst}, allowed {tolerance}");
}

/// Standard normals of any shape.
fn noise<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    let data = normals(seed, Purpose::Estimate, 0, shape.iter().product());
    Tensor::from_data(TensorData::new(data, shape), &Device::flex())
}

fn mixture(k: usize, log_std: f32) -> GaussianMixture {
    let logits = noise::<5>(2, [2, k, 1, 3, 4]);
    GaussianMixture {
        means: noise(1, [2, k, 2, 3, 4]),
        log_weights: burn::tensor::activation::log_softmax(logits, 1),
        log_std: Tensor::full([2, 1, 1, 1, 1], log_std, &Device::flex()),
    }
}

fn times(t: [f32; 2]) -> Tensor<1> {
    Tensor::from_floats(t, &Device::flex())
}

#[test]
fn one_unit_component_is_half_the_squared_error() {
    let (single, target) = (mixture(1, 0.0), noise::<4>(3, [2, 2, 3, 4]));
    let error = (target.clone() - single.mean()).powi_scalar(2).sum_dim(1) * 0.5; // [b 1 h w]
    close(nll(&single, &target), error.squeeze_dim::<3>(1), 1e-5);
}

#[test]
fn a_transition_to_data_is_the_plain_likelihood_of_data() {
    let (x0, t) = (noise::<4>(4, [2, 2, 3, 4]), times([0.9, 0.4]));
    let x_t = forward_diffusion(&x0, &t, &noise(5, [2, 2, 3, 4]));
    let velocity = VelocityMixture(mixture(3, -0.7));
    let whole = transition_nll(&velocity, (&x0, &times([0.0, 0.0])), (&x_t, &t));
    // The loss keeps a variance of 1e-6 for the transition itself, which is small beside (t s)^2.
    close(whole, nll(&velocity.to_data(&x_t, &t).0, &x0), 1e-3);
}

#[test]
fn the_transition_loss_and_its_gradients_are_those_of_the_reverse_transition() {
    let device = Device::flex().autodiff();
    let t_hi = [1.0, 0.9, 0.3, 0.02];
    for ratio in [0.1, 0.5, 0.9] {
        let times = |factor: f32| Tensor::<1>::from_floats(t_hi.map(|t| t * factor), &device);
        let (lo, hi) = (times(1.0 - ratio), times(1.0));
        let draw = |seed: u64, k: usize| Tensor::<4>::from_data(noise(seed, [4, 2 * k, 3, 4]).into_data(), &device);
        let x_lo = forward_diffusion(&draw(4, 1), &lo, &draw(5, 1));
        let x_hi = forward_transition(&x_lo, &lo, &hi, &draw(6, 1));
        let leaves = || {
            let means = draw(7, 3).reshape([4, 3, 2, 3, 4]).require_grad();
            let weights = draw(8, 3).reshape([4, 6, 1, 3, 4]).narrow(1, 0, 3).require_grad();
            let log_std = Tensor::<5>::full([4, 1, 1, 1, 1], -1.3, &device).require_grad();
            GaussianMixture { means, log_weights: weights, log_std }
        };
        let run = |loss: &dyn Fn(&VelocityMixture) -> Tensor<3>| {
            let velocity = VelocityMixture(leaves());
            let loss = loss(&velocity);
            let grads = loss.clone().sum().backward();
            let of = |x: &Tensor<5>| values(x.grad(&grads).expect("a gradient"));
            let VelocityMixture(GaussianMixture { means, log_weights, log_std }) = &velocity;
            [values(loss), of(means), of(log_weights), of(log_std)]
        };
        let got = run(&|velocity| transition_nll(velocity, (&x_lo, &lo), (&x_hi, &hi)));
        let want = run(&|velocity| {
            let mut step = ReverseTransition::new(&lo, &hi);
            step.c3 = step.c3.clamp_min(1e-6);
            nll(&reverse_transition(&velocity.to_data(&x_hi, &hi), &x_hi, &step), &x_lo)
        });
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let size = want.iter().fold(1.0, |size: f32, x| size.max(x.abs()));
            let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-4 * size, "lambda {ratio}, part {i}: off by {worst} of {size}");
        }
    }
}

#[test]
fn two_forward_steps_have_the_variance_of_one() {
    let x0 = Tensor::<4>::zeros([2, 2, 100, 100], &Device::flex());
    let x_lo = forward_diffusion(&x0, &times([0.3, 0.6]), &noise(6, x0.dims()));
    let x_hi = forward_transition(&x_lo, &times([0.3, 0.6]), &times([0.8, 1.0]), &noise(7, x0.dims()));
    let power = values(x_hi.powi_scalar(2).mean_dim(1).mean_dim(2).mean_dim(3));
    // 20,000 draws: the sample variance is within 4 standard errors of sqrt(2/20000).
    assert!((power[0] / 0.64 - 1.0).abs() < 0.04 && (power[1] - 1.0).abs() < 0.04, "{power:?}");
    let same = forward_transition(&x_lo, &times([1.0, 1.0]), &times([1.0, 1.0]), &noise(8, x0.dims()));
    close(same, x_lo, 0.0);
}

#[test]
fn moving_a_prediction_nowhere_changes_nothing_and_to_data_finds_the_point() {
    let data = DataMixture(mixture(4, -1.0));
    let x = noise::<4>(9, [2, 2, 3, 4]);
    close(data.mean_at((&x, 0.7), (&x, 0.7)), data.0.mean(), 1e-5);
    let point = noise::<4>(10, [2, 2, 3, 4]);
    close(data.mean_at((&x, 0.7), (&(point.clone() * 0.9999), 1e-4)), point, 1e-2);
}

#[test]
fn no_guidance_is_the_identity_and_small_guidance_moves_little() {
    let data = DataMixture(mixture(3, -5.8)); // a component std of 0.003
    let unconditional = noise::<4>(11, [2, 2, 3, 4]);
    let guided = |scale: f64| {
        let guidance = Guidance::Probabilistic { scale, orthogonal: 1.0 };
        let x = unconditional.zeros_like();
        GuidedPrediction::new(guidance, data.clone(), Some(unconditional.clone()), &x).mixture().0
    };
    close(guided(0.0).means, data.0.means.clone(), 0.0);
    close(guided(0.0).log_weights, data.0.log_weights.clone(), 0.0);
    // The components stay where they are to a few of their standard deviations squared.
    close(guided(0.02).means, data.0.means.clone(), 1e-4);
}

/// Two components, further apart in one pixel than in the others.
fn uneven() -> DataMixture {
    let GaussianMixture { means, log_weights, log_std } = mixture(5, -3.0);
    let apart = Tensor::<1>::from_floats([4.0, 1.0, 0.3, 0.1], &means.device()).reshape([1, 1, 1, 1, 4]);
    DataMixture(GaussianMixture { means: means * apart, log_weights, log_std })
}

#[test]
fn guidance_by_pixel_moves_every_mean_as_far_as_is_asked_and_by_image_does_not() {
    let data = uneven();
    let mean = data.0.mean();
    let unconditional = noise::<4>(16, mean.dims());
    let moved = |variance| {
        let guidance = Guidance::Probabilistic { scale: 0.002, orthogonal: 0.0 };
        let guided = GuidedPrediction::new((guidance, variance), data.clone(), Some(unconditional.clone()), &mean);
        let shift = guided.shift().expect("a shift");
        let length = shift.clone().powi_scalar(2).sum_dim(1);
        values(((guided.mixture().0.mean() - mean.clone()) * shift.clone()).sum_dim(1) / length)
    };
    let (by_pixel, by_image) = (moved(ReweightScale::Pixel), moved(ReweightScale::Image));
    assert!(by_pixel.iter().all(|ratio| (ratio - 1.0).abs() < 0.1), "{by_pixel:?}");
    assert!(by_image.iter().any(|ratio| *ratio > 2.0), "{by_image:?}");
    assert!(by_image.iter().any(|ratio| *ratio < 0.1), "{by_image:?}");
}

#[test]
fn a_moved_mixture_has_its_mean_where_the_change_leads() {
    let guided = GuidedPrediction::new(Guidance::Off, uneven(), None, &uneven().0.mean());
    let (first, x) = (guided.mixture(), noise::<4>(17, guided.mean().dims()));
    // At the same point the change is half the difference of the means, but for the damping, which is off.
    let mixture = DataMixture(GaussianMixture { means: uneven().0.means + 0.1, ..uneven().0 });
    let previous = PreviousStep { mixture, x: x.clone(), t: 0.5, h: 0.25 };
    let apply = |carry| {
        let second_order = SecondOrder { ca: 0.0, cb: 0.0, carry, ..SecondOrder::default() };
        second_order.apply(&guided, &first, &previous, (&x, 0.5, 0.25))
    };
    let (moved, expected) = (apply(SecondOrderMode::Translate), guided.mean() - 0.05);
    close(moved.mixture.0.mean(), expected.clone(), 1e-5);
    close(moved.target.mean, expected.clone(), 1e-5);
    close(moved.mixture.0.log_weights, first.0.log_weights.clone(), 0.0);
    let off = (apply(SecondOrderMode::Reweight).mixture.0.mean() - expected).abs().max();
    assert!(f64::from(off.into_scalar::<f32>()) > 0.02, "reweighting leads there, too");
}

/// Predicts the exact posterior of data N(1, 0.25) per coordinate, K = 1.
fn gaussian_data(x: &Tensor<4>, t: f64) -> GuidedPrediction {
    let (a, s2) = (1.0 - t, 0.25);
    let precision = a * a * s2 + t * t;
    let mean = (x.clone() - a) * (a * s2 / precision) + 1.0;
    let [b, _, h, w] = x.dims();
    let log_std = Tensor::full([b, 1, 1, 1, 1], 0.5 * (s2 * t * t / precision).ln(), &x.device());
    let log_weights = Tensor::zeros([b, 1, 1, h, w], &x.device());
    GuidedPrediction::new(
        Guidance::Off,
        DataMixture(GaussianMixture { means: mean.unsqueeze_dim(1), log_weights, log_std }),
        None,
        x,
    )
}

fn solve(solver: SolverConfig, steps: usize, x: &Tensor<4>) -> Tensor<4> {
    solve_with(SecondOrder::default(), solver, steps, x)
}

fn solve_with(second_order: SecondOrder, solver: SolverConfig, steps: usize, x: &Tensor<4>) -> Tensor<4> {
    let mut draws = SeededNoise { seeds: vec![1, 2], device: x.device() };
    let mut state = solver.init(x.clone());
    for index in 0..steps {
        let at = |i: usize| 1.0 - i as f64 / steps as f64;
        let span = Span {
            index,
            t: at(index),
            to: if index + 1 == steps { 0.0 } else { at(index + 1) },
            default_substeps: 1,
            shift: 1.0,
        };
        let mut context =
            Context { predict: &mut gaussian_data, draws: &mut draws, spectrum: None, second_order, observe: None };
        state = solver.step(state, span, &mut context).expect("a step");
    }
    state.into_x()
}

#[test]
fn one_substep_is_euler_and_many_substeps_need_only_one_call() {
    let x = noise::<4>(12, [2, 1, 8, 8]);
    let ode = |order, substeps| SolverConfig::GmOde(GmOde { order, substeps: Some(substeps) });
    close(solve(ode(1, 1), 5, &x), solve(SolverConfig::Euler(Euler {}), 5, &x), 1e-5);
    // The exact flow maps N(0, 1) to N(1, 0.25) by x -> 1 + x/2; the mixture's own field is exact here, so one call
    // with many sub-steps is as good as many calls.
    let exact = x.clone() * 0.5 + 1.0;
    close(solve(ode(1, 512), 1, &x), exact.clone(), 6e-3);
    close(solve(ode(2, 64), 8, &x), exact, 6e-3);
}

#[test]
fn orders_of_convergence_on_gaussian_data() {
    let x = noise::<4>(13, [2, 1, 8, 8]);
    let exact = x.clone() * 0.5 + 1.0;
    let error = |solver: SolverConfig, steps: usize| {
        f64::from(values((solve(solver, steps, &x) - exact.clone()).powi_scalar(2).mean().sqrt())[0])
    };
    let order = |solver: SolverConfig| (error(solver, 16) / error(solver, 64)).log2() / 2.0;
    let (euler, heun) = (order(SolverConfig::Euler(Euler {})), order(SolverConfig::Heun(Heun {})));
    assert!((0.8..1.3).contains(&euler), "Euler converges with order {euler}");
    assert!(heun > 1.5, "Heun converges with order {heun}");
}

#[test]
fn second_order_adds_nothing_to_a_prediction_that_holds_and_overshoots_without_the_conversion() {
    let x = noise::<4>(15, [2, 1, 8, 8]);
    // The exact flow halves the distance to the mean; 32 sub-steps a step are nearly exact.
    let exact = x.clone() * 0.5 + 1.0;
    let error = |order, second_order| {
        let end = solve_with(second_order, SolverConfig::GmOde(GmOde { order, substeps: Some(32) }), 4, &x);
        values((end - exact.clone()).powi_scalar(2).mean().sqrt())[0]
    };
    let (first, second) = (error(1, SecondOrder::default()), error(2, SecondOrder::default()));
    let unconverted = error(2, SecondOrder { convert: false, ..SecondOrder::default() });
    assert!((second / first - 1.0).abs() < 0.02, "{first} and {second}");
    assert!(unconverted > 3.0 * second, "{unconverted} and {second}");
}

#[test]
fn transitions_reproduce_the_variance_of_gaussian_data() {
    let x = noise::<4>(14, [2, 1, 100, 100]);
    let std = |solver| values((solve(solver, 8, &x) - 1.0).powi_scalar(2).mean().sqrt())[0];
    // Draws of the exact posterior keep the exact marginal at any number of steps; 20,000 draws, 4 standard errors.
    assert!((std(SolverConfig::GmSde(GmSde { order: 1, spectral: None })) - 0.5).abs() < 0.01);
    // The mean alone loses variance.
    assert!(std(SolverConfig::DDPM_SMALL) < 0.48);
}

fn network() -> Network {
    let config = GmDitConfig {
        num_gaussians: 3,
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 2,
        sample_size: 4,
        in_channels: 1,
        num_embeds_ada_norm: 5,
        logstd_inner_dim: 8,
        ..Default::default()
    };
    NetworkConfig::GmDit(config).init(3, &Device::flex()).expect("a valid network")
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let network = network();
    let pipeline = Pipeline { network: &network, spectrum: None, device: Device::flex() };
    let guidance = Guidance::Probabilistic { scale: 0.4, orthogonal: 1.0 };
    for solver in [
        SolverConfig::GmOde(GmOde { order: 2, substeps: Some(4) }),
        SolverConfig::GmSde(GmSde { order: 2, spectral: None }),
        SolverConfig::UniPc(UniPc {}),
        SolverConfig::SA_SOLVER,
        SolverConfig::Dpmpp2mSde(Dpmpp2mSde {}),
    ] {
        let config = SamplerConfig { guidance, ..SamplerConfig::new(solver, 3) };
        let sample = |seeds: Vec<u64>, classes: Vec<usize>| {
            let request = SampleRequest { seeds, classes: Some(classes), shape: [1, 4, 4], noise: None };
            pipeline.sample(&config, &request, &mut keep_going).expect("samples")
        };
        let all = sample(vec![7, 8, 9], vec![0, 4, 2]);
        close(sample(vec![8], vec![4]), all.slice_dim(0, 1..2), 1e-5);
    }
}

#[test]
fn sub_steps_in_one_pass_are_the_sub_steps_one_by_one() {
    let network = network();
    let pipeline = Pipeline { network: &network, spectrum: None, device: Device::flex() };
    // Maps of one pixel, of a few and of more than are worked on at a time; three samples and more than fill the lanes.
    for ([h, w], b) in [([4, 4], 3), ([12, 8], 3), ([4, 4], 70)] {
        let solver = SolverConfig::GmOde(GmOde { order: 2, substeps: Some(5) });
        let config = SamplerConfig { shift: 2.0, ..SamplerConfig::new(solver, 3) };
        let seeds: Vec<u64> = (0..b).collect();
        let request = SampleRequest { seeds: seeds.clone(), classes: None, shape: [1, h, w], noise: None };
        let mut draws = SeededNoise { seeds, device: Device::flex() };
        let mut seen = 0;
        let mut count = |_: &SubStep| {
            seen += 1;
            ControlFlow::Continue(())
        };
        let slow = pipeline.run(&config, &request, &mut draws, &mut keep_going, Some(&mut count)).expect("samples");
        close(pipeline.sample(&config, &request, &mut keep_going).expect("samples"), slow, 2e-5);
        assert_eq!(seen, 15);
    }
}

#[test]
fn guidance_within_an_interval_is_guidance_there_and_none_elsewhere() {
    // A fresh network gives every class the same.
    let tensors = named_tensors(&network()).into_iter().map(|(name, tensor)| {
        let values = normals(1, Purpose::InitialNoise, name.len() as u64, tensor.values.len());
        (name, HostTensor { values: values.iter().map(|value| 0.3 * value).collect(), ..tensor })
    });
    let network = load_named(network(), tensors.collect::<BTreeMap<_, _>>()).expect("weights that fit");
    let pipeline = Pipeline { network: &network, spectrum: None, device: Device::flex() };
    let request = SampleRequest { seeds: vec![4, 5], classes: Some(vec![1, 3]), shape: [1, 4, 4], noise: None };
    let guidance = Guidance::Probabilistic { scale: 0.4, orthogonal: 1.0 };
    let plain = SamplerConfig::new(GmOde { order: 1, substeps: Some(2) }, 4);
    let sample = |guidance, guidance_interval| {
        let config = SamplerConfig { guidance, guidance_interval, ..plain };
        pipeline.sample(&config, &request, &mut keep_going).expect("samples")
    };
    // The times are 1, 0.75, 0.5 and 0.25.
    close(sample(guidance, Some([0.25, 1.0])), sample(guidance, None), 1e-6);
    close(sample(guidance, Some([0.3, 0.45])), sample(Guidance::Off, None), 1e-6);
    let distance = |x: Tensor<4>, y: Tensor<4>| values((x - y).abs().max())[0];
    let part = sample(guidance, Some([0.5, 1.0]));
    assert!(distance(part.clone(), sample(guidance, None)) > 1e-3);
    assert!(distance(part, sample(Guidance::Off, None)) > 1e-3);
    let backwards = SamplerConfig { guidance_interval: Some([0.5, 0.4]), ..plain };
    let refusal = pipeline.sample(&backwards, &request, &mut keep_going).expect_err("a refusal").to_string();
    assert!(refusal.contains("guidance_interval"), "{refusal}");
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    let network = network();
    let pipeline = Pipeline { network: &network, spectrum: None, device: Device::flex() };
    let sampler = SamplerConfig::new(Euler {}, 2);
    let request = SampleRequest { seeds: vec![1], classes: Some(vec![9]), shape: [1, 4, 4], noise: None };
    let refused = |sampler: &SamplerConfig, request: &SampleRequest| {
        pipeline.sample(sampler, request, &mut keep_going).expect_err("a refusal").to_string()
    };
    assert!(refused(&sampler, &request).contains("class"));
    let request = SampleRequest { classes: None, noise: Some(noise(1, [1, 1, 4, 5])), ..request };
    assert!(refused(&sampler, &request).contains("noise"));
    let guided = SamplerConfig { guidance: Guidance::Probabilistic { scale: 1.0, orthogonal: 0.0 }, ..sampler };
    assert!(refused(&guided, &request).contains("guidance"));
}
