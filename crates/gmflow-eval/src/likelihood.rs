//! The likelihood of data under the predicted velocity mixtures, in bits per dimension.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow::network::{GmDitConfig, NetworkConfig};
//! use gmflow_eval::LikelihoodSum;
//!
//! let device = Device::flex();
//! let (size, classes) = (8, 2);
//! let config = GmDitConfig {
//!     num_attention_heads: 1,
//!     attention_head_dim: 8,
//!     num_layers: 1,
//!     sample_size: size,
//!     in_channels: 1,
//!     num_embeds_ada_norm: classes,
//!     ..GmDitConfig::default()
//! };
//! let network = NetworkConfig::GmDit(config).init(0, &device)?;
//! let images: Vec<f32> = (0..3 * size * size).map(|i| (i as f32).sin()).collect();
//! let mut sum = LikelihoodSum::new(4)?;
//! sum.add((&network, None), (&images, [1, size, size]), (&[0, 1, 2], &[0, 1, 0]), &device)?;
//! let likelihood = sum.likelihood().unwrap();
//! assert_eq!((likelihood.count, likelihood.by_time.len()), (3, 4));
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

use crate::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData};
use gmflow::loss::{nll, spectral_loss};
use gmflow::mixture::spectral::Bases;
use gmflow::network::{Denoiser, Network, SpectrumMlp};
use gmflow::path::forward_diffusion;
use gmflow::rng::{Purpose, normal_batch, uniforms};
use gmflow_world::World;
use serde::{Deserialize, Serialize};
use std::f64::consts::{LN_2, TAU};

/// At how many times every image is measured where nothing else is asked for.
pub const TIMES: usize = 8;
/// The largest number of times that is taken for one.
const MOST_TIMES: usize = 1000;

/// Mean negative log-likelihood of the velocity u = noise - x0 given x_t, with t uniform in (0, 1], per channel and pixel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// How many images.
    pub count: u64,
    /// -log2 q(u | x_t) of the mixtures, pixel by pixel.
    pub bits_per_dim: f64,
    /// The same with the correlation of pixels that the spectrum network predicts, (20).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bits_per_dim_spectral: Option<f64>,
    /// The same within equal parts of the time, from data to noise; none in results from before there was this.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub by_time: Vec<LikelihoodAt>,
}

/// [`Likelihood`] within a part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LikelihoodAt {
    /// Where the part begins, just beyond this time.
    pub from: f64,
    /// Where it ends, with this time.
    pub to: f64,
    /// How many pairs of an image and a time were measured in it.
    pub count: u64,
    /// -log2 q(u | x_t) of the mixtures, pixel by pixel.
    pub bits_per_dim: f64,
    /// The same with the spectrum network.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bits_per_dim_spectral: Option<f64>,
}

/// Running sums of [`Likelihood`].
#[derive(Clone, Debug)]
pub struct LikelihoodSum {
    images: u64,
    parts: Vec<Part>,
    /// Images of the processes before this one, for messages.
    before: u64,
    /// The bytes of what was added, batch by batch, where they are kept for another process.
    own: Option<Vec<u8>>,
}

/// Sums within a part of the time.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    bits: f64,
    spectral: Option<f64>,
}

impl Default for LikelihoodSum {
    fn default() -> Self {
        Self { images: 0, parts: vec![Part::default(); TIMES], before: 0, own: None }
    }
}

impl LikelihoodSum {
    /// Sums of images that are measured at `times` times each, one in each of as many equal parts of (0, 1].
    ///
    /// # Errors
    /// No time, or more than 1000.
    pub fn new(times: usize) -> Result<Self> {
        if !(1..=MOST_TIMES).contains(&times) {
            return Err(Error::config("times", format!("1 to {MOST_TIMES}"), times));
        }
        Ok(Self { images: 0, parts: vec![Part::default(); times], before: 0, own: None })
    }

    /// The same sums of one process of several, which are joined by [`joined`](Self::joined); those before it add `before` images.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_rank(times: usize, before: u64, world: &dyn World) -> Result<Self> {
        let own = (!world.is_alone()).then(|| (times as u64).to_le_bytes().to_vec());
        Ok(Self { before, own, ..Self::new(times)? })
    }

    /// The sums of all processes, on the first one. They have the bits of one process that has added all batches.
    ///
    /// # Errors
    /// Those of the world; as [`of_parts`](Self::of_parts).
    pub fn joined(self, world: &dyn World) -> Result<Option<Self>> {
        let Some(own) = &self.own else { return Ok(Some(self)) };
        world.collect(own)?.map(|parts| Self::of_parts(&parts)).transpose()
    }

    /// Joins what processes have sent, or kept where they work apart ([`gmflow_world::Apart`]), in order.
    ///
    /// # Errors
    /// Parts of different numbers of times, or of another version.
    pub fn of_parts<B: AsRef<[u8]>>(parts: &[B]) -> Result<Self> {
        let wrong = || Error::config("parts", "likelihoods of this version of gmflow", "others");
        let mut sum: Option<Self> = None;
        for part in parts {
            let (times, batches) = part.as_ref().split_first_chunk().ok_or_else(wrong)?;
            let times = usize::try_from(u64::from_le_bytes(*times)).map_err(|_| wrong())?;
            let sum = match &mut sum {
                Some(sum) => sum,
                none => none.insert(Self::new(times)?),
            };
            let numbers = batches.as_chunks::<8>().0;
            if sum.parts.len() != times || !batches.len().is_multiple_of((1 + 2 * times) * 8) {
                return Err(wrong());
            }
            for batch in numbers.chunks_exact(1 + 2 * times) {
                let (images, parts) = batch.split_first().ok_or_else(wrong)?;
                let part = |[bits, spectral]: &[[u8; 8]; 2]| {
                    let spectral = f64::from_le_bytes(*spectral);
                    Part { bits: f64::from_le_bytes(*bits), spectral: (!spectral.is_nan()).then_some(spectral) }
                };
                sum.take(u64::from_le_bytes(*images), &parts.as_chunks::<2>().0.iter().map(part).collect::<Vec<_>>());
            }
        }
        sum.ok_or_else(|| Error::config("parts", "at least 1", 0))
    }

    /// Adds what a batch has.
    fn take(&mut self, images: u64, parts: &[Part]) {
        for (sums, part) in self.parts.iter_mut().zip(parts) {
            sums.bits += part.bits;
            if let Some(spectral) = part.spectral {
                *sums.spectral.get_or_insert(0.0) += spectral;
            }
        }
        self.images += images;
        if let Some(own) = &mut self.own {
            own.extend(images.to_le_bytes());
            let numbers = parts.iter().flat_map(|part| [part.bits, part.spectral.unwrap_or(f64::NAN)]);
            own.extend(numbers.flat_map(f64::to_le_bytes));
        }
    }

    /// Adds images `[n c h w]` with their classes. Noise and times depend on the seeds of the images only.
    ///
    /// # Errors
    /// Images, seeds and classes of different number, a class that the network does not know, a spectrum network for other images, or
    /// a likelihood that is not finite, after which the sums are of no use.
    pub fn add(
        &mut self,
        (network, spectrum): (&Network, Option<&SpectrumMlp>),
        (images, shape): (&[f32], [usize; 3]),
        (seeds, classes): (&[u64], &[u32]),
        device: &Device,
    ) -> Result<()> {
        let [c, h, w] = shape;
        let b = seeds.len();
        if images.len() != b * c * h * w || classes.len() != b {
            let got = format!("{} values, {} classes", images.len(), classes.len());
            return Err(Error::config("images, classes", format!("{b} of each"), got));
        }
        let x0 = Tensor::<4>::from_data(TensorData::new(images.to_vec(), [b, c, h, w]), device);
        let null = network.null_class().filter(|&null| null > 0);
        let labels = null.map(|null| match classes.iter().find(|&&class| class as usize >= null) {
            Some(class) => Err(Error::config("class", format!("below {null}"), class)),
            None => {
                let classes: Vec<i64> = classes.iter().map(|&class| i64::from(class)).collect();
                Ok(Tensor::<1, Int>::from_data(TensorData::new(classes, [b]), device))
            }
        });
        let labels = labels.transpose()?;
        let times = self.parts.len();
        let finite = |name: &str, part: usize, bits: f64| {
            let (from, to) = (part as f64 / times as f64, (part + 1) as f64 / times as f64);
            let before = self.before + self.images;
            let images = format!("images {} to {}", before + 1, before + b as u64);
            let figure = format!("{name} of {images} at t from {from} to {to}");
            if bits.is_finite() { Ok(bits) } else { Err(Error::NotFinite { figure, got: bits }) }
        };
        let mut parts = Vec::with_capacity(times);
        for part in 0..times {
            let within = |seed: &u64| uniforms(*seed, Purpose::Estimate, part as u64, 1)[0];
            let t: Vec<f32> = seeds.iter().map(|seed| (part as f32 + 1.0 - within(seed)) / times as f32).collect();
            let t = Tensor::<1>::from_data(TensorData::new(t, [b]), device);
            let noise = normal_batch(seeds, Purpose::InitialNoise, part as u64, shape, device);
            let x_t = forward_diffusion(&x0, &t, &noise);
            let velocity = network.forward(x_t.clone(), t.clone(), labels.clone());
            let density = nll(&velocity.0, &(noise - x0.clone())).mean().into_scalar::<f32>();
            let nats = f64::from(density) / c as f64 + 0.5 * TAU.ln();
            let bits = finite("bits/dim", part, nats / LN_2)? * b as f64;
            let mut measured = Part { bits, spectral: None };
            if let Some(spectrum) = spectrum {
                let gain = spectral_loss(spectrum, &velocity.to_data(&x_t, &t), &x0, Bases::Shared)?;
                let nats = f64::from(gain.into_scalar::<f32>()) / c as f64;
                let bits = finite("bits/dim with the spectrum", part, nats / LN_2)?;
                measured.spectral = Some(bits * b as f64);
            }
            parts.push(measured);
        }
        self.take(b as u64, &parts);
        Ok(())
    }

    /// The means; `None` before the first image.
    pub fn likelihood(&self) -> Option<Likelihood> {
        let (images, times) = (self.images as f64, self.parts.len() as f64);
        let at = |(index, part): (usize, &Part)| LikelihoodAt {
            from: index as f64 / times,
            to: (index + 1) as f64 / times,
            count: self.images,
            bits_per_dim: part.bits / images,
            bits_per_dim_spectral: part.with_spectrum().map(|bits| bits / images),
        };
        let bits: f64 = self.parts.iter().map(|part| part.bits).sum();
        let with_spectrum: Option<f64> = self.parts.iter().map(Part::with_spectrum).sum();
        (self.images > 0).then(|| Likelihood {
            count: self.images,
            bits_per_dim: bits / (images * times),
            bits_per_dim_spectral: with_spectrum.map(|bits| bits / (images * times)),
            by_time: self.parts.iter().enumerate().map(at).collect(),
        })
    }
}

impl Part {
    fn with_spectrum(&self) -> Option<f64> {
        self.spectral.map(|spectral| self.bits + spectral)
    }
}
