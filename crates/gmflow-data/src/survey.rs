//! What a set of images holds: for people, and for whoever chooses settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gmflow_files::{is_clutter, is_url};

use crate::source::{StoredImage, TarData};
use crate::storage::{Files, Storage, folder_of, in_folder, name_of};
use crate::{Dataset, DatasetConfig, Error, ImageSettings, Result};

/// Images that are looked at, evenly spread over the set.
const LOOKED_AT: usize = 200;
/// Every so many of these are looked at in any case, the others as far as the time allows.
const FIRST: usize = 8;
/// Pictures of telephones take a tenth of a second and more each.
const ENOUGH: Duration = Duration::from_secs(5);
/// Height and width at which it is seen whether images are grey.
const GLANCE: usize = 16;
/// Two channels of a grey image differ by less than this, after compression: values are in [-1, 1].
const GREY: f32 = 0.02;

/// What a set of images holds. Sizes, formats and colours are of up to 200 images, evenly spread over the set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Images in the set, damaged ones included.
    pub images: usize,
    /// The names of the classes, each with its number of images where that is known; empty without classes.
    pub classes: Vec<(String, Option<u64>)>,
    /// Images that were looked at and could be read.
    pub looked_at: usize,
    /// Height and width of the smallest and the largest image, by their shorter sides.
    pub sizes: [[usize; 2]; 2],
    /// What a message calls the smallest image: the path of its file.
    pub smallest_image: String,
    /// The time to read and decode an image, in the mean.
    pub read_time: Duration,
    /// The formats, each with its number among the images that were looked at.
    pub formats: BTreeMap<String, usize>,
    /// Whether all of them are grey.
    pub grey: bool,
    /// Images among them that could not be read, and what was wrong with the first.
    pub damaged: Option<(usize, String)>,
}

impl DatasetConfig {
    /// What is at a path: a folder of images, of Parquet files or of tar shards, such a file or a pattern or range of tar shards, or an
    /// IDX file of images with its labels beside it. The path may be a URL.
    ///
    /// # Errors
    /// A path that does not exist, or whose name tells none of these; a URL of a folder that cannot be listed.
    pub fn guess(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (image, storage) = (ImageSettings::default(), Storage::default());
        let parquet = |path: &Path| Self::Parquet {
            path: path.into(),
            image_column: None,
            label_column: None,
            image: image.clone(),
            storage: Storage::default(),
        };
        let several = name.contains(['*', '?', '[', '{']) && std::fs::symlink_metadata(path).is_err();
        if name.ends_with(".tar") && (several || is_url(path)) {
            return Ok(Self::Tar(TarData::at(path)));
        }
        let is_folder = match is_url(path) {
            // What has none of these endings is a folder, which an object store knows only by what lies in it.
            true => !name.ends_with(".parquet") && !name.contains("idx3"),
            false => std::fs::metadata(path).map_err(|error| Error::io(path, error))?.is_dir(),
        };
        if is_folder {
            let files = Files::new(&storage)?;
            return Ok(match () {
                () if !files.in_folder(path, "tar")?.is_empty() && !has_folders(path)? => {
                    Self::Tar(TarData::at(path))
                }
                () if !files.in_folder(path, "parquet")?.is_empty() => parquet(path),
                () => Self::Folder { path: path.into(), image, storage },
            });
        }
        if name.ends_with(".tar") {
            return Ok(Self::Tar(TarData::at(path)));
        }
        if name.ends_with(".parquet") {
            return Ok(parquet(path));
        }
        if name.contains("idx3") {
            return Ok(Self::Idx { images: path.into(), labels: labels_beside(path)?, image, storage });
        }
        let expected = "a folder of pictures, *.tar, *.parquet, or an IDX file with idx3 in its name";
        Err(Error::config("data", expected, path.display()))
    }

    /// The settings of images, to be changed; `None` where there are none.
    pub fn image_mut(&mut self) -> Option<&mut ImageSettings> {
        match self {
            Self::Tar(TarData { image, .. })
            | Self::Idx { image, .. }
            | Self::Parquet { image, .. }
            | Self::Folder { image, .. } => Some(image),
            _ => None,
        }
    }

    /// Looks at a set of images.
    ///
    /// # Errors
    /// As [`DatasetConfig::open`]; a set without images, or one of which no image could be read.
    pub fn survey(&self) -> Result<Survey> {
        let mut glance = self.clone();
        let settings = glance.image_mut().ok_or_else(|| Error::config("data", "images", "points or latents"))?;
        (settings.size, settings.channels) = (Some(GLANCE), Some(3));
        let dataset = glance.open(Path::new(""))?;
        let Dataset::Images { images, .. } = &dataset else {
            return Err(Error::config("data", "images", "points or latents"));
        };
        let count = images.len();
        let mut survey = Survey {
            images: count,
            classes: class_counts(&dataset),
            looked_at: 0,
            sizes: [[usize::MAX; 2], [0; 2]],
            smallest_image: String::new(),
            read_time: Duration::ZERO,
            formats: BTreeMap::new(),
            grey: true,
            damaged: None,
        };
        let looked_at = count.min(LOOKED_AT);
        let (first, others): (Vec<usize>, Vec<usize>) = (0..looked_at).partition(|number| number % FIRST == 0);
        let (start, few) = (Instant::now(), first.len());
        for (done, number) in first.into_iter().chain(others).enumerate() {
            if done >= few && survey.looked_at > 0 && start.elapsed() > ENOUGH {
                break;
            }
            let index = number * count / looked_at;
            let stored = images.stored(index);
            let read = Instant::now();
            match stored.and_then(|stored| Ok((stored, images.get(index)?))) {
                Ok((stored, image)) => {
                    survey.read_time += read.elapsed();
                    survey.add(stored, &image.pixels, || images.name(index));
                }
                Err(error) => survey.damaged.get_or_insert((0, error.to_string())).0 += 1,
            }
        }
        survey.read_time /= u32::try_from(survey.looked_at.max(1)).unwrap_or(u32::MAX);
        match (survey.looked_at, survey.damaged) {
            (0, damaged) => {
                let got = damaged.map_or_else(|| "none".to_owned(), |(_, first)| format!("none: {first}"));
                Err(Error::config("data", "images that can be read", got))
            }
            (_, damaged) => Ok(Survey { damaged, ..survey }),
        }
    }
}

impl Survey {
    fn add(&mut self, StoredImage { size, format }: StoredImage, pixels: &[f32], name: impl Fn() -> String) {
        // Of equal shorter sides the longer ones decide, so that equal sizes are of one size only.
        let sides = |size: [usize; 2]| (size[0].min(size[1]), size[0].max(size[1]));
        self.looked_at += 1;
        *self.formats.entry(format).or_default() += 1;
        if sides(size) < sides(self.sizes[0]) {
            self.sizes[0] = size;
            self.smallest_image = name();
        }
        if sides(size) > sides(self.sizes[1]) {
            self.sizes[1] = size;
        }
        let [red, others @ ..] =
            [0, 1, 2].map(|channel| pixels.iter().skip(channel * GLANCE * GLANCE).take(GLANCE * GLANCE));
        let same = |other: std::iter::Take<std::iter::Skip<std::slice::Iter<f32>>>| {
            red.clone().zip(other).all(|(a, b)| (a - b).abs() < GREY)
        };
        self.grey = self.grey && others.into_iter().all(same);
    }

    /// The shorter side of the smallest image.
    pub fn smallest(&self) -> usize {
        self.sizes[0][0].min(self.sizes[0][1])
    }

    /// Whether all images that were looked at are of one square size.
    pub fn one_square_size(&self) -> bool {
        let [[h, w], largest] = self.sizes;
        h == w && largest == [h, w]
    }
}

/// The classes with their numbers of images.
fn class_counts(dataset: &Dataset) -> Vec<(String, Option<u64>)> {
    let counts = dataset.class_images();
    let count = |index: usize| counts.as_ref().and_then(|counts| counts.get(index).copied());
    dataset.class_names().iter().enumerate().map(|(index, name)| (name.clone(), count(index))).collect()
}

/// Whether a folder holds folders, apart from hidden ones: then tar files beside them are archives of something, not the data.
fn has_folders(path: &Path) -> Result<bool> {
    if is_url(path) {
        return Ok(false);
    }
    for entry in std::fs::read_dir(path).map_err(|error| Error::io(path, error))? {
        let entry = entry.map_err(|error| Error::io(path, error))?;
        if !is_clutter(&entry.file_name()) && entry.path().is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file of labels that belongs to one of images by its name, where it is there.
fn labels_beside(images: &Path) -> Result<Option<PathBuf>> {
    let name = name_of(images);
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    if labels == name {
        return Ok(None);
    }
    let labels = Files::new(&Storage::default())?.stat_if_there(&in_folder(&folder_of(images), &labels))?;
    Ok(labels.map(|entry| entry.path))
}
