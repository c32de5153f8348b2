//! One transformer block with adaptive layer norms whose output layers start at zero.

use super::linear::{Init, Initializer, Linear};
use crate::kernel::{self, MatmulPrecision};
use burn::module::Module;
use burn::tensor::Tensor;

/// Epsilon of the norms before attention and at the output.
pub(super) const NORM_EPS: f64 = 1e-6;
/// Epsilon of the norm before the feed-forward layers.
const FEED_FORWARD_NORM_EPS: f64 = 1e-5;

/// Attention, then feed-forward, each modulated and gated by the embedding.
#[derive(Module, Debug)]
pub(super) struct DitBlock {
    modulation: Linear,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    up: Linear,
    down: Linear,
    heads: usize,
}

impl DitBlock {
    pub(super) fn new(heads: usize, head_dim: usize, init: &mut Initializer) -> Self {
        let c = heads * head_dim;
        Self {
            modulation: init.linear(c, 6 * c, Init::Zero),
            to_q: init.linear(c, c, Init::Xavier),
            to_k: init.linear(c, c, Init::Xavier),
            to_v: init.linear(c, c, Init::Xavier),
            to_out: init.linear(c, c, Init::Xavier),
            up: init.linear(c, 4 * c, Init::Xavier),
            down: init.linear(4 * c, c, Init::Xavier),
            heads,
        }
    }

    /// Maps tokens `x` `[b*n c]`, given the activated embedding `[b c]` of the sample.
    pub(super) fn forward(&self, x: Tensor<2>, embedding: Tensor<2>) -> Tensor<2> {
        let [b, _] = embedding.dims();
        let modulation = self.modulation.forward_by_row(embedding); // [b 6*c]
        let [shift_a, scale_a, gate_a, shift_f, scale_f, gate_f] = chunks(modulation);

        let y = kernel::modulate(x.clone(), shift_a, scale_a, NORM_EPS); // [b*n c]
        let (q, k, v) = (self.to_q.forward(y.clone()), self.to_k.forward(y.clone()), self.to_v.forward(y));
        let y = self.to_out.forward(kernel::attention(q, k, v, b, self.heads));
        let x = kernel::gated_add(x, y, gate_a);

        let y = kernel::modulate(x.clone(), shift_f, scale_f, FEED_FORWARD_NORM_EPS);
        let y = self.down.forward(kernel::gelu_tanh(self.up.forward(y)));
        kernel::gated_add(x, y, gate_f)
    }

    /// The linear layers on tokens, and the one on samples, with their names in a diffusers checkpoint and what each is computed in
    /// where `arithmetic` is asked for.
    pub(super) fn linears(
        &mut self,
        arithmetic: MatmulPrecision,
    ) -> [(&'static str, &mut Linear, MatmulPrecision); 7] {
        let Self { modulation, to_q, to_k, to_v, to_out, up, down, .. } = self;
        let layers = [
            ("modulation", modulation, arithmetic.of_samples()),
            ("to_q", to_q, arithmetic),
            ("to_k", to_k, arithmetic),
            ("to_v", to_v, arithmetic),
            ("to_out", to_out, arithmetic),
            ("up", up, arithmetic),
            ("down", down, arithmetic),
        ];
        layers.map(|(field, layer, arithmetic)| (Self::torch_part(field), layer, arithmetic))
    }

    /// The name in a diffusers checkpoint of the part that a field holds.
    pub(super) fn torch_part(field: &str) -> &str {
        match field {
            "modulation" => "norm1.linear",
            "to_q" => "attn1.to_q",
            "to_k" => "attn1.to_k",
            "to_v" => "attn1.to_v",
            "to_out" => "attn1.to_out.0",
            "up" => "ff.net.0.proj",
            "down" => "ff.net.2",
            other => other,
        }
    }
}

/// Splits `[b n*c]` into n equal parts `[b c]`.
pub(super) fn chunks<const N: usize>(x: Tensor<2>) -> [Tensor<2>; N] {
    let [b, width] = x.dims();
    let c = width / N;
    std::array::from_fn(|i| x.clone().slice([0..b, i * c..(i + 1) * c]))
}
