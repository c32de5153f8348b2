//! Networks that predict a velocity mixture at every pixel.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::network::{Denoiser, GmDitConfig, NetworkConfig};
//!
//! let config = GmDitConfig {
//!     num_gaussians: 4,
//!     num_attention_heads: 1,
//!     attention_head_dim: 16,
//!     num_layers: 1,
//!     sample_size: 8,
//!     patch_size: 2,
//!     in_channels: 3,
//!     num_embeds_ada_norm: 10,
//!     ..GmDitConfig::default()
//! };
//! let device = Device::flex();
//! let network = NetworkConfig::GmDit(config).init(0, &device)?;
//! let (x_t, t) = (Tensor::<4>::zeros([2, 3, 8, 8], &device), Tensor::<1>::full([2], 0.5, &device));
//! let velocity = network.forward(x_t, t, None).0;
//! assert_eq!(velocity.means.dims(), [2, 4, 3, 8, 8]);
//! assert_eq!(velocity.log_weights.dims(), [2, 4, 1, 8, 8]);
//! assert_eq!(network.null_class(), Some(10));
//! # Ok::<(), gmflow::Error>(())
//! ```

mod autoencoder;
mod conv;
mod dit_block;
mod embedding;
mod gmdit;
mod gmdit_config;
mod linear;
mod mlp2d;
mod named;
mod spectrum;
mod unet;
mod unet_blocks;
mod unet_config;

pub(crate) use linear::Initializer;
use linear::{Init, Linear};

pub use autoencoder::{Autoencoder, AutoencoderConfig, LatentDistribution, LatentInfo, Tiling};
pub use embedding::{point_features, time_features, token_positions};
pub use gmdit::GmDit;
pub use gmdit_config::{GmDitConfig, GmDitHead};
pub use mlp2d::{Mlp2d, Mlp2dConfig};
pub(crate) use named::load_packed;
pub use named::{
    HostTensor, LazyTensor, TensorSource, TorchNames, lazy_tensors, load_named, named_tensors, parameter_names,
    parameter_shapes,
};
pub use spectrum::{SpectrumMlp, SpectrumMlpConfig};
pub use unet::Unet;
pub use unet_config::UnetConfig;

use crate::kernel::{MatmulPrecision, PrecisionChoice};
use crate::mixture::VelocityMixture;
use crate::{Error, Result, kernel, limits};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A network that predicts q(u | x_t). [`Network`] is one of the built-in ones; a [`Pipeline`](crate::pipeline::Pipeline) samples from
/// any other, and a [`LossConfig`](crate::loss::LossConfig) trains it. Samples may be drawn on several threads at once, which share it.
pub trait Denoiser: Send + Sync {
    /// Predicts at `x_t` `[b c h w]` and `t` `[b]` in [0, 1], conditioned on `class` `[b]` (the null class is the last
    /// row of the label table, and `None` means it for every sample) where the network has classes.
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture;

    /// The label that means "no class", which is the number of classes; `None` where the network has no classes.
    fn null_class(&self) -> Option<usize> {
        None
    }
}

/// A network in training: where it has dropout, each sample's values are dropped as its key says. [`Network`] itself drops nothing.
#[derive(Clone, Debug)]
pub struct InTraining<'a> {
    network: &'a Network,
    keys: Arc<[u64]>,
}

impl Denoiser for InTraining<'_> {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        match self.network {
            Network::Unet(net) => net.predict(x_t, t, class, Some(self.keys.clone())),
            Network::Mlp2d(_) | Network::GmDit(_) => self.network.forward(x_t, t, class),
        }
    }

    fn null_class(&self) -> Option<usize> {
        self.network.null_class()
    }
}

/// The architecture of a network and its shape; `type` tells which in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum NetworkConfig {
    /// A perceptron on points in the plane.
    #[serde(rename = "mlp2d")]
    Mlp2d(Mlp2dConfig),
    /// A diffusion transformer on images.
    #[serde(rename = "gm-dit")]
    GmDit(GmDitConfig),
    /// A convolutional network on images.
    #[serde(rename = "unet")]
    Unet(UnetConfig),
}

impl NetworkConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Mlp2d(config) => config.validate(),
            Self::GmDit(config) => config.validate(),
            Self::Unet(config) => config.validate(),
        }
    }

    /// The numbers that samples are drawn in: of [`PrecisionChoice::Auto`] the fastest floats of the device. U-Nets draw in f32, since their
    /// convolutions in bf16 lose more than other layers and no measurement of their samples has shown that it does not matter.
    pub fn for_sampling(&self, asked: PrecisionChoice, device: &Device) -> MatmulPrecision {
        asked.asked().unwrap_or_else(|| match self {
            Self::Unet(_) => MatmulPrecision::F32,
            Self::GmDit(_) | Self::Mlp2d(_) => self.computed_in(kernel::fastest_floats(device), device).0,
        })
    }

    /// The same for training. U-Nets train in bf16 wherever the device computes in it: their convolutions then pass over memory fewer times,
    /// which makes them faster even where products in bf16 are not.
    pub fn for_training(&self, asked: PrecisionChoice, device: &Device) -> MatmulPrecision {
        asked.asked().unwrap_or_else(|| {
            let fastest = match self {
                Self::Unet(_) => MatmulPrecision::Bf16,
                Self::GmDit(_) | Self::Mlp2d(_) => kernel::fastest_floats(device),
            };
            self.computed_in(fastest, device).0
        })
    }

    /// What a network of this shape is computed in on a device: what is asked for, or f32 and why it is not that.
    pub fn computed_in(&self, asked: MatmulPrecision, device: &Device) -> (MatmulPrecision, Option<&'static str>) {
        let concerned = match self {
            Self::GmDit(_) => true,
            Self::Mlp2d(config) => config.num_layers > 1,
            // On a GPU convolutions are the tensor library's, in f32.
            Self::Unet(_) => asked == MatmulPrecision::Bf16 && kernel::on_cpu(device),
        };
        if asked == MatmulPrecision::F32 || concerned && asked.is_available_on(device) {
            return (asked, None);
        }
        let why = match asked {
            _ if !concerned => "this network has no layers for it",
            MatmulPrecision::Int8 if kernel::on_cpu(device) => "this processor has no AVX512-VNNI",
            MatmulPrecision::Int8 => "there are no products of 8-bit integers on this device",
            _ if kernel::on_cpu(device) => "this processor has no AVX512-BF16",
            _ => "this device has no bf16",
        };
        (MatmulPrecision::F32, Some(why))
    }

    /// Draws the weights: the same seed gives the same network on every device.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Network> {
        self.build(Initializer::new(seed, device))
    }

    pub(crate) fn build(&self, init: Initializer) -> Result<Network> {
        Ok(match self {
            Self::Mlp2d(config) => Network::Mlp2d(config.build(init)?),
            Self::GmDit(config) => Network::GmDit(config.build(init)?),
            Self::Unet(config) => Network::Unet(config.build(init)?),
        })
    }

    /// Checks that the network takes and predicts samples of shape `[c h w]`.
    pub fn validate_data(&self, [c, h, w]: [usize; 3]) -> Result<()> {
        let images = |channels: usize, out_channels: usize, p: usize| {
            let fits = c == channels && c == out_channels && h > 0 && w > 0;
            (
                format!("{channels} channels, multiples of {p} pixels"),
                fits && h.is_multiple_of(p) && w.is_multiple_of(p),
            )
        };
        let (what, fits) = match self {
            Self::Mlp2d(_) => ("points: 2 channels, 1x1".to_owned(), [c, h, w] == [2, 1, 1]),
            Self::GmDit(net) => images(net.in_channels, net.out_channels(), net.patch_size),
            Self::Unet(net) => images(net.in_channels, net.out_channels(), net.scale()),
        };
        if fits { Ok(()) } else { Err(Error::config("data", what, format!("{c} channels, {h}x{w}"))) }
    }

    /// Channels of a sample, and the height and width that the network is laid out for.
    pub fn sample_shape(&self) -> (usize, usize) {
        match self {
            Self::Mlp2d(_) => (2, 1),
            Self::GmDit(config) => (config.in_channels, config.sample_size),
            Self::Unet(config) => (config.in_channels, config.sample_size),
        }
    }

    /// What `type` says in a file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mlp2d(_) => "mlp2d",
            Self::GmDit(_) => "gm-dit",
            Self::Unet(_) => "unet",
        }
    }

    /// Mixture components K.
    pub fn num_gaussians(&self) -> usize {
        match self {
            Self::Mlp2d(config) => config.num_gaussians,
            Self::GmDit(config) => config.num_gaussians,
            Self::Unet(config) => config.num_gaussians,
        }
    }

    /// Classes besides the null class; 0 where the network has none.
    pub fn num_classes(&self) -> usize {
        match self {
            Self::Mlp2d(_) => 0,
            Self::GmDit(config) => config.num_embeds_ada_norm,
            Self::Unet(config) => config.num_classes,
        }
    }

    /// The field that [`NetworkConfig::num_classes`] is read from.
    pub fn num_classes_field(&self) -> &'static str {
        if matches!(self, Self::GmDit(_)) { "num_embeds_ada_norm" } else { "num_classes" }
    }
}

/// A network of any architecture.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Network {
    /// A perceptron on points in the plane.
    Mlp2d(Mlp2d),
    /// A diffusion transformer on images.
    GmDit(GmDit),
    /// A convolutional network on images.
    Unet(Unet),
}

impl Network {
    /// The label that means "no class", where the network has classes.
    pub fn null_class(&self) -> Option<usize> {
        match self {
            Self::Mlp2d(net) => net.null_class(),
            Self::GmDit(net) => net.null_class(),
            Self::Unet(net) => net.null_class(),
        }
    }

    /// Computes the linear layers of transformer blocks, those of a perceptron but for the standard deviation's, and the convolutions and
    /// linear layers of a U-Net's blocks in this arithmetic, gradients too; the first and last layers of transformers and U-Nets, embeddings,
    /// norms, attention and everything after the network stay in f32. Without the instructions for it f32 remains, as it does for int8,
    /// which has no gradients.
    pub fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        if let Self::Unet(net) = self {
            net.compute_in(arithmetic);
        }
        self.heavy_linears(arithmetic, |layer, arithmetic| layer.compute_in(arithmetic));
    }

    /// Makes the network ready for many predictions: the weights of the same layers are packed in the order in which products read
    /// them, and in bf16 halved, in int8 quartered (but for what modulates norms, which takes bf16), where the processor has AVX-512, for
    /// bf16 AVX512-BF16 and for int8 AVX512-VNNI; otherwise f32 remains, or nothing changes. On a GPU only bf16 changes anything. The
    /// network can then neither be trained nor saved. A U-Net has nothing to pack: it computes in bf16 where that is asked for.
    pub fn pack(&mut self, arithmetic: MatmulPrecision) {
        if let Self::Unet(net) = self {
            net.compute_in(arithmetic);
        }
        self.heavy_linears(arithmetic, |layer, arithmetic| layer.pack(arithmetic));
    }

    /// The samples of a forward and backward pass beyond which training on this device gets slower, where there is such a number: on the
    /// CPU so many points that what a perceptron's layers hold for the way back stays in the last-level cache.
    pub fn fastest_pass(&self, device: &Device) -> Option<usize> {
        match self {
            Self::Mlp2d(net) if kernel::on_cpu(device) => Some(limits::fastest_pass_of_points(net.config())),
            Self::Mlp2d(_) | Self::GmDit(_) | Self::Unet(_) => None,
        }
    }

    /// The paths that the parameters of each block start with.
    fn block_paths(&self) -> Vec<String> {
        match self {
            Self::GmDit(net) => (0..net.config().num_layers).map(|i| format!("transformer_blocks.{i}.")).collect(),
            Self::Mlp2d(_) | Self::Unet(_) => Vec::new(),
        }
    }

    fn pack_block(&mut self, index: usize, arithmetic: MatmulPrecision) {
        if let Self::GmDit(net) = self {
            net.block_linears(index, arithmetic).for_each(|(_, layer, arithmetic)| layer.pack(arithmetic));
        }
    }

    /// The same of the layers whose weights are stored in bf16, from there.
    fn pack_stored(&mut self, index: usize, arithmetic: MatmulPrecision, tensors: &mut impl TensorSource) {
        if let Self::GmDit(net) = self {
            for (part, layer, arithmetic) in net.block_linears(index, arithmetic) {
                layer.pack_stored(&format!("transformer_blocks.{index}.{part}"), arithmetic, tensors);
            }
        }
    }

    /// Calls `f` on the layers where the time goes, with what each is computed in.
    fn heavy_linears(&mut self, arithmetic: MatmulPrecision, mut f: impl FnMut(&mut Linear, MatmulPrecision)) {
        match self {
            Self::Mlp2d(net) => net.heavy_linears().for_each(|layer| f(layer, arithmetic)),
            Self::GmDit(net) => (0..net.config().num_layers).for_each(|index| {
                net.block_linears(index, arithmetic).for_each(|(_, layer, arithmetic)| f(layer, arithmetic));
            }),
            Self::Unet(_) => {}
        }
    }

    /// The network for a step of training, with a key for each sample of the batch, from which its dropout is drawn.
    pub fn in_training(&self, keys: Vec<u64>) -> InTraining<'_> {
        InTraining { network: self, keys: keys.into() }
    }

    /// The architecture and its shape.
    pub fn config(&self) -> NetworkConfig {
        match self {
            Self::Mlp2d(net) => NetworkConfig::Mlp2d(net.config().clone()),
            Self::GmDit(net) => NetworkConfig::GmDit(net.config().clone()),
            Self::Unet(net) => NetworkConfig::Unet(net.config().clone()),
        }
    }
}

impl Denoiser for Network {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        match self {
            Self::Mlp2d(net) => net.forward(x_t, t, class),
            Self::GmDit(net) => net.forward(x_t, t, class),
            Self::Unet(net) => net.forward(x_t, t, class),
        }
    }

    fn null_class(&self) -> Option<usize> {
        Network::null_class(self)
    }
}

/// All architectures' names at once: field names that two of them share, those of the log-std head, have the same name there.
impl TorchNames for Network {
    fn torch_name(path: &str) -> String {
        if path.starts_with("net.") { Mlp2d::torch_name(path) } else { GmDit::torch_name(path) }
    }
}

/// Renames the layers of a PyTorch `Sequential` in which an activation stands between two linear maps.
fn sequential(path: &str, field: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match parts.as_slice() {
        [first, index, leaf] if *first == field => match index.parse::<usize>() {
            Ok(i) => format!("{field}.{}.{leaf}", 2 * i),
            Err(_) => path.into(),
        },
        _ => path.into(),
    }
}

/// Inputs and outputs of each layer of a log-std head; none where the log standard deviation is constant.
fn log_std_widths(constant: Option<f64>, embedding: usize, inner: usize, layers: usize) -> Vec<[usize; 2]> {
    if constant.is_some() {
        return Vec::new();
    }
    let last = layers.saturating_sub(1);
    (0..=last).map(|i| [if i == 0 { embedding } else { inner }, if i == last { 1 } else { inner }]).collect()
}

/// Draws a log-std head. Only the last layer is zero: behind an all-zero hidden layer nothing but its bias would ever move.
fn log_std_head(widths: &[[usize; 2]], init: &mut Initializer) -> Vec<Linear> {
    let last = widths.len().saturating_sub(1);
    let kind = |i: usize| if i == last { Init::Zero } else { Init::Xavier };
    widths.iter().enumerate().map(|(i, &[fan_in, fan_out])| init.linear(fan_in, fan_out, kind(i))).collect()
}

/// The log standard deviation `[b 1 1 1 1]` from the embedding `[b e]`, which it sends no gradient to.
fn predict_log_std(layers: &[Linear], constant: Option<f64>, embedding: Tensor<2>) -> Tensor<5> {
    let [b, _] = embedding.dims();
    if layers.is_empty() {
        return constant_log_std(constant, b, &embedding.device());
    }
    let hidden = layers.iter().fold(embedding.detach(), |x, layer| layer.forward_by_row(kernel::silu(x)));
    hidden.reshape([b, 1, 1, 1, 1])
}

/// The checkpoint's name of a log-std head's parameter; other paths as they are.
fn log_std_name(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    match parts.as_slice() {
        ["log_std", index, leaf] => {
            let position = index.parse::<usize>().map_or_else(|_| index.to_string(), |i| (2 * i + 1).to_string());
            format!("gm_out.logstd_layers.{position}.{leaf}")
        }
        _ => path.into(),
    }
}

/// The same log standard deviation `[b 1 1 1 1]` for every sample.
fn constant_log_std(value: Option<f64>, b: usize, device: &Device) -> Tensor<5> {
    Tensor::full([b, 1, 1, 1, 1], value.unwrap_or(0.0), device)
}

fn finite_log_std(value: Option<f64>) -> Result<()> {
    match value {
        Some(v) if !v.is_finite() => Err(Error::config("constant_logstd", "a finite number", v)),
        _ => Ok(()),
    }
}
