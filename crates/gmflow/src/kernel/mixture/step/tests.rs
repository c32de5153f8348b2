//! The backends of a step against the reference, on random shapes, guidance and orders. `GMFLOW_TEST_DEVICE` names the device that computes
//! in passes; it is the CPU by default.

use crate::guidance::{Guidance, GuidedPrediction, ReweightScale};
use crate::kernel::mixture::step::types::{Correction, OdeStep, OdeSubstep};
use crate::mixture::{GaussianMixture, VelocityMixture};
use crate::rng::{Purpose, normals};
use crate::solver::{SecondOrder, SecondOrderMode};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use std::sync::LazyLock;

fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        crate::device::from_env("GMFLOW_TEST_DEVICE").unwrap_or_else(|error| panic!("GMFLOW_TEST_DEVICE: {error}"))
    });
    DEVICE.clone()
}

fn noise<const D: usize>(seed: u64, index: u64, shape: [usize; D]) -> Tensor<D> {
    let data = normals(seed, Purpose::Estimate, index, shape.iter().product());
    Tensor::from_data(TensorData::new(data, shape), &device())
}

/// What differs between cases.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    components: usize,
    /// `[b c h w]`.
    shape: [usize; 4],
    guidance: Guidance,
    scale: ReweightScale,
    /// The settings of a step of order 2, or one of order 1.
    second_order: Option<SecondOrder>,
    substeps: usize,
    /// The times of the previous prediction, of this one, and of the end of the step.
    times: [f64; 3],
}

fn cases() -> impl Strategy<Value = Case> {
    let guidance = prop_oneof![
        Just(Guidance::Off),
        (0.05..0.7, 0.0..0.8).prop_map(|(scale, orthogonal)| Guidance::Probabilistic { scale, orthogonal }),
        (1.1..4.0, 0.0..0.8).prop_map(|(scale, orthogonal)| Guidance::ClassifierFree { scale, orthogonal }),
    ];
    let scale = prop_oneof![Just(ReweightScale::Image), Just(ReweightScale::Pixel)];
    let carry = prop_oneof![Just(SecondOrderMode::Reweight), Just(SecondOrderMode::Translate)];
    let second_order =
        (carry, any::<bool>()).prop_map(|(carry, convert)| SecondOrder { carry, convert, ..SecondOrder::default() });
    let times = (0.75..1.0, 0.45..0.7, 0.0..0.4).prop_map(|(previous, t, to)| [previous, t, to]);
    let shape = (1usize..5, 1usize..5, 1usize..20, 1usize..20).prop_map(|(b, c, h, w)| [b, c, h, w]);
    let of_step = (proptest::option::of(second_order), 1usize..6, times);
    (0u64..1 << 32, 1usize..9, shape, guidance, scale, of_step).prop_map(
        |(seed, components, shape, guidance, scale, (second_order, substeps, times))| Case {
            seed,
            components,
            shape,
            guidance,
            scale,
            second_order,
            substeps,
            times,
        },
    )
}

impl Case {
    /// What a network might predict for the doubled batch.
    fn velocity(&self, index: u64) -> VelocityMixture {
        let ([b, c, h, w], k) = (self.shape, self.components);
        VelocityMixture(GaussianMixture {
            means: noise(self.seed, 4 * index, [2 * b, k, c, h, w]),
            log_weights: log_softmax(noise::<5>(self.seed, 4 * index + 1, [2 * b, k, 1, h, w]) * 2.0, 1),
            log_std: noise::<5>(self.seed, 4 * index + 2, [2 * b, 1, 1, 1, 1]) * 0.3 - 1.0,
        })
    }

    /// A prediction in passes, and the same in tensor operations.
    fn predictions(&self, index: u64, t: f64) -> ([GuidedPrediction; 2], Tensor<4>) {
        let (rule, b) = ((self.guidance, self.scale), self.shape[0]);
        let x = noise::<4>(self.seed, 4 * index + 3, self.shape);
        let velocity = self.velocity(index);
        let times = Tensor::<1>::full([2 * b], t as f32, &x.device());
        let both = Tensor::cat(vec![x.clone(), x.clone()], 0);
        let (conditional, unconditional) = velocity.to_data(&both, &times).split(b);
        let reference = GuidedPrediction::new(rule, conditional, Some(unconditional.0.mean()), &x);
        ([GuidedPrediction::from_velocity(rule, velocity, &x, t), reference], x)
    }
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn assert_close<const D: usize>(what: &str, case: &Case, got: Tensor<D>, want: Tensor<D>) {
    assert_eq!(got.dims(), want.dims(), "{what}: {case:?}");
    let (got, want) = (values(got), values(want));
    // Passes and tensor operations round differently, and a sharp tilt enlarges that.
    let allowed = 5e-4 * want.iter().fold(1.0, |top: f32, x| top.max(x.abs()));
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() <= allowed, "{what}: {got}, not {want}: {case:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn backends_agree_with_the_reference(case in cases()) {
        let [t_previous, t, to] = case.times;
        let (predictions, x) = case.predictions(0, t);
        let (previous, x_previous) = case.predictions(1, t_previous);
        let correction = |i: usize| case.second_order.map(|second_order| Correction {
            previous_mean: previous[i].mean_at((&x_previous, t_previous), (&x, t), second_order.convert),
            second_order,
            h_previous: t_previous - t,
            h: t - to,
        });
        let [passes, reference] = &predictions;
        assert_close("mean", &case, passes.mean(), reference.mean());
        prop_assert_eq!(passes.shift().is_some(), reference.shift().is_some());
        if let (Some(got), Some(want)) = (passes.shift(), reference.shift()) {
            assert_close("shift", &case, got, want);
        }
        if let (Some(got), Some(want)) = (correction(0), correction(1)) {
            assert_close("previous mean", &case, got.previous_mean, want.previous_mean);
        }

        // The mixture that draws are made from.
        let [got, want] = [0, 1].map(|i| predictions[i].corrected(correction(i).as_ref()));
        assert_close("mixture", &case, got.mixture.0.mean(), want.mixture.0.mean());
        assert_close("target", &case, got.target.mean, want.target.mean);
        assert_close("variance", &case, got.target.var, want.target.var);

        // The step of GM-ODE, and what it tells the next one.
        let times: Vec<f64> = (0..=case.substeps).map(|i| t + (to - t) * i as f64 / case.substeps as f64).collect();
        let convert = case.second_order.is_none_or(|second_order| second_order.convert);
        let ends = [0, 1].map(|i| {
            let to_next_mean = Some(OdeSubstep::to_mean((t, to), convert));
            predictions[i].ode(&OdeStep { x: &x, times: times.clone(), correction: correction(i), to_next_mean })
        });
        let [got, want] = ends;
        assert_close("sample", &case, got.x.clone(), want.x);
        if let Some(mean_at_next) = got.mean_at_next {
            assert_close("mean at the next point", &case, mean_at_next, reference.mean_at((&x, t), (&got.x, to), convert));
        }
    }
}

/// The first mixtures of a batch.
fn first(GaussianMixture { means, log_weights, log_std }: GaussianMixture, b: usize) -> GaussianMixture {
    let [means, log_weights, log_std] = [means, log_weights, log_std].map(|x| x.narrow(0, 0, b));
    GaussianMixture { means, log_weights, log_std }
}

/// A network that has diverged: what is no number among its log weights does not come out as one.
#[test]
fn log_weights_that_are_no_numbers_are_not_hidden() {
    let case = Case {
        seed: 3,
        components: 4,
        shape: [2, 3, 5, 7],
        guidance: Guidance::Off,
        scale: ReweightScale::Image,
        second_order: None,
        substeps: 3,
        times: [0.9, 0.6, 0.3],
    };
    let [_, t, to] = case.times;
    let guided = Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 };
    for scale in [ReweightScale::Image, ReweightScale::Pixel] {
        for (guidance, row) in [(Guidance::Off, 1), (guided, 1), (guided, 3)] {
            for bad in [f32::NAN, f32::INFINITY] {
                let VelocityMixture(GaussianMixture { means, log_weights, log_std }) = case.velocity(0);
                let shape = log_weights.dims();
                let mut weights = values(log_weights);
                // The third component of a pixel of the second sample.
                weights[(row * 4 + 2) * 35 + 17] = bad;
                let log_weights = Tensor::from_data(TensorData::new(weights, shape), &device());
                let velocity = VelocityMixture(GaussianMixture { means, log_weights, log_std });
                let x = noise::<4>(case.seed, 9, case.shape);
                let velocity = match guidance {
                    Guidance::Off => VelocityMixture(first(velocity.0, 2)),
                    _ => velocity,
                };
                let prediction = GuidedPrediction::from_velocity((guidance, scale), velocity, &x, t);
                let times = vec![t, 0.5 * (t + to), to];
                let step = OdeStep { x: &x, times, correction: None, to_next_mean: None };
                let at = |x: Tensor<4>| values(x).chunks(35).skip(3).map(|plane| plane[17]).collect::<Vec<_>>();
                let what = format!("{guidance:?} {scale:?} row {row}: {bad}");
                assert!(at(prediction.ode(&step).x).iter().all(|x| !x.is_finite()), "{what}");
                let mixture = prediction.corrected(None).mixture.0;
                assert!(at(mixture.mean()).iter().all(|x| !x.is_finite()), "{what}, reweighted");
            }
        }
    }
}
