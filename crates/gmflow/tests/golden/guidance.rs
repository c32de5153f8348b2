//! Guidance and second-order reweighting.

use crate::harness::{Array, Case, Computed};
use burn::tensor::Tensor;
use gmflow::guidance::{Guidance, GuidedPrediction, shift};
use gmflow::mixture::{DataMixture, GaussianMixture};
use gmflow::solver::{PreviousStep, SecondOrder};

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "probabilistic_guidance" => Some(probabilistic(case)),
        "cfg_guidance" => Some(classifier_free(case)),
        "gm_2nd_order" => Some(second_order(case)),
        _ => None,
    }
}

fn probabilistic(case: &Case) -> Computed {
    let guidance = Guidance::Probabilistic { scale: case.f64("guidance_scale"), orthogonal: case.f64("orthogonal") };
    let mean = case.input("cond_mean").tensor::<4>();
    let var = case.input("total_var").tensor::<4>().mean_dim(2).mean_dim(3);
    let axis = case.inputs.get("axis").map_or_else(|| mean.clone(), Array::tensor::<4>);
    let bias = shift(guidance, &mean, &case.input("uncond_mean").tensor(), &var, &axis);
    let left = 1.0 - case.f64("guidance_scale").powi(2);
    Computed::from([
        ("mean".into(), (mean + bias.clone()).into()),
        ("var".into(), (case.input("total_var").tensor::<4>() * left).into()),
        ("bias".into(), bias.into()),
        ("avg_var".into(), var.into()),
    ])
}

fn classifier_free(case: &Case) -> Computed {
    let orthogonal = if case.flag("orthogonal") { 1.0 } else { 0.0 };
    let guidance = Guidance::ClassifierFree { scale: case.f64("guidance_scale"), orthogonal };
    let mean = case.input("pos_mean").tensor::<4>();
    let var = Tensor::ones([mean.dims()[0], 1, 1, 1], &mean.device());
    let bias = shift(guidance, &mean, &case.input("neg_mean").tensor(), &var, &mean);
    Computed::from([("bias".into(), bias.into())])
}

/// The mixture recorded under `prefix`.
pub fn mixture(case: &Case, prefix: &str) -> GaussianMixture {
    let tensor = |name: &str| case.input(&format!("{prefix}{name}")).tensor::<5>();
    GaussianMixture { means: tensor("means"), log_weights: tensor("logweights"), log_std: tensor("logstds") }
}

/// A mixture's three outputs under `prefix`.
pub fn put(computed: &mut Computed, prefix: &str, mixture: GaussianMixture) {
    computed.insert(format!("{prefix}means"), mixture.means.into());
    computed.insert(format!("{prefix}logweights"), mixture.log_weights.into());
    computed.insert(format!("{prefix}logstds"), mixture.log_std.into());
}

fn second_order(case: &Case) -> Computed {
    let scale = case.f64("guidance_scale");
    let guidance = Guidance::Probabilistic { scale, orthogonal: case.f64("orthogonal") };
    let unconditional = case.inputs.get("uncond_mean").map(Array::tensor::<4>);
    let x = case.input("x_t").tensor::<4>();
    let guided = GuidedPrediction::new(guidance, DataMixture(mixture(case, "")), unconditional, &x);
    let first = guided.mixture();
    let time = |name: &str| f64::from(case.input(name).scalar()) / 1000.0;
    let corrections = case.f64_or("gm2_correction_steps", 0.0) as usize;
    let settings = SecondOrder { ca: case.f64("ca"), cb: case.f64("cb"), corrections, ..SecondOrder::default() };
    let (data, target) = if case.flag("first_call") {
        // Without a cache and without guidance the surrogate keeps one variance per pixel.
        let target = match guided.shift() {
            None => first.0.to_iso_gaussian(),
            Some(shift) => guided.target(Some(&shift)),
        };
        (first.clone(), target)
    } else {
        let previous = PreviousStep {
            mixture: DataMixture(mixture(case, "prev_")),
            x: case.input("prev_x_t").tensor(),
            t: time("prev_t"),
            h: time("prev_h"),
        };
        let changed = settings.apply(&guided, &first, &previous, (&x, time("t"), time("h")));
        (changed.mixture, changed.target)
    };
    let mut computed = Computed::from([
        ("out_mean".into(), data.0.mean().into()),
        ("gaussian_mean".into(), target.mean.into()),
        ("gaussian_var".into(), target.var.into()),
    ]);
    put(&mut computed, "", data.0);
    put(&mut computed, "guided_", first.0);
    computed
}
