//! Large images in overlapping tiles, so that memory does not grow with the image.

use super::{Autoencoder, LatentDistribution};
use crate::{Error, Result};
use burn::tensor::{Tensor, TensorData};
use std::ops::Range;

/// How an image is cut. Norms and attention see one tile at a time, so a tiled image differs a little from a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Height and width of a tile in latents.
    pub size: usize,
    /// Latents that neighbouring tiles share; across them one fades into the other.
    pub overlap: usize,
}

impl Default for Tiling {
    /// Tiles of 64x64 latents, a quarter of it shared.
    fn default() -> Self {
        Self { size: 64, overlap: 16 }
    }
}

impl Tiling {
    /// Checks that tiles move on.
    pub fn validate(&self) -> Result<()> {
        if self.size == 0 {
            return Err(Error::config("tile", "at least 1 latent", self.size));
        }
        if 2 * self.overlap > self.size {
            return Err(Error::config(
                "tile overlap",
                format!("at most {}, half a tile", self.size / 2),
                self.overlap,
            ));
        }
        Ok(())
    }

    /// Whether a map of `h` by `w` latents is cut at all.
    pub fn cuts(&self, [h, w]: [usize; 2]) -> bool {
        h > self.size || w > self.size
    }

    /// Ranges of `size` latents that cover `length`; neighbours share at least `overlap`.
    fn ranges(&self, length: usize) -> Vec<Range<usize>> {
        if length <= self.size {
            return std::iter::once(0..length).collect();
        }
        let stride = self.size - self.overlap;
        let count = (length - self.size).div_ceil(stride) + 1;
        // The last tile ends with the image.
        (0..count).map(|i| (i * stride).min(length - self.size)).map(|start| start..start + self.size).collect()
    }
}

impl Autoencoder {
    /// [`Autoencoder::decode`] tile by tile.
    ///
    /// # Errors
    /// A tiling that does not move on, or latents that cannot be read back.
    pub fn decode_tiled(&self, latents: Tensor<4>, tiling: Tiling) -> Result<Tensor<4>> {
        tiling.validate()?;
        let [_, _, h, w] = latents.dims();
        if !tiling.cuts([h, w]) {
            return Ok(self.decode(latents));
        }
        let f = self.config.downsampling();
        let decode = |tile: Tensor<4>| self.decode(tile);
        blend(latents, tiling, &decode, [self.config.out_channels, h * f, w * f], |x| x * f)
    }

    /// [`Autoencoder::encode`] tile by tile.
    ///
    /// # Errors
    /// As [`Autoencoder::decode_tiled`].
    pub fn encode_tiled(&self, images: Tensor<4>, tiling: Tiling) -> Result<LatentDistribution> {
        Ok(LatentDistribution::of_moments(self.moments_tiled(images, tiling)?))
    }

    /// [`Autoencoder::moments`] tile by tile.
    ///
    /// # Errors
    /// As [`Autoencoder::decode_tiled`].
    pub fn moments_tiled(&self, images: Tensor<4>, tiling: Tiling) -> Result<[Tensor<4>; 2]> {
        tiling.validate()?;
        let (f, z) = (self.config.downsampling(), self.config.latent_channels);
        let [_, _, h, w] = images.dims();
        if !tiling.cuts([h / f, w / f]) {
            return Ok(self.moments(images));
        }
        let pixels = Tiling { size: tiling.size * f, overlap: tiling.overlap.next_multiple_of(2) * f };
        let encode = |tile: Tensor<4>| Tensor::cat(self.moments(tile).to_vec(), 1);
        let both = blend(images, pixels, &encode, [2 * z, h / f, w / f], |x| x / f)?;
        Ok([both.clone().narrow(1, 0, z), both.narrow(1, z, z)])
    }
}

/// Applies `map` to every tile of `x` `[b c h w]` and adds the results `[b c' h' w']` with weights that fall to the tile's edges and
/// sum to one; `place` turns a coordinate of `x` into one of the result.
fn blend(
    x: Tensor<4>,
    tiling: Tiling,
    map: &dyn Fn(Tensor<4>) -> Tensor<4>,
    [c, h, w]: [usize; 3],
    place: impl Fn(usize) -> usize,
) -> Result<Tensor<4>> {
    let [b, _, x_h, x_w] = x.dims();
    let device = x.device();
    let fade = place(tiling.overlap).max(1);
    let (mut sum, mut weights) = (vec![0.0f32; b * c * h * w], vec![0.0f32; h * w]);
    for rows in tiling.ranges(x_h) {
        for columns in tiling.ranges(x_w) {
            let tile = x.clone().narrow(2, rows.start, rows.len()).narrow(3, columns.start, columns.len());
            let (top, left) = (place(rows.start), place(columns.start));
            let values = host(map(tile))?;
            let (t_h, t_w) = (place(rows.end) - top, place(columns.end) - left);
            let (wy, wx) = (ramp(t_h, fade, top > 0, top + t_h < h), ramp(t_w, fade, left > 0, left + t_w < w));
            for (plane, tile) in values.chunks_exact(t_h * t_w).enumerate() {
                for (y, row) in tile.chunks_exact(t_w).enumerate() {
                    let start = (plane * h + top + y) * w + left;
                    let target = sum.iter_mut().skip(start).zip(row).zip(&wx);
                    target.for_each(|((sum, value), wx)| *sum += value * wy[y] * wx);
                }
            }
            for (y, wy) in wy.iter().enumerate() {
                let target = weights.iter_mut().skip((top + y) * w + left).zip(&wx);
                target.for_each(|(weight, wx)| *weight += wy * wx);
            }
        }
    }
    for plane in sum.chunks_exact_mut(h * w) {
        plane.iter_mut().zip(&weights).for_each(|(sum, weight)| *sum /= weight);
    }
    Ok(Tensor::from_data(TensorData::new(sum, [b, c, h, w]), &device))
}

/// Weights of `length` places: rising over the first `fade` where there is a neighbour before, falling over the last where there is one
/// behind.
fn ramp(length: usize, fade: usize, before: bool, behind: bool) -> Vec<f32> {
    let rise = |i: usize| ((i as f32 + 0.5) / fade as f32).min(1.0);
    let weight = |i: usize| {
        let up = if before { rise(i) } else { 1.0 };
        let down = if behind { rise(length - 1 - i) } else { 1.0 };
        up * down
    };
    (0..length).map(weight).collect()
}

fn host(x: Tensor<4>) -> Result<Vec<f32>> {
    let data = x.into_data();
    let dtype = data.dtype();
    data.try_into_vec().map_err(|_| Error::config("autoencoder", "f32 values", format!("{dtype:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::AutoencoderConfig;
    use burn::tensor::Device;

    #[test]
    fn tiles_cover_everything_and_overlap() {
        let tiling = Tiling { size: 8, overlap: 3 };
        for length in 1..60 {
            let ranges = tiling.ranges(length);
            assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, length));
            assert!(ranges.iter().all(|range| range.len() == length.min(8)));
            assert!(ranges.windows(2).all(|pair| pair[1].start + 3 <= pair[0].end && pair[0].start < pair[1].start));
        }
        assert!(Tiling { size: 8, overlap: 5 }.validate().is_err());
        assert!(Tiling { size: 0, overlap: 0 }.validate().is_err());
    }

    #[test]
    fn blending_tiles_of_the_identity_gives_it_back() {
        let values: Vec<f32> = (0..2 * 3 * 21 * 17).map(|i| (i as f32).sin()).collect();
        let x = Tensor::<4>::from_data(TensorData::new(values.clone(), [2, 3, 21, 17]), &Device::flex());
        let back = blend(x, Tiling { size: 8, overlap: 4 }, &|tile| tile, [3, 21, 17], |x| x).unwrap();
        let worst = host(back).unwrap().iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-6, "{worst}");
    }

    /// Away from norms and attention, which see a tile at a time, a tile is like the whole.
    #[test]
    fn a_tiled_image_is_close_to_the_whole_one() {
        let config = AutoencoderConfig {
            block_out_channels: vec![4, 8],
            layers_per_block: 1,
            norm_num_groups: 1,
            mid_block_add_attention: false,
            ..AutoencoderConfig::default()
        };
        let vae = config.init(3, &Device::flex()).unwrap();
        let values: Vec<f32> = (0..4 * 40 * 40).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let latents = Tensor::<4>::from_data(TensorData::new(values, [1, 4, 40, 40]), &Device::flex());
        let whole = host(vae.decode(latents.clone())).unwrap();
        let tiled = host(vae.decode_tiled(latents, Tiling { size: 24, overlap: 8 }).unwrap()).unwrap();
        let power = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
        let error = power(&mut whole.iter().zip(&tiled).map(|(a, b)| a - b)) / power(&mut whole.iter().copied());
        assert!(error < 0.01, "{error}");
        let images = Tensor::<4>::from_data(TensorData::new(tiled, [1, 3, 80, 80]), &Device::flex());
        let [mean, _] = vae.moments(images.clone());
        let [tiled_mean, tiled_log_var] = vae.moments_tiled(images, Tiling { size: 24, overlap: 8 }).unwrap();
        assert_eq!(tiled_log_var.dims(), [1, 4, 40, 40]);
        let (a, b) = (host(mean).unwrap(), host(tiled_mean).unwrap());
        let error = power(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / power(&mut a.iter().copied());
        assert!(error < 0.01, "{error}");
    }
}
