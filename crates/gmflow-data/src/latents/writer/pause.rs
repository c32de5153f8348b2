//! What waits for its shard when a call is stopped: kept for the next call, because encoding it took time.

use super::super::shard::Shard;
use super::{LatentWriter, Waiting};
use crate::{Error, Result};
use std::fs;
use std::path::PathBuf;

/// The file of latents that wait for their shard.
pub(in crate::latents) const WAITING: &str = "waiting.safetensors";

impl LatentWriter {
    /// Keeps the latents that wait for their shard, so that a call that ends here loses none: the next one takes them up.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] where they cannot be written.
    pub fn pause(&self) -> Result<()> {
        if self.waiting.count == 0 { Ok(()) } else { self.write_latents(&self.waiting_path(), &self.waiting) }
    }

    fn waiting_path(&self) -> PathBuf {
        self.folder.join(WAITING)
    }

    /// Takes up what a stopped call kept, unless a shard holds it by now.
    pub(super) fn take_up(&mut self) {
        let path = self.waiting_path();
        if !path.is_file() {
            return;
        }
        match Shard::open_any(&path, &self.manifest).map(|shard| (shard.ends(), shard.bytes())) {
            Ok((Some((first, last)), [labels, indices, tensors @ ..])) if u64::from(first) >= self.next => {
                let count = indices.len() / size_of::<u32>();
                self.waiting = Waiting { tensors, labels, indices, count };
                self.next = u64::from(last) + 1;
            }
            Ok(_) => {}
            Err(error) => log::warn!("{error}; its images are encoded again"),
        }
    }

    /// Removes what a stopped call kept: it stands in a shard now, or is of another cache.
    pub(super) fn forget(&self) -> Result<()> {
        let path = self.waiting_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
            _ => Ok(()),
        }
    }
}
