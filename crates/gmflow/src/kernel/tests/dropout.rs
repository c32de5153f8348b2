//! Dropout: how many values are dropped, which, and the gradient.

use super::{devices, draw, run, values};
use crate::kernel::dropout;
use burn::tensor::{Device, Tensor};
use std::sync::Arc;

const SHAPE: [usize; 4] = [4, 32, 24, 32];

fn keys(keys: &[u64]) -> Arc<[u64]> {
    keys.into()
}

/// What becomes of ones.
fn factors(samples: &[u64], layer: u64, rate: f64) -> Vec<f32> {
    let [_, c, h, w] = SHAPE;
    let ones = Tensor::ones([samples.len(), c, h, w], &Device::flex());
    values(dropout(ones, keys(samples), layer, rate))
}

#[test]
fn the_rate_and_the_mean_are_kept() {
    for rate in [0.1, 0.5, 0.9] {
        let factors = factors(&[1, 2, 3, u64::MAX], 1, rate);
        let n = factors.len() as f64;
        let kept = (1.0 / (1.0 - rate)) as f32;
        assert!(factors.iter().all(|&x| x == 0.0 || x == kept), "{rate}: a value is dropped or scaled");
        let dropped = factors.iter().filter(|&&x| x == 0.0).count() as f64 / n;
        // Five standard deviations of a count.
        let tolerance = 5.0 * (rate * (1.0 - rate) / n).sqrt();
        assert!((dropped - rate).abs() < tolerance, "{rate}: {dropped} dropped");
        let mean = factors.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        assert!((mean - 1.0).abs() < tolerance / (1.0 - rate), "{rate}: mean {mean}");
    }
    assert!(factors(&[7], 1, 0.0).iter().all(|&x| x == 1.0), "nothing is dropped at rate 0");
}

#[test]
fn a_sample_drops_the_same_in_any_batch_and_otherwise_in_every_layer() {
    let together = factors(&[5, 6, 7], 2, 0.5);
    let apart: Vec<f32> = [5, 6, 7].iter().flat_map(|&key| factors(&[key], 2, 0.5)).collect();
    assert_eq!(together, apart);
    // Independent masks at rate 1/2 agree in half of the values; copies that are shifted against each other would, too, so that
    // shifts are looked at as well.
    let (a, n) = (factors(&[5], 2, 0.5), SHAPE[1..].iter().product::<usize>());
    for (what, b) in [("sample", factors(&[6], 2, 0.5)), ("layer", factors(&[5], 3, 0.5))] {
        for shift in 0..40 {
            let same = (0..n).filter(|&i| a[i] == b[(i + shift) % n]).count() as f64 / n as f64;
            assert!((same - 0.5).abs() < 5.0 * 0.5 / (n as f64).sqrt(), "{what}, shift {shift}: {same}");
        }
    }
    for shift in 1..40 {
        let same = (0..n).filter(|&i| a[i] == a[(i + shift) % n]).count() as f64 / n as f64;
        assert!((same - 0.5).abs() < 5.0 * 0.5 / (n as f64).sqrt(), "shift {shift}: {same}");
    }
}

#[test]
fn the_gradient_passes_where_the_value_did() {
    let shape = [3, 8, 5, 7];
    for device in devices() {
        let x = [draw(0, [3, 8 * 5 * 7], &device)];
        let masked = |x: &[Tensor<2>]| dropout(x[0].clone().reshape(shape), keys(&[1, 2, 3]), 1, 0.3);
        let got = run(&x, masked);
        let mask = values(dropout(Tensor::ones(shape, &device), keys(&[1, 2, 3]), 1, 0.3));
        let (x, weights) = (values(x[0].clone()), values(draw(99, shape, &device)));
        let product = |a: &[f32]| a.iter().zip(&mask).map(|(a, m)| a * m).collect::<Vec<f32>>();
        assert_eq!(got, [product(&x), product(&weights)]);
        // A nonlinear function behind it needs its output again, which gradient checkpointing works out anew.
        let squares = |y: Tensor<4>| y.clone() * y;
        let got = run(&[draw(0, [3, 8 * 5 * 7], &device)], |x| squares(masked(x)));
        let slope = |i: usize| 2.0 * x[i] * mask[i] * mask[i] * weights[i];
        for (i, got) in got[1].iter().enumerate() {
            assert!((got - slope(i)).abs() <= 1e-6 * slope(i).abs(), "{i}: {got} instead of {}", slope(i));
        }
    }
}
