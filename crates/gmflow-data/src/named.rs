//! Well-known data sets by their names: which files are theirs, and what is in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::settings::ImageSettings;
use crate::source::{IdxDataset, Image, ImageBytes, ImageDataset, StoredImage};
use crate::{Error, Result};

/// A data set that is known by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KnownSet {
    /// Handwritten digits, 28x28 grey.
    Mnist,
    /// Pieces of clothing, 28x28 grey.
    FashionMnist,
    /// Photographs of animals and vehicles, 32x32 in colour.
    Cifar10,
}

/// One of the two parts of a known set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The larger part, to train on.
    #[default]
    Train,
    /// The smaller part, to measure with.
    Test,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

/// What is known about a set.
struct Facts {
    name: &'static str,
    about: &'static str,
    repository: &'static str,
    folder: &'static str,
    megabytes: u32,
    pictures: [u32; 2],
    channels: usize,
    classes: [&'static str; 10],
}

const MNIST: Facts = Facts {
    name: "mnist",
    about: "handwritten digits, 28x28 grey",
    repository: "ylecun/mnist",
    folder: "mnist",
    megabytes: 18,
    pictures: [60_000, 10_000],
    channels: 1,
    classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
};

const FASHION_MNIST: Facts = Facts {
    name: "fashion-mnist",
    about: "clothing, 28x28 grey",
    repository: "zalando-datasets/fashion_mnist",
    folder: "fashion_mnist",
    megabytes: 36,
    pictures: [60_000, 10_000],
    channels: 1,
    classes: [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
};

const CIFAR10: Facts = Facts {
    name: "cifar10",
    about: "photographs of animals and vehicles, 32x32 in colour",
    repository: "uoft-cs/cifar10",
    folder: "plain_text",
    megabytes: 144,
    pictures: [50_000, 10_000],
    channels: 3,
    classes: ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
};

impl KnownSet {
    /// Every known set.
    pub const ALL: [Self; 3] = [Self::Mnist, Self::FashionMnist, Self::Cifar10];

    fn facts(self) -> &'static Facts {
        match self {
            Self::Mnist => &MNIST,
            Self::FashionMnist => &FASHION_MNIST,
            Self::Cifar10 => &CIFAR10,
        }
    }

    /// The set with this name, as configurations write it.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// The name in configurations, such as `fashion-mnist`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// What it shows, in a few words.
    pub fn about(self) -> &'static str {
        self.facts().about
    }

    /// The repository of data on the Hugging Face hub that holds it, as `owner/name`.
    pub fn repository(self) -> &'static str {
        self.facts().repository
    }

    /// The folder in that repository with its Parquet files.
    pub fn repository_folder(self) -> &'static str {
        self.facts().folder
    }

    /// About how many megabytes are downloaded.
    pub fn megabytes(self) -> u32 {
        self.facts().megabytes
    }

    /// How many pictures a part has.
    pub fn pictures(self, split: Split) -> u32 {
        let [train, test] = self.facts().pictures;
        match split {
            Split::Train => train,
            Split::Test => test,
        }
    }

    /// The names of its classes, in the order of their labels.
    pub fn class_names(self) -> &'static [&'static str] {
        &self.facts().classes
    }

    /// The files of a part in `folder`, if they are there: IDX files by their original names, with or without gzip, or Parquet files
    /// whose names begin with the part's. Subfolders with the set's name, or as the hub has them, are looked through too.
    pub fn find(self, folder: &Path, split: Split) -> Option<SetFiles> {
        let Facts { name, folder: on_hub, .. } = self.facts();
        let own = folder.join(name);
        let folders = [own.clone(), own.join(on_hub), folder.to_owned(), folder.join(on_hub)];
        let grey = self.facts().channels == 1;
        folders
            .iter()
            .find_map(|folder| idx_files(folder, split).filter(|_| grey).or_else(|| parquet_files(folder, split)))
    }
}

/// The files of a part of a known set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetFiles {
    /// Images and labels.
    Idx {
        /// The file of images.
        images: PathBuf,
        /// The file of labels.
        labels: PathBuf,
    },
    /// Parquet files, in the order of their names.
    Parquet(Vec<PathBuf>),
}

impl SetFiles {
    /// The folder that holds them.
    pub fn folder(&self) -> &Path {
        let first = match self {
            Self::Idx { images, .. } => Some(images),
            Self::Parquet(files) => files.first(),
        };
        first.and_then(|file| file.parent()).unwrap_or(Path::new(""))
    }
}

fn idx_files(folder: &Path, split: Split) -> Option<SetFiles> {
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let file = |kind: &str, rank: &str| {
        // Some copies have a dot where the original has a hyphen.
        let names = ["-", "."]
            .into_iter()
            .flat_map(|sign| ["", ".gz"].map(|end| format!("{prefix}-{kind}{sign}{rank}-ubyte{end}")));
        names.map(|name| folder.join(name)).find(|path| path.is_file())
    };
    Some(SetFiles::Idx { images: file("images", "idx3")?, labels: file("labels", "idx1")? })
}

fn parquet_files(folder: &Path, split: Split) -> Option<SetFiles> {
    let own = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let rest = name.strip_suffix(".parquet").and_then(|stem| stem.strip_prefix(&split.to_string()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_'])) && path.is_file()
    };
    let entries = std::fs::read_dir(folder).ok()?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(own).collect();
    files.sort();
    (!files.is_empty()).then_some(SetFiles::Parquet(files))
}

/// A known set as it stands in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedData {
    /// The set: `mnist`, `fashion-mnist` or `cifar10`.
    pub name: KnownSet,
    /// The part: `train` or `test`.
    #[serde(default)]
    pub split: Split,
    /// The folder of its files. Absent: the program looks for it; a run keeps the folder that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Shape and treatment of the images.
    #[serde(default)]
    pub image: ImageSettings,
}

impl NamedData {
    /// Opens the part in its folder; a relative one is taken from `base_dir`.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] without a folder; [`crate::FilesError::File`] for a folder without the files, or with files of other
    /// classes; those of [`IdxDataset::open`] and `ParquetDataset::open`.
    pub fn open(&self, base_dir: &Path) -> Result<Arc<dyn ImageDataset>> {
        let (set, split) = (self.name, self.split);
        let get = format!("`gmflow data get {}` fetches them", set.name());
        let Some(folder) = &self.folder else {
            return Err(Error::config("folder", format!("the folder of the files of {}: {get}", set.name()), "none"));
        };
        let folder = base_dir.join(folder);
        let files = set.find(&folder, split).ok_or_else(|| {
            let expected = format!("the {split} files of {} (IDX or Parquet): {get}", set.name());
            Error::file(&folder, "folder", expected, if folder.is_dir() { "other files" } else { "no such folder" })
        })?;
        let mut settings = self.image.clone();
        settings.channels = settings.channels.or(Some(set.facts().channels));
        let images: Arc<dyn ImageDataset> = match &files {
            SetFiles::Idx { images, labels } => Arc::new(IdxDataset::open(images, Some(labels), &settings)?),
            SetFiles::Parquet(files) => parquet(files, &settings)?,
        };
        check_classes(set, files.folder(), images.class_names())?;
        Ok(Arc::new(WithNames { images, names: set.class_names().iter().map(ToString::to_string).collect() }))
    }
}

#[cfg(feature = "parquet")]
fn parquet(files: &[PathBuf], settings: &ImageSettings) -> Result<Arc<dyn ImageDataset>> {
    use crate::source::{Columns, ParquetDataset};
    let columns = Columns::default();
    let [file] = files else {
        // The name of the first with its numbers left open; a folder may have any name.
        let folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new(""));
        let name = files.first().and_then(|file| file.file_name()?.to_str()).unwrap_or_default();
        let start = name.split(['-', '_']).next().unwrap_or_default();
        let folder = glob::Pattern::escape(&folder.to_string_lossy());
        let pattern = Path::new(&folder).join(format!("{start}[-_]*.parquet"));
        return Ok(Arc::new(ParquetDataset::open(&pattern, columns, settings)?));
    };
    Ok(Arc::new(ParquetDataset::open(file, columns, settings)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet(files: &[PathBuf], _: &ImageSettings) -> Result<Arc<dyn ImageDataset>> {
    let first = files.first().cloned().unwrap_or_default();
    Err(Error::file(first, "file", "IDX files, as this program was built without Parquet", "Parquet"))
}

/// Files of another set with the same names are told by their classes, where the files name them.
fn check_classes(set: KnownSet, folder: &Path, found: &[String]) -> Result<()> {
    let plain =
        |name: &str| name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let numbered = found.iter().enumerate().all(|(index, name)| *name == index.to_string());
    let known = set.class_names();
    let same =
        found.len() == known.len() && found.iter().zip(known).all(|(found, known)| plain(found) == plain(known));
    if same || (numbered && (1..=known.len()).contains(&found.len())) {
        return Ok(());
    }
    let got = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    Err(Error::file(folder, "classes", format!("those of {}: {}", set.name(), known.join(", ")), got))
}

/// A set of images with other names for its classes.
#[derive(Debug)]
struct WithNames {
    images: Arc<dyn ImageDataset>,
    names: Vec<String>,
}

impl ImageDataset for WithNames {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.images.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn get(&self, index: usize) -> Result<Image> {
        self.images.get(index)
    }

    fn stored(&self, index: usize) -> Result<StoredImage> {
        self.images.stored(index)
    }

    fn name(&self, index: usize) -> String {
        self.images.name(index)
    }

    fn is_decoded(&self) -> bool {
        self.images.is_decoded()
    }

    fn check_labels(&self) -> Result<()> {
        self.images.check_labels()
    }

    fn file(&self, index: usize) -> Result<Option<ImageBytes>> {
        self.images.file(index)
    }
}
