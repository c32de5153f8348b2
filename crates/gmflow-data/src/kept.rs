//! Images that are decoded once and then kept in memory.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use gmflow_files::to_byte;

use crate::fingerprint::Fingerprint;
use crate::order::Nearby;
use crate::pixels::from_byte;
use crate::source::{Image, ImageBytes, ImageDataset, StoredImage};
use crate::{Dataset, Result};

/// A set of images, each of which is decoded when it is asked for the first time. The values are bit for bit those of the set.
pub(crate) struct Kept {
    images: Arc<dyn ImageDataset>,
    places: Vec<OnceLock<(Pixels, u32)>>,
    /// Bytes that may still be taken.
    left: AtomicU64,
}

/// The values of an image, in as few bytes as hold them.
enum Pixels {
    /// Of an image of 8 bits.
    Bytes(Box<[u8]>),
    /// Of a deeper one.
    Values(Box<[f32]>),
}

impl Dataset {
    /// The bytes that the images take once they have been decoded; `None` of sets that are not decoded.
    pub fn decoded_bytes(&self) -> Option<u64> {
        let Self::Images { images, .. } = self else { return None };
        let values = images.shape().iter().fold(images.len() as u64, |all, side| all.saturating_mul(*side as u64));
        images.is_decoded().then_some(values)
    }

    /// The same set, of which every image is decoded once only, where all of them fit in `most` bytes. Images of more than 8 bits take four
    /// times as much; those that no longer fit are decoded again.
    #[must_use]
    pub fn kept_in(self, most: u64) -> Self {
        match (self.decoded_bytes(), self) {
            (Some(bytes), Self::Images { images, corrupt, horizontal_flip }) if bytes <= most => {
                let places = (0..images.len()).map(|_| OnceLock::new()).collect();
                let images = Arc::new(Kept { images, places, left: AtomicU64::new(most) });
                Self::Images { images, corrupt, horizontal_flip }
            }
            (_, other) => other,
        }
    }
}

impl Kept {
    /// Keeps an image, unless there is no room.
    fn keep(&self, index: usize, image: &Image) {
        let Some(place) = self.places.get(index) else { return };
        let pixels = Pixels::of(&image.pixels);
        let taken =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(pixels.size()));
        if taken.is_ok() {
            // Where another thread was faster, it has kept the same.
            let _ = place.set((pixels, image.label));
        }
    }
}

impl Pixels {
    fn of(values: &[f32]) -> Self {
        let bytes: Box<[u8]> = values.iter().map(|value| to_byte(*value)).collect();
        let same = bytes.iter().zip(values).all(|(byte, value)| from_byte(*byte).to_bits() == value.to_bits());
        if same { Self::Bytes(bytes) } else { Self::Values(values.into()) }
    }

    fn values(&self) -> Vec<f32> {
        match self {
            Self::Bytes(bytes) => bytes.iter().map(|byte| from_byte(*byte)).collect(),
            Self::Values(values) => values.to_vec(),
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Values(values) => size_of_val(&**values) as u64,
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("images", &self.images).field("left", &self.left).finish_non_exhaustive()
    }
}

impl ImageDataset for Kept {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.images.shape()
    }

    fn class_names(&self) -> &[String] {
        self.images.class_names()
    }

    fn class_images(&self) -> Option<Vec<u64>> {
        self.images.class_images()
    }

    fn name(&self, index: usize) -> String {
        self.images.name(index)
    }

    fn file(&self, index: usize) -> Result<Option<ImageBytes>> {
        self.images.file(index)
    }

    fn nearby(&self) -> Option<Nearby> {
        self.images.nearby()
    }

    fn prefetch(&self, index: usize) {
        if self.places.get(index).is_some_and(|place| place.get().is_none()) {
            self.images.prefetch(index);
        }
    }

    fn stored(&self, index: usize) -> Result<StoredImage> {
        self.images.stored(index)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        self.images.fingerprint()
    }

    fn check_labels(&self) -> Result<()> {
        self.images.check_labels()
    }

    fn get(&self, index: usize) -> Result<Image> {
        if let Some((pixels, label)) = self.places.get(index).and_then(OnceLock::get) {
            return Ok(Image { pixels: pixels.values(), label: *label });
        }
        let image = self.images.get(index)?;
        self.keep(index, &image);
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_every_deeper_value_comes_back_as_it_was() {
        let bytes: Vec<f32> = (0..=255).map(from_byte).collect();
        let kept = Pixels::of(&bytes);
        assert!(matches!(kept, Pixels::Bytes(_)) && kept.size() == 256);
        assert_eq!(kept.values(), bytes);
        let deep = [0.123_456, -1.0, 1.0];
        let kept = Pixels::of(&deep);
        assert!(matches!(kept, Pixels::Values(_)) && kept.size() == 12);
        assert_eq!(kept.values(), deep);
    }
}
