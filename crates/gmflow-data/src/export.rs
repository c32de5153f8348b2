//! Image data sets written as folders of files.

use std::path::{Path, PathBuf};

use gmflow_files::to_byte;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use crate::source::ImageDataset;
use crate::{Error, Result};

/// The quality of JPEG files, out of 100.
const JPEG_QUALITY: u8 = 92;

/// The format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    /// Lossless: the values of 8 bits come back as they were.
    Png,
    /// As cameras write it.
    Jpeg,
}

impl PictureFormat {
    fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
        }
    }
}

/// Writes every image of a data set to `folder`, in one subfolder per class (or none where there are no classes), named by its
/// index. The folder appears whole: it is made beside its place and renamed at the end. `done` is told after every file.
///
/// # Errors
/// Those of [`ImageDataset::get`]; [`crate::FilesError::File`] when `folder` exists or a class has a name that is no name of a folder;
/// [`crate::FilesError::Io`] when a file cannot be written.
pub fn write_folder(
    images: &dyn ImageDataset,
    folder: &Path,
    format: PictureFormat,
    done: &mut dyn FnMut(),
) -> Result<()> {
    if folder.symlink_metadata().is_ok() {
        return Err(Error::file(folder, "folder", "a new folder", "one that exists: choose another name"));
    }
    let part = beside(folder)?;
    let written = fill(images, &part, format, done)
        .and_then(|()| std::fs::rename(&part, folder).map_err(|error| Error::io(folder, error)));
    if written.is_err() {
        // What is left is of no use; the first error is the one to tell.
        let _ = std::fs::remove_dir_all(&part);
    }
    written
}

/// The place where the folder is made.
fn beside(folder: &Path) -> Result<PathBuf> {
    let name = folder.file_name().ok_or_else(|| Error::file(folder, "folder", "a name", "none"))?;
    Ok(folder.with_file_name(format!(".{}.part-{}", name.to_string_lossy(), std::process::id())))
}

fn fill(images: &dyn ImageDataset, part: &Path, format: PictureFormat, done: &mut dyn FnMut()) -> Result<()> {
    let classes = images.class_names();
    for name in classes {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
        if !plain {
            return Err(Error::file(part, "class", "a name for a folder", format!("{name:?}")));
        }
    }
    let folder_of = |label: u32| classes.get(label as usize).map_or(part.to_owned(), |name| part.join(name));
    for label in 0..classes.len().max(1) as u32 {
        let folder = folder_of(label);
        std::fs::create_dir_all(&folder).map_err(|error| Error::io(folder, error))?;
    }
    let digits = images.len().to_string().len();
    for index in 0..images.len() {
        let image = images.get(index)?;
        let path = folder_of(image.label).join(format!("{index:0digits$}.{}", format.extension()));
        let bytes = encode(&image.pixels, images.shape(), format)
            .ok_or_else(|| Error::file(&path, "image", "1 or 3 channels", format!("{:?}", images.shape())))?;
        std::fs::write(&path, bytes).map_err(|error| Error::io(path, error))?;
        done();
    }
    Ok(())
}

/// A file of values in [-1, 1]. `[c h w]`
pub(crate) fn encode(
    pixels: &[f32],
    [channels, height, width]: [usize; 3],
    format: PictureFormat,
) -> Option<Vec<u8>> {
    let (w, h) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    let area = height * width;
    let picture: DynamicImage = match channels {
        1 => GrayImage::from_raw(w, h, pixels.iter().copied().map(to_byte).collect())?.into(),
        3 => {
            let channel = |at: usize, c: usize| to_byte(pixels.get(c * area + at).copied().unwrap_or_default());
            let bytes = (0..area).flat_map(|at| [0, 1, 2].map(|c| channel(at, c))).collect(); // [h w 3]
            RgbImage::from_raw(w, h, bytes)?.into()
        }
        _ => return None,
    };
    let mut file = std::io::Cursor::new(Vec::new());
    match format {
        PictureFormat::Png => picture.write_to(&mut file, ImageFormat::Png).ok()?,
        PictureFormat::Jpeg => {
            picture.write_with_encoder(JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY)).ok()?
        }
    }
    Some(file.into_inner())
}
