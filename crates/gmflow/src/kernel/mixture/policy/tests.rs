//! Fused roll-outs and their gradients against tensor operations, on random shapes and paths.

use super::{RollOut, SamplePath, reference, roll_out};
use crate::mixture::GaussianMixture;
use crate::rng::{Purpose, normals, uniforms};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    components: usize,
    /// `[b c h w]`.
    shape: [usize; 4],
    /// The most sub-steps of a path.
    most: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (1usize..6, 1usize..5, 1usize..10, 1usize..10).prop_map(|(b, c, h, w)| [b, c, h, w]);
    (0u64..1 << 32, 1usize..7, shape, 1usize..7).prop_map(|(seed, components, shape, most)| Case {
        seed,
        components,
        shape,
        most,
    })
}

impl Case {
    fn noise<const D: usize>(&self, index: u64, shape: [usize; D]) -> Tensor<D> {
        let values = normals(self.seed, Purpose::Estimate, index, shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff())
    }

    /// A path of its own for each sample: nothing, to the mean, or so many sub-steps.
    fn plan(&self) -> Arc<RollOut> {
        let draws = uniforms(self.seed, Purpose::Gaps, 0, 4 * self.shape[0]);
        let (mut sources, mut paths) = (Vec::new(), Vec::new());
        for draw in draws.chunks(4) {
            let source = if draw[0] < 0.3 { 1.0 } else { f64::from(draw[0]) };
            let from = source * (0.3 + 0.7 * f64::from(draw[1]));
            let to = from * f64::from(draw[2]);
            let n = (f64::from(draw[3]) * (self.most + 2) as f64) as usize;
            sources.push(source);
            paths.push(match n {
                0 => SamplePath::Along(vec![from, from]),
                1 => SamplePath::ToMean(to.max(0.02)),
                _ => SamplePath::Along((0..n).map(|i| from + (to - from) * i as f64 / (n - 1) as f64).collect()),
            });
        }
        Arc::new(RollOut::new(&sources, &paths))
    }

    /// The end of the path and the gradients of its product with constants.
    fn run(&self, f: fn(&GaussianMixture, &Tensor<4>, &Tensor<4>, &Arc<RollOut>) -> Tensor<4>) -> Vec<Vec<f32>> {
        let ([b, c, h, w], k) = (self.shape, self.components);
        let mixture = GaussianMixture {
            means: self.noise(0, [b, k, c, h, w]).require_grad(),
            log_weights: log_softmax(self.noise::<5>(1, [b, k, 1, h, w]) * 2.0, 1).detach().require_grad(),
            log_std: (self.noise::<5>(2, [b, 1, 1, 1, 1]) * 0.3 - 1.0).detach().require_grad(),
        };
        let (source, x) = (self.noise(3, self.shape), self.noise::<4>(4, self.shape).require_grad());
        let end = f(&mixture, &source, &x, &self.plan());
        let gradients = (end.clone() * self.noise(5, self.shape)).sum().backward();
        fn of<const D: usize>(x: &Tensor<D>, gradients: &burn::tensor::Gradients) -> Vec<f32> {
            x.grad(gradients).map_or_else(Vec::new, |x| x.into_data().iter().collect())
        }
        vec![
            end.into_data().iter().collect(),
            of(&mixture.means, &gradients),
            of(&mixture.log_weights, &gradients),
            of(&mixture.log_std, &gradients),
            of(&x, &gradients),
        ]
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fused_roll_outs_agree_with_tensor_operations(case in cases()) {
        let got = case.run(roll_out);
        let want = case.run(|mixture, source, x, plan| reference::roll_out(mixture, source, x, plan));
        for (what, (got, want)) in ["end", "means", "log weights", "log std", "x"].iter().zip(got.iter().zip(&want)) {
            prop_assert_eq!(got.len(), want.len(), "{}", what);
            // Both round, and a sharp tilt enlarges that.
            let allowed = 1e-3 * want.iter().fold(1.0, |most: f32, x| most.max(x.abs()));
            for (got, want) in got.iter().zip(want) {
                prop_assert!((got - want).abs() <= allowed, "{}: {}, not {}", what, got, want);
            }
        }
    }
}

/// A batch of N is N batches of one, to the last bit, also with paths of different lengths.
#[test]
fn a_sample_does_not_depend_on_the_others() {
    for shape in [[5, 2, 1, 1], [4, 3, 5, 7]] {
        let case = Case { seed: 3, components: 4, shape, most: 6 };
        let (all, plan) = (case.run(roll_out), case.plan());
        let size: usize = shape[1..].iter().product();
        for sample in 0..shape[0] {
            let ([_, c, h, w], k) = (shape, case.components);
            let cut5 = |x: Tensor<5>| x.narrow(0, sample, 1).inner();
            let mixture = GaussianMixture {
                means: cut5(case.noise(0, [shape[0], k, c, h, w])),
                log_weights: cut5(log_softmax(case.noise::<5>(1, [shape[0], k, 1, h, w]) * 2.0, 1)),
                log_std: cut5(case.noise::<5>(2, [shape[0], 1, 1, 1, 1]) * 0.3 - 1.0),
            };
            let cut4 = |x: Tensor<4>| x.narrow(0, sample, 1).inner();
            let own = RollOut {
                sources: vec![plan.sources[sample]],
                substeps: plan.substeps[sample * plan.count..(sample + 1) * plan.count].to_vec(),
                count: plan.count,
            };
            let end = roll_out(&mixture, &cut4(case.noise(3, shape)), &cut4(case.noise(4, shape)), &Arc::new(own));
            let end: Vec<f32> = end.into_data().iter().collect();
            assert_eq!(end, all[0][sample * size..(sample + 1) * size], "sample {sample} of {shape:?}");
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let case = Case { seed: 9, components: 8, shape: [40, 1, 28, 28], most: 4 };
    let [one, three] = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        pool.install(|| case.run(roll_out))
    });
    assert_eq!(one, three);
}
