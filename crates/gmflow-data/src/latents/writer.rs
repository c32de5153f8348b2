//! Writing a cache, shard by shard, so that an interrupted one can be continued.

mod pause;

use super::shard::Shard;
use super::{LatentManifest, LatentPrecision, shard_name};
use crate::{Error, Result};
use gmflow_files::FolderLock;
use half::f16;
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Some encoded images, in the order of the data set.
#[derive(Clone, Debug, Default)]
pub struct EncodedBatch {
    /// Means `[n c h w]`.
    pub mean: Vec<f32>,
    /// Standard deviations `[n c h w]`.
    pub std: Vec<f32>,
    /// Means of the mirrored images, for a mirrored cache.
    pub mirror_mean: Vec<f32>,
    /// Standard deviations of the mirrored images, for a mirrored cache.
    pub mirror_std: Vec<f32>,
    /// Labels `[n]`.
    pub labels: Vec<u32>,
    /// Positions in the data set `[n]`, rising.
    pub indices: Vec<u32>,
}

/// What waits for its shard, in the form of the file: a shard of means and standard deviations is large.
#[derive(Debug, Default)]
struct Waiting {
    /// In the order of [`LatentManifest::tensors`].
    tensors: [Vec<u8>; 4],
    labels: Vec<u8>,
    indices: Vec<u8>,
    count: usize,
}

/// A cache that is being written.
#[derive(Debug)]
pub struct LatentWriter {
    folder: PathBuf,
    manifest: LatentManifest,
    waiting: Waiting,
    shards: usize,
    /// The position in the data set after the last image that was taken.
    next: u64,
    _lock: FolderLock,
}

impl LatentWriter {
    /// Starts a cache in `folder`, or continues one that was interrupted: [`LatentWriter::next_index`] tells where. What was written after
    /// the last whole shard is written again. While it writes, the folder is locked.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] where another process writes there, or the folder holds a complete cache, or one that was begun with
    /// other settings or of other images.
    pub fn open(folder: &Path, manifest: LatentManifest) -> Result<Self> {
        let mut writer = Self::locked(folder, manifest)?;
        if !folder.join(super::MANIFEST).exists() {
            writer.begin()?;
            return Ok(writer);
        }
        let found = LatentManifest::read(folder)?;
        if found.complete {
            return Err(Error::file(folder, "cache", "none, or one that was interrupted", "a complete one"));
        }
        if let Some(differences) = found.differs(&writer.manifest) {
            return Err(Error::file(
                folder,
                "cache",
                "one that was begun with these images and settings",
                differences,
            ));
        }
        if found.data.is_none() && writer.manifest.data.is_some() {
            let folder = folder.display();
            log::warn!("{folder}: begun by an older version, which did not note the images: they cannot be compared");
            writer.manifest.data = None;
        }
        writer.pass_over_written();
        writer.take_up();
        Ok(writer)
    }

    /// Starts a cache in `folder` and removes the one that is there, and no other file.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] where another process writes there, or files of other origin are in the way.
    pub fn restart(folder: &Path, manifest: LatentManifest) -> Result<Self> {
        let writer = Self::locked(folder, manifest)?;
        let path = folder.join(super::MANIFEST);
        if path.exists() {
            if !LatentManifest::is_ours(folder) {
                let got = "another file, which is not removed";
                return Err(Error::file(path, "content", "the manifest of a cache of latents", got));
            }
            for file in own_files(folder)? {
                fs::remove_file(&file).map_err(|error| Error::io(file, error))?;
            }
        }
        writer.begin()?;
        Ok(writer)
    }

    /// A writer that nothing else writes beside.
    fn locked(folder: &Path, manifest: LatentManifest) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        let lock = FolderLock::acquire(folder, "gmflow encode")?;
        Ok(Self { folder: folder.to_owned(), manifest, waiting: Waiting::default(), shards: 0, next: 0, _lock: lock })
    }

    /// Writes the manifest of a cache without latents.
    fn begin(&self) -> Result<()> {
        let shard =
            own_files(&self.folder)?.into_iter().find(|file| file.extension().is_some_and(|e| e == "safetensors"));
        if let Some(shard) = shard {
            let expected = format!("no file of this name, as there is no {}", super::MANIFEST);
            return Err(Error::file(shard, "folder", expected, "one, which is not overwritten"));
        }
        self.manifest.write(&self.folder)
    }

    /// Counts the shards that are whole. The call before may have ended after its last shard, which is short, so a shard that is not
    /// whole is as good as none.
    fn pass_over_written(&mut self) {
        let written = |number: usize| {
            let path = self.folder.join(shard_name(number));
            if !path.is_file() {
                return None;
            }
            let open = || {
                let file = File::open(&path).map_err(|error| Error::io(&path, error))?;
                Shard::open(&path, &file, &self.manifest, self.manifest.shard)
            };
            match open() {
                Ok(shard) => shard.ends(),
                Err(error) => {
                    log::warn!("{error}; it is written again");
                    None
                }
            }
        };
        let (mut shards, mut next) = (0, 0);
        while let Some((_, last)) = written(shards).filter(|(first, _)| u64::from(*first) >= next) {
            (shards, next) = (shards + 1, u64::from(last) + 1);
        }
        (self.shards, self.next) = (shards, next);
    }

    /// Latents that are encoded already: those in shards, and those that wait for theirs.
    pub fn written(&self) -> usize {
        self.shards * self.manifest.shard + self.waiting.count
    }

    /// The position in the data set of the first image that has not been taken.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Adds encoded images; full shards are written.
    ///
    /// # Errors
    /// - [`crate::FilesError::Config`] for another number of values than the manifest says; values that are not finite or too large for
    ///   the precision; negative standard deviations; labels without a class; positions that do not rise.
    /// - [`crate::FilesError::Io`] if a shard cannot be written.
    pub fn push(&mut self, batch: &EncodedBatch) -> Result<()> {
        self.check(batch)?;
        let (waiting, precision) = (&mut self.waiting, self.manifest.precision);
        let parts = [&batch.mean, &batch.std, &batch.mirror_mean, &batch.mirror_std];
        for (bytes, values) in waiting.tensors.iter_mut().zip(parts) {
            encode(values, precision, bytes);
        }
        waiting.labels.extend(batch.labels.iter().flat_map(|label| label.to_le_bytes()));
        waiting.indices.extend(batch.indices.iter().flat_map(|index| index.to_le_bytes()));
        waiting.count += batch.labels.len();
        self.next = batch.indices.last().map_or(self.next, |last| u64::from(*last) + 1);
        while self.waiting.count >= self.manifest.shard {
            self.write_shard(self.manifest.shard)?;
        }
        Ok(())
    }

    fn check(&self, batch: &EncodedBatch) -> Result<()> {
        let (count, largest) = (batch.labels.len(), self.manifest.precision.largest());
        let values = count * self.manifest.values();
        let mirror = if self.manifest.mirrored { values } else { 0 };
        let parts =
            [(&batch.mean, values), (&batch.std, values), (&batch.mirror_mean, mirror), (&batch.mirror_std, mirror)];
        for (part, expected) in parts {
            if part.len() != expected {
                return Err(Error::config("latents", format!("{expected} values"), part.len()));
            }
            if let Some(value) = part.iter().find(|value| value.is_nan() || value.abs() > largest) {
                return Err(Error::config("latents", format!("finite values of at most {largest}"), value));
            }
        }
        if let Some(std) = batch.std.iter().chain(&batch.mirror_std).find(|std| **std < 0.0) {
            return Err(Error::config("latents", "standard deviations of at least 0", std));
        }
        let classes = self.manifest.classes.len();
        if let Some(label) = batch.labels.iter().find(|label| classes > 0 && **label as usize >= classes) {
            return Err(Error::config("labels", format!("below {classes}"), label));
        }
        if batch.indices.len() != count {
            return Err(Error::config("indices", format!("{count} positions"), batch.indices.len()));
        }
        let mut next = self.next;
        for &index in &batch.indices {
            if u64::from(index) < next {
                return Err(Error::config("indices", format!("at least {next}"), index));
            }
            next = u64::from(index) + 1;
        }
        Ok(())
    }

    /// Writes the last shard and completes the manifest; `left_out` images were damaged.
    ///
    /// # Errors
    /// As [`LatentWriter::push`]; [`crate::FilesError::Config`] for a cache without a latent.
    pub fn finish(mut self, left_out: usize) -> Result<LatentManifest> {
        let count = self.written();
        if count == 0 {
            return Err(Error::config("images", "at least one that can be read", 0));
        }
        if self.waiting.count > 0 {
            self.write_shard(self.waiting.count)?;
        }
        let manifest = LatentManifest { count, left_out, complete: true, ..self.manifest };
        manifest.write(&self.folder)?;
        Ok(manifest)
    }

    /// Writes the first `count` latents that wait.
    fn write_shard(&mut self, count: usize) -> Result<()> {
        let first = self.waiting.take(count);
        self.write_latents(&self.folder.join(shard_name(self.shards)), &first)?;
        self.shards += 1;
        self.forget()
    }

    /// Writes latents in the form of a shard.
    fn write_latents(&self, path: &Path, latents: &Waiting) -> Result<()> {
        let ([c, h, w], count) = (self.manifest.shape, latents.count);
        let dtype = self.manifest.precision.dtype();
        let wrong = |error: safetensors::SafeTensorError| Error::file(path, "header", "serialisable tensors", error);
        let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).map_err(wrong);
        let mut views = Vec::new();
        for (name, bytes) in self.manifest.tensors().iter().zip(&latents.tensors) {
            views.push((*name, view(dtype, vec![count, c, h, w], bytes.as_slice())?));
        }
        views.push(("indices", view(Dtype::U32, vec![count], &latents.indices)?));
        if !self.manifest.classes.is_empty() {
            views.push(("labels", view(Dtype::U32, vec![count], &latents.labels)?));
        }
        write_atomic(path, &serialize(views, None).map_err(wrong)?)
    }
}

impl Waiting {
    /// Takes the first `count` latents out.
    fn take(&mut self, count: usize) -> Self {
        let share = |bytes: &mut Vec<u8>, all: usize| {
            let rest = bytes.split_off(bytes.len() / all.max(1) * count);
            std::mem::replace(bytes, rest)
        };
        let all = self.count;
        self.count -= count;
        Self {
            tensors: self.tensors.each_mut().map(|bytes| share(bytes, all)),
            labels: share(&mut self.labels, all),
            indices: share(&mut self.indices, all),
            count,
        }
    }
}

/// The files in a folder that have the names of a cache's: its manifest, its shards, what waits for its shard, and what an interrupted
/// write left.
fn own_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |error| Error::io(folder, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.strip_suffix(".tmp").unwrap_or(&name);
        let number = name.strip_prefix("shard-").and_then(|name| name.strip_suffix(".safetensors"));
        let is_shard = number.and_then(|digits| digits.parse().ok()).is_some_and(|number| shard_name(number) == name);
        if is_shard || name == super::MANIFEST || name == pause::WAITING {
            found.push(path);
        }
    }
    Ok(found)
}

fn encode(values: &[f32], precision: LatentPrecision, bytes: &mut Vec<u8>) {
    match precision {
        LatentPrecision::F32 => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        LatentPrecision::F16 => bytes.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
    }
}

/// Writes a temporary neighbour, syncs it and renames it.
pub(super) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(path)
    };
    write().map_err(|error| {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
        Error::io(path, error)
    })
}

/// Makes the rename itself durable: the manifest must not say "complete" of shards whose names a power cut takes away.
#[cfg(unix)]
fn sync_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Elsewhere folders cannot be opened to be synced.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> std::io::Result<()> {
    Ok(())
}
