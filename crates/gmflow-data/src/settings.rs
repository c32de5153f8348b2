//! The settings that all image sources share.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Largest side of the images that are handed to the trainer.
pub const MAX_SIZE: usize = 4096;

/// Most pixels that an image file may claim to have where the settings do not say otherwise: more than the 200 megapixels of the largest
/// cameras in telephones.
pub const MAX_PIXELS: u64 = 1 << 28;

/// The largest [`ImageSettings::max_pixels`].
const MOST_PIXELS: u64 = 1 << 34;

/// What happens to a file or row whose content is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corrupt {
    /// It is an error that names the file.
    #[default]
    Refuse,
    /// The file is named in a warning, and another image, chosen by the seed, takes its place.
    Skip,
}

/// What shows through transparent pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Background {
    /// White, as on a page.
    #[default]
    White,
    /// Black.
    Black,
}

/// How images are brought to one shape, and what happens to damaged ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSettings {
    /// Height and width in pixels: other images are resized so that the shorter side fits, and the centre is cut out.
    /// Required for folders; by default the stored size (IDX) or that of the first image (Parquet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// 1 (grey) or 3 (RGB); by default 1 for IDX and 3 otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// What shows through transparent pixels.
    #[serde(default)]
    pub background: Background,
    /// What happens to a damaged file or row.
    #[serde(default)]
    pub corrupt: Corrupt,
    /// Mirror every image with probability one half, a pure function of seed, epoch and image.
    #[serde(default)]
    pub horizontal_flip: bool,
    /// Most pixels that an image file may claim to have, by default 268435456; a larger one counts as damaged, before memory is taken
    /// for it. Decoding takes about 6 bytes per pixel of 8-bit colour and 24 of images with 16 bits or transparency, in each of two threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
}

impl ImageSettings {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] naming the first setting outside its domain.
    pub fn validate(&self) -> Result<()> {
        if let Some(size) = self.size
            && !(1..=MAX_SIZE).contains(&size)
        {
            return Err(Error::config("image.size", format!("1 to {MAX_SIZE}"), size));
        }
        if let Some(pixels) = self.max_pixels
            && !(1..=MOST_PIXELS).contains(&pixels)
        {
            return Err(Error::config("image.max_pixels", format!("1 to {MOST_PIXELS}"), pixels));
        }
        match self.channels {
            None | Some(1 | 3) => Ok(()),
            Some(other) => Err(Error::config("image.channels", "1 or 3", other)),
        }
    }

    /// The settings as the decoder needs them, with the source's own defaults filled in.
    pub(crate) fn format(&self, [height, width]: [usize; 2], channels: usize) -> Format {
        Format {
            height: self.size.unwrap_or(height),
            width: self.size.unwrap_or(width),
            channels: self.channels.unwrap_or(channels),
            background: self.background,
            max_pixels: self.max_pixels.unwrap_or(MAX_PIXELS),
        }
    }
}

/// The form in which images are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// What shows through transparent pixels.
    pub background: Background,
    /// Most pixels that an image file may claim to have.
    pub max_pixels: u64,
}

impl Format {
    /// `[c, h, w]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }
}
