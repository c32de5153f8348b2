//! The perceptron that learns densities in the plane.

use super::embedding::{point_features, time_features};
use super::linear::{Init, Initializer, Linear};
use super::{Denoiser, TorchNames, constant_log_std};
use crate::mixture::{GaussianMixture, VelocityMixture};
use crate::{Error, Result, kernel, limits};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

/// The shape of an [`Mlp2d`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mlp2dConfig {
    /// Mixture components K.
    pub num_gaussians: usize,
    /// Shortest period of the position features.
    pub pos_min_period: f64,
    /// Longest period of the position features.
    pub pos_max_period: f64,
    /// Channels of the time features, and of the position features; a multiple of 4.
    pub embed_dim: usize,
    /// Width of the hidden layers.
    pub hidden_dim: usize,
    /// Hidden layers.
    pub num_layers: usize,
    /// Fixes the log standard deviation instead of predicting it.
    pub constant_logstd: Option<f64>,
    /// Standard deviation of the means' biases before training. Above 0 the components start apart and more of them
    /// are used in the end; 0 is the published start, where they lie close together.
    pub mean_spread: f64,
}

impl Default for Mlp2dConfig {
    fn default() -> Self {
        Self {
            num_gaussians: 32,
            pos_min_period: 0.005,
            pos_max_period: 50.0,
            embed_dim: 256,
            hidden_dim: 512,
            num_layers: 5,
            constant_logstd: None,
            mean_spread: 0.0,
        }
    }
}

impl Mlp2dConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        limits::count("num_gaussians", self.num_gaussians, limits::MOST_WIDTH)?;
        limits::count("hidden_dim", self.hidden_dim, limits::MOST_WIDTH)?;
        limits::count("num_layers", self.num_layers, limits::MOST_LAYERS)?;
        if !(4..=limits::MOST_WIDTH).contains(&self.embed_dim) || !self.embed_dim.is_multiple_of(4) {
            let expected = format!("a multiple of 4 up to {}", limits::MOST_WIDTH);
            return Err(Error::config("embed_dim", expected, self.embed_dim));
        }
        if !(self.pos_min_period > 0.0 && self.pos_min_period.is_finite()) {
            return Err(Error::config("pos_min_period", "a positive number", self.pos_min_period));
        }
        if !(self.pos_max_period >= self.pos_min_period && self.pos_max_period.is_finite()) {
            return Err(Error::config("pos_max_period", "at least pos_min_period", self.pos_max_period));
        }
        if !(self.mean_spread >= 0.0 && self.mean_spread.is_finite()) {
            return Err(Error::config("mean_spread", "a number of at least 0", self.mean_spread));
        }
        super::finite_log_std(self.constant_logstd)
    }

    /// Draws the weights.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Mlp2d> {
        self.build(Initializer::new(seed, device))
    }

    pub(crate) fn build(&self, mut init: Initializer) -> Result<Mlp2d> {
        self.validate()?;
        let mut net = vec![init.linear(2 * self.embed_dim, self.hidden_dim, Init::FanIn)];
        for _ in 1..self.num_layers {
            net.push(init.linear(self.hidden_dim, self.hidden_dim, Init::FanIn));
        }
        let spread = if self.mean_spread > 0.0 { Init::Normal(self.mean_spread as f32) } else { Init::FanIn };
        Ok(Mlp2d {
            net,
            out_means: init.linear_with_bias(self.hidden_dim, 2 * self.num_gaussians, Init::FanIn, spread),
            out_logweights: init.linear(self.hidden_dim, self.num_gaussians, Init::FanIn),
            out_logstds: self.constant_logstd.is_none().then(|| init.linear(self.hidden_dim, 1, Init::FanIn)),
            config: self.clone(),
        })
    }
}

/// A perceptron over sinusoidal features of time and position; points are images of one pixel with two channels.
#[derive(Module, Debug)]
pub struct Mlp2d {
    net: Vec<Linear>,
    out_means: Linear,
    out_logweights: Linear,
    out_logstds: Option<Linear>,
    #[module(skip)]
    config: Mlp2dConfig,
}

impl Mlp2d {
    /// The network's shape.
    pub fn config(&self) -> &Mlp2dConfig {
        &self.config
    }

    /// All layers but the one that predicts the standard deviation.
    pub(super) fn heavy_linears(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.net.iter_mut().chain([&mut self.out_means, &mut self.out_logweights])
    }
}

impl Denoiser for Mlp2d {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, _class: Option<Tensor<1, Int>>) -> VelocityMixture {
        let [b, _, _, _] = x_t.dims(); // [b 2 1 1]
        let (k, config) = (self.config.num_gaussians, &self.config);
        let time = time_features(t * 1000.0, config.embed_dim, 1.0);
        let points =
            point_features(x_t.reshape([b, 2]), config.embed_dim, config.pos_min_period, config.pos_max_period);
        let input = Tensor::cat(vec![time, points], 1); // [b 2*embed_dim]
        let hidden = self.net.iter().fold(input, |x, layer| kernel::silu(layer.forward(x)));
        let log_weights = kernel::log_softmax(self.out_logweights.forward(hidden.clone()).unsqueeze_dim(2)); // [b k 1]
        let means = self.out_means.forward(hidden.clone()); // [b k*2]
        let log_std = match &self.out_logstds {
            Some(layer) => layer.forward(hidden).reshape([b, 1, 1, 1, 1]),
            None => constant_log_std(config.constant_logstd, b, &means.device()),
        };
        VelocityMixture(GaussianMixture {
            means: means.reshape([b, k, 2, 1, 1]),
            log_weights: log_weights.reshape([b, k, 1, 1, 1]),
            log_std,
        })
    }
}

impl TorchNames for Mlp2d {
    fn torch_name(path: &str) -> String {
        super::sequential(path, "net")
    }
}
