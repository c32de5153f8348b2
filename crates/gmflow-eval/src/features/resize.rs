//! From images of any size to the 299 x 299 that Inception takes. The two programs that FIDs are computed with resize differently, so
//! that their figures differ by some tenths.
//!
//! ```
//! use gmflow_eval::features::resize::{Resize, SIZE};
//!
//! let image = vec![1.0; 32 * 32];
//! let resized = Resize::TorchFidelity.apply(&image, [1, 32, 32])?;
//! assert_eq!(resized.len(), 3 * SIZE * SIZE);
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Height and width that Inception takes.
pub const SIZE: usize = 299;

/// Bilinear, with one of two ideas of where a pixel is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// As TensorFlow 1 did and torch-fidelity does: target pixel i is at i in/out. Values become (v - 128)/128 of 0 to 255.
    #[default]
    TorchFidelity,
    /// As pytorch-fid: target pixel i is at (i + 1/2) in/out - 1/2. Values become 2 v/255 - 1.
    PytorchFid,
}

impl Resize {
    /// Resizes images `[n c h w]` of values in [-1, 1] with 1 or 3 channels to `[n 3 299 299]`; one channel is repeated. Values are
    /// rounded to 0 to 255 first, as they would be in a file.
    ///
    /// # Errors
    /// Another number of channels, no pixels, or values that do not fill whole images.
    pub fn apply(self, images: &[f32], [channels, height, width]: [usize; 3]) -> Result<Vec<f32>> {
        let (plane, size) = (height * width, channels * height * width);
        if !(channels == 1 || channels == 3) || plane == 0 || !images.len().is_multiple_of(size) {
            let got = format!("{} values of {channels} x {height} x {width}", images.len());
            return Err(Error::config("images", "images of 1 or 3 channels", got));
        }
        let mut out = vec![0.0; images.len() / size * 3 * SIZE * SIZE];
        let (rows, columns) = (self.sources(height), self.sources(width));
        out.par_chunks_mut(SIZE * SIZE).enumerate().for_each(|(index, target)| {
            let (image, channel) = (index / 3, (index % 3).min(channels - 1));
            let source = &images[image * size + channel * plane..][..plane];
            let bytes: Vec<f32> = source.iter().map(|&x| to_byte(x)).collect();
            self.plane(&bytes, width, (&rows, &columns), target);
        });
        Ok(out)
    }

    fn plane(self, bytes: &[f32], width: usize, (rows, columns): (&[Source], &[Source]), target: &mut [f32]) {
        for (target, row) in target.chunks_exact_mut(SIZE).zip(rows) {
            let (upper, lower) = (&bytes[row.low * width..][..width], &bytes[row.high * width..][..width]);
            for (value, column) in target.iter_mut().zip(columns) {
                let along = |line: &[f32]| line[column.low] + (line[column.high] - line[column.low]) * column.share;
                let (upper, lower) = (along(upper), along(lower));
                *value = self.scaled(upper + (lower - upper) * row.share);
            }
        }
    }

    fn scaled(self, byte: f32) -> f32 {
        match self {
            Self::TorchFidelity => (byte - 128.0) / 128.0,
            Self::PytorchFid => 2.0 * (byte / 255.0) - 1.0,
        }
    }

    /// Where each of the target's pixels is between pixels of the source.
    fn sources(self, length: usize) -> Vec<Source> {
        let scale = length as f32 / SIZE as f32;
        let at = |i: usize| match self {
            Self::TorchFidelity => i as f32 * scale,
            Self::PytorchFid => ((i as f32 + 0.5) * scale - 0.5).max(0.0),
        };
        let source = |i| {
            let low = (at(i) as usize).min(length - 1);
            Source { low, high: (low + 1).min(length - 1), share: at(i) - low as f32 }
        };
        (0..SIZE).map(source).collect()
    }
}

/// A place between two pixels.
struct Source {
    low: usize,
    high: usize,
    /// How far it is from the lower one, 0 to 1.
    share: f32,
}

/// A value in [-1, 1] as one of 0 to 255, as in files of images.
pub fn to_byte(x: f32) -> f32 {
    ((x + 1.0) * 127.5).round().clamp(0.0, 255.0)
}
