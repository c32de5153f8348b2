//! A set that is built from images, batch by batch, by one process or several.

use crate::features::FeatureNetwork;
use crate::features::resize::to_byte;
use crate::set::largest;
use crate::set_sum::{self, Added, SetSum, Whole};
use crate::{ImageStatsSum, Result, SampleSet};
use gmflow_world::World;

/// Builds a set batch by batch. Memory grows with the number of samples only where vectors are kept.
#[derive(Debug)]
pub struct SetBuilder<'a> {
    network: &'a FeatureNetwork,
    sum: SetSum,
    /// Of a process of several: what its batches add, until all are joined.
    own: Option<Vec<Added>>,
}

impl<'a> SetBuilder<'a> {
    /// For images of one shape `[c h w]`; `keep` keeps vectors and logits, which kernel distance, precision and recall, and the
    /// Inception Score need.
    pub fn new(network: &'a FeatureNetwork, shape: [usize; 3], keep: bool) -> Self {
        Self { network, sum: SetSum::new(shape, keep), own: None }
    }

    /// A builder of one process of several, each of which adds its own batches.
    pub fn of_rank(network: &'a FeatureNetwork, shape: [usize; 3], keep: bool, world: &dyn World) -> Self {
        Self { own: (!world.is_alone()).then(Vec::new), ..Self::new(network, shape, keep) }
    }

    /// Adds images `[n c h w]` in [-1, 1]. They are rounded to 8 bits and cut off at the ends first, so that samples have the figures that
    /// their files have.
    ///
    /// # Errors
    /// Images that the network does not take, or values that are not finite.
    pub fn add(&mut self, images: &[f32]) -> Result<()> {
        self.add_asked(images, &[])
    }

    /// [`add`](Self::add) for samples of classes with these names, one for each image.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_asked(&mut self, images: &[f32], asked: &[&str]) -> Result<()> {
        let images: Vec<f32> = images.iter().map(|&x| to_byte(x) / 127.5 - 1.0).collect();
        let features = self.network.extract(&images, self.sum.shape)?;
        let colours = ImageStatsSum::default().add_each(&images, self.sum.shape)?;
        let mut of_asked = [0; 2];
        if let Some(logits) = &features.logits {
            for (row, name) in (0..logits.rows()).zip(asked) {
                let Some(class) = self.network.class_names().iter().position(|known| known == name) else { continue };
                of_asked[0] += 1;
                of_asked[1] += u64::from(largest(logits.row(row)) == Some(class));
            }
        }
        let added = Added { features, colours, asked: of_asked };
        match &mut self.own {
            Some(own) => {
                own.push(added);
                Ok(())
            }
            None => self.sum.take(added),
        }
    }

    /// The set, under the name `data`.
    ///
    /// # Errors
    /// No image was added.
    pub fn finish(self, data: String, classes: Vec<String>) -> Result<SampleSet> {
        let whole = self.whole(data, classes);
        self.sum.finish(whole)
    }

    /// The set of all processes, whose batches are joined in the order of the ranks: on the first one or on all; `None` on the others. The
    /// figures have the bits of one process that has added all batches.
    ///
    /// # Errors
    /// As [`finish`](Self::finish); processes that work on different sets; those of the world.
    pub fn finish_in(
        mut self,
        (world, on_all): (&dyn World, bool),
        data: String,
        classes: Vec<String>,
    ) -> Result<Option<SampleSet>> {
        let Some(own) = self.own.take() else { return self.finish(data, classes).map(Some) };
        let bytes = set_sum::encode(&self.whole(data, classes), &own)?;
        drop(own);
        let parts = match on_all {
            true => Some(world.gather(&bytes)?),
            false => world.collect(&bytes)?,
        };
        parts.map(|parts| SampleSet::of_parts(&parts)).transpose()
    }

    fn whole(&self, data: String, classes: Vec<String>) -> Whole {
        let SetSum { shape, keep, .. } = self.sum;
        Whole { data, features: self.network.info.clone(), shape, classes, keep }
    }
}
