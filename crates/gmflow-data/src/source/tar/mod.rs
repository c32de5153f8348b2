//! Tar shards as WebDataset writes them: the members of a sample have one name with several endings and follow each other, such as
//! `000001.jpg`, `000001.cls`.

mod index;
mod labels;
mod members;
mod sample;
mod settings;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gmflow_files::is_url;

pub(crate) use index::{Index, index_name};
pub(crate) use sample::Sample;
pub use settings::{ShardPaths, TarData};

use self::index::{BLOCK, header_size};
use self::labels::{NO_LABEL, classes, read_names};
use super::{Image, ImageBytes, ImageDataset, MAX_FILE_BYTES, StoredImage, counts};
use crate::decode::{Fault, decode, dimensions};
use crate::fingerprint::{Content, Fingerprint, listed};
use crate::order::Nearby;
use crate::settings::{Format, MAX_SIZE};
use crate::storage::{Entry, Files, folder_of, in_folder, read_at};
use crate::{Error, Result};

/// Files with the names of classes that are looked for beside the shards.
pub(crate) const CLASSES: [&str; 2] = ["classes.txt", "classes.json"];

/// Shards whose headers are read at the same time: what takes time is the way to the disk or the server.
const AT_A_TIME: usize = 8;

/// Shards of this machine that are kept open.
const KEPT_OPEN: usize = 64;

/// Images among the first of a set that are tried for their size.
const TRIED: usize = 100;

/// Images of a shard behind a URL that are read on their own before the shard is copied to the cache.
const FEW: usize = 32;

/// Sizes above this stand elsewhere than in the header's own field.
const LARGEST_IN_HEADER: u64 = 0o777_7777_7777;

/// Images in tar shards, read at random and decoded on demand.
#[derive(Debug)]
pub struct TarDataset {
    files: Files,
    shards: Vec<Shard>,
    /// The index of each shard's first image.
    starts: Vec<usize>,
    labels: Vec<u32>,
    class_names: Vec<String>,
    format: Format,
    /// Whether images of another size are refused rather than resized.
    exact: bool,
    nearby: Option<Nearby>,
    /// Shards of this machine that are open.
    open: Mutex<Vec<(usize, Arc<File>)>>,
}

/// A shard with its samples.
#[derive(Debug)]
struct Shard {
    entry: Entry,
    samples: Vec<Sample>,
    /// Images that were read before a copy of the shard was asked for.
    reads: AtomicUsize,
}

impl TarDataset {
    /// Finds the shards and what they hold. The list of a shard's samples is taken from the file beside it that `gmflow pack` writes, or
    /// from the cache, or else made by reading the headers of the shard's members.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for what cannot be read; [`crate::FilesError::File`] for a damaged shard, naming the member and the
    /// offset, labels that are none, and a set without images; [`crate::FilesError::Config`] for a setting outside its domain.
    pub fn open(data: &TarData, base_dir: &Path) -> Result<Self> {
        Self::open_as(data, base_dir, false)
    }

    /// The same of images that have one size already, that of the first: others are not resized but refused. `image.size` is not used.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_exact(data: &TarData, base_dir: &Path) -> Result<Self> {
        let mut data = data.clone();
        data.image.size = None;
        Self::open_as(&data, base_dir, true)
    }

    fn open_as(data: &TarData, base_dir: &Path, exact: bool) -> Result<Self> {
        data.validate()?;
        let files = Files::new(&data.storage)?;
        let mut entries = Vec::new();
        for path in data.path.all() {
            entries.extend(files.find(&crate::config::at(base_dir, path), "tar")?);
        }
        refuse_twice(&entries)?;
        let (shards, notes) = read(&files, entries, data)?;
        let first = shards.first().map(|shard| shard.entry.path.clone()).unwrap_or_default();
        let mut starts = Vec::new();
        let mut len = 0;
        for shard in &shards {
            starts.push(len);
            len += shard.samples.len();
        }
        if len == 0 {
            let others = notes.others();
            let got = if others.is_empty() { "none".to_owned() } else { format!("none, but {others}") };
            return Err(Error::file(first, "content", "samples with an image, such as 000001.jpg", got));
        }
        let names = names(&files, &first, data, base_dir)?;
        let all = shards.iter().flat_map(|shard| shard.samples.iter().map(|sample| sample.label.as_deref()));
        let (labels, class_names) = classes(&first, all, names)?;
        report(&shards, len, &class_names, &notes);
        let nearby = data.buffer().map(|buffer| Nearby {
            files: shards.iter().map(|shard| shard.samples.len()).collect(),
            buffer,
            lanes: data.lanes(),
        });
        let format = data.image.format([1, 1], 3);
        let mut set =
            Self { files, shards, starts, labels, class_names, format, exact, nearby, open: Mutex::default() };
        if data.image.size.is_none() {
            let size = set.first_size()?;
            set.format = data.image.format(size, 3);
        }
        Ok(set)
    }

    /// The height and width of the first image that can be read.
    fn first_size(&self) -> Result<[usize; 2]> {
        let mut first_error = None;
        for index in 0..self.len().min(TRIED) {
            let size = match self.stored(index) {
                Ok(stored) => stored.size,
                Err(error) if error.is_corrupt() => {
                    first_error.get_or_insert(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            return match size.iter().all(|side| *side <= MAX_SIZE) {
                true => Ok(size),
                false => {
                    let [height, width] = size;
                    let got = format!("{height}x{width} (the first image)");
                    Err(Error::config("image.size", format!("1 to {MAX_SIZE}"), got))
                }
            };
        }
        Err(first_error.unwrap_or_else(|| Error::config("image.size", "a size", "none")))
    }

    /// The shard and the sample of an index.
    fn place(&self, index: usize) -> Result<(usize, &Shard, &Sample)> {
        let at = self.starts.partition_point(|&start| start <= index).saturating_sub(1);
        let outside = || Error::config("index", format!("less than {}", self.len()), index);
        let (shard, start) = self.shards.get(at).zip(self.starts.get(at)).ok_or_else(outside)?;
        let sample = shard.samples.get(index - start).ok_or_else(outside)?;
        Ok((at, shard, sample))
    }

    /// The image file at an index. The header before it must be the one that the list of samples tells of.
    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let (at, shard, sample) = self.place(index)?;
        if sample.bytes > MAX_FILE_BYTES {
            return Err(fault(shard, sample, &format!("at most {MAX_FILE_BYTES} bytes"), sample.bytes.to_string()));
        }
        let (start, end) = (sample.offset - BLOCK, sample.offset + sample.bytes);
        let mut bytes = match self.opened(at, shard)? {
            Some(file) => read_at(&shard.entry.path, &file, start..end)?,
            None => self.files.read(&shard.entry, start..end)?,
        };
        let image = bytes.split_off(usize::try_from(BLOCK).unwrap_or_default().min(bytes.len()));
        match header_size(&bytes) {
            Some(size) if size == sample.bytes || sample.bytes > LARGEST_IN_HEADER => Ok(image),
            Some(size) => Err(fault(shard, sample, &format!("{} bytes", sample.bytes), format!("{size} bytes"))),
            None => Err(fault(shard, sample, "its header before it", "other bytes".into())),
        }
    }

    /// The shard's file, or its copy in the cache; `None` where it is read in ranges.
    fn opened(&self, at: usize, shard: &Shard) -> Result<Option<Arc<File>>> {
        if is_url(&shard.entry.path) {
            // Who looks at a few images of many shards, as for a survey, does not need them as a whole. A copy is not kept open: one that
            // the cache removes would go on to take room on the disk.
            let few = shard.reads.fetch_add(1, Ordering::Relaxed) < FEW;
            return if few { Ok(None) } else { Ok(self.files.open(&shard.entry)?.map(Arc::new)) };
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(number, _)| *number == at) {
            return Ok(Some(file.clone()));
        }
        let Some(file) = self.files.open(&shard.entry)?.map(Arc::new) else { return Ok(None) };
        if open.len() >= KEPT_OPEN {
            open.remove(0);
        }
        open.push((at, file.clone()));
        Ok(Some(file))
    }

    fn label(&self, index: usize) -> Result<u32> {
        match self.labels.get(index) {
            Some(&NO_LABEL) | None => {
                let (_, shard, sample) = self.place(index)?;
                let got = sample.label.clone().unwrap_or_else(|| "none".to_owned());
                let expected = format!("a label of {} classes", self.class_names.len());
                Err(Error::file(&shard.entry.path, format!("sample {}", sample.key), expected, got))
            }
            Some(&label) => Ok(label),
        }
    }
}

/// The error for an image.
fn fault(shard: &Shard, sample: &Sample, expected: &str, got: String) -> Error {
    let Sample { key, ending, offset, .. } = sample;
    Error::file(&shard.entry.path, format!("member {key}.{ending} at byte {offset}"), expected, got)
}

/// A shard that is named twice would count twice.
fn refuse_twice(entries: &[Entry]) -> Result<()> {
    let mut paths: Vec<&PathBuf> = entries.iter().map(|entry| &entry.path).collect();
    paths.sort();
    match paths.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(a),
        _ => None,
    }) {
        Some(path) => Err(Error::config("path", "every shard once", format!("{} twice", path.display()))),
        None => Ok(()),
    }
}

/// What is told of all shards together.
#[derive(Default)]
struct Notes {
    /// The ending of labels, and the first shard that has labels.
    label: Option<(String, PathBuf)>,
    others: BTreeMap<String, u64>,
}

impl Notes {
    /// Members that were not used.
    fn others(&self) -> String {
        listed(&self.others.iter().map(|(ending, count)| format!("{count} .{ending}")).collect::<Vec<_>>())
    }
}

/// Reads what the shards hold, several at a time.
fn read(files: &Files, entries: Vec<Entry>, data: &TarData) -> Result<(Vec<Shard>, Notes)> {
    let (next, choice) = (AtomicUsize::new(0), data.choice());
    let results: Mutex<Vec<Option<Result<Index>>>> = Mutex::new(entries.iter().map(|_| None).collect());
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(entries.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(entry) = entries.get(at) else { return };
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let index = Index::of(files, entry, &choice, data.image.corrupt);
                    stopped.fetch_or(index.is_err(), Ordering::Relaxed);
                    if let Some(place) = results.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
                        *place = Some(index);
                    }
                }
            });
        }
    });
    let (mut shards, mut notes) = (Vec::new(), Notes::default());
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    // An error that stopped the others goes before what was left out for it.
    let (mut found, mut missing) = (Vec::new(), false);
    for (entry, result) in entries.into_iter().zip(results) {
        match result {
            Some(index) => found.push((entry, index?)),
            None => missing = true,
        }
    }
    if missing {
        return Err(Error::loader("every shard to be read", "a thread that failed"));
    }
    for (entry, Index { label_member, others, samples, .. }) in found {
        for (ending, count) in others {
            *notes.others.entry(ending).or_default() += count;
        }
        match (&notes.label, label_member) {
            (Some((before, first)), Some(now)) if *before != now => {
                let expected =
                    format!("labels in .{before} members, as in {} (label_member chooses)", first.display());
                return Err(Error::file(entry.path, "labels", expected, format!("labels in .{now} members")));
            }
            (None, Some(now)) => notes.label = Some((now, entry.path.clone())),
            _ => {}
        }
        shards.push(Shard { entry, samples, reads: AtomicUsize::new(0) });
    }
    Ok((shards, notes))
}

/// The names of classes, from the file that is named, or one beside the shards.
fn names(files: &Files, first: &Path, data: &TarData, base_dir: &Path) -> Result<Option<Vec<String>>> {
    if data.label_member.as_deref() == Some("") {
        return Ok(None);
    }
    if let Some(path) = &data.class_names {
        return read_names(files, &files.stat(&crate::config::at(base_dir, path))?).map(Some);
    }
    for name in CLASSES {
        if let Some(entry) = files.stat_if_there(&in_folder(&folder_of(first), name))? {
            return read_names(files, &entry).map(Some);
        }
    }
    Ok(None)
}

/// Says what was found and what was not used.
fn report(shards: &[Shard], len: usize, classes: &[String], notes: &Notes) {
    let first = shards.first().map(|shard| shard.entry.path.display().to_string()).unwrap_or_default();
    let others = match shards.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let classes = match (classes, &notes.label) {
        ([], _) => "no classes".to_owned(),
        (names, Some((ending, _))) => format!("{} classes from .{ending} members: {}", names.len(), listed(names)),
        (names, None) => format!("{} classes: {}", names.len(), listed(names)),
    };
    let unused = match notes.others.is_empty() {
        true => String::new(),
        false => format!("; members not used: {}", notes.others()),
    };
    log::info!(target: crate::FOUND, "{first}{others}: {len} images, {classes}{unused}");
}

impl ImageDataset for TarDataset {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.format.shape()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn class_images(&self) -> Option<Vec<u64>> {
        let labels = self.labels.iter().map(|label| *label as usize);
        (!self.class_names.is_empty()).then(|| counts(labels, self.class_names.len()))
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let mut content = Content::default();
        let samples = self.shards.iter().flat_map(|shard| &shard.samples);
        for (sample, label) in samples.zip(&self.labels) {
            content.bytes(sample.key.as_bytes());
            content.number(sample.bytes);
            content.number(u64::from(*label));
        }
        let class_images = self.class_images().unwrap_or_default();
        Some(Fingerprint::new(self.len(), &self.class_names, &class_images, &self.format, content))
    }

    fn name(&self, index: usize) -> String {
        match self.place(index) {
            Ok((_, shard, Sample { key, ending, .. })) => format!("{}, {key}.{ending}", shard.entry.path.display()),
            Err(_) => format!("image {index}"),
        }
    }

    fn is_decoded(&self) -> bool {
        true
    }

    fn check_labels(&self) -> Result<()> {
        (0..self.len()).try_for_each(|index| self.label(index).map(drop))
    }

    fn nearby(&self) -> Option<Nearby> {
        self.nearby.clone()
    }

    fn prefetch(&self, index: usize) {
        if let Ok((_, shard, _)) = self.place(index) {
            self.files.prefetch(&shard.entry);
        }
    }

    fn stored(&self, index: usize) -> Result<StoredImage> {
        let (_, shard, sample) = self.place(index)?;
        let size = dimensions(&self.bytes(index)?, self.format.max_pixels);
        let size = size.map_err(|error| fault(shard, sample, &error.expected, error.got))?;
        Ok(StoredImage { size, format: sample.ending.clone() })
    }

    fn file(&self, index: usize) -> Result<Option<ImageBytes>> {
        let (_, _, sample) = self.place(index)?;
        let ending = sample.ending.rsplit('.').next().unwrap_or_default().to_owned();
        Ok(Some(ImageBytes { bytes: self.bytes(index)?, ending, label: self.label(index)? }))
    }

    fn get(&self, index: usize) -> Result<Image> {
        let (_, shard, sample) = self.place(index)?;
        let (bytes, [_, height, width]) = (self.bytes(index)?, self.shape());
        let wrong = |error: Fault| fault(shard, sample, &error.expected, error.got);
        if self.exact {
            let [h, w] = dimensions(&bytes, self.format.max_pixels).map_err(wrong)?;
            if [h, w] != [height, width] {
                let expected = format!("{width}x{height} pixels, as the first image has");
                return Err(fault(shard, sample, &expected, format!("{w}x{h}")));
            }
        }
        let pixels = decode(&bytes, &self.format).map_err(wrong)?;
        Ok(Image { pixels, label: self.label(index)? })
    }
}
