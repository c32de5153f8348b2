//! Networks that predict a velocity mixture at every pixel.

mod conv;
mod dit_block;
mod embedding;
mod gmdit;
mod gmdit_config;
mod linear;
mod mlp2d;
mod named;
mod spectrum;

pub(crate) use linear::Initializer;

pub use embedding::{point_features, time_features, token_positions};
pub use gmdit::GmDit;
pub use gmdit_config::GmDitConfig;
pub use mlp2d::{Mlp2d, Mlp2dConfig};
pub use named::{HostTensor, TorchNames, load_named, named_tensors, parameter_names};
pub use spectrum::{SpectrumMlp, SpectrumMlpConfig};

use crate::mixture::VelocityMixture;
use crate::{Error, Result};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

/// A network that predicts q(u | x_t).
pub trait Denoiser {
    /// Predicts at `x_t` `[b c h w]` and `t` `[b]` in [0, 1], conditioned on `class` `[b]` (the null class is the last
    /// row of the label table, and `None` means it for every sample) where the network has classes.
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture;
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
}

impl NetworkConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Mlp2d(config) => config.validate(),
            Self::GmDit(config) => config.validate(),
        }
    }

    /// Draws the weights: the same seed gives the same network on every device.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Network> {
        self.build(Initializer::new(seed, device))
    }

    pub(crate) fn build(&self, init: Initializer) -> Result<Network> {
        Ok(match self {
            Self::Mlp2d(config) => Network::Mlp2d(config.build(init)?),
            Self::GmDit(config) => Network::GmDit(config.build(init)?),
        })
    }

    /// Checks that the network takes and predicts samples of shape `[c h w]`.
    pub fn validate_data(&self, [c, h, w]: [usize; 3]) -> Result<()> {
        let (what, fits) = match self {
            Self::Mlp2d(_) => ("points: 2 channels, 1x1".to_owned(), [c, h, w] == [2, 1, 1]),
            Self::GmDit(net) => {
                let p = net.patch_size;
                let fits = c == net.in_channels
                    && c == net.out_channels()
                    && h > 0
                    && w > 0
                    && h.is_multiple_of(p)
                    && w.is_multiple_of(p);
                (format!("{} channels, multiples of {p} pixels", net.in_channels), fits)
            }
        };
        if fits { Ok(()) } else { Err(Error::config("data", what, format!("{c} channels, {h}x{w}"))) }
    }

    /// Mixture components K.
    pub fn num_gaussians(&self) -> usize {
        match self {
            Self::Mlp2d(config) => config.num_gaussians,
            Self::GmDit(config) => config.num_gaussians,
        }
    }
}

/// A network of either architecture.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Network {
    /// A perceptron on points in the plane.
    Mlp2d(Mlp2d),
    /// A diffusion transformer on images.
    GmDit(GmDit),
}

impl Network {
    /// The label that means "no class", where the network has classes.
    pub fn null_class(&self) -> Option<usize> {
        match self {
            Self::Mlp2d(_) => None,
            Self::GmDit(net) => Some(net.config().num_embeds_ada_norm),
        }
    }

    /// The architecture and its shape.
    pub fn config(&self) -> NetworkConfig {
        match self {
            Self::Mlp2d(net) => NetworkConfig::Mlp2d(net.config().clone()),
            Self::GmDit(net) => NetworkConfig::GmDit(net.config().clone()),
        }
    }
}

impl Denoiser for Network {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        match self {
            Self::Mlp2d(net) => net.forward(x_t, t, class),
            Self::GmDit(net) => net.forward(x_t, t, class),
        }
    }
}

/// Both architectures' names at once: their field names have nothing in common.
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

/// The same log standard deviation `[b 1 1 1 1]` for every sample.
fn constant_log_std(value: Option<f64>, b: usize, device: &Device) -> Tensor<5> {
    Tensor::full([b, 1, 1, 1, 1], value.unwrap_or(0.0), device)
}

fn at_least_one(field: &str, value: usize) -> Result<()> {
    if value == 0 { Err(Error::config(field, "at least 1", value)) } else { Ok(()) }
}

fn finite_log_std(value: Option<f64>) -> Result<()> {
    match value {
        Some(v) if !v.is_finite() => Err(Error::config("constant_logstd", "a finite number", v)),
        _ => Ok(()),
    }
}
