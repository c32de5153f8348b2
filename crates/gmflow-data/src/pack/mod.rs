//! Sets of images written as tar shards.
//!
//! ```text
//! shard-000000.tar          000003.cls, 000003.jpg, 000017.cls, ...
//! shard-000000.index.json   where they are in the shard
//! classes.txt               the names of the classes, one a line
//! pack.json                 what was packed, so that an interrupted call is continued; complete at the end
//! ```
//! The bytes depend on the images, the number of shards and the seed alone.

mod manifest;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use gmflow_files::{FolderLock, is_url};
use rand::seq::SliceRandom;
use tar::{EntryType, Header};

use crate::export::{PictureFormat, encode};
use crate::rng::{Purpose, stream};
use crate::settings::Corrupt;
use crate::source::tar::{Index, Sample, index_name};
use crate::source::{ImageBytes, ImageDataset};
use crate::storage::{Files, Storage, in_folder};
use crate::{Error, Result};
use manifest::Manifest;

/// Most shards: their numbers have six digits.
const MOST_SHARDS: usize = 1_000_000;

/// Bytes of a header, and what members are padded to.
const BLOCK: u64 = 512;

/// How a set is packed.
#[derive(Clone, Debug, PartialEq)]
pub struct PackOptions {
    /// The number of shards.
    pub shards: usize,
    /// The seed of the order in which images come into the shards, so that each holds images of all classes; `None` for the order of the
    /// set.
    pub seed: Option<u64>,
    /// What happens to images that cannot be read: an error, or they are left out.
    pub corrupt: Corrupt,
    /// Whether a set that is there already is removed. Otherwise one that was interrupted is continued, and another one is an error.
    pub force: bool,
    /// How a URL is written to.
    pub storage: Storage,
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Images in the shards.
    pub images: usize,
    /// Images that could not be read.
    pub left_out: usize,
    /// Bytes of the shards.
    pub bytes: u64,
    /// Shards that were there from an earlier call.
    pub kept: usize,
    /// Whether all shards are there; otherwise the same call continues.
    pub complete: bool,
}

/// The name of a shard.
fn shard_name(number: usize) -> String {
    format!("shard-{number:06}.tar")
}

/// Writes every image of a set into tar shards in `out`, a folder or a URL that starts with `s3://` or `gs://`. Image files are copied as
/// they are; images of other sets become PNG files. `progress` is told of the number of images that are done, and stops the work after a
/// shard where it returns `false`.
///
/// # Errors
/// Those of [`ImageDataset::file`] and [`ImageDataset::get`]; [`crate::FilesError::Config`] for more shards than images;
/// [`crate::FilesError::File`] for files in `out` that would be overwritten; [`crate::FilesError::Io`] and [`Error::Lock`] for a place
/// that cannot be written to.
pub fn pack(
    images: &dyn ImageDataset,
    out: &Path,
    options: &PackOptions,
    progress: &mut dyn FnMut(usize) -> bool,
) -> Result<Packed> {
    let len = images.len();
    if !(1..=MOST_SHARDS.min(len)).contains(&options.shards) {
        return Err(Error::config("shards", format!("1 to {}", MOST_SHARDS.min(len)), options.shards));
    }
    if options.corrupt == Corrupt::Refuse {
        images.check_labels()?;
    }
    let files = Files::new(&options.storage)?;
    let packing = Packing { images, out, options, files: &files, order: order(len, options.seed)? };
    // Nobody else writes beside; of URLs it cannot be told.
    let _lock = match is_url(out) {
        true => None,
        false => {
            std::fs::create_dir_all(out).map_err(|error| Error::io(out, error))?;
            Some(FolderLock::acquire(out, "gmflow pack")?)
        }
    };
    packing.run(progress)
}

/// The order in which images come into the shards.
fn order(len: usize, seed: Option<u64>) -> Result<Vec<u32>> {
    let count = u32::try_from(len).map_err(|_| Error::config("data set", "at most 2^32 - 1 images", len))?;
    let mut order: Vec<u32> = (0..count).collect();
    if let Some(seed) = seed {
        order.shuffle(&mut stream(seed, Purpose::Pack, 0, 0));
    }
    Ok(order)
}

/// A set that is being packed.
struct Packing<'a> {
    images: &'a dyn ImageDataset,
    out: &'a Path,
    options: &'a PackOptions,
    files: &'a Files,
    order: Vec<u32>,
}

impl Packing<'_> {
    fn run(&self, progress: &mut dyn FnMut(usize) -> bool) -> Result<Packed> {
        let manifest = Manifest::new(self.images, self.options);
        let classes = self.images.class_names();
        let names = class_file(self.out, classes)?;
        manifest.begin(self.files, self.out, self.options.force)?;
        let mut packed = Packed { images: 0, left_out: 0, bytes: 0, kept: 0, complete: false };
        for number in 0..self.options.shards {
            let range = self.range(number);
            let (index, kept) = match self.written(number)? {
                Some(index) => (index, true),
                None => (self.shard(number, range.clone(), progress)?, false),
            };
            packed.images += index.samples.len();
            packed.left_out += range.len().saturating_sub(index.samples.len());
            packed.bytes += index.shard_bytes;
            packed.kept += usize::from(kept);
            if !progress(range.end) && number + 1 < self.options.shards {
                return Ok(packed);
            }
        }
        if packed.images == 0 {
            return Err(Error::config("data", "at least one image that can be read", "none"));
        }
        if let Some((path, text)) = names {
            put(self.files, &path, text.as_bytes())?;
        }
        manifest.complete(self.files, self.out, &packed)?;
        Ok(Packed { complete: true, ..packed })
    }

    /// The images of a shard, by their places in the order.
    fn range(&self, number: usize) -> Range<usize> {
        let at = |number: usize| (self.order.len() as u128 * number as u128 / self.options.shards as u128) as usize;
        at(number)..at(number + 1)
    }

    /// A shard that an earlier call has written whole: its list comes after it.
    fn written(&self, number: usize) -> Result<Option<Index>> {
        let path = in_folder(self.out, &shard_name(number));
        let Some(list) = self.files.stat_if_there(&index_name(&path))? else { return Ok(None) };
        let Some(shard) = self.files.stat_if_there(&path)? else { return Ok(None) };
        let index: Option<Index> = serde_json::from_slice(&self.files.read_all(&list)?).ok();
        Ok(index.filter(|index| index.shard_bytes == shard.bytes))
    }

    /// Writes a shard, and the list of what is in it.
    fn shard(&self, number: usize, range: Range<usize>, progress: &mut dyn FnMut(usize) -> bool) -> Result<Index> {
        let path = in_folder(self.out, &shard_name(number));
        let part = Part::beside(&path, self.files)?;
        let io = |error| Error::io(&part.0, error);
        let mut writer =
            Shard { out: BufWriter::new(File::create(&part.0).map_err(io)?), bytes: 0, samples: Vec::new() };
        let digits = self.order.len().saturating_sub(1).to_string().len().max(6);
        let first = range.start;
        for (done, index) in self.order.get(range).unwrap_or_default().iter().enumerate() {
            let index = *index as usize;
            match self.image(index) {
                Ok(image) => {
                    let label = (!self.images.class_names().is_empty()).then(|| image.label.to_string());
                    writer.add(format!("{index:0digits$}"), &image, label).map_err(io)?;
                }
                Err(error) if self.options.corrupt == Corrupt::Skip && error.is_corrupt() => {
                    log::warn!("{error}; it is left out");
                }
                Err(error) => return Err(error),
            }
            // The end of the shard asks whether to go on.
            progress(first + done);
        }
        let index = writer.finish().map_err(io)?;
        self.files.put(&part.0, &path)?;
        put(self.files, &index_name(&path), &index.to_bytes(&path)?)?;
        Ok(index)
    }

    /// An image as a file: its own, or a new one of its pixels.
    fn image(&self, index: usize) -> Result<ImageBytes> {
        if let Some(file) = self.images.file(index)? {
            return Ok(file);
        }
        let image = self.images.get(index)?;
        let shape = self.images.shape();
        let bytes = encode(&image.pixels, shape, PictureFormat::Png);
        let bytes = bytes
            .ok_or_else(|| Error::file(self.images.name(index), "image", "1 or 3 channels", format!("{shape:?}")))?;
        Ok(ImageBytes { bytes, ending: "png".into(), label: image.label })
    }
}

/// A shard that is being written.
struct Shard<W> {
    out: W,
    bytes: u64,
    samples: Vec<Sample>,
}

impl Shard<BufWriter<File>> {
    /// Adds a sample: its label, then its image.
    fn add(&mut self, key: String, image: &ImageBytes, label: Option<String>) -> std::io::Result<()> {
        if let Some(label) = &label {
            self.member(&format!("{key}.cls"), label.as_bytes())?;
        }
        let offset = self.bytes + BLOCK;
        self.member(&format!("{key}.{}", image.ending), &image.bytes)?;
        let (ending, bytes) = (image.ending.clone(), image.bytes.len() as u64);
        self.samples.push(Sample { key, ending, offset, bytes, label });
        Ok(())
    }

    /// Adds a member, with nothing in its header that another call would write differently.
    fn member(&mut self, name: &str, content: &[u8]) -> std::io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_path(name)?;
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        for set in [Header::set_uid, Header::set_gid, Header::set_mtime] {
            set(&mut header, 0);
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(content)?;
        let padding = content.len().next_multiple_of(BLOCK as usize) - content.len();
        self.out.write_all(&[0; BLOCK as usize][..padding])?;
        self.bytes += BLOCK + (content.len() + padding) as u64;
        Ok(())
    }

    /// Ends the archive, with everything on the disk.
    fn finish(mut self) -> std::io::Result<Index> {
        self.out.write_all(&[0; 2 * BLOCK as usize])?;
        self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(Index::of_classes(self.bytes + 2 * BLOCK, self.samples))
    }
}

/// A file of this machine that becomes one at its place, and is removed where it does not.
struct Part(PathBuf);

impl Part {
    /// Beside its place, or for a URL in the folder of the cache.
    fn beside(path: &Path, files: &Files) -> Result<Self> {
        let name = crate::storage::name_of(path);
        let name = format!(".{name}.part-{}", std::process::id());
        if !is_url(path) {
            return Ok(Self(path.with_file_name(name)));
        }
        let folder = files.storage().cache_folder().unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
        Ok(Self(folder.join(name)))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It has been moved where it became a file.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes a small file to its place.
fn put(files: &Files, path: &Path, bytes: &[u8]) -> Result<()> {
    let part = Part::beside(path, files)?;
    let write = || {
        let mut file = File::create(&part.0)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::io(&part.0, error))?;
    files.put(&part.0, path)
}

/// Place and content of the file with the names of the classes.
fn class_file(out: &Path, classes: &[String]) -> Result<Option<(PathBuf, String)>> {
    if classes.is_empty() {
        return Ok(None);
    }
    if let Some(class) = classes.iter().position(String::is_empty) {
        return Err(Error::file(out, format!("class {class}"), "a name", "an empty text"));
    }
    // A name that a line cannot hold.
    let odd = |name: &String| name.contains(['\n', '\r']) || name.trim_end() != name || name.starts_with('\u{feff}');
    if classes.iter().any(odd) {
        let path = in_folder(out, "classes.json");
        let text = serde_json::to_string(classes);
        let text = text.map_err(|error| Error::file(&path, "content", "names that JSON can hold", error))?;
        return Ok(Some((path, text)));
    }
    Ok(Some((in_folder(out, "classes.txt"), classes.iter().map(|name| format!("{name}\n")).collect())))
}
