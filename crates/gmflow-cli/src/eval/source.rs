//! What a path stands for: data, samples, statistics or a checkpoint.

use crate::args::ArrayArgs;
use crate::data_source;
use crate::failure::usage;
use crate::terminal;
use anyhow::{Result, anyhow};
use gmflow_data::{
    Corrupt, Dataset, DatasetConfig, Density, FolderDataset, ImageDataset, ImageSettings, TarDataset, is_url,
};
use gmflow_eval::arrays::{
    SampleReading, Samples, npz_has_samples, npz_names, read_features, read_mu_sigma, read_samples,
};
use gmflow_eval::features::FeatureNetwork;
use gmflow_eval::images::RealImages;
use gmflow_eval::models::model_folder;
use gmflow_eval::{SampleSet, SetInfo};
use gmflow_world::World;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The features of vectors from another program.
pub const PRECOMPUTED: &str = "precomputed";

/// What a path stands for.
pub enum Source {
    /// Real or generated images.
    Images(Arc<dyn ImageDataset>, Corrupt),
    /// Samples in an array file.
    Samples(Samples),
    /// A 2-D density.
    Density(Density),
    /// Features and their moments.
    Set(Box<SampleSet>),
    /// A model, by its path or its name on the hub.
    Checkpoint(PathBuf),
}

/// How paths are to be understood.
#[derive(Default)]
pub struct Reading<'a> {
    /// Whether arrays hold vectors rather than samples.
    pub precomputed: bool,
    /// Height and width that the images of a folder are brought to.
    pub size: Option<usize>,
    /// The folder of --data, for a set that is given by its name.
    pub data: Option<&'a Path>,
    /// `[c h w]` of the reference, for samples whose channels a file does not tell.
    pub like: Option<&'a [usize; 3]>,
    /// What the numbers of arrays are.
    pub arrays: ArrayArgs,
}

impl Reading<'_> {
    fn samples(&self) -> SampleReading {
        SampleReading { range: self.arrays.range, layout: self.arrays.layout, like: self.like.copied() }
    }
}

impl Source {
    /// Finds out what `path` stands for.
    pub fn open(path: &Path, reading: &Reading) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        if is_url(path) || ending == "tar" {
            return images(DatasetConfig::guess(path)?, reading);
        }
        if path.is_dir() {
            return if model_folder(path).is_ok() {
                Ok(Self::Checkpoint(path.to_owned()))
            } else {
                folder(path, reading)
            };
        }
        let name = || path.display().to_string();
        match ending.as_str() {
            _ if !path.exists() => Ok(Self::Checkpoint(path.to_owned())),
            "toml" => match data_source::from_toml(path, reading.data)?.open(Path::new(""))? {
                Dataset::Images { images, corrupt, .. } => Ok(Self::Images(images, corrupt)),
                Dataset::Points(density) => Ok(Self::Density(density)),
                Dataset::Latents { .. } => Err(usage("data.source", "images or points", "latents")),
            },
            "safetensors" if SampleSet::is_saved(path) => Ok(Self::Set(Box::new(SampleSet::load(path)?))),
            // References of other programs may hold images beside their moments.
            "npz"
                if npz_names(path)?.iter().any(|name| name == "sigma")
                    && (reading.precomputed || !npz_has_samples(path)?) =>
            {
                Ok(Self::Set(Box::new(SampleSet::of_moments(read_mu_sigma(path)?, name()))))
            }
            "npy" | "npz" | "safetensors" if reading.precomputed => {
                if reading.arrays.range.is_some() || reading.arrays.layout.is_some() {
                    return Err(usage("--range, --layout", "array files of images", "--features precomputed"));
                }
                Ok(Self::Set(Box::new(SampleSet::of_vectors(read_features(path)?, name())?)))
            }
            "npy" | "npz" | "safetensors" => Ok(Self::Samples(read_samples(path, &reading.samples())?)),
            _ => {
                Err(usage(&name(), "a folder, or a file ending in .toml, .npy, .npz or .safetensors", "another file"))
            }
        }
    }

    /// What can be told of the features of images and samples before any is computed.
    pub fn outline(&self, path: &Path, network: &FeatureNetwork, limit: Option<usize>) -> Option<SetInfo> {
        let (count, shape) = match self {
            Self::Images(images, _) => (images.len(), images.shape()),
            Self::Samples(samples) => {
                (samples.values.len() / samples.shape.iter().product::<usize>().max(1), samples.shape)
            }
            _ => return None,
        };
        Some(SetInfo {
            count: count.min(limit.unwrap_or(usize::MAX)) as u64,
            data: path.display().to_string(),
            features: network.info.clone(),
            shape: Some(shape),
            classes: Vec::new(),
            colours: None,
        })
    }

    /// The features of images and samples; a set that is there already, without its vectors where they are not kept. Several processes
    /// compute a part each, and the first one has the set, or all of them.
    pub fn into_set(
        self,
        path: &Path,
        network: Option<&FeatureNetwork>,
        (limit, keep): (Option<usize>, bool),
        (world, on_all): (&dyn World, bool),
    ) -> Result<Option<SampleSet>> {
        let name = path.display().to_string();
        let network = || network.ok_or_else(|| usage(&name, "features of images", "--features precomputed"));
        let mut progress = terminal::Parts::default();
        match self {
            Self::Set(set) => Ok(Some(SampleSet { vectors: set.vectors.filter(|_| keep), ..*set })),
            Self::Images(images, corrupt) => {
                let images = RealImages::new(images, corrupt, limit);
                Ok(images.features_in((world, on_all), network()?, &name, keep, &mut progress)?)
            }
            Self::Samples(samples) => {
                Ok(samples.features_in((world, on_all), network()?, &name, (limit, keep), &mut progress)?)
            }
            Self::Density(_) | Self::Checkpoint(_) => {
                Err(usage(&name, "images, samples or statistics", "a density or a checkpoint"))
            }
        }
    }
}

/// The settings of images that a path alone names.
fn settings(reading: &Reading) -> ImageSettings {
    ImageSettings {
        size: reading.size,
        channels: reading.like.map(|shape| shape[0]).filter(|channels| *channels == 1),
        ..ImageSettings::default()
    }
}

/// Images in tar shards or behind a URL.
fn images(mut source: DatasetConfig, reading: &Reading) -> Result<Source> {
    let settings = settings(reading);
    if let Some(image) = source.image_mut() {
        image.clone_from(&settings);
    }
    let images: Arc<dyn ImageDataset> = match (&source, reading.size) {
        (DatasetConfig::Tar(tar), None) => Arc::new(TarDataset::open_exact(tar, Path::new(""))?),
        (DatasetConfig::Folder { path, .. }, None) => Arc::new(FolderDataset::open_exact(path, &settings)?),
        _ => match source.open(Path::new(""))? {
            Dataset::Images { images, .. } => images,
            _ => return Err(usage("--real", "images", "points or latents")),
        },
    };
    Ok(Source::Images(images, settings.corrupt))
}

fn folder(path: &Path, reading: &Reading) -> Result<Source> {
    if let Ok(source @ DatasetConfig::Tar(_)) = DatasetConfig::guess(path) {
        return images(source, reading);
    }
    let settings = settings(reading);
    let opened = match reading.size {
        Some(_) => FolderDataset::open(path, &settings),
        None => FolderDataset::open_exact(path, &settings),
    };
    let images = opened.map_err(|error| anyhow!("{error} (neither a checkpoint nor a folder of images)"))?;
    Ok(Source::Images(Arc::new(images), settings.corrupt))
}
