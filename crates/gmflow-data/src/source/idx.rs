//! The IDX format of the handwritten digits: a header of big-endian integers, then unsigned bytes.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use gmflow_files::what_is;

use super::{Image, ImageDataset, StoredImage, counts, start_of};
use crate::decode::from_grey;
use crate::fingerprint::{Content, Fingerprint};
use crate::settings::{Corrupt, Format, ImageSettings, MAX_SIZE};
use crate::storage::{Files, Storage};
use crate::{Error, Result};

/// Most bytes of content one file may hold after decompression.
pub const MAX_IDX_BYTES: u64 = 1 << 33;

/// Type code of unsigned bytes in the magic number.
const UNSIGNED_BYTE: u8 = 0x08;

/// A pair of IDX files, each with or without gzip: images and, optionally, their labels. The pixels stay in memory.
#[derive(Debug)]
pub struct IdxDataset {
    path: PathBuf,
    pixels: Vec<u8>, // [n h w]
    labels: Vec<u8>,
    size: [usize; 2],
    len: usize,
    format: Format,
    class_names: Vec<String>,
}

impl IdxDataset {
    /// Reads both files. With [`Corrupt::Skip`] the complete images of a truncated file are kept, with a warning.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for a file that cannot be opened; [`crate::FilesError::File`] for a wrong magic number, a truncated file,
    /// damaged compression, trailing bytes or unequal numbers of images and labels; [`crate::FilesError::Config`] for a setting
    /// outside its domain.
    pub fn open(images: &Path, labels: Option<&Path>, settings: &ImageSettings) -> Result<Self> {
        Self::open_with(&Files::new(&Storage::default())?, images, labels, settings)
    }

    /// The same of files that may be behind URLs.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(files: &Files, images: &Path, labels: Option<&Path>, settings: &ImageSettings) -> Result<Self> {
        settings.validate()?;
        let (dims, mut pixels) = read(files, images, settings.corrupt)?;
        let [count, height, width] = *dims.as_slice() else {
            return Err(Error::file(images, "magic number", "3 dimensions (images)", dims.len()));
        };
        for side in [height, width] {
            if !(1..=MAX_SIZE).contains(&side) {
                return Err(Error::file(
                    images,
                    "image size",
                    format!("1 to {MAX_SIZE}"),
                    format!("{height}x{width}"),
                ));
            }
        }
        let mut len = pixels.len() / (height * width);
        let labels = match labels {
            Some(path) => read_labels(path, read(files, path, settings.corrupt)?, images, count)?,
            None => Vec::new(),
        };
        let class_names = match labels.iter().max() {
            Some(&highest) => (0..=highest).map(|class| class.to_string()).collect(),
            None => Vec::new(),
        };
        if !class_names.is_empty() {
            len = len.min(labels.len());
        }
        if len == 0 {
            return Err(Error::file(images, "number of images", "at least 1", 0));
        }
        pixels.truncate(len * height * width);
        let size = [height, width];
        let format = settings.format(size, 1);
        Ok(Self { path: images.into(), pixels, labels, size, len, format, class_names })
    }
}

impl ImageDataset for IdxDataset {
    fn len(&self) -> usize {
        self.len
    }

    fn shape(&self) -> [usize; 3] {
        self.format.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn class_images(&self) -> Option<Vec<u64>> {
        let labels = self.labels.iter().take(self.len).map(|label| usize::from(*label));
        (!self.class_names.is_empty()).then(|| counts(labels, self.class_names.len()))
    }

    fn stored(&self, _index: usize) -> Result<StoredImage> {
        Ok(StoredImage { size: self.size, format: "idx".to_owned() })
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let mut content = Content::default();
        content.contents(&self.pixels);
        content.contents(&self.labels);
        let class_images = self.class_images().unwrap_or_default();
        Some(Fingerprint::new(self.len, &self.class_names, &class_images, &self.format, content))
    }

    fn get(&self, index: usize) -> Result<Image> {
        let length = self.size[0] * self.size[1];
        let pixels = self
            .pixels
            .chunks_exact(length)
            .nth(index)
            .ok_or_else(|| Error::config("index", format!("less than {}", self.len), index))?;
        let pixels = from_grey(pixels, self.size, &self.format)
            .map_err(|fault| Error::file(&self.path, format!("image {index}"), fault.expected, fault.got))?;
        Ok(Image { pixels, label: self.labels.get(index).copied().map_or(0, u32::from) })
    }
}

fn read_labels(path: &Path, (dims, labels): (Vec<usize>, Vec<u8>), images: &Path, count: usize) -> Result<Vec<u8>> {
    match *dims.as_slice() {
        [n] if n == count && n > 0 && labels.is_empty() => {
            Err(Error::file(path, "number of labels", "at least 1", "none (truncated)"))
        }
        [n] if n == count => Ok(labels),
        [n] => {
            let expected = format!("{count}, the number of images in {}", images.display());
            Err(Error::file(path, "number of labels", expected, n))
        }
        _ => Err(Error::file(path, "magic number", "1 dimension (labels)", dims.len())),
    }
}

/// The dimensions in the header, and the content.
fn read(files: &Files, path: &Path, corrupt: Corrupt) -> Result<(Vec<usize>, Vec<u8>)> {
    let file = files.open_whole(path)?;
    let start = start_of(path, &file)?;
    let rest = start_over(path, file)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return parse(path, MultiGzDecoder::new(rest), corrupt);
    }
    match what_is(&start).filter(|_| !start.starts_with(&[0, 0])) {
        Some(what) => Err(Error::file(path, "magic number", "that of an IDX file, with or without gzip", what)),
        None => parse(path, rest, corrupt),
    }
}

fn start_over(path: &Path, mut file: File) -> Result<BufReader<File>> {
    std::io::Seek::rewind(&mut file).map_err(|error| Error::io(path, error))?;
    Ok(BufReader::new(file))
}

/// Reads header and content from an uncompressed stream. The header's numbers are claims: memory grows only with the
/// bytes that are really there.
fn parse(path: &Path, mut stream: impl Read, corrupt: Corrupt) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut magic = [0u8; 4];
    header(path, "magic number", &mut stream, &mut magic)?;
    let [0, 0, UNSIGNED_BYTE, rank @ 1..=4] = magic else {
        let got = format!("{magic:02x?}");
        return Err(Error::file(path, "magic number", "[00, 00, 08, 01] (labels) or [00, 00, 08, 03] (images)", got));
    };
    let mut dims = Vec::new();
    for axis in 0..rank {
        let mut bytes = [0u8; 4];
        header(path, &format!("dimension {axis}"), &mut stream, &mut bytes)?;
        dims.push(u32::from_be_bytes(bytes));
    }
    let expected = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(u64::from(dim)));
    let Some(expected) = expected.filter(|&bytes| bytes <= MAX_IDX_BYTES) else {
        return Err(Error::file(path, "dimensions", format!("at most {MAX_IDX_BYTES} bytes"), format!("{dims:?}")));
    };
    let mut content = Vec::new();
    let outcome = stream.by_ref().take(expected).read_to_end(&mut content);
    let cut = match &outcome {
        Ok(_) => (content.len() as u64) < expected,
        Err(error) => error.kind() == ErrorKind::UnexpectedEof,
    };
    if cut {
        let (wanted, got) = (format!("{expected} bytes"), format!("{} bytes (truncated)", content.len()));
        let fault = Error::file(path, "content", wanted, got);
        match corrupt {
            Corrupt::Refuse => return Err(fault),
            Corrupt::Skip => log::warn!("{fault}; what is complete is used"),
        }
    } else {
        outcome.map_err(|error| stream_error(path, error))?;
        // Reading on to the end also makes the decompressor compare its checksum.
        let mut after = [0u8; 1];
        if stream.read(&mut after).map_err(|error| stream_error(path, error))? > 0 {
            return Err(Error::file(path, "content", format!("{expected} bytes"), "more"));
        }
    }
    Ok((dims.into_iter().map(|dim| dim as usize).collect(), content))
}

fn header(path: &Path, field: &str, stream: &mut impl Read, into: &mut [u8; 4]) -> Result<()> {
    stream.read_exact(into).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::file(path, field, "4 bytes", "the end of the file"),
        _ => stream_error(path, error),
    })
}

/// Damaged compression is the file's fault, everything else the operating system's.
fn stream_error(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            Error::file(path, "compression", "a valid gzip stream", error)
        }
        _ => Error::io(path, error),
    }
}
