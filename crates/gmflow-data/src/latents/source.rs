//! Reading a cache.

use super::EncodedBatch;
use super::shard::Shard;
use super::{LatentManifest, shard_name};
use crate::fingerprint::Content;
use crate::settings::Format;
use crate::source::counts;
use crate::storage::{Files, Storage, in_folder};
use crate::{Background, Error, Fingerprint, Result};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use std::path::Path;

/// One draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Latent {
    /// Values, shifted and scaled. `[c h w]`
    pub values: Vec<f32>,
    /// The class; 0 in a cache without classes.
    pub label: u32,
    /// The image's position in the data set that was encoded.
    pub index: u64,
}

/// A complete cache with random access; its shards are mapped into memory.
#[derive(Debug)]
pub struct LatentDataset {
    manifest: LatentManifest,
    shards: Vec<Shard>,
}

impl LatentDataset {
    /// Opens a cache and checks the headers of its shards.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] or [`crate::FilesError::File`] naming the file: a cache that is not complete, a shard that is missing,
    /// truncated or not as the manifest says.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(&Files::new(&Storage::default())?, folder)
    }

    /// The same of a cache that may be behind a URL.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(files: &Files, folder: &Path) -> Result<Self> {
        let manifest = LatentManifest::read_with(files, folder)?;
        let path = in_folder(folder, super::MANIFEST);
        if !manifest.complete {
            return Err(Error::file(&path, "complete", "true: run gmflow encode to its end", "false"));
        }
        if manifest.count == 0 {
            return Err(Error::file(&path, "count", "at least 1", manifest.count));
        }
        let mut shards = Vec::new();
        for first in (0..manifest.count).step_by(manifest.shard) {
            let count = manifest.shard.min(manifest.count - first);
            let path = in_folder(folder, &shard_name(shards.len()));
            shards.push(Shard::open(&path, &files.open_whole(&path)?, &manifest, count)?);
        }
        check_order(folder, &shards)?;
        Ok(Self { manifest, shards })
    }

    /// What the cache holds.
    pub fn manifest(&self) -> &LatentManifest {
        &self.manifest
    }

    /// The number of latents of each class; `None` without classes. Labels that are none are not counted.
    pub fn class_images(&self) -> Option<Vec<u64>> {
        let classes = self.manifest.classes.len();
        (classes > 0).then(|| counts(self.shards.iter().flat_map(Shard::labels), classes))
    }

    /// What the cache is known by: its manifest, the labels, and the first latent of every shard, so that little of it is read.
    pub fn fingerprint(&self) -> Fingerprint {
        let LatentManifest { shape, classes, count, .. } = &self.manifest;
        let mut content = Content::default();
        for value in [self.manifest.scaling_factor, self.manifest.shift_factor] {
            content.number(value.to_bits());
        }
        content.number(u64::from(self.manifest.mirrored));
        self.shards.iter().for_each(|shard| shard.known_by(&mut content));
        let [channels, height, width] = *shape;
        let format = Format { height, width, channels, background: Background::default(), max_pixels: 0 };
        let class_images = self.class_images().unwrap_or_default();
        Fingerprint::new(*count, classes, &class_images, &format, content)
    }

    /// What is stored of the image at `index`, as it was encoded.
    ///
    /// # Errors
    /// As [`LatentDataset::draw`].
    pub fn encoded(&self, index: usize) -> Result<EncodedBatch> {
        let outside = || Error::config("index", format!("below {}", self.manifest.count), index);
        let shard = self.shards.get(index / self.manifest.shard).filter(|_| index < self.manifest.count);
        let (shard, row) = (shard.ok_or_else(outside)?, index % self.manifest.shard);
        let [mean, std] = shard.moments(row, false)?;
        let [mirror_mean, mirror_std] = match self.manifest.mirrored {
            true => shard.moments(row, true)?,
            false => [Vec::new(), Vec::new()],
        };
        let label = shard.label(row, self.manifest.classes.len())?;
        let position = shard.index(row)?;
        let wide = || Error::config("index", "a position of 32 bits", position);
        let indices = vec![u32::try_from(position).map_err(|_| wide())?];
        Ok(EncodedBatch { mean, std, mirror_mean, mirror_std, labels: vec![label], indices })
    }

    /// Draws the latent at `index`, of the mirrored image where it is asked for: `((mean + std eps) - shift) scale`.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] naming shard and row of damaged values, [`crate::FilesError::Config`] where there is no such index.
    pub fn draw(&self, index: usize, mirrored: bool, rng: &mut impl Rng) -> Result<Latent> {
        let outside = || Error::config("index", format!("below {}", self.manifest.count), index);
        let shard = self.shards.get(index / self.manifest.shard).filter(|_| index < self.manifest.count);
        let (shard, row) = (shard.ok_or_else(outside)?, index % self.manifest.shard);
        let [mut values, std] = shard.moments(row, mirrored && self.manifest.mirrored)?;
        let (shift, scale) = (self.manifest.shift_factor as f32, self.manifest.scaling_factor as f32);
        for (value, std) in values.iter_mut().zip(std) {
            let eps: f32 = StandardNormal.sample(rng);
            *value = (*value + std * eps - shift) * scale;
        }
        Ok(Latent { values, label: shard.label(row, self.manifest.classes.len())?, index: shard.index(row)? })
    }
}

/// Shards stand in the order of the data set: none twice, none under another's name.
fn check_order(folder: &Path, shards: &[Shard]) -> Result<()> {
    let mut last = None;
    for (number, (from, to)) in shards.iter().filter_map(Shard::ends).enumerate() {
        if let Some(last) = last.filter(|last| from <= *last) {
            return Err(Error::file(
                folder.join(shard_name(number)),
                "row 0",
                format!("an index above {last}"),
                from,
            ));
        }
        last = Some(to);
    }
    Ok(())
}
