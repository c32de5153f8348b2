//! Which data a run learns from, as it stands in a configuration file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::density::Density;
use crate::latents::LatentDataset;
use crate::named::NamedData;
use crate::settings::{Corrupt, ImageSettings};
use crate::shapes::{Shapes, ShapesDataset};
#[cfg(feature = "parquet")]
use crate::source::{Columns, ParquetDataset};
use crate::source::{FolderDataset, IdxDataset, ImageDataset};
use crate::{Error, Result};

/// A data set. Relative paths are taken from the folder given to [`open`](Self::open).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DatasetConfig {
    /// A 2-D density.
    Density(Density),
    /// Pictures of coloured shapes in six classes, drawn on the spot.
    Shapes(Shapes),
    /// A well-known set by its name: MNIST, Fashion-MNIST, CIFAR-10.
    Named(NamedData),
    /// IDX files, with or without gzip.
    Idx {
        /// The file of images.
        images: PathBuf,
        /// The file of labels; without it the set has no classes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<PathBuf>,
        /// Shape and treatment of the images.
        #[serde(default)]
        image: ImageSettings,
    },
    /// Parquet files with encoded images.
    Parquet {
        /// A file, a folder of `*.parquet` files or a pattern such as `data/train-*.parquet`.
        path: PathBuf,
        /// The column of images; by default one that the hub's metadata or its name tells, or the only one with bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image_column: Option<String>,
        /// The column of labels, or an empty text for none; by default one that the hub's metadata or its name tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label_column: Option<String>,
        /// Shape and treatment of the images.
        #[serde(default)]
        image: ImageSettings,
    },
    /// Image files in one subfolder per class.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Shape and treatment of the images; `size` is required.
        image: ImageSettings,
    },
    /// A cache of latents, as `gmflow encode` writes it.
    Latents {
        /// The cache's folder.
        path: PathBuf,
        /// Take the mirrored image's latent with probability one half; the cache must have been encoded with it.
        #[serde(default)]
        horizontal_flip: bool,
    },
}

impl DatasetConfig {
    /// The settings of images that are read; `None` for the other kinds.
    pub fn image(&self) -> Option<&ImageSettings> {
        match self {
            Self::Density(_) | Self::Shapes(_) | Self::Latents { .. } => None,
            Self::Named(NamedData { image, .. })
            | Self::Idx { image, .. }
            | Self::Parquet { image, .. }
            | Self::Folder { image, .. } => Some(image),
        }
    }

    /// Every path in the configuration with the name of its setting, for a caller that resolves them itself.
    pub fn paths_mut(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        match self {
            Self::Density(_) | Self::Shapes(_) => Vec::new(),
            Self::Named(named) => named.folder.iter_mut().map(|folder| ("folder", folder)).collect(),
            Self::Idx { images, labels, .. } => {
                std::iter::once(("images", images)).chain(labels.iter_mut().map(|path| ("labels", path))).collect()
            }
            Self::Parquet { path, .. } | Self::Folder { path, .. } | Self::Latents { path, .. } => {
                vec![("path", path)]
            }
        }
    }

    /// Checks every setting without touching a file.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] naming the first setting outside its domain.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Density(density) => return density.validate(),
            Self::Shapes(shapes) => return shapes.validate(),
            Self::Folder { image, .. } if image.size.is_none() => {
                return Err(Error::config("image.size", "a size, for a folder", "none"));
            }
            _ => {}
        }
        self.clone().paths_mut().into_iter().try_for_each(|(field, path)| match path.as_os_str().is_empty() {
            true => Err(Error::config(field, "a file or folder", "an empty path")),
            false => Ok(()),
        })?;
        self.image().map_or(Ok(()), ImageSettings::validate)
    }

    /// Opens the data set.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate) and of the sources: [`IdxDataset::open`], `ParquetDataset::open`,
    /// [`FolderDataset::open`], [`LatentDataset::open`].
    pub fn open(&self, base_dir: &Path) -> Result<Dataset> {
        self.validate()?;
        let (images, settings): (Arc<dyn ImageDataset>, _) = match self {
            Self::Density(density) => return Ok(Dataset::Points(*density)),
            Self::Shapes(shapes) => return drawn(*shapes),
            Self::Latents { path, horizontal_flip } => return latents(&base_dir.join(path), *horizontal_flip),
            Self::Idx { images, labels, image } => {
                let labels = labels.as_ref().map(|labels| base_dir.join(labels));
                (Arc::new(IdxDataset::open(&base_dir.join(images), labels.as_deref(), image)?), image)
            }
            Self::Parquet { path, image_column, label_column, image } => {
                (parquet(&base_dir.join(path), [image_column.as_deref(), label_column.as_deref()], image)?, image)
            }
            Self::Named(named) => (named.open(base_dir)?, &named.image),
            Self::Folder { path, image } => (Arc::new(FolderDataset::open(&base_dir.join(path), image)?), image),
        };
        Ok(Dataset::Images { images, corrupt: settings.corrupt, horizontal_flip: settings.horizontal_flip })
    }
}

fn drawn(shapes: Shapes) -> Result<Dataset> {
    let images = Arc::new(ShapesDataset::new(shapes)?);
    Ok(Dataset::Images { images, corrupt: Corrupt::Refuse, horizontal_flip: false })
}

#[cfg(feature = "parquet")]
fn parquet(
    path: &Path,
    [image, label]: [Option<&str>; 2],
    settings: &ImageSettings,
) -> Result<Arc<dyn ImageDataset>> {
    Ok(Arc::new(ParquetDataset::open(path, Columns { image, label }, settings)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &Path, _: [Option<&str>; 2], _: &ImageSettings) -> Result<Arc<dyn ImageDataset>> {
    Err(Error::config("kind", "another kind, as this program was built without Parquet", "parquet"))
}

fn latents(folder: &Path, horizontal_flip: bool) -> Result<Dataset> {
    let latents = LatentDataset::open(folder)?;
    if horizontal_flip && !latents.manifest().mirrored {
        let expected = "false: the cache was encoded without mirrored images";
        return Err(Error::config("horizontal_flip", expected, horizontal_flip));
    }
    Ok(Dataset::Latents { latents: Arc::new(latents), horizontal_flip })
}
