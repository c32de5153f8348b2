//! `state.json`: how far training has come, and what the other files of a checkpoint were like when they were written.

use std::path::Path;

use gmflow::checkpoint::{Digests, FileDigest, write_atomic};
use serde::{Deserialize, Serialize};

use super::folders::{STATE_FILE, step_of_folder};
use crate::config::from_json;
use crate::{Error, Result};

const FORMAT: &str = "gmflow-training-state";
const VERSION: u32 = 1;

/// What `state.json` holds.
///
/// Its own checksum is made from what it holds, not from the text. Values must therefore come back from JSON as they were, which
/// decimal fractions do not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Always "gmflow-training-state".
    pub format: String,
    /// Version of the form.
    pub version: u32,
    /// Optimiser steps taken.
    pub step: u64,
    /// Samples seen.
    pub images: u64,
    /// Samples per step.
    pub batch_size: usize,
    /// The digests of the other files; checkpoints that were written earlier have none.
    #[serde(default, skip_serializing_if = "Digests::is_empty")]
    pub files: Digests,
    /// The CRC-32C of all this without this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<u32>,
}

impl State {
    /// The state after `step` steps and `images` samples, beside such files.
    pub(super) fn new(step: u64, images: u64, batch_size: usize, files: Digests) -> Self {
        Self { format: FORMAT.into(), version: VERSION, step, images, batch_size, files, checksum: None }
    }

    /// Writes it with its checksum.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(mut self, folder: &Path) -> Result<()> {
        let path = folder.join(STATE_FILE);
        let text =
            |state: &Self| serde_json::to_string_pretty(state).map_err(|e| Error::file(&path, "state", "numbers", e));
        self.checksum = Some(self.own_checksum(&path)?);
        Ok(write_atomic(&path, text(&self)?.as_bytes())?)
    }

    /// Reads the state of the checkpoint in `folder`. Without `verify` no checksum is looked at.
    ///
    /// # Errors
    /// A file that is not there, is damaged, or is of another step than the folder's name says.
    pub fn read(folder: &Path, verify: bool) -> Result<Self> {
        let path = folder.join(STATE_FILE);
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let text = String::from_utf8(bytes).map_err(|e| Error::file(&path, "content", "text in UTF-8", e))?;
        let state: Self = from_json(&path, &text)?;
        if state.format != FORMAT || state.version != VERSION {
            let got = format!("{} version {}", state.format, state.version);
            return Err(Error::file(&path, "format", format!("{FORMAT} version {VERSION}"), got));
        }
        if let Some(step) = step_of_folder(folder).filter(|step| *step != state.step) {
            return Err(Error::file(&path, "step", format!("{step}, as the folder's name says"), state.step));
        }
        if state.step.checked_mul(state.batch_size as u64) != Some(state.images) {
            let expected = format!("{} steps of {} samples", state.step, state.batch_size);
            return Err(Error::file(&path, "images", expected, state.images));
        }
        let own = state.own_checksum(&path)?;
        match state.checksum.filter(|stored| verify && *stored != own) {
            Some(stored) => {
                let got =
                    format!("{own:08x}: the file is damaged or was changed (--no-verify reads it all the same)");
                Err(Error::file(&path, "checksum", format!("{stored:08x}, as was written"), got))
            }
            None => Ok(state),
        }
    }

    fn own_checksum(&self, path: &Path) -> Result<u32> {
        let bare = Self { checksum: None, ..self.clone() };
        let bytes = serde_json::to_vec(&bare).map_err(|e| Error::file(path, "state", "numbers", e))?;
        Ok(FileDigest::of_bytes(&bytes).crc32c)
    }
}
