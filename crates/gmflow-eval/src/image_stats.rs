//! Colour statistics of images: what guidance that extrapolates drives up.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Means over images and pixels; values are in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageStats {
    /// How many images.
    pub count: u64,
    /// Saturation of the HSV model, (max - min)/max over the channels, 0 for black; none for images of one channel.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub saturation: Option<f64>,
    /// Mean of all values.
    pub brightness: f64,
    /// Standard deviation of an image's grey values (means over channels), averaged over images.
    pub contrast: f64,
}

/// Running sums of [`ImageStats`].
///
/// ```
/// use gmflow_eval::ImageStatsSum;
///
/// let mut sum = ImageStatsSum::default();
/// sum.add(&[1.0, -1.0, -1.0], [3, 1, 1])?; // a red pixel
/// let stats = sum.stats().unwrap();
/// assert_eq!((stats.saturation, stats.brightness), (Some(1.0), 1.0 / 3.0));
/// # Ok::<(), gmflow_eval::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ImageStatsSum {
    count: u64,
    channels: usize,
    saturation: f64,
    brightness: f64,
    contrast: f64,
}

impl ImageStatsSum {
    /// Adds images `[n c h w]` of values in [-1, 1]; values beyond count as the nearest end.
    ///
    /// # Errors
    /// An empty shape, values that do not fill whole images, or images of another number of channels than before.
    pub fn add(&mut self, images: &[f32], shape: [usize; 3]) -> Result<()> {
        self.add_each(images, shape).map(|_| ())
    }

    /// [`add`](Self::add); returns saturation, brightness and contrast of each image.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn add_each(
        &mut self,
        images: &[f32],
        [channels, height, width]: [usize; 3],
    ) -> Result<Vec<[f64; 3]>> {
        let (pixels, size) = (height * width, channels * height * width);
        if size == 0 || !images.len().is_multiple_of(size) {
            return Err(Error::config("images", format!("images of {size} values"), images.len()));
        }
        if self.count > 0 && self.channels != channels {
            return Err(Error::config("images", format!("{} channels", self.channels), channels));
        }
        self.channels = channels;
        let mut of_images = Vec::new();
        for image in images.chunks_exact(size) {
            let (mut saturation, mut sum, mut squares) = (0.0, 0.0, 0.0);
            for pixel in 0..pixels {
                let values =
                    image.iter().skip(pixel).step_by(pixels).map(|&x| ((f64::from(x) + 1.0) / 2.0).clamp(0.0, 1.0));
                let (mut low, mut high, mut grey) = (1.0_f64, 0.0_f64, 0.0);
                for value in values {
                    (low, high, grey) = (low.min(value), high.max(value), grey + value / channels as f64);
                }
                saturation += if high > 0.0 { (high - low) / high } else { 0.0 };
                sum += grey;
                squares += grey * grey;
            }
            let n = pixels as f64;
            let mean = sum / n;
            of_images.push([saturation / n, mean, (squares / n - mean * mean).max(0.0).sqrt()]);
        }
        self.add_images(&of_images);
        Ok(of_images)
    }

    /// Adds what [`add_each`](Self::add_each) has returned of other images, with as many channels.
    pub(crate) fn add_images(&mut self, of_images: &[[f64; 3]]) {
        for [saturation, brightness, contrast] in of_images {
            self.count += 1;
            self.saturation += saturation;
            self.brightness += brightness;
            self.contrast += contrast;
        }
    }

    /// For images of so many channels.
    pub(crate) fn of_channels(channels: usize) -> Self {
        Self { channels, ..Self::default() }
    }

    /// The means; `None` before the first image.
    pub fn stats(&self) -> Option<ImageStats> {
        let mean = |sum: f64| sum / self.count as f64;
        (self.count > 0).then(|| ImageStats {
            count: self.count,
            saturation: (self.channels > 1).then(|| mean(self.saturation)),
            brightness: mean(self.brightness),
            contrast: mean(self.contrast),
        })
    }
}
