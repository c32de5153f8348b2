//! Convolutions in bf16 against those in f32: the error of results and gradients, relative to their size, and that neither threads nor the
//! batch change a bit.

use super::{devices, draw, run, values};
use crate::kernel::{MatmulPrecision, NormConv, add_channels, conv2d, conv2d_in, dropout, group_norm, norm_conv};
use burn::tensor::{Device, Tensor};
use std::sync::Arc;

/// What F(4x4, 3x3) loses with tiles rounded to bf16 was 1.1 to 1.3 % of the size of the result, twice that for gradients that are sums of
/// what nearly cancels.
const TOLERANCE: f64 = 0.03;

fn relative(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = got.iter().zip(want).map(|(a, b)| square(a - b)).sum();
    (error / want.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

fn assert_near(what: &str, got: &[Vec<f32>], want: &[Vec<f32>], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = relative(got, want);
        assert!(error < tolerance, "{what}, tensor {i}: off by {error}");
    }
}

/// A convolution: batch, channels, height, width; outputs, kernel; stride; padding.
type Case = ([usize; 4], [usize; 2], usize, [usize; 4]);

/// Sizes of which tiles, panels and vectors are and are not multiples, rows longer than a panel, and convolutions of other kinds.
const CASES: [Case; 16] = [
    ([2, 16, 3, 3], [16, 3], 1, [1; 4]),
    ([5, 3, 8, 6], [16, 3], 1, [1; 4]),
    ([2, 16, 4, 4], [19, 3], 1, [1; 4]),
    ([3, 18, 9, 7], [17, 3], 1, [1; 4]),
    ([17, 64, 8, 8], [64, 3], 1, [1; 4]),
    ([3, 20, 28, 28], [36, 3], 1, [1; 4]),
    ([2, 16, 8, 5], [16, 3], 1, [0, 1, 2, 0]),
    ([1, 16, 6, 6], [3, 3], 1, [0; 4]),
    ([1, 130, 33, 65], [140, 3], 1, [1; 4]),
    ([1, 4, 9, 270], [5, 3], 1, [1; 4]),
    ([2, 3, 7, 5], [4, 1], 1, [0; 4]),
    ([3, 70, 16, 16], [96, 1], 1, [0; 4]),
    ([2, 17, 9, 8], [16, 3], 2, [1; 4]),
    ([3, 64, 16, 16], [64, 3], 2, [0, 1, 0, 1]),
    ([1, 16, 1, 1], [16, 3], 1, [1; 4]),
    ([2, 24, 12, 12], [24, 5], 1, [2; 4]),
];

fn inputs(([b, c, h, w], [o, k], ..): Case, device: &Device) -> [Tensor<2>; 3] {
    [draw(0, [b, c * h * w], device), draw(1, [o, c * k * k], device), draw(2, [1, o], device)]
}

fn apply(x: &[Tensor<2>], (size, [o, k], stride, padding): Case, arithmetic: MatmulPrecision) -> Tensor<4> {
    let weight = x[1].clone().reshape([o, size[1], k, k]);
    let window = (stride, padding);
    conv2d_in(x[0].clone().reshape(size), weight, x[2].clone().reshape([o]), window, arithmetic)
}

#[test]
fn convolutions_in_bf16_are_near() {
    for device in devices() {
        for case in CASES {
            let x = inputs(case, &device);
            let got = run(&x, |x| apply(x, case, MatmulPrecision::Bf16));
            let want = run(&x, |x| apply(x, case, MatmulPrecision::F32));
            assert_near(&format!("{case:?}"), &got, &want, TOLERANCE);
        }
    }
}

/// A convolution behind a norm: batch, channels of x and behind them, height, width; outputs; groups; whether there is a residual, and
/// dropout.
type Behind = ([usize; 5], usize, usize, [bool; 2]);

const BEHIND: [Behind; 8] = [
    ([2, 8, 0, 8, 8], 16, 4, [false, false]),
    ([3, 12, 0, 9, 7], 12, 3, [true, false]),
    ([5, 10, 22, 16, 16], 20, 8, [true, false]),
    ([2, 64, 32, 28, 28], 32, 32, [false, false]),
    ([18, 6, 3, 4, 4], 7, 3, [true, false]),
    ([3, 12, 0, 9, 7], 12, 3, [false, true]),
    ([2, 40, 0, 20, 20], 32, 8, [true, true]),
    // Too small for tiles.
    ([2, 4, 4, 2, 2], 8, 2, [true, true]),
];

/// x, what is joined to it, weight and bias of the norm, weight, shift and residual.
fn behind_inputs(([b, c, more, h, w], o, ..): Behind, device: &Device) -> Vec<Tensor<2>> {
    let pixels = h * w;
    vec![
        draw(0, [b, c * pixels], device) * 2.0 + 0.7,
        draw(1, [b, more.max(1) * pixels], device),
        draw(2, [1, c + more], device) * 0.3 + 1.0,
        draw(3, [1, c + more], device),
        draw(4, [o, (c + more) * 9], device) * 0.1,
        draw(5, [b, o], device),
        draw(6, [b, o * pixels], device),
    ]
}

fn behind(
    x: &[Tensor<2>],
    ([b, c, more, h, w], o, groups, [has_residual, has_dropout]): Behind,
    fused: bool,
) -> Tensor<4> {
    let images = |i: usize, channels: usize| x[i].clone().reshape([b, channels, h, w]);
    let skip = (more > 0).then(|| images(1, more));
    let norm = [2, 3].map(|i| x[i].clone().reshape([c + more]));
    let weight = x[4].clone().reshape([o, c + more, 3, 3]);
    let residual = has_residual.then(|| images(6, o));
    let mask = has_dropout.then(|| ((0..b as u64).map(|i| 77 + i).collect::<Arc<[u64]>>(), 3, 0.4));
    let y = if fused {
        let dropout = mask;
        let (x, shift) = (images(0, c), x[5].clone());
        norm_conv(NormConv { x, skip, norm, groups, eps: 1e-5, dropout, weight, shift, residual })
    } else {
        let joined = Tensor::cat(std::iter::once(images(0, c)).chain(skip).collect(), 1);
        let [norm_weight, norm_bias] = norm;
        let y = group_norm(joined, norm_weight, norm_bias, groups, 1e-5, true);
        let y = mask.into_iter().fold(y, |y, (keys, layer, rate)| dropout(y, keys, layer, rate));
        let y = conv2d(y, weight, Tensor::zeros([o], &x[0].device()), 1, [1; 4]);
        let y = add_channels(y, x[5].clone());
        residual.into_iter().fold(y, |y, residual| y + residual)
    };
    // Inputs that the case does without have a gradient of zero.
    let unused = |i: usize, used: bool| {
        if used { y.zeros_like() } else { y.zeros_like() + x[i].clone().sum().reshape([1; 4]) * 0.0 }
    };
    let extra = unused(1, more > 0) + unused(6, has_residual);
    y + extra
}

#[test]
fn a_convolution_behind_a_norm_is_near_its_parts() {
    for device in devices() {
        for case in BEHIND {
            let x = behind_inputs(case, &device);
            let (got, want) = (run(&x, |x| behind(x, case, true)), run(&x, |x| behind(x, case, false)));
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                if want.iter().any(|x| *x != 0.0) {
                    let error = relative(got, want);
                    assert!(error < TOLERANCE, "{case:?}, tensor {i}: off by {error}");
                } else {
                    assert!(got.iter().all(|x| *x == 0.0), "{case:?}, tensor {i}");
                }
            }
            // What is only added up is not rounded.
            assert_near(&format!("{case:?}, shift"), &got[6..7], &want[6..7], 1e-5);
        }
    }
}

#[test]
fn a_sample_does_not_see_its_batch_in_bf16() {
    let device = Device::flex();
    for case in [CASES[1], CASES[3], CASES[4], CASES[11], CASES[13]] {
        let ([b, c, h, w], ..) = case;
        let x = inputs(case, &device);
        let batch = values(apply(&x, case, MatmulPrecision::Bf16));
        for i in 0..b {
            let one = [x[0].clone().narrow(0, i, 1), x[1].clone(), x[2].clone()];
            let alone = values(apply(&one, ([1, c, h, w], case.1, case.2, case.3), MatmulPrecision::Bf16));
            assert_eq!(alone, batch[i * alone.len()..(i + 1) * alone.len()], "{case:?}, sample {i}");
        }
    }
}

#[test]
fn threads_do_not_change_a_bit_in_bf16() {
    let results = [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| {
            let device = Device::flex().autodiff();
            let mut found = Vec::new();
            for case in [CASES[4], CASES[5], CASES[11], CASES[13]] {
                found.extend(run(&inputs(case, &device), |x| apply(x, case, MatmulPrecision::Bf16)));
            }
            for case in [BEHIND[2], BEHIND[3]] {
                found.extend(run(&behind_inputs(case, &device), |x| behind(x, case, true)));
            }
            found
        })
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}
