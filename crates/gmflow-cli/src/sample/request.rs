//! Which samples are asked for: seeds, classes and noise, checked against the model.

use crate::args::SampleArgs;
use crate::arrays::read_noise;
use crate::failure::usage;
use anyhow::Result;
use gmflow::FilesError;
use gmflow::checkpoint::{ClassNames, DataKind, ModelInfo};
use std::ops::Range;

const IMAGES: usize = 16;
const POINTS: usize = 10_000;
const IMAGES_AT_ONCE: usize = 16;
const POINTS_AT_ONCE: usize = 4096;

/// The samples that are asked for.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// How many samples.
    pub count: usize,
    /// The seed of the first; those behind it follow.
    seed: u64,
    /// The classes that samples take in turn, of models with classes.
    turns: Option<Vec<usize>>,
    /// The noise to start from instead of the seeds', `[n c h w]`.
    pub noise: Option<Vec<f32>>,
    /// Samples computed at once.
    pub batch: usize,
}

impl Request {
    /// How many samples are asked for, where noise does not say it, and how many of them are computed at once.
    pub fn counts(arguments: &SampleArgs, info: &ModelInfo) -> Result<(usize, usize)> {
        let (count, batch) = match info.data.kind {
            DataKind::Image | DataKind::Latents => (IMAGES, IMAGES_AT_ONCE),
            DataKind::Points => (POINTS, POINTS_AT_ONCE),
        };
        let count = arguments.num.unwrap_or(count);
        Ok((count, arguments.batch.unwrap_or(batch).min(count.max(1))))
    }

    /// Checks the arguments against the model.
    pub fn new(arguments: &SampleArgs, info: &ModelInfo) -> Result<Self> {
        let shape = [info.data.channels, info.data.height, info.data.width];
        let (count, batch) = Self::counts(arguments, info)?;
        let noise = arguments.noise.as_deref().map(|path| read_noise(path, shape)).transpose()?;
        let count = match &noise {
            Some(noise) => noise.len() / shape.iter().product::<usize>(),
            None => count,
        };
        let classes = classes(&arguments.class, info)?;
        warn_of_unseen(classes.as_deref().unwrap_or_default(), info);
        Ok(Self { count, seed: arguments.sampler.seed, turns: classes, noise, batch })
    }

    /// The seeds of samples.
    pub fn seeds(&self, range: Range<usize>) -> Vec<u64> {
        range.map(|index| self.seed.wrapping_add(index as u64)).collect()
    }

    /// The classes of samples.
    pub fn classes(&self, range: Range<usize>) -> Option<Vec<usize>> {
        let turns = self.turns.as_ref().filter(|turns| !turns.is_empty())?;
        Some(range.map(|index| turns[index % turns.len()]).collect())
    }
}

/// A class without a training image can be asked for, but nothing was learnt of it.
fn warn_of_unseen(classes: &[usize], info: &ModelInfo) {
    let mut unseen: Vec<usize> =
        classes.iter().copied().filter(|class| info.class_images(*class) == Some(0)).collect();
    unseen.dedup();
    for class in unseen {
        let name = info.classes.as_ref().and_then(|names| names.get(class));
        let name = name.map_or_else(|| class.to_string(), Clone::clone);
        log::warn!("--class: {name} had no image in training, so its samples show nothing that was learnt of it");
    }
}

/// The classes to take in turn: those asked for, or those that had images in training.
fn classes(asked: &[String], info: &ModelInfo) -> Result<Option<Vec<usize>>> {
    let count = info.network.num_classes();
    match (asked, count) {
        ([], 0) => Ok(None),
        ([first, ..], 0) => Err(usage("--class", "no class, because the model has none", first)),
        ([], _) => Ok(Some(info.drawn_classes())),
        _ => find_classes(asked, info.class_names()).map(Some),
    }
}

/// The classes that the arguments name, each one or several.
fn find_classes(asked: &[String], names: ClassNames) -> Result<Vec<usize>> {
    let found = asked.iter().map(|asked| names.find_all(asked)).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| match error {
        gmflow::Error::Files(FilesError::Config { expected, got, .. }) => usage("--class", expected, got),
        other => other.into(),
    })?;
    Ok(found.concat())
}
