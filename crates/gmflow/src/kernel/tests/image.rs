//! Convolution, group norm and doubling of images against the definitions, in f64, and against the tensor library.

use super::{assert_close, device, devices, draw, run, values};
use crate::kernel::{add_channels, conv2d, group_norm, on_cpu, upsample_nearest2};
use burn::tensor::module;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, activation};

/// A convolution: batch, channels, height, width; outputs, kernel height and width; stride; padding.
type Case = ([usize; 4], [usize; 3], usize, [usize; 4]);

/// Kernels of all kinds on odd and even sizes; the last seven, and no others, take Winograd's way.
const CASES: [Case; 17] = [
    ([1, 1, 1, 1], [1, 1, 1], 1, [0; 4]),
    ([2, 3, 7, 5], [4, 1, 1], 1, [0; 4]),
    ([2, 3, 7, 5], [4, 1, 1], 2, [0; 4]),
    ([2, 2, 8, 9], [5, 3, 3], 1, [1; 4]),
    ([2, 17, 9, 8], [16, 3, 3], 2, [1; 4]),
    ([1, 16, 8, 8], [16, 3, 3], 2, [0, 1, 0, 1]),
    ([1, 2, 6, 7], [3, 5, 2], 3, [2, 1, 0, 4]),
    ([1, 4, 5, 5], [2, 4, 4], 4, [0; 4]),
    ([1, 2, 40, 300], [20, 3, 3], 1, [1; 4]),
    ([1, 16, 1, 1], [16, 3, 3], 1, [1; 4]),
    ([2, 16, 3, 3], [16, 3, 3], 1, [1; 4]),
    ([5, 3, 8, 6], [16, 3, 3], 1, [1; 4]),
    ([2, 16, 4, 4], [19, 3, 3], 1, [1; 4]),
    ([3, 18, 9, 7], [17, 3, 3], 1, [1; 4]),
    ([2, 16, 8, 5], [16, 3, 3], 1, [0, 1, 2, 0]),
    ([1, 16, 6, 6], [3, 3, 3], 1, [0; 4]),
    ([1, 130, 33, 65], [140, 3, 3], 1, [1; 4]),
];

fn output([_, _, h, w]: [usize; 4], [_, kh, kw]: [usize; 3], stride: usize, padding: [usize; 4]) -> [usize; 2] {
    [(h + padding[0] + padding[1] - kh) / stride + 1, (w + padding[2] + padding[3] - kw) / stride + 1]
}

/// Output and gradients by the definition, for the gradient `grad` of the output.
fn by_definition(x: &[f32], weight: &[f32], bias: &[f32], grad: &[f32], case: Case) -> Vec<Vec<f32>> {
    let (size, kernel, stride, padding) = case;
    let ([b, c, h, w], [o, kh, kw]) = (size, kernel);
    let [oh, ow] = output(size, kernel, stride, padding);
    let mut y: Vec<f64> = (0..b * o * oh * ow).map(|i| f64::from(bias[i / (oh * ow) % o])).collect();
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; weight.len()], vec![0.0; o]);
    for (i, y) in y.iter_mut().enumerate() {
        let (ox, oy, channel, sample) = (i % ow, i / ow % oh, i / (ow * oh) % o, i / (ow * oh * o));
        let g = f64::from(grad[i]);
        db[channel] += g;
        for j in 0..c * kh * kw {
            let (kx, ky, from) = (j % kw, j / kw % kh, j / (kw * kh));
            let (sy, sx) = ((oy * stride + ky).wrapping_sub(padding[0]), (ox * stride + kx).wrapping_sub(padding[2]));
            if sy < h && sx < w {
                let (at, tap) = (((sample * c + from) * h + sy) * w + sx, channel * c * kh * kw + j);
                *y += f64::from(x[at]) * f64::from(weight[tap]);
                dx[at] += g * f64::from(weight[tap]);
                dw[tap] += g * f64::from(x[at]);
            }
        }
    }
    [y, dx, dw, db].map(|x| x.into_iter().map(|v| v as f32).collect()).into()
}

fn inputs(([b, c, h, w], [o, kh, kw], _, _): Case, device: &Device) -> [Tensor<2>; 3] {
    [draw(0, [b, c * h * w], device), draw(1, [o, c * kh * kw], device), draw(2, [1, o], device)]
}

fn apply(x: &[Tensor<2>], (size, [o, kh, kw], stride, padding): Case) -> Tensor<4> {
    let weight = x[1].clone().reshape([o, size[1], kh, kw]);
    conv2d(x[0].clone().reshape(size), weight, x[2].clone().reshape([o]), stride, padding)
}

#[test]
fn convolutions_follow_their_definition() {
    for device in devices() {
        for case in CASES {
            let x = inputs(case, &device);
            let [h, w] = output(case.0, case.1, case.2, case.3);
            let grad = values(draw(99, [case.0[0], case.1[0], h, w], &device));
            let want =
                by_definition(&values(x[0].clone()), &values(x[1].clone()), &values(x[2].clone()), &grad, case);
            // The tensor library sums up the 12,000 products of a weight's gradient in f32.
            let tolerance = if on_cpu(&device) { 3e-6 } else { 1e-5 };
            assert_close(&format!("{case:?}"), &run(&x, |x| apply(x, case)), &want, tolerance);
        }
    }
}

#[test]
fn convolutions_match_the_tensor_library() {
    let device = device().autodiff();
    for (size, stride) in [([2, 32, 16, 16], 1), ([1, 24, 15, 17], 2)] {
        let case = (size, [40, 3, 3], stride, [1; 4]);
        let x = inputs(case, &device);
        let want = run(&x, |x| {
            let weight = x[1].clone().reshape([40, size[1], 3, 3]);
            let options = ConvOptions::new([stride; 2], [1, 1], [1, 1], 1);
            module::conv2d(x[0].clone().reshape(size), weight, Some(x[2].clone().reshape([40])), options)
        });
        assert_close(&format!("{size:?}"), &run(&x, |x| apply(x, case)), &want, 1e-5);
    }
}

/// The derivative along a random direction; the map is linear in each input, so that the difference is exact but for rounding.
#[test]
fn gradients_of_convolutions_match_finite_differences() {
    let device = device().autodiff();
    for case in [CASES[6], CASES[13]] {
        let x = inputs(case, &device);
        let gradients = run(&x, |x| apply(x, case));
        let weights = values(draw(99, apply(&x, case).dims(), &device));
        let loss = |x: &[Tensor<2>]| -> f64 {
            values(apply(x, case)).iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
        };
        for i in 0..3 {
            let direction = draw(50 + i as u64, x[i].dims(), &device);
            let moved = |step: f64| {
                let mut x = x.to_vec();
                x[i] = x[i].clone() + direction.clone() * step;
                loss(&x)
            };
            let numeric = (moved(0.5) - moved(-0.5)) / 1.0;
            let pairs = gradients[1 + i].iter().zip(values(direction));
            let exact: f64 = pairs.map(|(g, d)| f64::from(*g) * f64::from(d)).sum();
            assert!((numeric - exact).abs() < 1e-4 * numeric.abs().max(1.0), "{case:?}, {i}: {exact}, {numeric}");
        }
    }
}

/// Every sample is the same to the last bit in a batch and alone.
#[test]
fn a_sample_does_not_see_its_batch() {
    let device = Device::flex();
    for case in
        [CASES[3], CASES[4], CASES[8], ([5, 16, 2, 2], [16, 3, 3], 1, [1; 4]), ([5, 64, 9, 4], [48, 3, 3], 1, [1; 4])]
    {
        let ([_, c, h, w], ..) = case;
        let case = ([5, c, h, w], case.1, case.2, case.3);
        let x = inputs(case, &device);
        let batch = values(apply(&x, case));
        for i in 0..5 {
            let one = [x[0].clone().narrow(0, i, 1), x[1].clone(), x[2].clone()];
            let alone = values(apply(&one, ([1, c, h, w], case.1, case.2, case.3)));
            assert_eq!(alone, batch[i * alone.len()..(i + 1) * alone.len()], "{case:?}, sample {i}");
        }
    }
}

#[test]
fn threads_do_not_change_a_bit_of_an_image() {
    for case in [([3, 20, 33, 32], [36, 3, 3], 1, [1; 4]), ([3, 20, 33, 32], [36, 3, 3], 2, [1; 4])] {
        let results = [1, 2, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| {
                run(&inputs(case, &Device::flex().autodiff()), |x| {
                    let y = apply(x, case);
                    let [weight, bias] = [3, 4].map(|i| draw(i, [36], &y.device()));
                    group_norm(y, weight, bias, 4, 1e-6, true)
                })
            })
        });
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], results[2]);
    }
}

/// x, weight and bias of a group norm.
fn norm_inputs([b, c, h, w]: [usize; 4], device: &Device) -> [Tensor<2>; 3] {
    let x = draw(0, [b, c * h * w], device) * 3.0 + 0.7;
    [x, draw(1, [1, c], device) + 1.0, draw(2, [1, c], device)]
}

#[test]
fn group_norm_matches() {
    for device in devices() {
        for (size, groups) in [([1, 1, 1, 2], 1), ([2, 6, 3, 5], 3), ([3, 8, 4, 4], 8), ([2, 64, 17, 16], 16)] {
            let [b, c, h, w] = size;
            for silu in [false, true] {
                let got = run(&norm_inputs(size, &device), |x| {
                    let [weight, bias] = [1, 2].map(|i| x[i].clone().reshape([c]));
                    group_norm(x[0].clone().reshape(size), weight, bias, groups, 1e-5, silu)
                });
                let want = run(&norm_inputs(size, &device), |x| {
                    let x0 = x[0].clone().reshape([b * groups, c / groups * h * w]);
                    let centred = x0.clone() - x0.mean_dim(1);
                    let var = centred.clone().powi_scalar(2).mean_dim(1);
                    let normal = (centred / (var + 1e-5).sqrt()).reshape(size);
                    let y = normal * x[1].clone().reshape([1, c, 1, 1]) + x[2].clone().reshape([1, c, 1, 1]);
                    if silu { activation::silu(y) } else { y }
                });
                assert_close(&format!("{size:?} {silu}"), &got, &want, 1e-5);
            }
        }
    }
}

/// A group of 130,000 values far from zero, where sums in f32 lose the variance.
#[test]
fn group_norm_of_a_large_group_is_exact() {
    let device = device();
    let size = [1, 2, 256, 256];
    let x = draw(0, size, &device) * 0.05 + 20.0;
    let y = values(group_norm(x.clone(), Tensor::ones([2], &device), Tensor::zeros([2], &device), 1, 0.0, false));
    let x: Vec<f64> = values(x).into_iter().map(f64::from).collect();
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let std = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt();
    for (got, x) in y.iter().zip(x) {
        // The mean is rounded to f32: half a unit in the last place of 20 is 1e-6, 2e-5 of a standard deviation.
        assert!((f64::from(*got) - (x - mean) / std).abs() < 3e-5, "{got} for {x}");
    }
}

#[test]
fn doubling_matches() {
    for device in devices() {
        for size in [[1, 1, 1, 1], [2, 3, 5, 4], [1, 2, 150, 90]] {
            let x = [draw(0, [size[0], size[1] * size[2] * size[3]], &device)];
            let got = run(&x, |x| upsample_nearest2(x[0].clone().reshape(size)));
            let [b, c, h, w] = size;
            let want = run(&x, |x| {
                let blocks = x[0].clone().reshape([b * c * h, 1, w, 1]).expand([b * c * h, 2, w, 2]);
                blocks.reshape([b, c, 2 * h, 2 * w])
            });
            assert_close(&format!("{size:?}"), &got, &want, 1e-6);
        }
    }
}

#[test]
fn add_channels_matches() {
    for device in devices() {
        for size in [[1, 1, 1, 1], [2, 3, 5, 4], [2, 30, 33, 20]] {
            let [b, c, h, w] = size;
            let x = [draw(0, [b, c * h * w], &device), draw(1, [b, c], &device)];
            let got = run(&x, |x| add_channels(x[0].clone().reshape(size), x[1].clone()));
            let want = run(&x, |x| x[0].clone().reshape(size) + x[1].clone().reshape([b, c, 1, 1]));
            assert_close(&format!("{size:?}"), &got, &want, 1e-5);
        }
    }
}
