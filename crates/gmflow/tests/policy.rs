//! What must hold of policies, whatever network predicted them, and of the start and the sampling of students.

use burn::tensor::{Device, Tensor, TensorData};
use gmflow::distill::{Imitation, SegmentDraws, StudentHead, Teacher, student};
use gmflow::guidance::Guidance;
use gmflow::mixture::{DataMixture, GaussianMixture, VelocityMixture};
use gmflow::network::{
    Denoiser, GmDitConfig, GmDitHead, HostTensor, Mlp2dConfig, Network, NetworkConfig, UnetConfig, load_named,
    named_tensors,
};
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::policy::{GridPolicy, MixturePolicy, Policy, SubstepGrid, raw_time, time};
use gmflow::rng::{Purpose, normals};
use gmflow::solver::{GmOde, PiFlow, SolverConfig};
use std::collections::BTreeMap;

fn device() -> Device {
    Device::flex()
}

fn noise<const D: usize>(index: u64, shape: [usize; D]) -> Tensor<D> {
    let values = normals(11, Purpose::Estimate, index, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), &device())
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter().collect()
}

fn assert_close<const D: usize>(what: &str, got: Tensor<D>, want: Tensor<D>, allowed: f32) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    for (got, want) in values(got).into_iter().zip(values(want)) {
        assert!((got - want).abs() <= allowed, "{what}: {got}, not {want}");
    }
}

/// A velocity mixture of four samples of `[2 3 3]` with four components.
fn prediction() -> VelocityMixture {
    let log_weights = burn::tensor::activation::log_softmax(noise::<5>(1, [4, 4, 1, 3, 3]), 1);
    VelocityMixture(GaussianMixture {
        means: noise(0, [4, 4, 2, 3, 3]),
        log_weights,
        log_std: noise::<5>(2, [4, 1, 1, 1, 1]) * 0.2 - 0.8,
    })
}

const SOURCES: [f64; 4] = [1.0, 0.9, 0.6, 0.3];

fn policy() -> MixturePolicy {
    MixturePolicy::new(prediction(), noise(3, [4, 2, 3, 3]), SOURCES.to_vec()).expect("shapes fit")
}

/// A known distribution of the data: the same mixture at every pixel of every sample.
fn data() -> DataMixture {
    let means = Tensor::<2>::from_floats([[1.0, -0.5], [-1.0, 0.3], [0.2, 1.2]], &device());
    DataMixture(GaussianMixture {
        means: means.reshape([1, 3, 2, 1, 1]).repeat(&[4, 1, 1, 3, 3]),
        log_weights: Tensor::<1>::from_floats([0.5, 0.3, 0.2], &device())
            .log()
            .reshape([1, 3, 1, 1, 1])
            .repeat(&[4, 1, 1, 3, 3]),
        log_std: Tensor::full([4, 1, 1, 1, 1], 0.3f32.ln(), &device()),
    })
}

/// The exact velocity of the data's flow at (x, t).
fn exact(x: &Tensor<4>, t: &[f64]) -> Tensor<4> {
    let number = |f: &dyn Fn(f64) -> f64| {
        let values: Vec<f32> = t.iter().map(|t| f(*t) as f32).collect();
        Tensor::<4>::from_data(TensorData::new(values, [4, 1, 1, 1]), &device())
    };
    let nu = x.clone() * number(&|t| (1.0 - t) / (t * t));
    let x0 = data().0.tilted(&nu, &number(&|t| ((1.0 - t) / t).powi(2))).mean();
    (x.clone() - x0) / number(&|t| t)
}

/// The policy of the exact posterior at a source.
fn exact_policy(x: &Tensor<4>, sources: &[f64]) -> Policy {
    let number = |f: &dyn Fn(f64) -> f64| {
        let values: Vec<f32> = sources.iter().map(|t| f(*t) as f32).collect();
        Tensor::<4>::from_data(TensorData::new(values, [4, 1, 1, 1]), &device())
    };
    let nu = x.clone() * number(&|t| (1.0 - t) / (t * t));
    let posterior = data().0.tilted(&nu, &number(&|t| ((1.0 - t) / t).powi(2)));
    let t = number(&|t| t).unsqueeze_dim::<5>(1);
    let velocity = VelocityMixture(GaussianMixture {
        means: (x.clone().unsqueeze_dim::<5>(1) - posterior.means) / t.clone(),
        log_weights: posterior.log_weights,
        log_std: posterior.log_std - t.log(),
    });
    MixturePolicy::new(velocity, x.clone(), sources.to_vec()).expect("shapes fit").into()
}

#[test]
fn the_exact_posterior_is_the_exact_velocity_everywhere_behind_it() {
    let x_src = noise(4, [4, 2, 3, 3]);
    let policy = exact_policy(&x_src, &SOURCES);
    for share in [0.95, 0.5, 0.1] {
        let t = SOURCES.map(|source| source * share);
        let x = noise(5, [4, 2, 3, 3]);
        assert_close("velocity", policy.velocity(&x, &t), exact(&x, &t), 2e-3);
    }
}

/// Imitation of the exact flow has no loss, and the roll-out is the teacher's own way.
#[test]
fn an_exact_student_has_no_loss() {
    let imitation = Imitation { substep_grid: SubstepGrid { shift: 1.0, substeps: 64.0 }, ..Imitation::default() };
    let policy = exact_policy(&noise(4, [4, 2, 3, 3]), &[1.0; 4]);
    let draws =
        SegmentDraws { student: vec![0.1, 0.9, 0.4, 0.6, 0.3, 0.2, 0.8, 0.7], teacher: vec![0.5, 0.1, 0.9, 0.3] };
    let segment = imitation.segment((&policy, &policy), (&[1.0; 4], 1.0), &draws, &mut |x, t| exact(x, t));
    let losses = values(segment.expect("as many draws as wanted").losses);
    assert!(losses.iter().all(|loss| *loss < 1e-5), "{losses:?}");
    let (x, substep_grid) = (noise(4, [4, 2, 3, 3]), imitation.substep_grid);
    let mut own = x.clone();
    for ends in substep_grid.times(1.0, 0.2).windows(2) {
        own = own.clone() + exact(&own, &[ends[0]; 4]) * (ends[1] - ends[0]);
    }
    assert_close("way", policy.roll_out(&x, (&[1.0; 4], &[0.2; 4]), substep_grid), own, 1e-3);
}

#[test]
fn at_the_source_the_velocity_is_the_mean_of_the_mixture() {
    let x_src = noise(3, [4, 2, 3, 3]);
    assert_close("mean", Policy::from(policy()).velocity(&x_src, &SOURCES), prediction().0.mean(), 1e-5);
}

#[test]
fn one_certain_component_ends_where_it_points_in_any_number_of_substeps() {
    let GaussianMixture { means, .. } = prediction().0;
    let velocity = VelocityMixture(GaussianMixture {
        means: means.narrow(1, 0, 1),
        log_weights: Tensor::zeros([4, 1, 1, 3, 3], &device()),
        log_std: Tensor::full([4, 1, 1, 1, 1], -12.0, &device()),
    });
    let policy = MixturePolicy::new(velocity, noise(3, [4, 2, 3, 3]), SOURCES.to_vec()).expect("shapes fit");
    let x0 = policy.data().0.mean();
    for substeps in [1.0, 7.0, 64.0] {
        let substep_grid = SubstepGrid { shift: 1.0, substeps };
        let from = SOURCES.map(|source| source * 0.9);
        let end = Policy::from(policy.clone()).roll_out(&noise(6, [4, 2, 3, 3]), (&from, &[0.0; 4]), substep_grid);
        assert_close("end", end, x0.clone(), 1e-4);
    }
}

#[test]
fn temperature_one_and_no_dropout_change_nothing_and_all_dropped_keeps_all() {
    let (x, t) = (noise(6, [4, 2, 3, 3]), SOURCES.map(|source| source * 0.7));
    let plain = Policy::from(policy()).velocity(&x, &t);
    for same in [
        policy().at_temperature(1.0),
        policy().at_temperature(1.7),
        policy().without(&[false; 16]).expect("16 components"),
        policy().without(&[true; 16]).expect("16 components"),
    ] {
        assert_close("the same", Policy::from(same).velocity(&x, &t), plain.clone(), 1e-6);
    }
    assert!(policy().without(&[false; 15]).is_err());
    let cold = Policy::from(policy().at_temperature(0.3)).velocity(&x, &t);
    assert!(values((cold - plain).abs()).into_iter().fold(0.0, f32::max) > 1e-2);
}

#[test]
fn roll_outs_compose_where_their_substeps_match() {
    let substep_grid = SubstepGrid { shift: 3.2, substeps: 64.0 };
    let policy = MixturePolicy::new(prediction(), noise(3, [4, 2, 3, 3]), vec![1.0; 4]).expect("shapes fit").into();
    let (policy, x): (Policy, Tensor<4>) = (policy, noise(6, [4, 2, 3, 3]));
    let [begin, half, end] = [[0.75, 1.0, 0.5, 0.25], [0.5, 0.75, 0.25, 0.125], [0.25, 0.5, 0.0, 0.0]];
    let there = policy.roll_out(&x, (&begin, &half), substep_grid);
    let twice = policy.roll_out(&there, (&half, &end), substep_grid);
    assert_close("end", twice, policy.roll_out(&x, (&begin, &end), substep_grid), 2e-5);
}

#[test]
fn a_grid_of_one_point_is_one_euler_step() {
    let (velocities, x_src) = (noise::<5>(0, [4, 1, 2, 3, 3]), noise::<4>(3, [4, 2, 3, 3]));
    let policy =
        GridPolicy::new(velocities.clone(), x_src.clone(), SOURCES.to_vec(), (1.0, 1.0)).expect("shapes fit");
    let to = SOURCES.map(|source| source * 0.3);
    let end = Policy::from(policy).roll_out(&x_src, (&SOURCES, &to), SubstepGrid { shift: 1.0, substeps: 32.0 });
    let lengths: Vec<f32> = SOURCES.iter().zip(to).map(|(from, to)| (to - from) as f32).collect();
    let lengths = Tensor::<4>::from_data(TensorData::new(lengths, [4, 1, 1, 1]), &device());
    assert_close("end", end, x_src + velocities.squeeze_dim::<4>(1) * lengths, 1e-5);
}

/// Teachers of all architectures with one component, and the students that begin as them.
fn pairs() -> Vec<(NetworkConfig, NetworkConfig)> {
    let dit = |num_gaussians, head| {
        NetworkConfig::GmDit(GmDitConfig {
            num_gaussians,
            head,
            num_attention_heads: 2,
            attention_head_dim: 8,
            num_layers: 1,
            sample_size: 4,
            patch_size: 2,
            in_channels: 2,
            num_embeds_ada_norm: 3,
            logstd_inner_dim: 8,
            ..GmDitConfig::default()
        })
    };
    let unet = |num_gaussians| {
        NetworkConfig::Unet(UnetConfig {
            num_gaussians,
            sample_size: 4,
            in_channels: 2,
            block_out_channels: vec![8, 8],
            attention_levels: vec![],
            layers_per_block: 1,
            norm_num_groups: 2,
            num_classes: 3,
            logstd_inner_dim: 8,
            ..UnetConfig::default()
        })
    };
    vec![
        (dit(1, GmDitHead::OnePart), dit(4, GmDitHead::OnePart)),
        (dit(1, GmDitHead::OnePart), dit(4, GmDitHead::TwoParts)),
        (dit(1, GmDitHead::Means), dit(4, GmDitHead::TwoParts)),
        (dit(4, GmDitHead::OnePart), dit(4, GmDitHead::TwoParts)),
        (dit(4, GmDitHead::TwoParts), dit(4, GmDitHead::OnePart)),
        (unet(1), unet(4)),
        (unet(4), unet(4)),
    ]
}

#[test]
fn a_student_begins_as_its_teacher() {
    for (old, new) in pairs() {
        let teacher = old.init(5, &device()).expect("a teacher");
        let begun = student(&teacher, &new, StudentHead::Mixture, 1, &device()).expect("a student");
        let (x, t) = (noise::<4>(3, [3, 2, 4, 4]), Tensor::<1>::from_floats([1.0, 0.6, 0.2], &device()));
        let [of_teacher, of_student] =
            [&teacher, &begun].map(|network: &Network| network.forward(x.clone(), t.clone(), None).0);
        // The noise on the biases of four components has a mean of about 0.05/2.
        let allowed = if old.num_gaussians() == new.num_gaussians() { 1e-5 } else { 0.1 };
        assert_close("velocity", of_student.mean(), of_teacher.mean(), allowed);
        if old.num_gaussians() == 1 {
            let expected = Tensor::full([3, 1, 1, 1, 1], 0.05f32.ln(), &device());
            assert_close("log std", of_student.log_std, expected, 1e-5);
            assert_close(
                "weights",
                of_student.log_weights.exp(),
                Tensor::full([3, 4, 1, 4, 4], 0.25, &device()),
                1e-5,
            );
            let means = of_student.means;
            let apart = means.clone().narrow(1, 0, 1) - means.narrow(1, 1, 1);
            assert!(values(apart.abs()).into_iter().fold(f32::MAX, f32::min) > 1e-4, "components are apart");
        } else {
            assert_close("log std", of_student.log_std, of_teacher.log_std, 1e-5);
        }
    }
}

#[test]
fn a_student_of_another_network_is_refused() {
    let config = |num_gaussians, hidden_dim| {
        NetworkConfig::Mlp2d(Mlp2dConfig { num_gaussians, hidden_dim, embed_dim: 8, ..Mlp2dConfig::default() })
    };
    let teacher = config(4, 8).init(0, &device()).expect("a teacher");
    let made = |new: NetworkConfig| student(&teacher, &new, StudentHead::Mixture, 0, &device());
    assert!(made(config(4, 8)).is_ok());
    assert!(made(config(8, 8)).expect_err("other components").to_string().contains("network.num_gaussians"));
    assert!(made(config(4, 16)).expect_err("another width").to_string().contains("tensor "));
}

fn small() -> Network {
    let config = Mlp2dConfig { num_gaussians: 6, hidden_dim: 16, embed_dim: 8, ..Mlp2dConfig::default() };
    NetworkConfig::Mlp2d(config).init(4, &device()).expect("a network")
}

fn points(solver: SolverConfig, steps: usize, shift: f32) -> Tensor<4> {
    let network = small();
    let pipeline = Pipeline { network: &network, spectrum: None, device: device() };
    let request = SampleRequest { seeds: (0..20).collect(), classes: None, shape: [2, 1, 1], noise: None };
    let config = SamplerConfig { shift, ..SamplerConfig::new(solver, steps) };
    pipeline.sample(&config, &request, &mut keep_going).expect("samples")
}

#[test]
fn a_step_along_a_mixture_is_gm_ode_of_order_1() {
    for (steps, shift) in [(1, 1.0), (2, 1.0), (4, 2.0)] {
        let policy = SolverConfig::PiFlow(PiFlow { substeps: 16 * steps, ..PiFlow::default() });
        let ode = SolverConfig::GmOde(GmOde { order: 1, substeps: Some(16) });
        assert_close("points", points(policy, steps, shift), points(ode, steps, shift), 1e-6);
    }
}

#[test]
fn fresh_noise_and_temperature_change_samples_and_the_last_step_takes_neither() {
    let plain = PiFlow::default();
    let sampled = |policy, steps| points(SolverConfig::PiFlow(policy), steps, 1.0);
    for other in [PiFlow { renoise: 1.0, ..plain }, PiFlow { temperature: 0.3, ..plain }] {
        assert_eq!(values(sampled(other, 1)), values(sampled(plain, 1)));
        let change = values((sampled(other, 3) - sampled(plain, 3)).abs());
        assert!(change.into_iter().fold(0.0, f32::max) > 1e-3, "{other:?}");
    }
}

#[test]
fn settings_that_a_policy_has_no_use_for_are_refused() {
    let message = |config: SamplerConfig| config.validate().expect_err("refused").to_string();
    let plain = SamplerConfig::new(SolverConfig::PiFlow(PiFlow::default()), 2);
    assert!(plain.validate().is_ok());
    let guidance = Guidance::ClassifierFree { scale: 2.0, orthogonal: 0.0 };
    assert!(message(SamplerConfig { guidance, ..plain }).starts_with("guidance: "));
    for (policy, field) in [
        (PiFlow { final_step_scale: 0.0, ..PiFlow::default() }, "final_step_scale: "),
        (PiFlow { substeps: 0, ..PiFlow::default() }, "substeps: "),
        (PiFlow { temperature: f64::NAN, ..PiFlow::default() }, "temperature: "),
        (PiFlow { renoise: -1.0, ..PiFlow::default() }, "renoise: "),
        (PiFlow { grid_segment: Some(0.0), ..PiFlow::default() }, "grid_segment: "),
    ] {
        let config = SamplerConfig { solver: SolverConfig::PiFlow(policy), ..plain };
        assert!(message(config).starts_with(field), "{policy:?}");
    }
}

#[test]
fn a_teacher_is_guided_within_its_interval_alone() {
    // Weights that are nowhere 0, unlike those that training starts from, so that the class matters.
    let fresh = pairs().remove(0).0.init(5, &device()).expect("a teacher");
    let moved = |(i, (name, mut tensor)): (usize, (String, HostTensor))| {
        let noise = normals(3, Purpose::Weights, i as u64, tensor.values.len());
        tensor.values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.2 * noise);
        (name, tensor)
    };
    let tensors: BTreeMap<_, _> = named_tensors(&fresh).into_iter().enumerate().map(moved).collect();
    let network = load_named(fresh, tensors).expect("weights");
    let guidance = Guidance::ClassifierFree { scale: 2.0, orthogonal: 0.0 };
    let teacher = |interval| Teacher { guidance, interval, ..Teacher::unguided(&network) };
    let class = Tensor::<1, burn::tensor::Int>::from_ints([0, 1, 2], &device());
    let (x, t) = (noise::<4>(3, [3, 2, 4, 4]), [0.9, 0.5, 0.1]);
    let velocity = |interval| teacher(interval).velocity(&x, &t, Some(&class));
    let (all, some) = (velocity(None), velocity(Some([0.4, 0.6])));
    let none = Teacher::unguided(&network).velocity(&x, &t, Some(&class));
    let sample = |x: &Tensor<4>, i: usize| x.clone().narrow(0, i, 1);
    for i in [0, 2] {
        assert_close("outside", sample(&some, i), sample(&none, i), 1e-5);
    }
    assert_close("inside", sample(&some, 1), sample(&all, 1), 1e-5);
    let change = values((sample(&all, 1) - sample(&none, 1)).abs());
    assert!(change.into_iter().fold(0.0, f32::max) > 1e-4);
}

#[test]
fn raw_times_and_times_agree_at_the_ends() {
    assert_eq!((time(1.0, 3.2), time(0.0, 3.2), raw_time(1.0, 3.2)), (1.0, 0.0, 1.0));
}
