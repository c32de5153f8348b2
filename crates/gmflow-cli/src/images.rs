//! Pictures as PNG: encoding with text chunks, and grids of equally large images.

use anyhow::{Result, ensure};
use gmflow::checkpoint::write_atomic;
use gmflow_data::to_byte;
use std::path::Path;

/// 8-bit samples, row by row, channels innermost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width * channels` values.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// From values in [-1, 1] stored `[c h w]`; values outside are clipped.
    pub fn from_chw(values: &[f32], [channels, height, width]: [usize; 3]) -> Result<Self> {
        ensure!(channels == 1 || channels == 3, "channels: expected 1 or 3 for a picture, got {channels}");
        ensure!(
            values.len() == channels * height * width,
            "a picture of {channels}x{height}x{width} has another size"
        );
        let area = height * width;
        let pixels = (0..area)
            .flat_map(|pixel| (0..channels).map(move |channel| values[channel * area + pixel]))
            .map(to_byte)
            .collect();
        Ok(Self { channels, width, height, pixels })
    }

    /// The file's bytes, with `texts` (keyword, text) as international text chunks.
    pub fn to_png(&self, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, u32::try_from(self.width)?, u32::try_from(self.height)?);
        encoder.set_color(if self.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        for (keyword, text) in texts {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(bytes)
    }

    /// Writes the file atomically.
    pub fn write_png(&self, path: &Path, texts: &[(&str, &str)]) -> Result<()> {
        Ok(write_atomic(path, &self.to_png(texts)?)?)
    }

    /// `self` with every pixel repeated `factor` times both ways.
    pub fn enlarged(&self, factor: usize) -> Self {
        let row = |y: usize| {
            let start = y * self.width * self.channels;
            self.pixels[start..start + self.width * self.channels]
                .chunks(self.channels)
                .flat_map(move |pixel| std::iter::repeat_n(pixel, factor).flatten().copied())
        };
        let pixels = (0..self.height).flat_map(|y| (0..factor).flat_map(move |_| row(y))).collect();
        Self { width: self.width * factor, height: self.height * factor, pixels, channels: self.channels }
    }
}

/// Puts pictures of one size side by side, `columns` to a row, with a white gap of `gap` pixels between them.
pub fn grid(pictures: &[Picture], columns: usize, gap: usize) -> Result<Picture> {
    let Some(first) = pictures.first() else { anyhow::bail!("a grid needs at least one picture") };
    let columns = columns.clamp(1, pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let (channels, width) = (first.channels, columns * (first.width + gap) - gap);
    let height = rows * (first.height + gap) - gap;
    let mut pixels = vec![255; height * width * channels];
    for (index, picture) in pictures.iter().enumerate() {
        let (left, top) = ((index % columns) * (first.width + gap), (index / columns) * (first.height + gap));
        for (y, row) in picture.pixels.chunks(first.width * channels).enumerate() {
            let start = ((top + y) * width + left) * channels;
            pixels[start..start + row.len()].copy_from_slice(row);
        }
    }
    Ok(Picture { channels, width, height, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_from_outermost_to_innermost() {
        let picture = Picture::from_chw(&[-1.0, 1.0, 0.0, -1.0, 7.0, -9.0], [3, 1, 2]).unwrap();
        assert_eq!(picture.pixels, [0, 128, 255, 255, 0, 0]);
    }

    #[test]
    fn a_grid_leaves_missing_cells_and_gaps_white() {
        let picture = |value| Picture { channels: 1, width: 1, height: 1, pixels: vec![value] };
        let grid = grid(&[picture(1), picture(2), picture(3)], 2, 1).unwrap();
        assert_eq!((grid.width, grid.height), (3, 3));
        assert_eq!(grid.pixels, [1, 255, 2, 255, 255, 255, 3, 255, 255]);
    }

    #[test]
    fn enlarging_repeats_pixels_both_ways() {
        let picture = Picture { channels: 1, width: 2, height: 1, pixels: vec![5, 6] };
        assert_eq!(picture.enlarged(2).pixels, [5, 5, 6, 6, 5, 5, 6, 6]);
    }

    #[test]
    fn text_survives_the_file() {
        let picture = Picture { channels: 1, width: 1, height: 1, pixels: vec![9] };
        let bytes = picture.to_png(&[("gmflow", "{\"class\":\"Käse\"}")]).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let chunk = &reader.info().utf8_text[0];
        assert_eq!((chunk.keyword.as_str(), chunk.get_text().unwrap().as_str()), ("gmflow", "{\"class\":\"Käse\"}"));
    }
}
