//! A data set as a stream of batches, each a pure function of (seed, step).

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand::RngExt;

use crate::density::Density;
use crate::fingerprint::Fingerprint;
use crate::latents::LatentDataset;
use crate::order::Order;
use crate::rng::{Purpose, stream};
use crate::settings::Corrupt;
use crate::source::{Image, ImageDataset};
use crate::{Error, Result};

/// Most replacements that are tried for one damaged image.
const MAX_REPLACEMENTS: u64 = 64;

/// Batches before its turn at which the file of an image is asked for, where files have to be copied first.
const AHEAD: u64 = 16;

/// What a run learns from.
#[derive(Clone, Debug)]
pub enum Dataset {
    /// Images of one shape.
    Images {
        /// The images.
        images: Arc<dyn ImageDataset>,
        /// What happens to damaged ones.
        corrupt: Corrupt,
        /// Whether they are mirrored at random.
        horizontal_flip: bool,
    },
    /// Encoded images, drawn afresh around their means in every epoch.
    Latents {
        /// The cache.
        latents: Arc<LatentDataset>,
        /// Whether mirrored images take their turn at random.
        horizontal_flip: bool,
    },
    /// Points of a 2-D density, drawn afresh in every step.
    Points(Density),
}

impl Dataset {
    /// `[c, h, w]` of one sample; `[2, 1, 1]` for points.
    pub fn shape(&self) -> [usize; 3] {
        match self {
            Self::Images { images, .. } => images.shape(),
            Self::Latents { latents, .. } => latents.manifest().shape,
            Self::Points(_) => [2, 1, 1],
        }
    }

    /// The names of the classes; empty without classes.
    pub fn class_names(&self) -> &[String] {
        match self {
            Self::Images { images, .. } => images.class_names(),
            Self::Latents { latents, .. } => &latents.manifest().classes,
            Self::Points(_) => &[],
        }
    }

    /// The number of images; `None` for points, which never repeat.
    pub fn len(&self) -> Option<usize> {
        match self {
            Self::Images { images, .. } => Some(images.len()),
            Self::Latents { latents, .. } => Some(latents.manifest().count),
            Self::Points(_) => None,
        }
    }

    /// The number of images of each class, as their labels say; `None` where it is not known, or without classes.
    pub fn class_images(&self) -> Option<Vec<u64>> {
        match self {
            Self::Images { images, .. } => images.class_images(),
            Self::Latents { latents, .. } => latents.class_images(),
            Self::Points(_) => None,
        }
    }

    /// What the set is known by, to tell later whether it is still the same; `None` for points, which their settings describe.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Images { images, .. } => images.fingerprint(),
            Self::Latents { latents, .. } => Some(latents.fingerprint()),
            Self::Points(_) => None,
        }
    }

    /// Checks the labels that are at hand before any image is decoded, unless damaged images are passed over.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] for the first label that is missing or is no class.
    pub fn check_labels(&self) -> Result<()> {
        match self {
            Self::Images { images, corrupt: Corrupt::Refuse, .. } => {
                images.check_labels().map_err(|error| error.with_the_way_around(false))
            }
            _ => Ok(()),
        }
    }

    /// Whether it is a set of images without an image.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

/// The samples of one training step.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step.
    pub step: u64,
    /// `[c, h, w]` of one sample.
    pub shape: [usize; 3],
    /// Values, for images in [-1, 1]. `[b c h w]`
    pub images: Vec<f32>,
    /// The class of each sample; 0 without classes. `[b]`
    pub labels: Vec<u32>,
    /// The index of each image in its data set, or the number of the point in the stream. `[b]`
    pub indices: Vec<u64>,
}

/// The endless stream of batches of a data set: every epoch visits every image once in an order of its own, and a batch
/// may span epochs.
#[derive(Debug)]
pub struct Batches {
    dataset: Dataset,
    batch_size: usize,
    /// The samples of every batch that are formed.
    part: Range<usize>,
    seed: u64,
    order: Order,
    /// Damaged images that have been warned about.
    named: Mutex<HashSet<usize>>,
}

impl Batches {
    /// The stream for one seed.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] for a batch size of 0 or a data set that is empty or has more than 2^32 images.
    pub fn new(dataset: Dataset, batch_size: usize, seed: u64) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::config("batch_size", "at least 1", 0));
        }
        let nearby = match &dataset {
            Dataset::Images { images, .. } => images.nearby(),
            _ => None,
        };
        let order = Order::new(dataset.len().unwrap_or(1), seed, batch_size, nearby)?;
        Ok(Self { dataset, batch_size, part: 0..batch_size, seed, order, named: Mutex::default() })
    }

    /// The same stream, of which only these samples of every batch are formed: those of one process of several.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] for a part that is empty or not within the batch.
    pub fn part(self, part: Range<usize>) -> Result<Self> {
        if part.is_empty() || part.end > self.batch_size {
            let expected = format!("at least one of the {} samples of a batch", self.batch_size);
            return Err(Error::config("part", expected, format!("{part:?}")));
        }
        Ok(Self { part, ..self })
    }

    /// The data set.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The batch of a step.
    ///
    /// # Errors
    /// Those of [`ImageDataset::get`], those that [`Corrupt::Skip`] passes over excepted; [`crate::FilesError::Config`] for a step
    /// beyond 2^64 samples.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        match self.batch_unless(step, || false)? {
            Some(batch) => Ok(batch),
            None => Err(Error::loader("a batch", "cancelled")),
        }
    }

    /// The batch of a step, or `None` as soon as `cancelled` says so.
    pub(crate) fn batch_unless(&self, step: u64, cancelled: impl Fn() -> bool) -> Result<Option<Batch>> {
        let size = self.batch_size as u64;
        let beyond = || Error::config("step", format!("at most {}", u64::MAX / size - 1), step);
        let first = step.checked_mul(size).filter(|first| first.checked_add(size).is_some()).ok_or_else(beyond)?;
        let part = first + self.part.start as u64..first + self.part.end as u64;
        let shape = self.dataset.shape();
        let mut batch = Batch { step, shape, images: Vec::new(), labels: Vec::new(), indices: Vec::new() };
        match &self.dataset {
            Dataset::Points(density) => {
                // One generator draws the whole batch.
                let points = density.sample(self.seed, step, self.batch_size);
                batch.images = points.get(self.part.clone()).unwrap_or_default().as_flattened().to_vec(); // [b 2 1 1]
                batch.labels = vec![0; self.part.len()];
                batch.indices = part.collect();
            }
            Dataset::Latents { latents, horizontal_flip } => {
                batch.images.reserve(self.part.len() * shape.iter().product::<usize>());
                for position in part {
                    if cancelled() {
                        return Ok(None);
                    }
                    let (index, epoch) = (self.order.index(position)?, self.order.epoch(position));
                    let mirrored = *horizontal_flip && stream(self.seed, Purpose::Flip, epoch, index as u64).random();
                    let mut rng = stream(self.seed, Purpose::Latent, epoch, index as u64);
                    let latent = latents.draw(index, mirrored, &mut rng)?;
                    batch.images.extend(latent.values); // [b c h w]
                    batch.labels.push(latent.label);
                    batch.indices.push(latent.index);
                }
            }
            Dataset::Images { images, corrupt, horizontal_flip } => {
                batch.images.reserve(self.part.len() * shape.iter().product::<usize>());
                for position in part {
                    if cancelled() {
                        return Ok(None);
                    }
                    let (index, mut image) = self.image(images.as_ref(), *corrupt, position)?;
                    let epoch = self.order.epoch(position);
                    if *horizontal_flip && stream(self.seed, Purpose::Flip, epoch, index as u64).random() {
                        mirror(&mut image.pixels, shape[2]);
                    }
                    batch.images.extend_from_slice(&image.pixels); // [b c h w]
                    batch.labels.push(image.label);
                    batch.indices.push(index as u64);
                }
            }
        }
        Ok(Some(batch))
    }

    /// The image at one position of the stream. A damaged one is replaced by others drawn from (seed, position).
    fn image(&self, images: &dyn ImageDataset, corrupt: Corrupt, position: u64) -> Result<(usize, Image)> {
        let mut index = self.order.index(position)?;
        if self.order.is_nearby() {
            // The same place of a later batch is read by whoever reads this one.
            let ahead = AHEAD.saturating_mul(self.batch_size as u64);
            images.prefetch(self.order.index(position.saturating_add(ahead))?);
        }
        let mut rng = stream(self.seed, Purpose::Replacement, 0, position);
        for _ in 0..MAX_REPLACEMENTS {
            match images.get(index) {
                Ok(image) => return Ok((index, image)),
                Err(error) if corrupt == Corrupt::Skip && error.is_corrupt() => self.name(index, &error),
                Err(error) => return Err(error.with_the_way_around(true)),
            }
            index = rng.random_range(0..images.len());
        }
        let got = format!("{MAX_REPLACEMENTS} damaged images in a row, the last at index {index}");
        Err(Error::loader("mostly readable images", got))
    }

    /// Warns of a damaged image, once.
    fn name(&self, index: usize, error: &Error) {
        if self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(index) {
            log::warn!("{error}; another image takes its place");
        }
    }
}

/// Reverses every row. `[c h w]`
fn mirror(pixels: &mut [f32], width: usize) {
    pixels.chunks_mut(width.max(1)).for_each(<[f32]>::reverse);
}
