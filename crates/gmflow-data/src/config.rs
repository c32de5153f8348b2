//! Which data a run learns from, as it stands in a configuration file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gmflow_files::is_url;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::density::Density;
use crate::latents::LatentDataset;
use crate::named::NamedData;
use crate::settings::{Corrupt, ImageSettings};
use crate::shapes::{Shapes, ShapesDataset};
#[cfg(feature = "parquet")]
use crate::source::{Columns, ParquetDataset};
use crate::source::{FolderDataset, IdxDataset, ImageDataset, TarData, TarDataset};
use crate::storage::{Files, Storage};
use crate::{Error, Result};

/// A data set. Relative paths are taken from the folder given to [`open`](Self::open). In place of a path there may be a URL.
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
        /// The cache, and how URLs are read.
        #[serde(default, skip_serializing_if = "Storage::is_default")]
        storage: Storage,
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
        /// The cache, and how URLs are read.
        #[serde(default, skip_serializing_if = "Storage::is_default")]
        storage: Storage,
    },
    /// Image files in one subfolder per class.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Shape and treatment of the images; `size` is required.
        image: ImageSettings,
        /// The cache, and how URLs are read.
        #[serde(default, skip_serializing_if = "Storage::is_default")]
        storage: Storage,
    },
    /// Images in tar shards, as WebDataset and `gmflow pack` write them.
    Tar(TarData),
    /// A cache of latents, as `gmflow encode` writes it.
    Latents {
        /// The cache's folder.
        path: PathBuf,
        /// Take the mirrored image's latent with probability one half; the cache must have been encoded with it.
        #[serde(default)]
        horizontal_flip: bool,
        /// The cache, and how URLs are read.
        #[serde(default, skip_serializing_if = "Storage::is_default")]
        storage: Storage,
    },
}

/// A path of a configuration from a folder on. A URL stays as it is, but one of this machine (`file://`) becomes a path.
pub(crate) fn at(base_dir: &Path, path: &Path) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_prefix("file://")) {
        Some(local) if local.starts_with('/') => PathBuf::from(local),
        _ => gmflow_files::below(base_dir, path),
    }
}

impl DatasetConfig {
    /// The settings of images that are read; `None` for the other kinds.
    pub fn image(&self) -> Option<&ImageSettings> {
        match self {
            Self::Density(_) | Self::Shapes(_) | Self::Latents { .. } => None,
            Self::Named(NamedData { image, .. })
            | Self::Tar(TarData { image, .. })
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
            Self::Tar(TarData { path, class_names, .. }) => {
                let paths = path.all_mut().iter_mut().map(|path| ("path", path));
                paths.chain(class_names.iter_mut().map(|path| ("class_names", path))).collect()
            }
            Self::Parquet { path, .. } | Self::Folder { path, .. } | Self::Latents { path, .. } => {
                vec![("path", path)]
            }
        }
    }

    /// The settings of the cache and of URLs; `None` for kinds that have none.
    pub fn storage_mut(&mut self) -> Option<&mut Storage> {
        match self {
            Self::Density(_) | Self::Shapes(_) | Self::Named(_) => None,
            Self::Tar(TarData { storage, .. })
            | Self::Idx { storage, .. }
            | Self::Parquet { storage, .. }
            | Self::Folder { storage, .. }
            | Self::Latents { storage, .. } => Some(storage),
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
            Self::Tar(tar) => tar.validate()?,
            Self::Named(NamedData { folder: Some(folder), .. }) if is_url(folder) => {
                let expected = "a folder of this machine (kind = \"parquet\" reads the files of a set behind a URL)";
                return Err(Error::config("folder", expected, folder.display()));
            }
            Self::Folder { image, .. } if image.size.is_none() => {
                return Err(Error::config("image.size", "a size, for a folder", "none"));
            }
            _ => {}
        }
        let mut copy = self.clone();
        if let Some(storage) = copy.storage_mut() {
            storage.validate()?;
        }
        copy.paths_mut().into_iter().try_for_each(|(field, path)| match path.as_os_str().is_empty() {
            true => Err(Error::config(field, "a file or folder", "an empty path")),
            false => Ok(()),
        })?;
        self.image().map_or(Ok(()), ImageSettings::validate)
    }

    /// Opens the data set.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate) and of the sources: [`IdxDataset::open`], `ParquetDataset::open`,
    /// [`FolderDataset::open`], [`TarDataset::open`], [`LatentDataset::open`].
    pub fn open(&self, base_dir: &Path) -> Result<Dataset> {
        self.validate()?;
        let at = |path: &Path| at(base_dir, path);
        let (images, settings): (Arc<dyn ImageDataset>, _) = match self {
            Self::Density(density) => return Ok(Dataset::Points(*density)),
            Self::Shapes(shapes) => return drawn(*shapes),
            Self::Latents { path, horizontal_flip, storage } => {
                return latents(&Files::new(storage)?, &at(path), *horizontal_flip);
            }
            Self::Idx { images, labels, image, storage } => {
                let (files, labels) = (Files::new(storage)?, labels.as_deref().map(at));
                (Arc::new(IdxDataset::open_with(&files, &at(images), labels.as_deref(), image)?), image)
            }
            Self::Parquet { path, image_column, label_column, image, storage } => {
                let columns = [image_column.as_deref(), label_column.as_deref()];
                (parquet(&Files::new(storage)?, &at(path), columns, image)?, image)
            }
            Self::Named(named) => (named.open(base_dir)?, &named.image),
            Self::Tar(tar) => (Arc::new(TarDataset::open(tar, base_dir)?), &tar.image),
            Self::Folder { path, image, storage } => {
                (Arc::new(FolderDataset::open_with(Files::new(storage)?, &at(path), image)?), image)
            }
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
    files: &Files,
    path: &Path,
    [image, label]: [Option<&str>; 2],
    settings: &ImageSettings,
) -> Result<Arc<dyn ImageDataset>> {
    Ok(Arc::new(ParquetDataset::open_with(files, path, Columns { image, label }, settings)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet(_: &Files, _: &Path, _: [Option<&str>; 2], _: &ImageSettings) -> Result<Arc<dyn ImageDataset>> {
    Err(Error::config("kind", "another kind, as this program was built without Parquet", "parquet"))
}

fn latents(files: &Files, folder: &Path, horizontal_flip: bool) -> Result<Dataset> {
    let latents = LatentDataset::open_with(files, folder)?;
    if horizontal_flip && !latents.manifest().mirrored {
        let expected = "false: the cache was encoded without mirrored images";
        return Err(Error::config("horizontal_flip", expected, horizontal_flip));
    }
    Ok(Dataset::Latents { latents: Arc::new(latents), horizontal_flip })
}
