//! The fused negative log-likelihood against tensor operations and f64 closed forms.

use super::{assert_close, device, devices, draw, values};
use crate::kernel::mixture_nll;
use burn::tensor::{Device, Tensor, TensorData};

/// The same in the tensor library's own operations, from `[b k c n]`, `[b k n]`, `[b 1]`, `[b c n]`.
fn reference(x: &[Tensor<4>; 4]) -> Tensor<2> {
    let [means, log_weights, log_std, target] = x.clone();
    let c = target.dims()[2];
    let squares = (means - target).powi_scalar(2).sum_dim(2); // [b k 1 n]
    let joint = log_weights - squares * (log_std.clone() * -2.0).exp() * 0.5 - log_std * c as f64;
    let top = joint.clone().detach().max_dim(1);
    let sum = (joint - top.clone()).exp().sum_dim(1).log() + top; // [b 1 1 n]
    (sum * -1.0).squeeze_dims::<2>(&[1, 2])
}

fn fused(x: &[Tensor<4>; 4]) -> Tensor<2> {
    let [means, log_weights, log_std, target] = x.clone();
    let [b, k, c, n] = means.dims();
    let (log_weights, target) = (log_weights.reshape([b, k, n]), target.reshape([b, c, n]));
    mixture_nll(means.reshape([b, k * c, n]), log_weights, log_std.reshape([b, 1]), target)
}

fn run(inputs: &[Tensor<4>; 4], f: fn(&[Tensor<4>; 4]) -> Tensor<2>) -> Vec<Vec<f32>> {
    let inputs = inputs.clone().map(|x| x.require_grad());
    let y = f(&inputs);
    let weights = draw(99, y.dims(), &y.device());
    let grads = (y.clone() * weights).sum().backward();
    let of_inputs = inputs.iter().map(|x| values(x.grad(&grads).expect("every input has a gradient")));
    std::iter::once(values(y)).chain(of_inputs).collect()
}

/// Inputs for `[b k c n]`; the target is `[b 1 c n]`.
fn inputs([b, k, c, n]: [usize; 4], device: &Device) -> [Tensor<4>; 4] {
    [
        draw(0, [b, k, c, n], device),
        draw(1, [b, k, 1, n], device),
        draw(2, [b, 1, 1, 1], device) * 0.5 - 0.7,
        draw(3, [b, 1, c, n], device),
    ]
}

/// Single values, gathered maps (fewer than 16 pixels) that fill a block and that do not, whole and partial tiles, and sizes
/// above the threshold for threads.
const SHAPES: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [3, 5, 2, 1],
    [200, 64, 2, 1],
    [7, 3, 4, 9],
    [37, 8, 3, 15],
    [2, 8, 4, 16],
    [3, 4, 3, 65],
    [9, 8, 1, 784],
];

#[test]
fn matches_tensor_operations() {
    for device in devices() {
        for shape in SHAPES {
            let x = inputs(shape, &device);
            assert_close(&format!("{shape:?}"), &run(&x, fused), &run(&x, reference), 1e-5);
        }
    }
}

/// The closed form in f64.
fn exact(x: &[Tensor<4>; 4]) -> Vec<f32> {
    let [b, k, c, n] = x[0].dims();
    let [means, log_weights, log_std, target] =
        x.clone().map(|x| values(x).into_iter().map(f64::from).collect::<Vec<_>>());
    let pixel = |i: usize, p: usize| {
        let density = |k_: usize| {
            let distance = |ch: usize| means[((i * k + k_) * c + ch) * n + p] - target[(i * c + ch) * n + p];
            let squares: f64 = (0..c).map(|ch| distance(ch).powi(2)).sum();
            let exponent = log_weights[(i * k + k_) * n + p] - 0.5 * squares * (-2.0 * log_std[i]).exp();
            (exponent - c as f64 * log_std[i]).exp()
        };
        -(0..k).map(density).sum::<f64>().ln() as f32
    };
    (0..b).flat_map(|i| (0..n).map(move |p| (i, p))).map(|(i, p)| pixel(i, p)).collect()
}

#[test]
fn matches_the_closed_form() {
    for shape in SHAPES {
        let x = inputs(shape, &device());
        assert_close(&format!("{shape:?}"), &[values(fused(&x))], &[exact(&x)], 1e-5);
    }
}

#[test]
fn one_component_is_half_the_squared_error() {
    let device = device();
    let mut x = inputs([4, 1, 3, 20], &device);
    (x[1], x[2]) = (x[1].zeros_like(), x[2].zeros_like());
    let error = (x[0].clone() - x[3].clone()).powi_scalar(2).sum_dim(2) * 0.5;
    assert_close("half the squared error", &[values(fused(&x))], &[values(error)], 1e-6);
}

/// Far from all components, where every density underflows, value and gradient are those of the nearest component.
#[test]
fn far_targets_keep_their_value_and_gradient() {
    let device = device().autodiff();
    let tensor = |values: Vec<f32>, shape| Tensor::<4>::from_data(TensorData::new(values, shape), &device);
    let means = tensor(vec![0.0, 1.0], [1, 2, 1, 1]).require_grad();
    let log_weights = tensor(vec![0.5f32.ln(); 2], [1, 2, 1, 1]);
    let target = tensor(vec![1000.0], [1, 1, 1, 1]);
    let nll = fused(&[means.clone(), log_weights, tensor(vec![0.0], [1, 1, 1, 1]), target]);
    let grads = nll.clone().sum().backward();
    let expected = 0.5 * 999.0f32.powi(2) + 2.0f32.ln();
    assert_close("value", &[values(nll)], &[vec![expected]], 1e-6);
    assert_close("gradient", &[values(means.grad(&grads).expect("tracked"))], &[vec![0.0, -999.0]], 1e-6);
}

/// A network that has diverged must not train on: NaN and infinity do not come out as a number.
#[test]
fn invalid_numbers_are_not_hidden() {
    for (n, bad) in [(1, f32::NAN), (20, f32::NAN), (1, f32::INFINITY), (20, f32::INFINITY)] {
        let device = device();
        let mut x = inputs([2, 3, 2, n], &device);
        x[0] = x[0].full_like(bad);
        assert!(values(fused(&x)).iter().all(|v| !v.is_finite()), "{n} pixels of {bad}");
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for shape in [[300, 64, 2, 1], [9, 8, 3, 784]] {
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            pool.install(|| run(&inputs(shape, &Device::flex().autodiff()), fused))
        });
        assert_eq!(one, three);
    }
}
