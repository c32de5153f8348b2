//! The layers of the classifier, as a function of flat parameters.

use super::WIDTHS;
use burn::tensor::Tensor;
use gmflow::kernel;
use gmflow::network::HostTensor;

/// The parameters in the order of [`shapes`].
pub type Parameters = Vec<HostTensor>;

/// Neighbouring channels that are normalised together.
const GROUPS: usize = 8;
const EPS: f64 = 1e-5;

/// Names and shapes of the parameters for images of `channels` channels and `classes` classes.
pub fn shapes(channels: usize, classes: usize) -> Vec<(&'static str, Vec<usize>)> {
    let [first, second, last] = WIDTHS;
    let convs = [(channels, first), (first, second), (second, second), (second, last)];
    let names = [
        ["conv1.weight", "conv1.bias", "norm1.weight", "norm1.bias"],
        ["conv2.weight", "conv2.bias", "norm2.weight", "norm2.bias"],
        ["conv3.weight", "conv3.bias", "norm3.weight", "norm3.bias"],
        ["conv4.weight", "conv4.bias", "norm4.weight", "norm4.bias"],
    ];
    let mut shapes = Vec::new();
    for ([weight, bias, gain, shift], (input, output)) in names.into_iter().zip(convs) {
        shapes.push((weight, vec![output, input, 3, 3]));
        shapes.extend([bias, gain, shift].map(|name| (name, vec![output])));
    }
    shapes.push(("features.weight", vec![last, last]));
    shapes.push(("features.bias", vec![last]));
    shapes.push(("classes.weight", vec![classes, last]));
    shapes.push(("classes.bias", vec![classes]));
    shapes
}

/// Features `[b 128]` and logits `[b classes]` of `x` `[b c h w]`, from flat parameters in the order of [`shapes`].
pub fn forward(parameters: &[Tensor<1>], x: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
    let (convs, linears) = parameters.split_at(parameters.len() - 4);
    let mut x = x;
    for (layer, part) in convs.chunks_exact(4).enumerate() {
        let [_, c, _, _] = x.dims();
        let output = part[1].dims()[0];
        let stride = 1 + layer % 2;
        let weight = part[0].clone().reshape([output, c, 3, 3]);
        x = kernel::conv2d(x, weight, part[1].clone(), stride, [1; 4]);
        x = kernel::group_norm(x, part[2].clone(), part[3].clone(), GROUPS, EPS, true);
    }
    let [b, c, _, _] = x.dims();
    let pooled = x.mean_dim(3).mean_dim(2).reshape([b, c]);
    let linear = |x: Tensor<2>, weight: &Tensor<1>, bias: &Tensor<1>| {
        let output = bias.dims()[0];
        let input = x.dims()[1];
        kernel::linear(x, weight.clone().reshape([output, input]), bias.clone())
    };
    let features = kernel::silu(linear(pooled, &linears[0], &linears[1]));
    let logits = linear(features.clone(), &linears[2], &linears[3]);
    (features, logits)
}
