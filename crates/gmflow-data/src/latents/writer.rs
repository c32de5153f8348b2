//! Writing a cache, shard by shard, so that an interrupted one can be continued.

use super::shard::Shard;
use super::{LatentManifest, LatentPrecision, shard_name};
use crate::{Error, Result};
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

/// A cache that is being written.
#[derive(Debug)]
pub struct LatentWriter {
    folder: PathBuf,
    manifest: LatentManifest,
    waiting: EncodedBatch,
    shards: usize,
    /// The position in the data set after the last image that was taken.
    next: u64,
}

impl LatentWriter {
    /// Starts a cache in `folder`, or continues one that was interrupted: [`LatentWriter::next_index`] tells where. What was written after
    /// the last whole shard is written again.
    ///
    /// # Errors
    /// [`Error::File`] where the folder holds a complete cache, or one that was begun with other settings.
    pub fn open(folder: &Path, manifest: LatentManifest) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        let mut writer =
            Self { folder: folder.to_owned(), manifest, waiting: EncodedBatch::default(), shards: 0, next: 0 };
        if !folder.join(super::MANIFEST).exists() {
            writer.manifest.write(folder)?;
            return Ok(writer);
        }
        let found = LatentManifest::read(folder)?;
        if found.complete {
            return Err(Error::file(folder, "cache", "none, or one that was interrupted", "a complete one"));
        }
        if !found.continues(&writer.manifest) {
            return Err(Error::file(folder, "cache", "one that was begun with these settings", "other settings"));
        }
        writer.pass_over_written();
        Ok(writer)
    }

    /// Counts the shards that are whole. The call before may have ended after its last shard, which is short, so a shard that is not
    /// whole is as good as none.
    fn pass_over_written(&mut self) {
        let written = |number: usize| {
            let path = self.folder.join(shard_name(number));
            if !path.is_file() {
                return None;
            }
            match Shard::open(&path, &self.manifest, self.manifest.shard) {
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

    /// Latents that are in the cache already.
    pub fn written(&self) -> usize {
        self.shards * self.manifest.shard
    }

    /// The position in the data set of the first image that has not been taken.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Adds encoded images; full shards are written.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of values than the manifest says, values that are not finite or too large for the precision,
    /// negative standard deviations, labels without a class, or positions that do not rise; [`Error::Io`] where a shard cannot be written.
    pub fn push(&mut self, batch: &EncodedBatch) -> Result<()> {
        self.check(batch)?;
        self.waiting.mean.extend(&batch.mean);
        self.waiting.std.extend(&batch.std);
        self.waiting.mirror_mean.extend(&batch.mirror_mean);
        self.waiting.mirror_std.extend(&batch.mirror_std);
        self.waiting.labels.extend(&batch.labels);
        self.waiting.indices.extend(&batch.indices);
        self.next = batch.indices.last().map_or(self.next, |last| u64::from(*last) + 1);
        while self.waiting.labels.len() >= self.manifest.shard {
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
    /// As [`LatentWriter::push`]; [`Error::Config`] for a cache without a latent.
    pub fn finish(mut self, left_out: usize) -> Result<LatentManifest> {
        let count = self.written() + self.waiting.labels.len();
        if count == 0 {
            return Err(Error::config("images", "at least one that can be read", 0));
        }
        if !self.waiting.labels.is_empty() {
            self.write_shard(self.waiting.labels.len())?;
        }
        let manifest = LatentManifest { count, left_out, complete: true, ..self.manifest };
        manifest.write(&self.folder)?;
        Ok(manifest)
    }

    /// Writes the first `count` latents that wait.
    fn write_shard(&mut self, count: usize) -> Result<()> {
        let path = self.folder.join(shard_name(self.shards));
        let [c, h, w] = self.manifest.shape;
        let values = count * self.manifest.values();
        let waiting = &mut self.waiting;
        let parts = [&mut waiting.mean, &mut waiting.std, &mut waiting.mirror_mean, &mut waiting.mirror_std];
        let precision = self.manifest.precision;
        let encoded: Vec<(&str, Vec<u8>)> = self
            .manifest
            .tensors()
            .iter()
            .zip(parts)
            .map(|(name, part)| (*name, encode(part.drain(..values), precision)))
            .collect();
        let numbers = |part: &mut Vec<u32>| -> Vec<u8> { part.drain(..count).flat_map(u32::to_le_bytes).collect() };
        let (labels, indices) = (numbers(&mut waiting.labels), numbers(&mut waiting.indices));
        let wrong = |error: safetensors::SafeTensorError| Error::file(&path, "header", "serialisable tensors", error);
        let mut views = Vec::new();
        for (name, bytes) in &encoded {
            views.push((*name, TensorView::new(precision.dtype(), vec![count, c, h, w], bytes).map_err(wrong)?));
        }
        views.push(("indices", TensorView::new(Dtype::U32, vec![count], &indices).map_err(wrong)?));
        if !self.manifest.classes.is_empty() {
            views.push(("labels", TensorView::new(Dtype::U32, vec![count], &labels).map_err(wrong)?));
        }
        write_atomic(&path, &serialize(views, None).map_err(wrong)?)?;
        self.shards += 1;
        Ok(())
    }
}

fn encode(values: impl Iterator<Item = f32>, precision: LatentPrecision) -> Vec<u8> {
    match precision {
        LatentPrecision::F32 => values.flat_map(f32::to_le_bytes).collect(),
        LatentPrecision::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
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
