//! Tar shards as they stand in a configuration file.

use std::path::{Path, PathBuf};

use gmflow_files::is_url;
use serde::{Deserialize, Serialize};

use super::members::Choice;
use crate::settings::ImageSettings;
use crate::storage::Storage;
use crate::{Error, Result};

/// Images in the shuffle buffer where nothing else is said, of shards behind URLs.
const BUFFER: usize = 10_000;

/// Shards that are read at the same time where nothing else is said.
const LANES: usize = 8;

/// The largest number of lanes.
const MOST_LANES: usize = 1024;

/// Tar shards as they stand in a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TarData {
    /// A folder with `*.tar` files, a file, a pattern (`train-*.tar`), a range (`train-{0000..0127}.tar`), or a list of these. Each may be
    /// a URL.
    pub path: ShardPaths,
    /// The ending of the members that are images, such as `jpg`; by default every usual one. Needed where a sample has several images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_member: Option<String>,
    /// The ending of the members with labels, or an empty text for none; by default `cls`, or else `json` where it has the field. `txt`
    /// takes the text for the name of a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_member: Option<String>,
    /// The field of JSON members with the label; by default `label`. Dots lead into objects within.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_field: Option<String>,
    /// A file with the names of classes, one a line or as a JSON list; by default `classes.txt` or `classes.json` beside the first shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_names: Option<PathBuf>,
    /// Images in the shuffle buffer: shards are then read one after the other, in another order in every epoch, and mixed within the
    /// buffer. 0 draws from all images at random. By default 10000 for shards behind URLs and 0 for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shuffle: Option<usize>,
    /// Shards that are read at the same time, with a shuffle buffer; by default 8. Image i of a batch of B is from lane i lanes / B, so
    /// that each of several processes reads its own shards; at least their number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<usize>,
    /// Shape and treatment of the images.
    #[serde(default)]
    pub image: ImageSettings,
    /// The cache, and how URLs are read.
    #[serde(default, skip_serializing_if = "Storage::is_default")]
    pub storage: Storage,
}

/// One path of shards, or a list of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ShardPaths {
    /// One path.
    One(PathBuf),
    /// Several, in the order in which their images count.
    Several(Vec<PathBuf>),
}

impl ShardPaths {
    /// All paths.
    pub fn all(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }

    /// All paths, to be changed.
    pub fn all_mut(&mut self) -> &mut [PathBuf] {
        match self {
            Self::One(path) => std::slice::from_mut(path),
            Self::Several(paths) => paths,
        }
    }
}

impl From<&Path> for ShardPaths {
    fn from(path: &Path) -> Self {
        Self::One(path.to_path_buf())
    }
}

impl TarData {
    /// The shards at a path, with no other setting.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.into(),
            image_member: None,
            label_member: None,
            label_field: None,
            class_names: None,
            shuffle: None,
            lanes: None,
            image: ImageSettings::default(),
            storage: Storage::default(),
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] naming the first setting outside its domain.
    pub fn validate(&self) -> Result<()> {
        if self.path.all().is_empty() {
            return Err(Error::config("path", "at least one path", "an empty list"));
        }
        let endings = [("image_member", &self.image_member), ("label_member", &self.label_member)];
        for (field, ending) in endings {
            let Some(ending) = ending else { continue };
            if ending.starts_with('.') || ending.contains('/') || (ending.is_empty() && field == "image_member") {
                let expected = "what follows the first dot of a member's name, such as jpg";
                return Err(Error::config(field, expected, format!("{ending:?}")));
            }
        }
        if self.label_field.as_ref().is_some_and(String::is_empty) {
            return Err(Error::config("label_field", "the name of a field", "an empty text"));
        }
        match self.lanes {
            Some(lanes) if !(1..=MOST_LANES).contains(&lanes) => {
                Err(Error::config("lanes", format!("1 to {MOST_LANES}"), lanes))
            }
            _ => self.storage.validate(),
        }
    }

    /// Images in the shuffle buffer; `None` where all images are drawn from at random.
    pub(super) fn buffer(&self) -> Option<usize> {
        let usual = if self.path.all().iter().any(|path| is_url(path)) { BUFFER } else { 0 };
        Some(self.shuffle.unwrap_or(usual)).filter(|buffer| *buffer > 0)
    }

    /// Shards that are read at the same time.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.unwrap_or(LANES)
    }

    /// Which members are asked for.
    pub(super) fn choice(&self) -> Choice {
        let Self { image_member: image, label_member: label, label_field: field, .. } = self.clone();
        Choice { image, label, field }
    }
}
