//! The data set behind the batches.

use std::ops::Range;
use std::path::Path;

use gmflow::checkpoint::LatentInfo;
use gmflow::limits::available;
use gmflow_data::{Dataset, DatasetConfig, Fingerprint, LatentManifest, Loader, LoaderOptions};

use crate::Result;
use crate::config::Config;

/// Threads that decode. Their number does not change the batches; two keep a CPU's trainer fed.
pub(crate) const WORKERS: usize = 2;

/// Bytes of pictures that are kept in memory once they have been decoded, at the most, and the share of free memory.
const MOST_KEPT: u64 = 1 << 30;
const SHARE_KEPT: u64 = 4;

/// Bytes that the pictures of a run may take in memory once they have been decoded.
pub(crate) fn most_kept() -> u64 {
    available().map_or(MOST_KEPT, |available| MOST_KEPT.min(available.bytes / SHARE_KEPT))
}

/// What the data set says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceInfo {
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// The names of the classes, where the data has labels.
    pub classes: Option<Vec<String>>,
    /// The number of images; none for points, which never repeat.
    pub count: Option<usize>,
    /// The number of images of each class, where it is known; of a run whose data changed, the most there have been.
    pub class_images: Option<Vec<u64>>,
    /// What the data set is known by; points have none.
    pub fingerprint: Option<Fingerprint>,
    /// Points in the plane rather than images.
    pub points: bool,
    /// Where the images are latents, what they are latents of.
    pub latent: Option<LatentInfo>,
}

impl SourceInfo {
    /// The classes that sample pictures show, of a network with `count` classes: those with names, without those that have no image; at
    /// least one.
    pub(crate) fn drawn_classes(&self, count: usize) -> Vec<usize> {
        let named = self.classes.as_ref().map_or(count, Vec::len).min(count);
        let images = |class: &usize| self.class_images.as_ref().and_then(|images| images.get(*class));
        let seen: Vec<usize> = (0..named).filter(|class| images(class) != Some(&0)).collect();
        if seen.is_empty() { (0..count).collect() } else { seen }
    }
}

/// The data of one step.
#[derive(Clone, Debug)]
pub(crate) struct SourceBatch {
    pub(crate) x0: Vec<f32>,
    pub(crate) labels: Option<Vec<u32>>,
    pub(crate) indices: Vec<u64>,
}

/// A data set that is open, before any batch is prepared.
pub(crate) struct OpenData {
    dataset: Dataset,
    pub(crate) info: SourceInfo,
}

impl OpenData {
    /// Opens the data set.
    ///
    /// # Errors
    /// Data that cannot be opened.
    pub(crate) fn open(source: &DatasetConfig) -> Result<Self> {
        // The paths have been resolved when the configuration was loaded.
        let dataset = source.open(Path::new(""))?;
        dataset.check_labels()?;
        Ok(Self::of(dataset))
    }

    /// A data set that is open.
    pub(crate) fn of(dataset: Dataset) -> Self {
        let classes = dataset.class_names();
        let info = SourceInfo {
            shape: dataset.shape(),
            classes: (!classes.is_empty()).then(|| classes.to_vec()),
            count: dataset.len(),
            class_images: dataset.class_images(),
            fingerprint: dataset.fingerprint(),
            points: matches!(dataset, Dataset::Points(_)),
            latent: match &dataset {
                Dataset::Latents { latents, .. } => Some(latent_info(latents.manifest())),
                _ => None,
            },
        };
        Self { dataset, info }
    }

    /// Starts to prepare the samples `part` of the batch of optimiser step `first_step`, counted from 0, and of those after it.
    ///
    /// # Errors
    /// As [`Loader::start`].
    pub(crate) fn start(self, config: &Config, first_step: u64, part: Range<usize>) -> Result<TrainingData> {
        let options = LoaderOptions {
            batch_size: config.train.batch_size,
            seed: config.train.seed,
            first_step,
            workers: WORKERS,
            queue: config.data.queue,
        };
        Ok(TrainingData {
            loader: Loader::start_part(self.dataset.kept_in(most_kept()), options, part.clone())?,
            info: self.info,
            first_step,
            part,
        })
    }
}

/// The data of every step, in order from one step on.
#[derive(Debug)]
pub(crate) struct TrainingData {
    loader: Loader,
    info: SourceInfo,
    first_step: u64,
    part: Range<usize>,
}

impl TrainingData {
    pub(crate) fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// The optimiser step of the first batch.
    pub(crate) fn first_step(&self) -> u64 {
        self.first_step
    }

    /// The samples of every batch that are prepared.
    pub(crate) fn part(&self) -> Range<usize> {
        self.part.clone()
    }

    pub(crate) fn next_batch(&mut self) -> Result<SourceBatch> {
        let batch = self.loader.next_batch()?;
        let labels = self.info.classes.is_some().then_some(batch.labels);
        Ok(SourceBatch { x0: batch.images, labels, indices: batch.indices })
    }
}

fn latent_info(manifest: &LatentManifest) -> LatentInfo {
    LatentInfo {
        scaling_factor: manifest.scaling_factor,
        shift_factor: manifest.shift_factor,
        downsampling: manifest.downsampling,
        vae: manifest.vae.clone(),
    }
}
