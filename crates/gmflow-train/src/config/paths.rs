//! Relative paths: those of a file are relative to its folder, those of the command line to the working directory.

use std::path::{Path, PathBuf};

use gmflow_data::beside;

use super::Config;
use super::load::is_overridden;
use crate::{Error, Result};

impl Config {
    /// Makes every path absolute. One that `overrides` set is taken from the working directory, the others from `folder`.
    ///
    /// # Errors
    /// [`Error::Config`] for a path of the file that exists from the working directory only.
    pub(super) fn resolve_paths(&mut self, folder: &Path, overrides: &[String]) -> Result<()> {
        let vae = self.sample.as_mut().and_then(|sample| sample.vae.as_mut());
        let others = vae.map(|path| ("sample.vae".to_owned(), path)).into_iter();
        let source =
            self.data.source.paths_mut().into_iter().map(|(field, path)| (format!("data.source.{field}"), path));
        for (field, path) in source.chain(others) {
            *path = match is_overridden(&field, overrides) {
                true => std::path::absolute(&*path).unwrap_or_else(|_| path.clone()),
                false => from_folder(&field, path, folder)?,
            };
        }
        // A model may have a name on the hub in place of a path.
        if let Some(from) = &mut self.train.from
            && !is_overridden("train.from", overrides)
        {
            let found = from_folder("train.from", from, folder)?;
            if found.exists() {
                *from = found;
            }
        }
        Ok(())
    }
}

fn from_folder(field: &str, path: &Path, folder: &Path) -> Result<PathBuf> {
    beside(path, folder).map_err(|wrong| Error::config(field, wrong.expected, wrong.got))
}
