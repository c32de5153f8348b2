//! Writing a cache, shard by shard, so that an interrupted one can be continued.

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
}

/// A cache that is being written.
#[derive(Debug)]
pub struct LatentWriter {
    folder: PathBuf,
    manifest: LatentManifest,
    waiting: EncodedBatch,
    shards: usize,
}

impl LatentWriter {
    /// Starts a cache in `folder`, or continues one that was interrupted: [`LatentWriter::written`] tells where.
    ///
    /// # Errors
    /// [`Error::File`] where the folder holds a complete cache, or one that was begun with other settings.
    pub fn open(folder: &Path, manifest: LatentManifest) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        let mut shards = 0;
        if folder.join(super::MANIFEST).exists() {
            let found = LatentManifest::read(folder)?;
            if found.complete {
                return Err(Error::file(folder, "cache", "none, or one that was interrupted", "a complete one"));
            }
            if !found.continues(&manifest) {
                return Err(Error::file(folder, "cache", "one that was begun with these settings", "other settings"));
            }
            while folder.join(shard_name(shards)).is_file() {
                shards += 1;
            }
        } else {
            manifest.write(folder)?;
        }
        Ok(Self { folder: folder.to_owned(), manifest, waiting: EncodedBatch::default(), shards })
    }

    /// Latents that are in the cache already.
    pub fn written(&self) -> usize {
        self.shards * self.manifest.shard
    }

    /// Adds encoded images; full shards are written.
    ///
    /// # Errors
    /// [`Error::Config`] for another number of values than the manifest says, or values that are not finite;
    /// [`Error::Io`] where a shard cannot be written.
    pub fn push(&mut self, batch: &EncodedBatch) -> Result<()> {
        let values = batch.labels.len() * self.manifest.values();
        let mirror = if self.manifest.mirrored { values } else { 0 };
        let parts =
            [(&batch.mean, values), (&batch.std, values), (&batch.mirror_mean, mirror), (&batch.mirror_std, mirror)];
        for (part, expected) in parts {
            if part.len() != expected {
                return Err(Error::config("latents", format!("{expected} values"), part.len()));
            }
            if let Some(value) = part.iter().find(|value| !value.is_finite()) {
                return Err(Error::config("latents", "finite values", value));
            }
        }
        self.waiting.mean.extend(&batch.mean);
        self.waiting.std.extend(&batch.std);
        self.waiting.mirror_mean.extend(&batch.mirror_mean);
        self.waiting.mirror_std.extend(&batch.mirror_std);
        self.waiting.labels.extend(&batch.labels);
        while self.waiting.labels.len() >= self.manifest.shard {
            self.write_shard(self.manifest.shard)?;
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
            .map(|(name, part)| (*name, encode(&part.drain(..values).collect::<Vec<f32>>(), precision)))
            .collect();
        let labels: Vec<u8> = waiting.labels.drain(..count).flat_map(u32::to_le_bytes).collect();
        let dtype = match precision {
            LatentPrecision::F32 => Dtype::F32,
            LatentPrecision::F16 => Dtype::F16,
        };
        let wrong = |error: safetensors::SafeTensorError| Error::file(&path, "header", "serialisable tensors", error);
        let mut views = Vec::new();
        for (name, bytes) in &encoded {
            views.push((*name, TensorView::new(dtype, vec![count, c, h, w], bytes).map_err(wrong)?));
        }
        if !self.manifest.classes.is_empty() {
            views.push(("labels", TensorView::new(Dtype::U32, vec![count], &labels).map_err(wrong)?));
        }
        write_atomic(&path, &serialize(views, None).map_err(wrong)?)?;
        self.shards += 1;
        Ok(())
    }
}

fn encode(values: &[f32], precision: LatentPrecision) -> Vec<u8> {
    match precision {
        LatentPrecision::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        LatentPrecision::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
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
        fs::rename(&temporary, path)
    };
    write().map_err(|error| Error::io(path, error))
}
