//! The images below a URL.

use std::path::Path;

use gmflow_files::is_clutter;

use super::{IMAGES, ImageFile, Listing, extension};
use crate::decode::FORMATS;
use crate::storage::{Entry, Files, below};
use crate::{Error, Result};

impl Listing {
    /// Lists what lies below a URL in the order of [`Listing::of`]. Files are told by their endings, as opening each takes long.
    ///
    /// # Errors
    /// Those of [`Files::list`]; [`crate::FilesError::File`] when there are no images, or images beside class folders.
    pub(in crate::source) fn of_url(files: &Files, url: &Path) -> Result<Self> {
        let mut listing = Self::default();
        let mut found: Vec<(Vec<String>, Entry)> = Vec::new();
        for entry in files.list(url)? {
            let parts: Vec<String> = below(url, &entry.path).split('/').map(str::to_owned).collect();
            if parts.iter().any(|part| part.is_empty() || is_clutter(part.as_ref())) {
                continue;
            }
            match IMAGES.contains(&extension(&entry.path).as_str()) {
                true => found.push((parts, entry)),
                false => listing.skipped.count(&entry.path, None),
            }
        }
        let (direct, in_classes): (Vec<_>, Vec<_>) = found.into_iter().partition(|(parts, _)| parts.len() == 1);
        if let (Some((_, image)), Some(_)) = (direct.first(), in_classes.first()) {
            let got = format!("both, as {}", image.path.display());
            return Err(Error::file(url, "folder", "either class folders or images", got));
        }
        let mut all = [direct, in_classes].concat();
        // Files of a folder go before those of the folders in it.
        let place = |parts: &[String]| -> Vec<(bool, String)> {
            let last = parts.len().saturating_sub(1);
            parts.iter().enumerate().map(|(at, part)| (at < last, part.clone())).collect()
        };
        all.sort_by_cached_key(|(parts, _)| place(parts));
        for (parts, Entry { path, bytes, tag }) in all {
            let class = parts.first().filter(|_| parts.len() > 1);
            if let Some(class) = class
                && listing.classes.last() != Some(class)
            {
                listing.classes.push(class.clone());
            }
            let label = u32::try_from(listing.classes.len().saturating_sub(1)).unwrap_or(u32::MAX);
            listing.files.push(ImageFile { path, label, bytes, tag });
        }
        if listing.files.is_empty() {
            let skipped = &listing.skipped;
            let got = if skipped.0.is_empty() { "none".into() } else { format!("none, but {skipped}") };
            return Err(Error::file(url, "folder", format!("{FORMATS} files"), got));
        }
        listing.report(url);
        Ok(listing)
    }
}
