//! Which samples are asked for: seeds, classes and noise, checked against the model.

use crate::args::SampleArgs;
use crate::arrays::read_noise;
use crate::failure::usage;
use anyhow::Result;
use gmflow::checkpoint::{ClassNames, DataKind, ModelInfo};

const IMAGES: usize = 16;
const POINTS: usize = 10_000;
const IMAGES_AT_ONCE: usize = 16;
const POINTS_AT_ONCE: usize = 4096;

/// The samples that are asked for.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// One seed per sample.
    pub seeds: Vec<u64>,
    /// One class per sample, of models with classes.
    pub classes: Option<Vec<usize>>,
    /// The noise to start from instead of the seeds', `[n c h w]`.
    pub noise: Option<Vec<f32>>,
    /// Samples computed at once.
    pub batch: usize,
}

impl Request {
    /// Checks the arguments against the model.
    pub fn new(arguments: &SampleArgs, info: &ModelInfo) -> Result<Self> {
        let shape = [info.data.channels, info.data.height, info.data.width];
        let noise = arguments.noise.as_deref().map(|path| read_noise(path, shape)).transpose()?;
        let (count, batch) = match info.data.kind {
            DataKind::Image | DataKind::Latents => (IMAGES, IMAGES_AT_ONCE),
            DataKind::Points => (POINTS, POINTS_AT_ONCE),
        };
        let count = match &noise {
            Some(noise) => noise.len() / shape.iter().product::<usize>(),
            None => arguments.num.unwrap_or(count),
        };
        let seeds = (0..count as u64).map(|index| arguments.seed.wrapping_add(index)).collect();
        let classes = classes(&arguments.class, info)?;
        let classes = classes.map(|classes| classes.iter().copied().cycle().take(count).collect());
        Ok(Self { seeds, classes, noise, batch: arguments.batch.unwrap_or(batch) })
    }
}

/// The classes to take in turn: those asked for, or all.
fn classes(asked: &[String], info: &ModelInfo) -> Result<Option<Vec<usize>>> {
    let count = info.network.num_classes();
    match (asked, count) {
        ([], 0) => Ok(None),
        ([first, ..], 0) => Err(usage("--class", "no class, because the model has none", first)),
        ([], _) => Ok(Some((0..info.classes.as_ref().map_or(count, Vec::len)).collect())),
        _ => find_classes(asked, info.class_names()).map(Some),
    }
}

/// The classes that the arguments name, each one or several.
fn find_classes(asked: &[String], names: ClassNames) -> Result<Vec<usize>> {
    let found = asked.iter().map(|asked| names.find_all(asked)).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| match error {
        gmflow::Error::Config { expected, got, .. } => usage("--class", expected, got),
        other => other.into(),
    })?;
    Ok(found.concat())
}
