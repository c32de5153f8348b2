//! The fused kernels against the tensor library's own operations and finite differences, values and gradients.

mod dropout;
mod image;
mod mixed;
mod nll;
mod reference;
mod transport;

use super::{
    MatmulPrecision, attention, cos, gated_add, gelu_tanh, linear, linear_in, log_softmax, modulate, silu, sin,
};
use crate::rng::{Purpose, normals};
use burn::tensor::{Device, Tensor, TensorData, activation};

fn draw<const D: usize>(index: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = normals(3, Purpose::Estimate, index, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// The output and the gradient of its product with fixed weights, for every input.
fn run<const D: usize>(inputs: &[Tensor<2>], f: impl Fn(&[Tensor<2>]) -> Tensor<D>) -> Vec<Vec<f32>> {
    let inputs: Vec<Tensor<2>> = inputs.iter().map(|x| x.clone().require_grad()).collect();
    let y = f(&inputs);
    let weights = draw(99, y.dims(), &y.device());
    let grads = (y.clone() * weights).sum().backward();
    let of_inputs = inputs.iter().map(|x| values(x.grad(&grads).expect("every input has a gradient")));
    std::iter::once(values(y)).chain(of_inputs).collect()
}

fn assert_close(what: &str, got: &[Vec<f32>], want: &[Vec<f32>], tolerance: f32) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len());
        let top = want.iter().fold(0.1f32, |a, b| a.max(b.abs()));
        for (a, b) in got.iter().zip(want) {
            assert!((a - b).abs() <= tolerance * top, "{what}, tensor {i}: {a} instead of {b}");
        }
    }
}

/// Where to compute: `GMFLOW_TEST_DEVICE`, a name for `gmflow::device::open`, or the CPU.
fn device() -> Device {
    crate::device::from_env("GMFLOW_TEST_DEVICE").unwrap_or_else(|error| panic!("GMFLOW_TEST_DEVICE: {error}"))
}

fn devices() -> [Device; 2] {
    [device().autodiff(), device().autodiff().gradient_checkpointing()]
}

/// Odd sizes, single rows, and sizes on both sides of the thresholds for threads.
const SHAPES: [[usize; 3]; 4] = [[1, 1, 1], [3, 5, 7], [2, 33, 48], [4, 70, 130]];

#[test]
fn linear_matches_matmul() {
    for device in devices() {
        for [b, n, c] in SHAPES {
            let out = c + 3;
            let inputs = [draw(0, [b * n, c], &device), draw(1, [out, c], &device), draw(2, [1, out], &device)];
            let bias = |x: &[Tensor<2>]| x[2].clone().reshape([out]);
            let got = run(&inputs, |x| linear(x[0].clone(), x[1].clone(), bias(x)));
            let want = run(&inputs, |x| reference::linear(x[0].clone(), x[1].clone(), bias(x)));
            assert_close("linear", &got, &want, 5e-6);
        }
    }
}

#[test]
fn linear_in_bf16_is_near_and_sums_in_f32() {
    for device in devices() {
        for [b, n, c] in SHAPES {
            let out = c + 3;
            let inputs = [draw(0, [b * n, c], &device), draw(1, [out, c], &device), draw(2, [1, out], &device)];
            let bias = |x: &[Tensor<2>]| x[2].clone().reshape([out]);
            let got = run(&inputs, |x| linear_in(x[0].clone(), x[1].clone(), bias(x), MatmulPrecision::Bf16));
            let want = run(&inputs, |x| reference::linear(x[0].clone(), x[1].clone(), bias(x)));
            // Rounding is to 8 bits: 2^-9 of each factor, which in sums averages out.
            assert_close("linear in bf16", &got, &want, 1e-2);
            // The bias and its gradient are not rounded.
            assert_close("linear in bf16, bias", &got[3..], &want[3..], 5e-6);
        }
    }
}

#[test]
fn activations_match() {
    type Pair = (&'static str, fn(Tensor<2>) -> Tensor<2>, fn(Tensor<2>) -> Tensor<2>, f64);
    let pairs: [Pair; 4] = [
        ("silu", silu, reference::silu, 4.0),
        ("gelu", gelu_tanh, reference::gelu_tanh, 4.0),
        ("sin", sin, |x| x.sin(), 300.0),
        ("cos", cos, |x| x.cos(), 300.0),
    ];
    for device in devices() {
        for [b, n, c] in SHAPES {
            for (name, fused, plain, scale) in pairs {
                let input = [draw(0, [b * n, c], &device) * scale];
                assert_close(
                    name,
                    &run(&input, |x| fused(x[0].clone())),
                    &run(&input, |x| plain(x[0].clone())),
                    5e-6,
                );
            }
        }
    }
}

#[test]
fn activations_stay_finite_far_out() {
    let x = Tensor::<2>::from_floats([[-1e30, -200.0, -88.0, 0.0, 88.0, 200.0, 1e12]], &device().autodiff());
    for (name, f) in [("silu", silu as fn(Tensor<2>) -> Tensor<2>), ("gelu", gelu_tanh)] {
        let got = run(std::slice::from_ref(&x), |x| f(x[0].clone()));
        assert!(got[0].iter().all(|v| v.is_finite()), "{name}: {:?}", got[0]);
        assert_eq!(got[0][4..], [88.0, 200.0, 1e12], "{name}");
        assert!(got[0][1].abs() < 1e-20 && got[0][3] == 0.0, "{name}: {:?}", got[0]);
    }
}

#[test]
fn modulate_and_gate_match() {
    for device in devices() {
        for [b, n, c] in SHAPES.into_iter().skip(1) {
            let rows = draw(0, [b * n, c], &device) * 2.0 + 0.5;
            let inputs = [rows, draw(1, [b, c], &device), draw(2, [b, c], &device)];
            let got = run(&inputs, |x| modulate(x[0].clone(), x[1].clone(), x[2].clone(), 1e-6));
            let want = run(&inputs, |x| reference::modulate(x[0].clone(), x[1].clone(), x[2].clone(), 1e-6));
            assert_close("modulate", &got, &want, 5e-6);

            let inputs = [draw(3, [b * n, c], &device), draw(4, [b * n, c], &device), draw(5, [b, c], &device)];
            let got = run(&inputs, |x| gated_add(x[0].clone(), x[1].clone(), x[2].clone()));
            let want = run(&inputs, |x| reference::gated_add(x[0].clone(), x[1].clone(), x[2].clone()));
            assert_close("gated_add", &got, &want, 5e-6);
        }
    }
}

#[test]
fn attention_matches() {
    for device in devices() {
        for (b, n, heads, d) in [(1, 1, 1, 1), (2, 5, 3, 4), (1, 64, 2, 8), (2, 65, 2, 6), (1, 150, 1, 72)] {
            let x: [Tensor<2>; 3] = std::array::from_fn(|i| draw(i as u64, [b * n, heads * d], &device) * 2.0);
            let got = run(&x, |x| attention(x[0].clone(), x[1].clone(), x[2].clone(), b, heads));
            let want = run(&x, |x| reference::attention(x[0].clone(), x[1].clone(), x[2].clone(), b, heads));
            assert_close("attention", &got, &want, 1e-5);
        }
    }
}

#[test]
fn log_softmax_matches() {
    for device in devices() {
        for [outer, k, inner] in [[1, 1, 1], [3, 7, 1], [2, 40, 1], [3, 5, 9], [2, 8, 2100]] {
            let input = [draw(0, [outer, k * inner], &device) * 5.0];
            let shape = [outer, k, inner];
            let got = run(&input, |x| log_softmax(x[0].clone().reshape(shape)));
            let want = run(&input, |x| activation::log_softmax(x[0].clone().reshape(shape), 1));
            assert_close("log_softmax", &got, &want, 3e-6);
        }
    }
}

/// The derivative along a random direction, by central differences, for what the gradients above rest on: the references
/// are differentiated by the same library.
#[test]
fn gradients_match_finite_differences() {
    let device = device().autodiff();
    let inputs: [Tensor<2>; 3] = std::array::from_fn(|i| draw(i as u64, [6, 8], &device));
    let per_sample = |x: &Tensor<2>| x.clone().slice([0..2, 0..8]);
    let f = |x: &[Tensor<2>]| {
        let y = modulate(x[0].clone(), per_sample(&x[1]), per_sample(&x[2]), 1e-5);
        let y = attention(y, x[1].clone(), x[2].clone(), 2, 2);
        gated_add(x[0].clone(), gelu_tanh(y), per_sample(&x[1]))
    };
    let weights = draw(99, [6, 8], &device);
    let loss = |x: &[Tensor<2>]| f64::from(values((f(x) * weights.clone()).sum())[0]);
    let gradients = run(&inputs, f);
    for i in 0..3 {
        let direction = draw(50 + i as u64, [6, 8], &device);
        let step = 3e-3;
        let moved = |sign: f64| {
            let mut x = inputs.to_vec();
            x[i] = x[i].clone() + direction.clone() * (sign * step);
            loss(&x)
        };
        let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        let exact: f32 = gradients[1 + i].iter().zip(values(direction)).map(|(g, d)| g * d).sum();
        assert!((numeric - f64::from(exact)).abs() < 5e-3 * numeric.abs().max(1.0), "input {i}: {exact}, {numeric}");
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let results = [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| {
            let device = Device::flex().autodiff();
            let x: [Tensor<2>; 3] = std::array::from_fn(|i| draw(i as u64, [600, 96], &device));
            let weight = draw(7, [96, 96], &device);
            run(&[x[0].clone(), x[1].clone(), x[2].clone(), weight], |x| {
                let y = attention(x[0].clone(), x[1].clone(), x[2].clone(), 3, 4);
                let bias = x[3].clone().slice([0..1, 0..96]).reshape([96]);
                gelu_tanh(linear(y, x[3].clone(), bias))
            })
        })
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn adamw_follows_its_definition() {
    let adamw = super::AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let (mut p, mut m, mut v) = (vec![0.5f32; 3], vec![0.0; 3], vec![0.0; 3]);
    let (mut want_p, mut want_m, mut want_v) = ([0.5f64; 3], [0.0f64; 3], [0.0f64; 3]);
    let grads = [[0.1f32, -2.0, 0.0], [0.3, 1.0, 1e-6], [-0.2, 5.0, 4.0]];
    for (i, grad) in grads.iter().enumerate() {
        adamw.update(i as u64 + 1, 0.5, &mut p, grad, [&mut m, &mut v]);
        for j in 0..3 {
            let g = 0.5 * f64::from(grad[j]);
            let t = i as i32 + 1;
            want_m[j] = 0.9 * want_m[j] + 0.1 * g;
            want_v[j] = 0.95 * want_v[j] + 0.05 * g * g;
            let (mean, var) = (want_m[j] / (1.0 - 0.9f64.powi(t)), want_v[j] / (1.0 - 0.95f64.powi(t)));
            want_p[j] = want_p[j] * (1.0 - 1e-2 * 0.1) - 1e-2 * mean / (var.sqrt() + 1e-8);
        }
    }
    for (got, want) in p.iter().zip(want_p) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got} instead of {want}");
    }
}
