//! Where images come from.

mod folder;
mod idx;
mod listing;
#[cfg(feature = "parquet")]
mod parquet;
pub(crate) mod tar;

pub use folder::{FolderDataset, MAX_FILE_BYTES};
pub use idx::{IdxDataset, MAX_IDX_BYTES};
#[cfg(feature = "parquet")]
pub use parquet::{Columns, ParquetDataset};
pub use tar::{ShardPaths, TarData, TarDataset};

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::fingerprint::Fingerprint;
use crate::order::Nearby;
use crate::{Error, Result};

/// The first bytes of a file that tell what it is.
const START: u64 = 512;

/// The first bytes of a file that has just been opened.
fn start_of(path: &Path, file: &File) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(START).read_to_end(&mut start).map_err(|error| Error::io(path, error))?;
    Ok(start)
}

/// One image with its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Values in [-1, 1]. `[c h w]`
    pub pixels: Vec<f32>,
    /// The class; 0 in a set without classes.
    pub label: u32,
}

/// What is known of an image as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Height and width in pixels.
    pub size: [usize; 2],
    /// How it is stored, such as `jpg`.
    pub format: String,
}

/// An image file as it is stored, with its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageBytes {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// The usual ending of files of its format, such as `jpg`.
    pub ending: String,
    /// The class; 0 in a set without classes.
    pub label: u32,
}

/// The number of images of each of `classes` classes. Labels that are none are not counted.
pub(crate) fn counts(labels: impl IntoIterator<Item = usize>, classes: usize) -> Vec<u64> {
    let mut counts = vec![0; classes];
    for label in labels {
        if let Some(count) = counts.get_mut(label) {
            *count += 1;
        }
    }
    counts
}

/// Images of one shape with random access.
pub trait ImageDataset: Send + Sync + std::fmt::Debug {
    /// The number of images, damaged ones included.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `[c, h, w]` of every image.
    fn shape(&self) -> [usize; 3];

    /// The names of the classes; empty for a set without classes. Every label is below its length otherwise.
    fn class_names(&self) -> &[String];

    /// The number of images of each class, as their labels say; `None` where it is not known, or for a set without classes.
    fn class_images(&self) -> Option<Vec<u64>> {
        None
    }

    /// How the image at `index` is stored: by default in the set's own form, of one size.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn stored(&self, index: usize) -> Result<StoredImage> {
        let [_, height, width] = self.shape();
        let _ = index;
        Ok(StoredImage { size: [height, width], format: "raw".to_owned() })
    }

    /// The image file at `index`, undecoded; `None` in a set that is not made of image files.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn file(&self, index: usize) -> Result<Option<ImageBytes>> {
        let _ = index;
        Ok(None)
    }

    /// The files to visit one after the other; `None` where images are visited in a random order.
    fn nearby(&self) -> Option<Nearby> {
        None
    }

    /// Says that the image at `index` is needed soon. Nothing is waited for.
    fn prefetch(&self, index: usize) {
        let _ = index;
    }

    /// What the set is known by; `None` where it cannot be told. It is made of all that the set holds when it is asked for.
    fn fingerprint(&self) -> Option<Fingerprint> {
        None
    }

    /// What a message calls the image at `index`: a file by its path.
    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }

    /// Whether every [`get`](Self::get) decodes a file, so that it is worth memory to do so once only.
    fn is_decoded(&self) -> bool {
        false
    }

    /// Checks the labels of all images, where they are at hand before any image is decoded.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] for the first label that is missing or is no class.
    fn check_labels(&self) -> Result<()> {
        Ok(())
    }

    /// The image at `index`.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] when it is damaged, [`crate::FilesError::Io`] when it cannot be
    /// read, [`crate::FilesError::Config`] when there is no such index.
    fn get(&self, index: usize) -> Result<Image>;
}
