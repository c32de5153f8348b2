//! The perceptron that predicts the power spectrum of spectral sampling, (20) of the paper.

use super::TorchNames;
use super::linear::{Init, Initializer, Linear};
use crate::mixture::IsoGaussian;
use crate::{Error, Result, kernel, limits};
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// The most values of a spectrum that are taken for sense.
const LARGEST: usize = 1 << 28;

/// The shape of a [`SpectrumMlp`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpectrumMlpConfig {
    /// Channels, height and width of the spectrum that the last layer holds.
    pub base_size: [usize; 3],
    /// Widths of the hidden layers.
    #[serde(default = "default_layers")]
    pub layers: Vec<usize>,
}

fn default_layers() -> Vec<usize> {
    vec![64, 8]
}

impl SpectrumMlpConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        if self.base_size.contains(&0) {
            return Err(Error::config("base_size", "positive sizes", format!("{:?}", self.base_size)));
        }
        let values = self.base_size.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        if values.is_none_or(|n| n > LARGEST) {
            return Err(Error::config(
                "base_size",
                format!("at most {LARGEST} values"),
                format!("{:?}", self.base_size),
            ));
        }
        if self.layers.len() > limits::MOST_LAYERS {
            return Err(Error::config(
                "layers",
                format!("at most {} layers", limits::MOST_LAYERS),
                self.layers.len(),
            ));
        }
        if let Some(width) = self.layers.iter().find(|width| **width > limits::MOST_WIDTH) {
            return Err(Error::config("layers", format!("widths of at most {}", limits::MOST_WIDTH), width));
        }
        if self.layers.contains(&0) {
            return Err(Error::config("layers", "positive widths", format!("{:?}", self.layers)));
        }
        Ok(())
    }

    /// Draws the weights; the last layer is zero, which is the flat spectrum.
    pub fn init(&self, seed: u64, device: &Device) -> Result<SpectrumMlp> {
        self.build(Initializer::new(seed, device))
    }

    pub(crate) fn build(&self, mut init: Initializer) -> Result<SpectrumMlp> {
        self.validate()?;
        let mut fan_in = 2;
        let mut mlp = Vec::with_capacity(self.layers.len() + 1);
        for &width in &self.layers {
            mlp.push(init.linear(fan_in, width, Init::FanIn));
            fan_in = width;
        }
        mlp.push(init.linear(fan_in, self.base_size.iter().product(), Init::Zero));
        Ok(SpectrumMlp { mlp, config: self.clone() })
    }
}

/// Predicts, for every sample, the log power spectrum of the whitened image from two statistics of the prediction.
#[derive(Module, Debug)]
pub struct SpectrumMlp {
    mlp: Vec<Linear>,
    #[module(skip)]
    config: SpectrumMlpConfig,
}

impl SpectrumMlp {
    /// The network's shape.
    pub fn config(&self) -> &SpectrumMlpConfig {
        &self.config
    }

    /// Log spectrum `[b c h w]` for a surrogate of mean `[b c h w]`: over h and w, its exponential has mean 1 in every
    /// channel. Frequencies keep their index from either end of the base spectrum; a map larger than it repeats the
    /// base's highest frequency in between.
    ///
    /// # Panics
    /// Where c is not the first entry of `base_size`.
    pub fn forward(&self, surrogate: &IsoGaussian) -> Tensor<4> {
        let [b, c, h, w] = surrogate.mean.dims();
        let [base_c, base_h, base_w] = self.config.base_size;
        let hidden = self.mlp.split_last().map(|(last, rest)| {
            let hidden = rest.iter().fold(statistics(surrogate), |x, layer| kernel::silu(layer.forward_by_row(x)));
            last.forward_by_row(hidden)
        });
        let device = surrogate.mean.device();
        let log_power = hidden.unwrap_or_else(|| Tensor::zeros([b, base_c * base_h * base_w], &device));
        let mut log_power = log_power.reshape([b, base_c, base_h, base_w]);
        if h != base_h {
            log_power = log_power.select(2, frequency_rows(h, base_h, &device));
        }
        if w != base_w {
            log_power = log_power.select(3, frequency_rows(w, base_w, &device));
        }
        let normal = kernel::log_softmax(log_power.reshape([b * c, h * w, 1])) + ((h * w) as f64).ln();
        normal.reshape([b, c, h, w])
    }
}

/// The inputs `[b 2]`: the mean of the variance, and the channel mean of the unbiased spatial variance of the mean.
fn statistics(surrogate: &IsoGaussian) -> Tensor<2> {
    let [b, c, h, w] = surrogate.mean.dims();
    let [_, vc, vh, vw] = surrogate.var.dims();
    let var = surrogate.var.clone().reshape([b, vc * vh * vw]).mean_dim(1); // [b 1]
    let mean = surrogate.mean.clone().reshape([b * c, h * w]); // [b*c h*w]
    let centred = mean.clone() - mean.mean_dim(1);
    // A single pixel has no spatial variance; the divisor is bounded so that it reads as zero.
    let spread = centred.powi_scalar(2).sum_dim(1) / (h * w).saturating_sub(1).max(1) as f64; // [b*c 1]
    Tensor::cat(vec![var, spread.reshape([b, c]).mean_dim(1)], 1)
}

/// For each of `n` frequencies, its place along an axis of `base`: the first half counts from the front, the rest from
/// the back.
fn frequency_rows(n: usize, base: usize, device: &Device) -> Tensor<1, Int> {
    let front = n.div_ceil(2);
    let base_front = base.div_ceil(2);
    let place = |i: usize| {
        if i < front { i.min(base_front - 1) } else { (base + i).saturating_sub(n).max(base_front).min(base - 1) }
    };
    let rows: Vec<i64> = (0..n).map(|i| place(i) as i64).collect();
    Tensor::from_data(TensorData::new(rows, [n]), device)
}

impl TorchNames for SpectrumMlp {
    fn torch_name(path: &str) -> String {
        super::sequential(path, "mlp")
    }
}
