//! GM-DiT: a diffusion transformer whose output layer predicts a mixture at every pixel.

use super::dit_block::{DitBlock, NORM_EPS, chunks};
use super::embedding::{time_features, token_positions};
use super::gmdit_config::{GmDitConfig, GmDitHead};
use super::linear::{Init, Initializer, Linear};
use super::{Denoiser, TorchNames, log_std_head, predict_log_std};
use crate::kernel::MatmulPrecision;
use crate::mixture::{GaussianMixture, VelocityMixture};
use crate::{Result, kernel};
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Channels of the sinusoidal time features.
const TIME_CHANNELS: usize = 256;

/// A class-conditional diffusion transformer over patches, with a mixture head.
#[derive(Module, Debug)]
pub struct GmDit {
    patch_weight: Param<Tensor<4>>,
    patch_bias: Param<Tensor<1>>,
    time_1: Linear,
    time_2: Linear,
    labels: Param<Tensor<2>>,
    transformer_blocks: Vec<DitBlock>,
    proj_out_1: Linear,
    proj_out_2: Option<Linear>,
    proj_out_means: Option<Linear>,
    proj_out_logweights: Option<Linear>,
    log_std: Vec<Linear>,
    proj_out_logstds: Vec<Linear>,
    #[module(skip)]
    config: GmDitConfig,
}

impl GmDitConfig {
    /// Draws the weights.
    pub fn init(&self, seed: u64, device: &Device) -> Result<GmDit> {
        self.build(Initializer::new(seed, device))
    }

    pub(crate) fn build(&self, init: Initializer) -> Result<GmDit> {
        GmDit::new(self, init)
    }
}

impl GmDit {
    /// Draws the weights.
    pub(super) fn new(config: &GmDitConfig, mut init: Initializer) -> Result<Self> {
        config.validate()?;
        let (c, p) = (config.hidden(), config.patch_size);
        let patch_fan_in = config.in_channels * p * p;
        let blocks = (0..config.num_layers)
            .map(|_| DitBlock::new(config.num_attention_heads, config.attention_head_dim, &mut init))
            .collect();
        let two_parts = config.head == GmDitHead::TwoParts;
        Ok(Self {
            patch_weight: init.param([c, config.in_channels, p, p], Init::Xavier, [patch_fan_in, c]),
            patch_bias: init.param([c], Init::Zero, [patch_fan_in, c]),
            time_1: init.linear(TIME_CHANNELS, c, Init::Normal(0.02)),
            time_2: init.linear(c, c, Init::Normal(0.02)),
            labels: init.param([config.num_embeds_ada_norm + 1, c], Init::Normal(0.02), [c, c]),
            transformer_blocks: blocks,
            proj_out_1: init.linear(c, 2 * c, Init::Zero),
            // Not zero: equal components would have equal gradients and stay equal for ever.
            proj_out_2: (!two_parts).then(|| init.linear(c, p * p * config.head_channels(), Init::Xavier)),
            proj_out_means: two_parts.then(|| init.linear(c, p * p * config.mean_channels(), Init::Xavier)),
            proj_out_logweights: two_parts.then(|| init.linear(c, p * p * config.num_gaussians, Init::Xavier)),
            log_std: if two_parts { Vec::new() } else { log_std_head(&config.log_std_widths(), &mut init) },
            proj_out_logstds: if two_parts { log_std_head(&config.log_std_widths(), &mut init) } else { Vec::new() },
            config: config.clone(),
        })
    }

    /// The network's shape.
    pub fn config(&self) -> &GmDitConfig {
        &self.config
    }

    /// The linear layers of one block ([`DitBlock::linears`]), which is where the time goes.
    pub(super) fn block_linears(
        &mut self,
        index: usize,
        arithmetic: MatmulPrecision,
    ) -> impl Iterator<Item = (&'static str, &mut Linear, MatmulPrecision)> {
        let block = self.transformer_blocks.get_mut(index);
        block.into_iter().flat_map(move |block| block.linears(arithmetic))
    }

    /// Predicts with class dropout: `drop` `[layers + 1]` holds, for every block and for the output modulation, which
    /// samples of the batch see the null class there. The log-std head always sees the class. For tests that compare the network with the
    /// published one; training drops the class of a sample everywhere.
    #[doc(hidden)]
    pub fn forward_dropped(
        &self,
        x_t: Tensor<4>,
        t: Tensor<1>,
        class: Tensor<1, Int>,
        drop: &[Vec<bool>],
    ) -> VelocityMixture {
        let time = self.time_embedding(t);
        let conditional = time.clone() + self.labels.val().select(0, class);
        let null = time.clone() + self.null_label();
        let dropped: Vec<Tensor<2>> = drop
            .iter()
            .map(|mask| {
                let mask: Vec<f32> = mask.iter().map(|&dropped| f32::from(u8::from(dropped))).collect();
                let mask = Tensor::<2>::from_data(TensorData::new(mask.clone(), [mask.len(), 1]), &time.device());
                kernel::silu(null.clone() * mask.clone() + conditional.clone() * (1.0 - mask))
            })
            .collect();
        self.predict(x_t, conditional, |site| dropped[site].clone())
    }

    /// The sum of time and class embedding `[b c]` at `t` `[b]` in [0, 1].
    pub fn embedding(&self, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> Tensor<2> {
        let time = self.time_embedding(t);
        match class {
            Some(class) => time + self.labels.val().select(0, class),
            None => time + self.null_label(),
        }
    }

    /// Embedded patches plus the position table `[b*n c]` of images `[b c h w]`.
    pub fn tokens(&self, x_t: Tensor<4>) -> Tensor<2> {
        let [b, channels, h, w] = x_t.dims();
        let (p, c) = (self.config.patch_size, self.config.hidden());
        let (rows, columns) = (h / p, w / p);
        let base = (self.config.sample_size / p).max(1);
        let positions = token_positions([rows, columns], base, c, &x_t.device()); // [n c]
        let patches = x_t.reshape([b, channels, rows, p, columns, p]).permute([0, 2, 4, 1, 3, 5]);
        let patches = patches.reshape([b * rows * columns, channels * p * p]); // [b*n in*p*p]
        let weight = self.patch_weight.val().reshape([c, channels * p * p]);
        let tokens = kernel::linear(patches, weight, self.patch_bias.val()); // [b*n c]
        let tokens = tokens.reshape([b, rows * columns, c]) + positions.unsqueeze();
        tokens.reshape([b * rows * columns, c])
    }

    /// The last row `[1 c]` of the label table.
    fn null_label(&self) -> Tensor<2> {
        self.labels.val().narrow(0, self.config.num_embeds_ada_norm, 1)
    }

    fn time_embedding(&self, t: Tensor<1>) -> Tensor<2> {
        let features = time_features(t * self.config.time_scale, TIME_CHANNELS, 0.0); // [b 256]
        self.time_2.forward_by_row(kernel::silu(self.time_1.forward_by_row(features))) // [b c]
    }

    /// Runs the blocks, each on the activated embedding that `site` gives it, and the heads.
    fn predict(&self, x_t: Tensor<4>, embedding: Tensor<2>, site: impl Fn(usize) -> Tensor<2>) -> VelocityMixture {
        let size = x_t.dims();
        let mut x = self.tokens(x_t); // [b*n c]
        for (i, block) in self.transformer_blocks.iter().enumerate() {
            x = block.forward(x, site(i));
        }
        let [shift, scale] = chunks(self.proj_out_1.forward_by_row(site(self.transformer_blocks.len())));
        let x = kernel::modulate(x, shift, scale, NORM_EPS);
        let (k, c) = (self.config.num_gaussians, self.config.out_channels());
        let [b, _, h, w] = size;
        let pixels = |layer: &Option<Linear>, channels| {
            let x = layer.as_ref().map(|layer| layer.forward(x.clone())); // [b*n p*p*channels]
            x.map(|x| self.unpatched(x, channels, size))
        };
        let (means, logits) = match pixels(&self.proj_out_2, self.config.head_channels()) {
            Some(x) if self.config.head == GmDitHead::Means => (Some(x), None),
            Some(x) => {
                let logits = x.clone().slice([0..b, k * c..k * c + k]);
                (Some(x.slice([0..b, 0..k * c])), Some(logits))
            }
            None => (pixels(&self.proj_out_means, k * c), pixels(&self.proj_out_logweights, k)),
        };
        let device = embedding.device();
        let means =
            means.map_or_else(|| Tensor::zeros([b, k, c, h, w], &device), |means| means.reshape([b, k, c, h, w]));
        let log_weights = match logits {
            Some(logits) => kernel::log_softmax(logits.reshape([b, k, h * w])).reshape([b, k, 1, h, w]),
            None => Tensor::full([b, k, 1, h, w], -(k as f64).ln(), &device),
        };
        let layers = if self.proj_out_logstds.is_empty() { &self.log_std } else { &self.proj_out_logstds };
        let log_std = predict_log_std(layers, self.config.constant_logstd, embedding);
        VelocityMixture(GaussianMixture { means, log_weights, log_std })
    }

    /// Rows of patches `[b*n p*p*channels]` as images `[b channels h w]`.
    fn unpatched(&self, x: Tensor<2>, channels: usize, [b, _, h, w]: [usize; 4]) -> Tensor<4> {
        let p = self.config.patch_size;
        let x = x.reshape([b, h / p, w / p, p, p, channels]).permute([0, 5, 1, 3, 2, 4]);
        x.reshape([b, channels, h, w])
    }
}

impl Denoiser for GmDit {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        let embedding = self.embedding(t, class); // [b c]
        let activated = kernel::silu(embedding.clone());
        self.predict(x_t, embedding, |_| activated.clone())
    }

    fn null_class(&self) -> Option<usize> {
        Some(self.config.num_embeds_ada_norm)
    }
}

impl TorchNames for GmDit {
    fn torch_name(path: &str) -> String {
        let parts: Vec<&str> = path.split('.').collect();
        match parts.as_slice() {
            ["patch_weight"] => "pos_embed.proj.weight".into(),
            ["patch_bias"] => "pos_embed.proj.bias".into(),
            ["time_1", leaf] => format!("emb.timestep_embedder.linear_1.{leaf}"),
            ["time_2", leaf] => format!("emb.timestep_embedder.linear_2.{leaf}"),
            ["labels"] => "emb.class_embedder.embedding_table.weight".into(),
            ["transformer_blocks", index, field, leaf] => {
                format!("transformer_blocks.{index}.{}.{leaf}", DitBlock::torch_part(field))
            }
            // A `Sequential` with an activation before every linear map.
            ["proj_out_logstds", index, leaf] => match index.parse::<usize>() {
                Ok(i) => format!("proj_out_logstds.{}.{leaf}", 2 * i + 1),
                Err(_) => path.into(),
            },
            _ => super::log_std_name(path),
        }
    }
}
