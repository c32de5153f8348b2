//! Folders of image files: one subfolder per class, or one folder without classes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Image, ImageDataset};
use crate::decode::{Format, decode, dimensions};
use crate::settings::ImageSettings;
use crate::survey::Stored;
use crate::{Error, Result};

/// Most bytes one image file may have.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// How far subfolders of a class are followed.
const MAX_DEPTH: usize = 16;

/// Extensions of the files that are read, in lower case; the content decides about the format.
const EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// PNG, JPEG and WebP files, read and decoded on demand.
#[derive(Debug)]
pub struct FolderDataset {
    files: Labelled,
    format: Format,
    class_names: Vec<String>,
    /// Whether images of another size are refused rather than resized.
    exact: bool,
}

impl FolderDataset {
    /// Lists a folder. Its subfolders, sorted by name, are the classes, and hold their images at any depth; without
    /// subfolders the images of the folder itself form a set without classes. Hidden files and folders are passed over.
    ///
    /// # Errors
    /// [`Error::Io`] for a folder that cannot be listed; [`Error::File`] when it holds no images or images beside
    /// class folders; [`Error::Config`] for a setting outside its domain or a missing `image.size`.
    pub fn open(path: &Path, settings: &ImageSettings) -> Result<Self> {
        settings.validate()?;
        let size = settings.size.ok_or_else(|| Error::config("image.size", "a size, for a folder", "none"))?;
        let (files, class_names) = listed(path)?;
        Ok(Self { files, format: settings.format([size, size], 3), class_names, exact: false })
    }

    /// Lists a folder of images that have one size already, that of the first; the others are not resized but refused.
    /// `settings.size` is not used.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and a first image that cannot be read.
    pub fn open_exact(path: &Path, settings: &ImageSettings) -> Result<Self> {
        settings.validate()?;
        let (files, class_names) = listed(path)?;
        let size = match files.first() {
            Some((first, _)) => size_of(first, &read(first)?)?,
            None => [1, 1],
        };
        let settings = ImageSettings { size: None, ..settings.clone() };
        Ok(Self { files, format: settings.format(size, 3), class_names, exact: true })
    }
}

/// Files with their labels.
type Labelled = Vec<(PathBuf, u32)>;

/// The images of a folder, and the names of its classes.
fn listed(path: &Path) -> Result<(Labelled, Vec<String>)> {
    let (classes, loose) = list(path)?;
    if let (false, Some(image)) = (classes.is_empty(), loose.first()) {
        let got = image.display();
        return Err(Error::file(path, "folder", "either class folders or images", format!("both, as {got}")));
    }
    let mut files: Labelled = loose.into_iter().map(|file| (file, 0)).collect();
    let mut class_names = Vec::new();
    for (label, class) in (0u32..).zip(classes) {
        let before = files.len();
        collect(&class, label, 1, &mut files)?;
        if files.len() == before {
            log::warn!("{}: class folder without images", class.display());
        }
        class_names.push(class.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    if files.is_empty() {
        return Err(Error::file(path, "folder", "PNG, JPEG or WebP files", "none"));
    }
    Ok((files, class_names))
}

/// Height and width of an image file.
fn size_of(path: &Path, bytes: &[u8]) -> Result<[usize; 2]> {
    dimensions(bytes).map_err(|fault| Error::file(path, "image", fault.expected, fault.got))
}

impl ImageDataset for FolderDataset {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.format.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn class_images(&self) -> Option<Vec<u64>> {
        let mut counts = vec![0; self.class_names.len()];
        for (_, label) in &self.files {
            *counts.get_mut(*label as usize)? += 1;
        }
        (!counts.is_empty()).then_some(counts)
    }

    fn stored(&self, index: usize) -> Result<Stored> {
        let found = self.files.get(index);
        let (path, _) =
            found.ok_or_else(|| Error::config("index", format!("less than {}", self.files.len()), index))?;
        let format = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).unwrap_or_default();
        Ok(Stored { size: size_of(path, &read(path)?)?, format })
    }

    fn get(&self, index: usize) -> Result<Image> {
        let (path, label) = self
            .files
            .get(index)
            .ok_or_else(|| Error::config("index", format!("less than {}", self.files.len()), index))?;
        let bytes = read(path)?;
        let wanted = [self.format.height, self.format.width];
        if self.exact && size_of(path, &bytes)? != wanted {
            let [height, width] = size_of(path, &bytes)?;
            let expected = format!("{}x{} pixels, as the first image has", wanted[1], wanted[0]);
            return Err(Error::file(path, "image", expected, format!("{width}x{height}")));
        }
        let pixels =
            decode(&bytes, &self.format).map_err(|fault| Error::file(path, "image", fault.expected, fault.got))?;
        Ok(Image { pixels, label: *label })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
    if length > MAX_FILE_BYTES {
        return Err(Error::file(path, "file size", format!("at most {MAX_FILE_BYTES} bytes"), length));
    }
    std::fs::read(path).map_err(|error| Error::io(path, error))
}

/// The sorted subfolders and image files of a folder.
fn list(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut images) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let entry = entry.map_err(|error| Error::io(folder, error))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            folders.push(path);
        } else if is_image(&path) {
            images.push(path);
        }
    }
    folders.sort();
    images.sort();
    Ok((folders, images))
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

/// Appends the images of a class, at any depth.
fn collect(folder: &Path, label: u32, depth: usize, files: &mut Labelled) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::file(folder, "folder", format!("at most {MAX_DEPTH} levels"), "more (a loop of links?)"));
    }
    let (folders, images) = list(folder)?;
    files.extend(images.into_iter().map(|image| (image, label)));
    folders.iter().try_for_each(|folder| collect(folder, label, depth + 1, files))
}
