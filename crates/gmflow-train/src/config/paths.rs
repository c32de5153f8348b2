//! Relative paths: those of a file are relative to its folder, those of the command line to the working directory.

use std::path::Path;

use gmflow_data::{absolute, beside};

use super::Config;
use super::overrides::is_overridden;

impl Config {
    /// Makes every path absolute. One that `overrides` set is taken from the working directory, the others from `folder`, or where they
    /// do not exist there from the working directory, with a warning.
    pub(crate) fn resolve_paths(&mut self, folder: &Path, overrides: &[String]) {
        let vae = self.sample.as_mut().and_then(|sample| sample.vae.as_mut());
        let others = vae.map(|path| ("sample.vae".to_owned(), path)).into_iter();
        let source =
            self.data.source.paths_mut().into_iter().map(|(field, path)| (format!("data.source.{field}"), path));
        for (field, path) in source.chain(others) {
            *path = match is_overridden(&field, overrides) {
                true => absolute(path),
                false => beside(&field, path, folder),
            };
        }
        // A model may have a name on the hub in place of a path.
        if let Some(from) = &mut self.train.from
            && !is_overridden("train.from", overrides)
        {
            let found = beside("train.from", from, folder);
            if found.exists() {
                *from = found;
            }
        }
        if let Some(distill) = &mut self.distill
            && !is_overridden("distill.teacher", overrides)
        {
            let found = beside("distill.teacher", &distill.teacher, folder);
            if found.exists() {
                distill.teacher = found;
            }
        }
    }
}
