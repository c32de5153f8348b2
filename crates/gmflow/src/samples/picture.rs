//! Pictures as PNG: encoding with text chunks, and grids of equally large images.

use crate::checkpoint::write_atomic;
use crate::{Error, Result};
use gmflow_files::to_byte;
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
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] where there are not 1 or 3 channels; [`Error::Shape`] for another number of values.
    pub fn from_chw(values: &[f32], [channels, height, width]: [usize; 3]) -> Result<Self> {
        if channels != 1 && channels != 3 {
            return Err(Error::config("channels", "1 or 3 for a picture", channels));
        }
        if values.len() != channels * height * width {
            return Err(Error::shape("values of a picture", [channels, height, width], [values.len()]));
        }
        let area = height * width;
        let pixels = (0..area)
            .flat_map(|pixel| (0..channels).map(move |channel| values[channel * area + pixel]))
            .map(to_byte)
            .collect();
        Ok(Self { channels, width, height, pixels })
    }

    /// The file's bytes, with `texts` (keyword, text) as international text chunks.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] where the format cannot hold the picture or a text.
    pub fn to_png(&self, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
        self.encoded(texts).map_err(|error| Error::config("picture", "what a PNG file can hold", error))
    }

    fn encoded(&self, texts: &[(&str, &str)]) -> std::result::Result<Vec<u8>, png::EncodingError> {
        let side = |length: usize| u32::try_from(length).unwrap_or(0); // The encoder refuses a side of 0.
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width), side(self.height));
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

    /// Writes the file atomically, with `texts` (keyword, text) as international text chunks.
    ///
    /// # Errors
    /// Those of [`Picture::to_png`]; [`crate::FilesError::Io`] with the path.
    pub fn save_png(&self, path: &Path, texts: &[(&str, &str)]) -> Result<()> {
        write_atomic(path, &self.to_png(texts)?)
    }

    /// `self` with every pixel repeated `factor` times both ways.
    pub fn enlarged(&self, factor: usize) -> Self {
        let rows = self.pixels.chunks((self.width * self.channels).max(1));
        let wide = |row: &[u8]| -> Vec<u8> {
            row.chunks(self.channels.max(1)).flat_map(|pixel| pixel.repeat(factor)).collect()
        };
        let pixels = rows.flat_map(|row| wide(row).repeat(factor)).collect();
        Self { width: self.width * factor, height: self.height * factor, pixels, channels: self.channels }
    }
}

/// Puts pictures of one size side by side, `columns` to a row, with a white gap of `gap` pixels between them.
///
/// # Errors
/// [`crate::FilesError::Config`] where there is no picture; [`Error::Shape`] where one has another size than the first.
pub fn grid(pictures: &[Picture], columns: usize, gap: usize) -> Result<Picture> {
    let Some(first) = pictures.first() else { return Err(Error::config("grid", "at least one picture", "none")) };
    let size = |picture: &Picture| [picture.channels, picture.height, picture.width];
    if let Some(other) = pictures.iter().find(|other| size(other) != size(first)) {
        return Err(Error::shape("a picture of a grid", size(first), size(other)));
    }
    let columns = columns.clamp(1, pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let (channels, width) = (first.channels, columns * (first.width + gap) - gap);
    let height = rows * (first.height + gap) - gap;
    let mut pixels = vec![255; height * width * channels];
    for (index, picture) in pictures.iter().enumerate() {
        let (left, top) = ((index % columns) * (first.width + gap), (index / columns) * (first.height + gap));
        for (y, row) in picture.pixels.chunks((first.width * channels).max(1)).enumerate() {
            let start = ((top + y) * width + left) * channels;
            pixels.iter_mut().skip(start).zip(row).for_each(|(to, from)| *to = *from);
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
