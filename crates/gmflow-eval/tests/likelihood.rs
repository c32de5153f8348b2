//! The likelihood of images over all times and by time: against the closed form of a network that predicts a standard normal, and against
//! the density at single times.

use burn::tensor::{Device, Tensor, TensorData};
use gmflow::loss::nll;
use gmflow::network::{
    Denoiser, GmDitConfig, Network, NetworkConfig, SpectrumMlpConfig, TorchNames, load_named, named_tensors,
};
use gmflow::path::forward_diffusion;
use gmflow::rng::{Purpose, normal_batch, normals};
use gmflow_eval::{Likelihood, LikelihoodSum};
use std::collections::BTreeMap;
use std::f64::consts::{LN_2, PI};

const SHAPE: [usize; 3] = [1, 4, 4];
const SEEDS: [u64; 3] = [4, 5, 9];

/// A transformer with two Gaussians on grey 4x4 images; each weight is drawn anew with this standard deviation. With 0 it predicts
/// standard normals, otherwise something that depends on x_t, and by it on the time.
fn network(std: f32) -> Network {
    let config = GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 1,
        sample_size: 4,
        patch_size: 2,
        in_channels: 1,
        num_embeds_ada_norm: 0,
        ..Default::default()
    };
    redrawn(NetworkConfig::GmDit(config).init(1, &Device::flex()).unwrap(), std)
}

fn redrawn<M: TorchNames>(module: M, std: f32) -> M {
    let mut tensors = named_tensors(&module);
    for (index, (name, tensor)) in tensors.iter_mut().enumerate() {
        // The embedding swings with the time, too fast for bounds.
        let std = if name.contains("timestep_embedder") { 0.0 } else { std };
        let noise = normals(3, Purpose::Weights, index as u64, tensor.values.len());
        tensor.values = noise.into_iter().map(|noise| std * noise).collect();
    }
    load_named(module, tensors.into_iter().collect::<BTreeMap<_, _>>()).unwrap()
}

fn images() -> Vec<f32> {
    [-2.0_f32, 0.1, 3.0].iter().flat_map(|&value| vec![value; 16]).collect()
}

fn likelihood(network: &Network, times: usize) -> Likelihood {
    let mut sum = LikelihoodSum::new(times).unwrap();
    let (images, device) = (images(), Device::flex());
    sum.add((network, None), (&images[..32], SHAPE), (&SEEDS[..2], &[0; 2]), &device).unwrap();
    sum.add((network, None), (&images[32..], SHAPE), (&SEEDS[2..], &[0]), &device).unwrap();
    sum.likelihood().unwrap()
}

/// The noise of image `index` at its time in part `part`.
fn noise(index: usize, part: usize) -> Tensor<4> {
    normal_batch(&SEEDS[index..=index], Purpose::InitialNoise, part as u64, SHAPE, &Device::flex())
}

fn close(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "{got} instead of {expected}");
}

#[test]
fn a_standard_normal_has_the_likelihood_of_the_formula_in_every_part_of_the_time() {
    for times in [1, 3, 8] {
        let got = likelihood(&network(0.0), times);
        assert_eq!((got.count, got.by_time.len(), got.bits_per_dim_spectral), (3, times, None));
        let mut sum = 0.0;
        for (part, at) in got.by_time.iter().enumerate() {
            let bits = |index: usize| {
                let noise: Vec<f32> = noise(index, part).into_data().iter().collect();
                let x0 = f64::from(images()[16 * index]);
                let squares = noise.iter().map(|&noise| (f64::from(noise) - x0).powi(2)).sum::<f64>() / 16.0;
                0.5 * (2.0 * PI).log2() + 0.5 * squares / LN_2
            };
            close(at.bits_per_dim, (0..3).map(bits).sum::<f64>() / 3.0, 1e-5);
            assert_eq!((at.from, at.to), (part as f64 / times as f64, (part + 1) as f64 / times as f64));
            assert_eq!((at.count, at.bits_per_dim_spectral), (3, None));
            sum += at.bits_per_dim;
        }
        close(got.bits_per_dim, sum / times as f64, 1e-12);
    }
}

#[test]
fn what_stands_at_a_time_is_the_likelihood_there() {
    let (network, device, times) = (network(0.3), Device::flex(), 20);
    let got = likelihood(&network, times);
    let bits = |index: usize, part: usize, t: f64| {
        let x0 =
            Tensor::<4>::from_data(TensorData::new(images()[16 * index..][..16].to_vec(), [1, 1, 4, 4]), &device);
        let (t, noise) = (Tensor::<1>::from_floats([t as f32], &device), noise(index, part));
        let velocity = network.forward(forward_diffusion(&x0, &t, &noise), t, None);
        let nats = f64::from(nll(&velocity.0, &(noise - x0)).mean().into_scalar::<f32>());
        (nats + 0.5 * (2.0 * PI).ln()) / LN_2
    };
    // The mean of the least and of the largest likelihood of each image among times from `low` to `high`.
    let bounds = |part: usize, low: f64, high: f64| {
        let along = |index: usize| (0..=8).map(move |i| bits(index, part, low + (high - low) * f64::from(i) / 8.0));
        let mean = |value: &dyn Fn(usize) -> f64| (0..3).map(value).sum::<f64>() / 3.0;
        (mean(&|i| along(i).fold(f64::INFINITY, f64::min)), mean(&|i| along(i).fold(f64::NEG_INFINITY, f64::max)))
    };
    let mut elsewhere = 0;
    for (part, at) in got.by_time.iter().enumerate() {
        let (least, most) = bounds(part, at.from, at.to);
        assert!((least - 0.02..most + 0.02).contains(&at.bits_per_dim), "{at:?}: {least} to {most}");
        let (least, most) = bounds(part, 1.0 - at.to, 1.0 - at.from);
        elsewhere += usize::from(!(least - 0.02..most + 0.02).contains(&at.bits_per_dim));
    }
    assert!(elsewhere > times / 2, "the time hardly matters to this network: {elsewhere}");
}

#[test]
fn the_spectrum_has_its_share_in_every_part() {
    let (network, device) = (network(0.1), Device::flex());
    let config = SpectrumMlpConfig { base_size: SHAPE, layers: vec![4] };
    let spectrum = redrawn(config.init(1, &device).unwrap(), 0.2);
    let mut sum = LikelihoodSum::default();
    sum.add((&network, Some(&spectrum)), (&images(), SHAPE), (&SEEDS, &[0; 3]), &device).unwrap();
    let got = sum.likelihood().unwrap();
    let parts: Vec<f64> = got.by_time.iter().map(|at| at.bits_per_dim_spectral.unwrap()).collect();
    close(got.bits_per_dim_spectral.unwrap(), parts.iter().sum::<f64>() / parts.len() as f64, 1e-12);
    let (plain, without) = (likelihood(&network, parts.len()), got.by_time.iter().map(|at| at.bits_per_dim));
    for (at, bits) in plain.by_time.iter().zip(without) {
        close(bits, at.bits_per_dim, 1e-5);
    }
    assert!(got.by_time.iter().zip(&parts).all(|(at, with)| (at.bits_per_dim - with).abs() > 1e-3), "{got:?}");
}

#[test]
fn a_likelihood_that_is_no_number_is_refused() {
    let (network, device) = (network(0.1), Device::flex());
    // Finite, but their squares are not.
    let far = [&[0.1; 16][..], &[1e25; 16]].concat();
    let mut sum = LikelihoodSum::new(4).unwrap();
    sum.add((&network, None), (&far[..16], SHAPE), (&SEEDS[..1], &[0]), &device).unwrap();
    let refused = sum.add((&network, None), (&far, SHAPE), (&SEEDS[..2], &[0; 2]), &device).unwrap_err();
    assert!(matches!(refused, gmflow_eval::Error::NotFinite { .. }), "{refused}");
    let message = refused.to_string();
    assert!(message.contains("images 2 to 3 at t from 0 to 0.25: expected a finite number"), "{message}");
    let config = SpectrumMlpConfig { base_size: SHAPE, layers: vec![4] };
    let spectrum = redrawn(config.init(1, &device).unwrap(), 1e25);
    let networks = (&network, Some(&spectrum));
    let mut sum = LikelihoodSum::default();
    let message = sum.add(networks, (&far[..16], SHAPE), (&SEEDS[..1], &[0]), &device).unwrap_err().to_string();
    assert!(message.contains("with the spectrum"), "{message}");
}

#[test]
fn results_without_times_are_read_and_wrong_numbers_of_times_refused() {
    let old: Likelihood = serde_json::from_str(r#"{"count": 7, "bits_per_dim": 0.5}"#).unwrap();
    assert_eq!((old.count, old.by_time.len()), (7, 0));
    let text = serde_json::to_string(&likelihood(&network(0.0), 2)).unwrap();
    assert_eq!(serde_json::from_str::<Likelihood>(&text).unwrap().by_time.len(), 2);
    for times in [0, 1001] {
        let message = LikelihoodSum::new(times).unwrap_err().to_string();
        assert!(message.contains("times") && message.contains(&times.to_string()), "{message}");
    }
    assert!(LikelihoodSum::default().likelihood().is_none());
}
