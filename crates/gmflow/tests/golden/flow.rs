//! The forward process, its reverse, conversions, training times, and draws shaped by a spectrum.

use crate::gm_ops::{drawn, flat, mixture};
use crate::guidance::put;
use crate::harness::{Array, Case, Computed};
use crate::reverse::reverse_transition;
use burn::tensor::Tensor;
use gmflow::mixture::spectral::Bases;
use gmflow::mixture::transport::Axes;
use gmflow::mixture::{DataMixture, GaussianMixture, VelocityMixture};
use gmflow::path::{ReverseTransition, forward_diffusion, forward_transition};
use gmflow::time::TimeSampling;

pub fn run(case: &Case) -> Option<Computed> {
    let one = |name: &str, x: Tensor<4>| Some(Computed::from([(name.to_owned(), x.into())]));
    match case.op.as_str() {
        "u_to_x_0" => Some(to_data(case)),
        "reverse_transition" => Some(reverse(case)),
        "sample_forward_diffusion" => Some(diffused(case)),
        "sample_forward_transition" => {
            let x_lo = flat(case, "x_t_low");
            let (t_lo, t_hi) = (times(case, "t_low", &x_lo), times(case, "t_high", &x_lo));
            one("x_t_high", forward_transition(&x_lo, &t_lo, &t_hi, &flat(case, "noise")))
        }
        "denoising_gm_convert_to_mean" => one("mean", moved_mean(case)),
        "gm_sample" if case.inputs.contains_key("power_spectrum") => Some(spectral(case)),
        "gm_sample" => Some(Computed::from([("samples".into(), drawn(case, &mixture(case, "")).into())])),
        "ContinuousTimeStepSampler" => Some(training_times(case)),
        _ => None,
    }
}

/// The times `[b]` in [0, 1]; one number holds for the whole batch.
fn times(case: &Case, name: &str, x: &Tensor<4>) -> Tensor<1> {
    let Array { values, .. } = case.input(name);
    let b = x.dims()[0];
    let values = if values.len() == 1 { vec![values[0]; b] } else { values.clone() };
    Array { shape: vec![b], values }.tensor::<1>() / 1000.0
}

/// The recorded prediction as a mixture of the data.
fn data(case: &Case, x: &Tensor<4>, t: &Tensor<1>) -> DataMixture {
    match case.params["prediction_type"].as_str() {
        Some("x0") => DataMixture(mixture(case, "")),
        _ => VelocityMixture(mixture(case, "")).to_data(x, t),
    }
}

fn to_data(case: &Case) -> Computed {
    let x = flat::<4>(case, "x_t");
    let t = times(case, "t", &x);
    if case.inputs.contains_key("means") {
        let mut computed = Computed::new();
        put(&mut computed, "", data(case, &x, &t).0);
        return computed;
    }
    // A tensor or a Gaussian is the mean, and the variance, of a mixture with one component.
    let mean = flat::<4>(case, if case.inputs.contains_key("u") { "u" } else { "mean" });
    let zero = mean.clone().slice_dim(1, 0..1) * 0.0;
    let var = case.inputs.get("var").map_or_else(|| zero.clone() + 1.0, Array::tensor::<4>);
    let single = GaussianMixture {
        means: mean.unsqueeze_dim(1),
        log_weights: zero.unsqueeze_dim(1),
        log_std: (var.log() * 0.5).unsqueeze_dim(1),
    };
    let DataMixture(single) = VelocityMixture(single).to_data(&x, &t);
    let mean = Array::from(single.mean());
    Computed::from([
        ("x_0".into(), mean.clone()),
        ("mean".into(), mean),
        ("var".into(), (single.log_std * 2.0).exp().into()),
    ])
}

fn reverse(case: &Case) -> Computed {
    let x = flat::<4>(case, "x_t_high");
    let (t_lo, t_hi) = (times(case, "t_low", &x), times(case, "t_high", &x));
    let step = ReverseTransition::new(&t_lo, &t_hi);
    let mut computed = Computed::new();
    if case.inputs.contains_key("means") {
        // Recorded with this floor of c3; the library has none, so it is put in here to compare everything else.
        let step = ReverseTransition { c3: step.c3.clamp_min(case.f64_or("eps", 0.0)), ..step };
        put(&mut computed, "", reverse_transition(&data(case, &x, &t_hi), &x, &step));
        return computed;
    }
    let output = flat::<4>(case, "model_output");
    let x0 = match case.text("prediction_type") {
        "x0" => output,
        _ => x.clone() - output * t_hi.reshape([-1, 1, 1, 1]),
    };
    let noise = case.draws[0].array.tensor::<4>();
    computed.insert("x_t_low".into(), (x * step.c1 + x0 * step.c2 + noise * step.c3.sqrt()).into());
    computed
}

fn diffused(case: &Case) -> Computed {
    let x0 = flat::<4>(case, "x_0");
    let t = times(case, "t", &x0);
    Computed::from([
        ("x_t".into(), forward_diffusion(&x0, &t, &flat(case, "noise")).into()),
        ("mean".into(), (t.clone() * -1.0 + 1.0).into()),
        ("std".into(), t.into()),
    ])
}

/// The posterior mean at another point, sample by sample.
fn moved_mean(case: &Case) -> Tensor<4> {
    let (x, target) = (flat::<4>(case, "x_t_src"), flat::<4>(case, "x_t_tgt"));
    let (t, tau) = (times(case, "t_src", &x), times(case, "t_tgt", &x));
    let DataMixture(all) = data(case, &x, &t);
    let (t, tau) = (Array::from(t).values, Array::from(tau).values);
    let means = (0..x.dims()[0]).map(|i| {
        let cut = |x: &Tensor<5>| x.clone().slice_dim(0, i..i + 1);
        let point = |x: &Tensor<4>| x.clone().slice_dim(0, i..i + 1);
        let one = DataMixture(GaussianMixture {
            means: cut(&all.means),
            log_weights: cut(&all.log_weights),
            log_std: cut(&all.log_std),
        });
        one.mean_at((&point(&x), f64::from(t[i])), (&point(&target), f64::from(tau[i])))
    });
    Tensor::cat(means.collect(), 0)
}

fn spectral(case: &Case) -> Computed {
    let (log_power, basis) = (flat::<4>(case, "power_spectrum"), case.draws[1].array.tensor::<5>());
    let (mixture, bases) = (mixture(case, ""), Bases::Given(&basis, Axes::Basis));
    let (mut samples, mut shaped) = (Vec::new(), Vec::new());
    for white in case.draws[0].array.tensor::<5>().iter_dim(1) {
        let white = white.squeeze_dim::<4>(1);
        shaped.push(white.clone() * (log_power.clone() * 0.5).exp());
        samples.push(mixture.spectral_sample(&white, &log_power, bases).expect("shapes fit"));
    }
    Computed::from([
        ("samples".into(), Tensor::stack::<5>(samples, 1).into()),
        ("spectral_samples".into(), Tensor::stack::<5>(shaped, 1).into()),
    ])
}

fn training_times(case: &Case) -> Computed {
    let number = |name: &str| case.f64(name) as f32;
    let sampling = match case.flag("logit_normal") {
        true => TimeSampling::LogitNormal { mean: number("mean"), std: number("std"), shift: number("shift") },
        false => TimeSampling::Uniform { shift: number("shift") },
    };
    let draws = &case.draws[0].array;
    let values = draws.values.iter().map(|&draw| sampling.time(draw) * 1000.0).collect();
    Computed::from([("t".into(), Array { shape: draws.shape.clone(), values })])
}
