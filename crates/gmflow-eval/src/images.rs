//! Data sets of images, read some at a time.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow_data::{Corrupt, Shapes, ShapesDataset};
//! use gmflow_eval::features::FeatureNetwork;
//! use gmflow_eval::images::RealImages;
//! use std::sync::Arc;
//!
//! let shapes = ShapesDataset::new(Shapes { size: 16, count: 40, ..Shapes::default() })?;
//! let images = RealImages::new(Arc::new(shapes), Corrupt::Refuse, Some(30));
//! let network = FeatureNetwork::load(&"pixels".parse()?, &Device::flex(), || Ok("not asked for".into()))?;
//! let set = images.features(&network, "shapes", true, &mut ())?;
//! assert_eq!((set.info.data.as_str(), set.info.count), ("shapes, first 30", 30));
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

use crate::arrays::Samples;
use crate::features::FeatureNetwork;
use crate::progress::{Part, Progress};
use crate::{Error, Result, SampleSet, SetBuilder};
use gmflow_data::{Corrupt, ImageDataset};
use gmflow_world::{Solo, World, share_of_batches};
use std::ops::Range;
use std::sync::Arc;

/// Images read at once.
const AT_ONCE: usize = 128;

/// The first images of a data set.
#[derive(Clone)]
pub struct RealImages {
    /// The data set.
    pub images: Arc<dyn ImageDataset>,
    /// What happens to damaged files.
    pub corrupt: Corrupt,
    /// How many of the images are used.
    pub count: usize,
}

/// Images that were read at once.
#[derive(Clone, Copy, Debug)]
pub struct RealBatch<'a> {
    /// `[n c h w]`
    pub pixels: &'a [f32],
    /// The class of each.
    pub labels: &'a [u32],
    /// The place of each in the data set.
    pub places: &'a [u64],
}

/// Takes images.
type TakeImages<'a> = dyn FnMut(RealBatch) -> Result<()> + 'a;

impl RealImages {
    /// The first `limit` images, or all.
    pub fn new(images: Arc<dyn ImageDataset>, corrupt: Corrupt, limit: Option<usize>) -> Self {
        let count = images.len().min(limit.unwrap_or(usize::MAX));
        Self { images, corrupt, count }
    }

    /// The images that a process reads: whole batches, so that no figure depends on how many processes there are.
    pub fn part_of(&self, world: &dyn World) -> Range<usize> {
        share_of_batches(self.count, AT_ONCE, world.rank(), world.size())
    }

    /// Hands the images of a range over, some at a time; damaged ones are left out where that is asked for. A batch is read from as many
    /// images as every other, damaged ones included, so that a range that begins between two batches has the batches that it has in the
    /// whole.
    ///
    /// # Errors
    /// A file that cannot be read; whatever `take` fails with.
    pub fn for_each_batch_of(&self, range: Range<usize>, take: &mut TakeImages) -> Result<()> {
        let (mut pixels, mut labels, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for index in range.clone() {
            match self.images.get(index) {
                Ok(image) => {
                    pixels.extend(image.pixels);
                    labels.push(image.label);
                    places.push(index as u64);
                }
                Err(error) if self.corrupt == Corrupt::Skip && error.is_corrupt() => {
                    log::warn!("{error}; it is left out");
                }
                Err(error) => return Err(error.into()),
            }
            let ends = (index + 1).is_multiple_of(AT_ONCE) || index + 1 == range.end;
            if ends && !labels.is_empty() {
                take(RealBatch { pixels: &pixels, labels: &labels, places: &places })?;
                pixels.clear();
                labels.clear();
                places.clear();
            }
        }
        Ok(())
    }

    /// The features of the images, as the set `name`; `keep` keeps the vectors too.
    ///
    /// # Errors
    /// A file that cannot be read, or images that the network does not take.
    pub fn features(
        &self,
        network: &FeatureNetwork,
        name: &str,
        keep: bool,
        progress: &mut dyn Progress,
    ) -> Result<SampleSet> {
        let set = self.features_in((&Solo::default(), true), network, name, keep, progress)?;
        set.ok_or_else(|| Error::config(name, "a set", "none"))
    }

    /// [`features`](Self::features) by several processes, each of which computes a part; on the first one, or on all of them.
    ///
    /// # Errors
    /// As [`features`](Self::features).
    pub fn features_in(
        &self,
        (world, on_all): (&dyn World, bool),
        network: &FeatureNetwork,
        name: &str,
        keep: bool,
        progress: &mut dyn Progress,
    ) -> Result<Option<SampleSet>> {
        let images = self.images.as_ref();
        let range = self.part_of(world);
        let mut builder = SetBuilder::of_rank(network, images.shape(), keep, world);
        let mut part = Part::begin(progress, "features", range.len() as u64, "images");
        let mut done = 0;
        let class = |label: &u32| images.class_names().get(*label as usize).map(String::as_str);
        self.for_each_batch_of(range, &mut |RealBatch { pixels, labels, .. }| {
            builder.add_asked(pixels, &labels.iter().filter_map(class).collect::<Vec<_>>())?;
            done += labels.len() as u64;
            part.at(done)
        })?;
        let whole = described(name, self.count, images.len());
        builder.finish_in((world, on_all), whole, images.class_names().to_vec())
    }
}

impl Samples {
    /// The features of the first `limit` images, or of all, as the set `name`; `keep` keeps the vectors too.
    ///
    /// # Errors
    /// No samples, or images that the network does not take.
    pub fn features(
        &self,
        network: &FeatureNetwork,
        name: &str,
        (limit, keep): (Option<usize>, bool),
        progress: &mut dyn Progress,
    ) -> Result<SampleSet> {
        let set = self.features_in((&Solo::default(), true), network, name, (limit, keep), progress)?;
        set.ok_or_else(|| Error::config(name, "a set", "none"))
    }

    /// [`features`](Self::features) by several processes, each of which computes a part; on the first one, or on all of them.
    ///
    /// # Errors
    /// As [`features`](Self::features).
    pub fn features_in(
        &self,
        (world, on_all): (&dyn World, bool),
        network: &FeatureNetwork,
        name: &str,
        (limit, keep): (Option<usize>, bool),
        progress: &mut dyn Progress,
    ) -> Result<Option<SampleSet>> {
        let size = self.shape.iter().product::<usize>().max(1);
        let all = self.values.len() / size;
        let count = all.min(limit.unwrap_or(usize::MAX));
        if count == 0 {
            return Err(Error::config(name, "at least 2 samples", 0));
        }
        let range = share_of_batches(count, AT_ONCE, world.rank(), world.size());
        let mut builder = SetBuilder::of_rank(network, self.shape, keep, world);
        let mut part = Part::begin(progress, "features", range.len() as u64, "images");
        let mut done = 0;
        for chunk in self.values[range.start * size..range.end * size].chunks(AT_ONCE * size) {
            builder.add(chunk)?;
            done += (chunk.len() / size) as u64;
            part.at(done)?;
        }
        builder.finish_in((world, on_all), described(name, count, all), Vec::new())
    }
}

/// The name of a set, and how many of its samples were used where that is not all.
fn described(name: &str, count: usize, all: usize) -> String {
    if count < all { format!("{name}, first {count}") } else { name.to_owned() }
}
