//! What is kept of a step: the sample, the prediction, the mixtures.

use crate::refusal::{Answer, Refusal};
use gmflow::mixture::GaussianMixture;
use gmflow::samples::Picture;
use gmflow_files::to_byte;
use serde_json::{Value, json};
use std::ops::Range;

/// Latents of unit variance are shown from minus this, black, to this, white.
const LATENT_RANGE: f32 = 3.0;

/// What is kept of a step of some samples.
#[derive(Debug)]
pub(crate) struct StepTrace {
    pub step: usize,
    pub t: f64,
    /// The first sample.
    pub first: usize,
    pub count: usize,
    /// `[c h w]` of x and of the mixtures.
    pub shape: [usize; 3],
    /// `[c h w]` of x0, which are images where they were decoded.
    pub x0_shape: [usize; 3],
    /// Whether x0 and x are latents, which are no pictures by themselves.
    pub latents: [bool; 2],
    /// `[count c h w]`.
    pub x0: Option<Vec<f32>>,
    pub x: Option<Vec<f32>>,
    pub mixture: Option<Mixture>,
}

/// Mixtures over x0 of some samples, on the host.
#[derive(Debug)]
pub(crate) struct Mixture {
    pub k: usize,
    /// `[n k c p]`.
    means: Vec<f32>,
    /// `[n k p]`.
    log_weights: Vec<f32>,
    /// `[n 1 or k, 1 or p]`.
    log_std: Vec<f32>,
    /// Which of k and p the standard deviations have.
    std_axes: [bool; 2],
    /// `[n c p]`: samples, channels, pixels.
    size: [usize; 3],
}

/// The mixture of one pixel.
#[derive(Debug)]
pub(crate) struct PixelMixture {
    pub weights: Vec<f32>,
    /// A list of channels for each component.
    pub means: Vec<Vec<f32>>,
    pub std: Vec<f32>,
}

/// The values of a tensor, on the host.
pub(crate) fn values<const D: usize>(tensor: &burn::tensor::Tensor<D>) -> Vec<f32> {
    tensor.clone().into_data().iter::<f32>().collect()
}

impl Mixture {
    /// Takes mixtures `[n k c h w]`.
    pub fn of(mixture: &GaussianMixture) -> Self {
        let [n, k, c, h, w] = mixture.means.dims();
        let [_, of_k, _, of_h, of_w] = mixture.log_std.dims();
        let log_std = match (of_h, of_w) {
            (1, 1) => values(&mixture.log_std),
            // A standard deviation for each pixel has both axes.
            _ => values(&mixture.log_std.clone().expand([n, of_k, 1, h, w])),
        };
        Self {
            k,
            means: values(&mixture.means),
            log_weights: values(&mixture.log_weights),
            log_std,
            std_axes: [of_k > 1, of_h * of_w > 1],
            size: [n, c, h * w],
        }
    }

    fn weight(&self, sample: usize, k: usize, pixel: usize) -> f32 {
        self.log_weights.get((sample * self.k + k) * self.size[2] + pixel).map_or(0.0, |weight| weight.exp())
    }

    fn mean(&self, sample: usize, k: usize, channel: usize, pixel: usize) -> f32 {
        let [_, c, p] = self.size;
        self.means.get(((sample * self.k + k) * c + channel) * p + pixel).copied().unwrap_or_default()
    }

    fn log_std(&self, sample: usize, k: usize, pixel: usize) -> f32 {
        let [by_k, by_pixel] = self.std_axes;
        let (components, pixels) = (if by_k { self.k } else { 1 }, if by_pixel { self.size[2] } else { 1 });
        let (k, pixel) = (if by_k { k } else { 0 }, if by_pixel { pixel } else { 0 });
        self.log_std.get((sample * components + k) * pixels + pixel).copied().unwrap_or_default()
    }

    /// The entropy of a pixel's weights in nats.
    fn entropy(&self, sample: usize, pixel: usize) -> f32 {
        let term = |k: usize| {
            let weight = self.weight(sample, k, pixel);
            if weight > 0.0 { -weight * weight.ln() } else { 0.0 }
        };
        (0..self.k).map(term).sum::<f32>().max(0.0)
    }

    /// The mixture of a pixel.
    pub fn pixel(&self, sample: usize, pixel: usize) -> PixelMixture {
        let c = self.size[1];
        let weights: Vec<f32> = (0..self.k).map(|k| self.weight(sample, k, pixel)).collect();
        let means = (0..self.k).map(|k| (0..c).map(|channel| self.mean(sample, k, channel, pixel)).collect());
        PixelMixture {
            weights,
            means: means.collect(),
            std: (0..self.k).map(|k| self.log_std(sample, k, pixel).exp()).collect(),
        }
    }

    /// Means over the pixels of a sample: entropy, its exponential, and the log standard deviation.
    pub fn summary(&self, sample: usize) -> [f64; 3] {
        let pixels = self.size[2];
        let mut sums = [0.0; 3];
        for pixel in 0..pixels {
            let entropy = f64::from(self.entropy(sample, pixel));
            sums[0] += entropy;
            sums[1] += entropy.exp();
            sums[2] += (0..self.k)
                .map(|k| f64::from(self.weight(sample, k, pixel) * self.log_std(sample, k, pixel)))
                .sum::<f64>();
        }
        sums.map(|sum| sum / pixels.max(1) as f64)
    }

    fn bytes(&self) -> usize {
        (self.means.len() + self.log_weights.len() + self.log_std.len()) * size_of::<f32>()
    }
}

impl PixelMixture {
    /// The mean and the variance of every channel.
    pub fn moments(&self) -> [Vec<f64>; 2] {
        let channels = self.means.first().map_or(0, Vec::len);
        let sum = |f: &dyn Fn(usize) -> f64| {
            self.weights.iter().enumerate().map(|(k, weight)| f64::from(*weight) * f(k)).sum::<f64>()
        };
        let value = |k: usize, channel: usize| {
            self.means.get(k).and_then(|means| means.get(channel)).map_or(0.0, |mean| f64::from(*mean))
        };
        let std = |k: usize| self.std.get(k).map_or(0.0, |std| f64::from(*std));
        let mean: Vec<f64> = (0..channels).map(|channel| sum(&|k| value(k, channel))).collect();
        let variance = mean.iter().enumerate();
        let variance =
            variance.map(|(channel, mean)| sum(&|k| std(k).powi(2) + (value(k, channel) - mean).powi(2))).collect();
        [mean, variance]
    }

    /// The density at a point.
    pub fn density(&self, at: &[f64]) -> f64 {
        let parts = self.weights.iter().zip(&self.means).zip(&self.std);
        parts
            .map(|((weight, mean), std)| {
                let std = f64::from(*std).max(1e-12);
                let squares: f64 = mean.iter().zip(at).map(|(mean, at)| (at - f64::from(*mean)).powi(2)).sum();
                let scale = (std::f64::consts::TAU.sqrt() * std).powi(at.len() as i32);
                f64::from(*weight) * (-0.5 * squares / (std * std)).exp() / scale
            })
            .sum()
    }
}

impl StepTrace {
    /// The samples that it is about.
    pub fn samples(&self) -> Range<usize> {
        self.first..self.first + self.count
    }

    pub fn bytes(&self) -> usize {
        let values = [&self.x0, &self.x].into_iter().flatten().map(Vec::len).sum::<usize>();
        values * size_of::<f32>() + self.mixture.as_ref().map_or(0, Mixture::bytes)
    }

    /// The values of a sample's plane.
    fn plane<'a>(&'a self, values: &'a Option<Vec<f32>>, sample: usize, shape: [usize; 3]) -> Answer<&'a [f32]> {
        let size: usize = shape.iter().product();
        let index = sample.saturating_sub(self.first);
        let values = values.as_ref().and_then(|values| values.get(index * size..(index + 1) * size));
        values.ok_or_else(|| Refusal::not_found("this plane of the step was not traced: trace.planes names what is"))
    }

    pub fn x0_of(&self, sample: usize) -> Answer<&[f32]> {
        self.plane(&self.x0, sample, self.x0_shape)
    }

    pub fn x_of(&self, sample: usize) -> Answer<&[f32]> {
        self.plane(&self.x, sample, self.shape)
    }

    /// The mixtures, and the sample's index in them.
    pub fn mixture_of(&self, sample: usize) -> Answer<(&Mixture, usize)> {
        let missing = || {
            Refusal::not_found("no mixture of this step was traced: it is the last, or trace.planes has no mixture")
        };
        self.mixture.as_ref().map(|mixture| (mixture, sample.saturating_sub(self.first))).ok_or_else(missing)
    }

    /// A picture by its name: `x0`, `x`, `entropy`, `weight-k` or `component-k`.
    pub fn picture(&self, name: &str, sample: usize) -> Answer<Picture> {
        match name {
            "x0" => return shown(self.x0_of(sample)?, self.x0_shape, self.latents[0]),
            "x" => return shown(self.x_of(sample)?, self.shape, self.latents[1]),
            _ => {}
        }
        let unknown =
            || Refusal::not_found(format!("no picture {name}: there are x0, x, entropy, weight-k and component-k"));
        let (mixture, index) = self.mixture_of(sample)?;
        let [c, h, w] = self.shape;
        let grey = |f: &dyn Fn(usize) -> f32| Picture {
            channels: 1,
            width: w,
            height: h,
            pixels: (0..h * w).map(|pixel| to_byte(2.0 * f(pixel) - 1.0)).collect(),
        };
        if name == "entropy" {
            let most = (mixture.k as f32).ln().max(f32::MIN_POSITIVE);
            return Ok(grey(&|pixel| mixture.entropy(index, pixel) / most));
        }
        let (kind, k) = name.rsplit_once('-').ok_or_else(unknown)?;
        let k: usize = k.parse().ok().filter(|k| *k < mixture.k).ok_or_else(unknown)?;
        match kind {
            "weight" => Ok(grey(&|pixel| mixture.weight(index, k, pixel))),
            "component" => {
                let channel = |channel| (0..h * w).map(move |pixel| mixture.mean(index, k, channel, pixel));
                let values: Vec<f32> = (0..c).flat_map(channel).collect();
                shown(&values, self.shape, self.latents[1])
            }
            _ => Err(unknown()),
        }
    }

    /// The mixture at a pixel.
    pub fn pixel(&self, sample: usize, [x, y]: [usize; 2]) -> Answer<Value> {
        let [c, h, w] = self.shape;
        if x >= w {
            return Err(Refusal::field("x", format!("0 to {}", w - 1), x));
        }
        if y >= h {
            return Err(Refusal::field("y", format!("0 to {}", h - 1), y));
        }
        let (mixture, index) = self.mixture_of(sample)?;
        let at = y * w + x;
        let pixel = mixture.pixel(index, at);
        let [mean, variance] = pixel.moments();
        let entropy = mixture.entropy(index, at);
        let value = self.x_of(sample).ok().map(|values| {
            (0..c).filter_map(|channel| values.get(channel * h * w + at)).copied().collect::<Vec<f32>>()
        });
        Ok(json!({
            "step": self.step, "sample": sample, "x": x, "y": y, "t": self.t, "weights": pixel.weights,
            "means": pixel.means, "std": pixel.std, "mean": mean, "variance": variance, "entropy": entropy,
            "effective_k": entropy.exp(), "value": value,
        }))
    }
}

/// Values as a picture; of latents the first channels.
fn shown(values: &[f32], [c, h, w]: [usize; 3], latents: bool) -> Answer<Picture> {
    if !latents {
        return Ok(Picture::from_chw(values, [c, h, w])?);
    }
    let channels = if c < 3 { 1 } else { 3 };
    let values: Vec<f32> = values.iter().take(channels * h * w).map(|value| value / LATENT_RANGE).collect();
    Ok(Picture::from_chw(&values, [channels, h, w])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor, TensorData};

    /// Two samples of two pixels with three components of one channel, one standard deviation for each pixel.
    fn step() -> StepTrace {
        let tensor = |values: &[f32], shape: [usize; 5]| {
            Tensor::<5>::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
        };
        let weights = [0.5, 0.2, 0.25, 0.3, 0.25, 0.5, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0_f32];
        let mixture = GaussianMixture {
            means: tensor(&(0..12).map(|i| i as f32 / 12.0).collect::<Vec<_>>(), [2, 3, 1, 1, 2]),
            log_weights: tensor(&weights, [2, 3, 1, 1, 2]).log(),
            log_std: tensor(&[0.1, 0.2, 0.3, 0.4], [2, 1, 1, 1, 2]).log(),
        };
        StepTrace {
            step: 1,
            t: 0.5,
            first: 4,
            count: 2,
            shape: [1, 1, 2],
            x0_shape: [1, 1, 2],
            latents: [false, false],
            x0: None,
            x: Some(vec![0.0, 0.25, 0.5, 0.75]),
            mixture: Some(Mixture::of(&mixture)),
        }
    }

    #[test]
    fn a_pixel_has_its_own_components() {
        let told = step().pixel(4, [1, 0]).unwrap();
        let numbers = |name: &str| -> Vec<f64> {
            told[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let close = |got: Vec<f64>, expected: &[f64]| {
            assert_eq!(got.len(), expected.len());
            got.iter().zip(expected).for_each(|(got, expected)| assert!((got - expected).abs() < 1e-6, "{got}"));
        };
        close(numbers("weights"), &[0.2, 0.3, 0.5]);
        close(numbers("std"), &[0.2, 0.2, 0.2]);
        close(numbers("mean"), &[(0.2 * 1.0 + 0.3 * 3.0 + 0.5 * 5.0) / 12.0]);
        close(numbers("value"), &[0.25]);
        let entropy = -(0.2 * 0.2_f64.ln() + 0.3 * 0.3_f64.ln() + 0.5 * 0.5_f64.ln());
        assert!((told["entropy"].as_f64().unwrap() - entropy).abs() < 1e-6);
        let second = step().pixel(5, [0, 0]).unwrap();
        assert_eq!(second["entropy"].as_f64(), Some(0.0));
        assert_eq!(step().pixel(4, [2, 0]).unwrap_err().wrong.unwrap().field, "x");
    }

    #[test]
    fn pictures_are_those_that_were_traced() {
        let step = step();
        assert_eq!(step.picture("weight-2", 4).unwrap().pixels, [64, 128]);
        assert_eq!(step.picture("entropy", 5).unwrap().pixels, [0, 0]);
        assert_eq!(step.picture("x", 5).unwrap().pixels, [191, 223]);
        assert_eq!(step.picture("component-0", 4).unwrap().pixels, [128, 138]);
        for missing in ["x0", "weight-3", "weight-x", "mean-0", "other"] {
            assert_eq!(step.picture(missing, 4).unwrap_err().status.as_u16(), 404, "{missing}");
        }
    }

    #[test]
    fn a_density_is_a_sum_of_gaussians() {
        let pixel = PixelMixture {
            weights: vec![0.25, 0.75],
            means: vec![vec![0.0, 0.0], vec![1.0, 0.0]],
            std: vec![1.0, 0.5],
        };
        let tau = std::f64::consts::TAU;
        let expected = 0.25 * (-0.5_f64).exp() / tau + 0.75 / (tau * 0.25);
        assert!((pixel.density(&[1.0, 0.0]) - expected).abs() < 1e-12);
    }
}
