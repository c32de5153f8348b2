//! Operations on mixtures: moments, products, densities, draws, and the transport.

use crate::guidance::put;
use crate::harness::{Array, Case, Computed};
use burn::tensor::{Int, Tensor};
use gmflow::mixture::spectral::Bases;
use gmflow::mixture::transport::{Axes, PixelMixture};
use gmflow::mixture::univariate::Univariate;
use gmflow::mixture::{GaussianMixture, IsoGaussian};
use nalgebra::DMatrix;

pub fn run(case: &Case) -> Option<Computed> {
    let one = |name: &str, array: Array| Some(Computed::from([(name.to_owned(), array)]));
    match case.op.as_str() {
        "gm_to_mean" => one("mean", mixture(case, "").mean_with_power(case.f64("gm_power")).into()),
        "gm_to_iso_gaussian" => Some(surrogate(case)),
        "gm_to_gaussian" => Some(gaussian(case)),
        "gm_mul_iso_gaussian" => Some(conflated(case)),
        "iso_gaussian_mul_iso_gaussian" => Some(conflated_gaussians(case)),
        "gm_mul_gm" => {
            let mut computed = Computed::new();
            put(&mut computed, "", mixture(case, "a_").product(&mixture(case, "b_")));
            Some(computed)
        }
        "gm_logprob" => Some(log_prob(case)),
        "gm_logprob+gm_to_iso_gaussian" => {
            let mut computed = surrogate(case);
            computed.extend(log_prob(case));
            Some(computed)
        }
        "iso_gaussian_logprob" => {
            let gaussian = IsoGaussian { mean: flat(case, "mean"), var: flat(case, "var") };
            one("logprob", gaussian.log_prob(&flat(case, "samples")).into())
        }
        "gm_to_sample" => one("samples", drawn(case, &mixture(case, "")).into()),
        "gm_entropy" => {
            let mixture = mixture(case, "");
            one("entropy", mixture.entropy(&drawn(case, &mixture)).into())
        }
        "gm_kl_div" => {
            let p = mixture(case, "p_");
            one("kl", p.kl_divergence(&mixture(case, "q_"), &drawn(case, &p)).into())
        }
        "guided_division" => Some(divided(case)),
        "gm1d_pdf_cdf" => {
            let pdf = univariate(case, "samples", |gm, x| gm.ln_pdf(x).exp());
            let cdf = univariate(case, "samples", |gm, x| 2.0 * gm.ln_cdf(x).exp() - 1.0);
            Some(Computed::from([("pdf".into(), pdf), ("cdf".into(), cdf)]))
        }
        "gm1d_inverse_cdf" => one("samples", quantiles(case)),
        "gaussian_samples_to_gm_samples" if case.given("n_axes") => Some(leading_transport(case, "gaussian_samples")),
        "gm_samples_to_gaussian_samples" if case.given("n_axes") => Some(leading_transport(case, "gm_samples")),
        "gaussian_samples_to_gm_samples" => transport(case, "gaussian_samples", GaussianMixture::from_normals),
        "gm_samples_to_gaussian_samples" => transport(case, "gm_samples", GaussianMixture::to_normals),
        "gm_spectral_logprobs" => one("logprobs", spectral_log_prob(case)),
        _ => None,
    }
}

/// An input of rank D; leading axes beyond it are one batch axis.
pub fn flat<const D: usize>(case: &Case, name: &str) -> Tensor<D> {
    let Array { mut shape, values } = case.input(name).clone();
    let extra = shape.len().saturating_sub(D);
    let batch = shape.drain(..extra).product::<usize>();
    shape[0] *= batch;
    Array { shape, values }.tensor()
}

/// The mixture recorded under `prefix`.
pub fn mixture(case: &Case, prefix: &str) -> GaussianMixture {
    let tensor = |name: &str| flat::<5>(case, &format!("{prefix}{name}"));
    GaussianMixture { means: tensor("means"), log_weights: tensor("logweights"), log_std: tensor("logstds") }
}

fn surrogate(case: &Case) -> Computed {
    let mixture = mixture(case, "");
    let gaussian = mixture.to_iso_gaussian();
    let offsets = mixture.means.clone() - gaussian.mean.clone().unsqueeze_dim::<5>(1);
    Computed::from([
        ("mean".into(), gaussian.mean.into()),
        ("var".into(), gaussian.var.into()),
        ("gm_diffs".into(), offsets.into()),
        ("gm_vars".into(), (mixture.log_std * 2.0).exp().into()),
    ])
}

fn gaussian(case: &Case) -> Computed {
    let mixture = mixture(case, "");
    Computed::from([
        ("mean".into(), mixture.mean().permute([0, 2, 3, 1]).into()),
        ("cov".into(), (mixture.covariance() * case.f64_or("cov_scale", 1.0)).into()),
    ])
}

fn conflated(case: &Case) -> Computed {
    let gaussian = IsoGaussian { mean: flat(case, "g_mean"), var: flat(case, "g_var") };
    let mut computed = Computed::new();
    let joint = mixture(case, "").conflate(&gaussian, case.f64("gm_power"), case.f64("gaussian_power"));
    put(&mut computed, "", joint);
    computed
}

fn conflated_gaussians(case: &Case) -> Computed {
    let gaussian = |i: u8| IsoGaussian { mean: flat(case, &format!("mean{i}")), var: flat(case, &format!("var{i}")) };
    let joint = gaussian(1).conflate(&gaussian(2), case.f64("power1"), case.f64("power2"));
    Computed::from([("mean".into(), joint.mean.into()), ("var".into(), joint.var.into())])
}

/// The mixture times the quotient of a shifted, narrower surrogate and the surrogate.
fn divided(case: &Case) -> Computed {
    let mixture = mixture(case, "");
    let IsoGaussian { mean, var } = mixture.to_iso_gaussian();
    let var = var.mean_dim(2).mean_dim(3); // [b 1 1 1]
    let narrower = var.clone() * (flat::<4>(case, "ratio") * -1.0 + 1.0);
    let target = IsoGaussian { mean: mean.clone() + flat(case, "bias"), var: narrower };
    let quotient = target.conflate(&IsoGaussian { mean, var }, 1.0, -1.0);
    let mut computed = Computed::new();
    put(&mut computed, "", mixture.conflate(&quotient, 1.0, 1.0));
    computed.insert("q_mean".into(), quotient.mean.into());
    computed.insert("q_var".into(), quotient.var.into());
    computed
}

fn log_prob(case: &Case) -> Computed {
    let (mixture, samples) = (mixture(case, ""), flat::<5>(case, "samples"));
    Computed::from([
        ("logprob".into(), mixture.log_prob(&samples).into()),
        ("gaussian_logprobs".into(), mixture.component_log_probs(&samples).into()),
    ])
}

/// The recorded draws `[b n c h w]`: components in rows of b, h, w, then normals.
pub fn drawn(case: &Case, mixture: &GaussianMixture) -> Tensor<5> {
    let normal = case.draws[1].array.tensor::<5>();
    let [b, n, _, h, w] = normal.dims();
    let components: Tensor<4, Int> =
        case.draws[0].array.tensor::<2>().int().reshape([b, h, w, n]).permute([0, 3, 1, 2]);
    let sharpness = if case.flag("cov_sharpen") { case.f64("gm_power") } else { 1.0 };
    mixture.sample_components(&components, &normal, sharpness)
}

/// A function of the one-dimensional mixture at every entry of the input `[b n h w]`.
fn univariate(case: &Case, input: &str, map: impl Fn(Univariate, f64) -> f64) -> Array {
    let (means, weights, input) = (case.input("means"), case.input("logweights"), case.input(input));
    let [b, k, pixels] = [means.shape[0], means.shape[1], means.shape[2..].iter().product()];
    let n = input.values.len() / (b * pixels);
    let at = |array: &Array, i: usize| -> Vec<f64> {
        (0..k).map(|j| f64::from(array.values[(i / pixels * k + j) * pixels + i % pixels])).collect()
    };
    let value = |index: usize| {
        let pixel = index / (n * pixels) * pixels + index % pixels;
        let (means, log_weights) = (at(means, pixel), at(weights, pixel));
        let std = f64::from(case.input("logstds").values[index / (n * pixels)]).exp();
        map(Univariate { means: &means, log_weights: &log_weights, std }, f64::from(input.values[index])) as f32
    };
    Array { shape: input.shape.clone(), values: (0..input.values.len()).map(value).collect() }
}

/// The point with the rank that was recorded, as a number in [-1, 1].
fn quantiles(case: &Case) -> Array {
    let standard = [0.0];
    let normal = Univariate { means: &standard, log_weights: &standard, std: 1.0 };
    univariate(case, "scaled_cdfs", |gm, rank| {
        // The normal number of that rank by bisection: the mixture's quantile takes a normal number.
        let (mut low, mut high) = (-9.0, 9.0);
        for _ in 0..80 {
            let middle = 0.5 * (low + high);
            if 2.0 * normal.ln_cdf(middle).exp() - 1.0 < rank { low = middle } else { high = middle }
        }
        gm.at_normal(0.5 * (low + high))
    })
}

/// The recorded basis; one that is shared leaves the normals as they are.
fn axes(case: &Case) -> Axes {
    if case.flag("axis_aligned") { Axes::Basis } else { Axes::Channels }
}

type Map = fn(&GaussianMixture, &Tensor<4>, Bases) -> gmflow::Result<Tensor<4>>;

fn transport(case: &Case, input: &str, map: Map) -> Option<Computed> {
    let basis = case.draws[0].array.tensor::<5>();
    let values = flat::<5>(case, input); // [b n c h w]
    let mixture = mixture(case, "");
    let bases = Bases::Given(&basis, axes(case));
    let mapped = values.iter_dim(1).map(|one| map(&mixture, &one.squeeze_dim::<4>(1), bases).expect("shapes fit"));
    let mapped: Vec<Tensor<4>> = mapped.collect();
    Some(Computed::from([("samples".into(), Tensor::stack::<5>(mapped, 1).into())]))
}

/// The transport along the first axes only, with the recorded components and normals for the others.
fn leading_transport(case: &Case, input: &str) -> Computed {
    let GaussianMixture { means, log_weights, log_std } = mixture(case, "");
    let [b, k, c, h, w] = means.dims();
    let values = flat::<5>(case, input);
    let samples = values.dims()[1];
    let host = |x: Tensor<5>| x.into_data().iter::<f64>().collect::<Vec<_>>();
    let means = host(means.permute([0, 3, 4, 1, 2])); // [b h w k c]
    let log_weights = host(log_weights.permute([0, 3, 4, 1, 2])); // [b h w k 1]
    let stds = host(log_std.exp());
    let values = host(values.permute([0, 3, 4, 1, 2])); // [b h w n c]
    let bases = host(case.draws[0].array.tensor::<5>().expand([b, h, w, c, c]));
    let last = case.draws[case.draws.len() - 1].array.clone();
    let forward = case.draws.len() == 3;
    let rest = if forward {
        let flat = last.tensor::<6>().squeeze_dim::<5>(2); // [b n c' h w]
        host(flat.permute([0, 3, 4, 1, 2]))
    } else {
        host(last.tensor())
    };
    let left = rest.len() / (b * h * w * samples);
    let mut mapped = Vec::new();
    for i in 0..b * h * w * samples {
        let pixel = i / samples;
        let mixture = PixelMixture {
            means: &means[pixel * k * c..(pixel + 1) * k * c],
            log_weights: &log_weights[pixel * k..(pixel + 1) * k],
            std: stds[pixel / (h * w)],
        };
        let basis = DMatrix::from_row_slice(c, c, &bases[pixel * c * c..(pixel + 1) * c * c]);
        let value = &values[i * c..(i + 1) * c];
        let rest = &rest[i * left..(i + 1) * left];
        let result = if forward {
            let [sample, image, within] = [i % samples, pixel / (h * w), pixel % (h * w)];
            let row = (image * samples + sample) * h * w + within; // rows in b, n, h, w order
            let component = case.draws[1].array.values[row] as usize;
            mixture.at_leading_normals(value, &basis, axes(case), rest, |_| component)
        } else {
            mixture.to_leading_normals(value, &basis, axes(case), rest)
        };
        mapped.extend(result.into_iter().map(|x| x as f32));
    }
    let mapped = Array { shape: vec![b, h, w, samples, c], values: mapped }.tensor::<5>();
    Computed::from([("samples".into(), mapped.permute([0, 3, 4, 1, 2]).into())])
}

fn spectral_log_prob(case: &Case) -> Array {
    let (mixture, samples) = (mixture(case, ""), flat::<5>(case, "samples"));
    let Some(log_power) = case.inputs.get("power_spectrum") else {
        let [b, n, ..] = samples.dims();
        return mixture.log_prob(&samples).reshape([b as i32, n as i32, -1]).sum_dim(2).into();
    };
    let basis = case.draws[0].array.tensor::<5>();
    let bases = Bases::Given(&basis, axes(case));
    let points = samples.squeeze_dim::<4>(1);
    mixture.spectral_log_prob(&points, &log_power.tensor(), bases).expect("shapes fit").into()
}
