//! The likelihood of data under the predicted velocity mixtures, in bits per dimension.

use crate::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData};
use gmflow::loss::{nll, spectral_loss};
use gmflow::mixture::spectral::Bases;
use gmflow::network::{Denoiser, Network, SpectrumMlp};
use gmflow::path::forward_diffusion;
use gmflow::rng::{Purpose, normal_batch, uniforms};
use serde::{Deserialize, Serialize};
use std::f64::consts::{LN_2, TAU};

/// At how many times every image is measured.
pub const TIMES: usize = 8;

/// Mean negative log-likelihood of the velocity u = noise - x0 given x_t, with t uniform in (0, 1], per channel and pixel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// How many images.
    pub count: u64,
    /// -log2 q(u | x_t) of the mixtures, pixel by pixel.
    pub bits_per_dim: f64,
    /// The same with the correlation of pixels that the spectrum network predicts, (20).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bits_per_dim_spectral: Option<f64>,
}

/// Running sums of [`Likelihood`].
#[derive(Clone, Copy, Debug, Default)]
pub struct LikelihoodSum {
    images: u64,
    bits: f64,
    spectral: Option<f64>,
}

impl LikelihoodSum {
    /// Adds images `[n c h w]` with their classes at [`TIMES`] times each, one in every eighth of (0, 1]. Noise and times depend on
    /// the seeds of the images only.
    ///
    /// # Errors
    /// Images, seeds and classes of different number, a class that the network does not know, or a spectrum network for other
    /// images.
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
        for part in 0..TIMES {
            let within = |seed: &u64| uniforms(*seed, Purpose::Estimate, part as u64, 1)[0];
            let times: Vec<f32> =
                seeds.iter().map(|seed| (part as f32 + 1.0 - within(seed)) / TIMES as f32).collect();
            let t = Tensor::<1>::from_data(TensorData::new(times, [b]), device);
            let noise = normal_batch(seeds, Purpose::InitialNoise, part as u64, shape, device);
            let x_t = forward_diffusion(&x0, &t, &noise);
            let velocity = network.forward(x_t.clone(), t.clone(), labels.clone());
            let density = nll(&velocity.0, &(noise - x0.clone())).mean().into_scalar::<f32>();
            let nats = f64::from(density) / c as f64 + 0.5 * TAU.ln();
            self.bits += nats / LN_2 * b as f64;
            if let Some(spectrum) = spectrum {
                let gain = spectral_loss(spectrum, &velocity.to_data(&x_t, &t), &x0, Bases::Shared)?;
                let nats = f64::from(gain.into_scalar::<f32>()) / c as f64;
                *self.spectral.get_or_insert(0.0) += nats / LN_2 * b as f64;
            }
        }
        self.images += b as u64;
        Ok(())
    }

    /// The means; `None` before the first image.
    pub fn likelihood(&self) -> Option<Likelihood> {
        let n = (self.images * TIMES as u64) as f64;
        (self.images > 0).then(|| Likelihood {
            count: self.images,
            bits_per_dim: self.bits / n,
            bits_per_dim_spectral: self.spectral.map(|spectral| (self.bits + spectral) / n),
        })
    }
}
