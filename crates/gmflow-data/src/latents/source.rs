//! Reading a cache.

use super::shard::Shard;
use super::{LatentManifest, shard_name};
use crate::{Error, Result};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use std::path::Path;

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
    /// [`Error::Io`] or [`Error::File`] naming the file: a cache that is not complete, a shard that is missing, truncated or not as the
    /// manifest says.
    pub fn open(folder: &Path) -> Result<Self> {
        let manifest = LatentManifest::read(folder)?;
        let path = folder.join(super::MANIFEST);
        if !manifest.complete {
            return Err(Error::file(&path, "complete", "true: run gmflow encode to its end", "false"));
        }
        if manifest.count == 0 {
            return Err(Error::file(&path, "count", "at least 1", manifest.count));
        }
        let mut shards = Vec::new();
        for first in (0..manifest.count).step_by(manifest.shard) {
            let count = manifest.shard.min(manifest.count - first);
            shards.push(Shard::open(&folder.join(shard_name(shards.len())), &manifest, count)?);
        }
        Ok(Self { manifest, shards })
    }

    /// What the cache holds.
    pub fn manifest(&self) -> &LatentManifest {
        &self.manifest
    }

    /// Draws the latent at `index`, of the mirrored image where it is asked for: `((mean + std eps) - shift) scale` `[c h w]`, and its
    /// label.
    ///
    /// # Errors
    /// [`Error::File`] naming shard and row of damaged values, [`Error::Config`] where there is no such index.
    pub fn draw(&self, index: usize, mirrored: bool, rng: &mut impl Rng) -> Result<(Vec<f32>, u32)> {
        let outside = || Error::config("index", format!("below {}", self.manifest.count), index);
        let shard = self.shards.get(index / self.manifest.shard).filter(|_| index < self.manifest.count);
        let (shard, row) = (shard.ok_or_else(outside)?, index % self.manifest.shard);
        let [mut latent, std] = shard.moments(row, mirrored && self.manifest.mirrored)?;
        let (shift, scale) = (self.manifest.shift_factor as f32, self.manifest.scaling_factor as f32);
        for (value, std) in latent.iter_mut().zip(std) {
            let eps: f32 = StandardNormal.sample(rng);
            *value = (*value + std * eps - shift) * scale;
        }
        Ok((latent, shard.label(row, self.manifest.classes.len())?))
    }
}
