//! Folders of image files: one subfolder per class, or one folder without classes.

use std::path::{Path, PathBuf};

use gmflow_files::{is_url, no_file};

use super::listing::{ImageFile, Listing, extension};
use super::{Image, ImageBytes, ImageDataset, StoredImage, counts};
use crate::decode::{decode, dimensions, ending_of};
use crate::fingerprint::{Content, Fingerprint};
use crate::settings::{Format, ImageSettings};
use crate::storage::{Entry, Files, Storage};
use crate::{Error, Result};

/// Most bytes one image file may have.
pub const MAX_FILE_BYTES: u64 = 1 << 32;

/// Image files, read and decoded on demand.
#[derive(Debug)]
pub struct FolderDataset {
    folder: PathBuf,
    files: Files,
    listing: Listing,
    format: Format,
    /// Whether images of another size are refused rather than resized.
    exact: bool,
}

impl FolderDataset {
    /// Lists a folder. Its subfolders, sorted by name, are the classes, and hold their images at any depth; without
    /// subfolders the images of the folder itself form a set without classes. Hidden files and folders, and those that operating systems
    /// leave, are passed over.
    ///
    /// Files with a usual extension of an image are images; what any other file is, its content tells. Files that are no images are
    /// passed over, and a log line says how many of which extension.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for a folder that cannot be listed or a link that leads nowhere; [`crate::FilesError::File`] when it holds
    /// no images or images beside class folders; [`crate::FilesError::Config`] for a setting outside its domain or a missing `image.size`.
    pub fn open(path: &Path, settings: &ImageSettings) -> Result<Self> {
        Self::open_with(Files::new(&Storage::default())?, path, settings)
    }

    /// The same of a folder that may be a URL, below which everything is listed.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(files: Files, path: &Path, settings: &ImageSettings) -> Result<Self> {
        settings.validate()?;
        let size = settings.size.ok_or_else(|| Error::config("image.size", "a size, for a folder", "none"))?;
        let listing = listing(&files, path)?;
        Ok(Self { folder: path.into(), files, listing, format: settings.format([size, size], 3), exact: false })
    }

    /// Lists a folder of images that have one size already, that of the first; the others are not resized but refused.
    /// `settings.size` is not used.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), and a first image that cannot be read.
    pub fn open_exact(path: &Path, settings: &ImageSettings) -> Result<Self> {
        settings.validate()?;
        let settings = ImageSettings { size: None, ..settings.clone() };
        let files = Files::new(&Storage::default())?;
        let listing = listing(&files, path)?;
        let size = match listing.files.first() {
            Some(first) => size_of(&first.path, &read(&files, first)?, &settings.format([1, 1], 3))?,
            None => [1, 1],
        };
        Ok(Self { folder: path.into(), files, listing, format: settings.format(size, 3), exact: true })
    }

    fn image(&self, index: usize) -> Result<&ImageFile> {
        let outside = || Error::config("index", format!("less than {}", self.len()), index);
        self.listing.files.get(index).ok_or_else(outside)
    }
}

/// The images of a folder or below a URL.
fn listing(files: &Files, path: &Path) -> Result<Listing> {
    if is_url(path) { Listing::of_url(files, path) } else { Listing::of(path) }
}

/// Height and width of an image file.
fn size_of(path: &Path, bytes: &[u8], format: &Format) -> Result<[usize; 2]> {
    dimensions(bytes, format.max_pixels).map_err(|fault| Error::file(path, "image", fault.expected, fault.got))
}

impl ImageDataset for FolderDataset {
    fn len(&self) -> usize {
        self.listing.files.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.format.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.listing.classes
    }

    fn class_images(&self) -> Option<Vec<u64>> {
        let Listing { files, classes, .. } = &self.listing;
        (!classes.is_empty()).then(|| counts(files.iter().map(|file| file.label as usize), classes.len()))
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let mut content = Content::default();
        for file in &self.listing.files {
            // Below the folder, so that the whole may be moved, also to a URL.
            let name = file.path.strip_prefix(&self.folder).unwrap_or(&file.path);
            name.components().for_each(|part| content.bytes(part.as_os_str().as_encoded_bytes()));
            content.number(file.bytes);
        }
        let class_images = self.class_images().unwrap_or_default();
        Some(Fingerprint::new(self.len(), &self.listing.classes, &class_images, &self.format, content))
    }

    fn name(&self, index: usize) -> String {
        self.image(index).map_or_else(|_| format!("image {index}"), |file| file.path.display().to_string())
    }

    fn is_decoded(&self) -> bool {
        true
    }

    fn stored(&self, index: usize) -> Result<StoredImage> {
        let file = self.image(index)?;
        let size = size_of(&file.path, &read(&self.files, file)?, &self.format)?;
        Ok(StoredImage { size, format: extension(&file.path) })
    }

    fn file(&self, index: usize) -> Result<Option<ImageBytes>> {
        let file = self.image(index)?;
        let bytes = read(&self.files, file)?;
        Ok(Some(ImageBytes { ending: ending_of(&bytes).to_owned(), bytes, label: file.label }))
    }

    fn get(&self, index: usize) -> Result<Image> {
        let file = self.image(index)?;
        let (path, bytes) = (&file.path, read(&self.files, file)?);
        if self.exact {
            let wanted = [self.format.height, self.format.width];
            let [height, width] = size_of(path, &bytes, &self.format)?;
            if [height, width] != wanted {
                let expected = format!("{}x{} pixels, as the first image has", wanted[1], wanted[0]);
                return Err(Error::file(path, "image", expected, format!("{width}x{height}")));
            }
        }
        let pixels =
            decode(&bytes, &self.format).map_err(|fault| Error::file(path, "image", fault.expected, fault.got))?;
        Ok(Image { pixels, label: file.label })
    }
}

fn read(files: &Files, file: &ImageFile) -> Result<Vec<u8>> {
    let path = &file.path;
    if is_url(path) {
        expect_length(path, file.bytes)?;
        let entry = Entry { path: path.clone(), bytes: file.bytes, tag: file.tag.clone() };
        return files.read_kept(&entry);
    }
    // A pipe would be waited for without end.
    if let Some(what) = no_file(path).map_err(|error| Error::io(path, error))? {
        return Err(Error::file(path, "kind", "a file", what));
    }
    expect_length(path, std::fs::metadata(path).map_err(|error| Error::io(path, error))?.len())?;
    std::fs::read(path).map_err(|error| Error::io(path, error))
}

fn expect_length(path: &Path, bytes: u64) -> Result<()> {
    match bytes > MAX_FILE_BYTES {
        true => Err(Error::file(path, "file size", format!("at most {MAX_FILE_BYTES} bytes"), bytes)),
        false => Ok(()),
    }
}
