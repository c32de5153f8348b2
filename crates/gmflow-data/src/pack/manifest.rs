//! What was packed into a folder, and whether all of it is there.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{PackOptions, Packed, put, shard_name};
use crate::source::ImageDataset;
use crate::source::tar::{CLASSES, index_name};
use crate::storage::{Files, in_folder};
use crate::{Error, Fingerprint, Result};

/// The manifest's name.
const NAME: &str = "pack.json";
const FORMAT: &str = "gmflow-pack";
const VERSION: u32 = 1;

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: String,
    version: u32,
    shards: usize,
    /// The seed of the order; none for the order of the set.
    #[serde(default)]
    seed: Option<String>,
    /// The set that was packed.
    #[serde(default)]
    data: Option<Fingerprint>,
    #[serde(default)]
    images: usize,
    #[serde(default)]
    left_out: usize,
    #[serde(default)]
    complete: bool,
}

impl Manifest {
    /// The manifest of a set of which nothing is packed yet.
    pub fn new(images: &dyn ImageDataset, options: &PackOptions) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            shards: options.shards,
            // A text, as JSON's numbers do not hold all seeds.
            seed: options.seed.map(|seed| seed.to_string()),
            data: images.fingerprint(),
            images: 0,
            left_out: 0,
            complete: false,
        }
    }

    /// Writes the manifest of a set that is begun, or finds that the set in `out` is the same one, interrupted.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] for a set that is complete or of other images, and for files that are no set's; nothing of them is
    /// changed.
    pub fn begin(&self, files: &Files, out: &Path, force: bool) -> Result<()> {
        let found = Self::read(files, out)?;
        match found {
            Some(found) if force => {
                remove(files, out, found.shards)?;
                self.write(files, out)
            }
            Some(found) if found.complete => {
                Err(Error::file(out, "folder", "none, or one that was interrupted", "a complete one"))
            }
            Some(found) => match self.differs(&found) {
                Some(differences) => {
                    let expected = "shards that were begun with these images and settings";
                    Err(Error::file(out, "folder", expected, differences))
                }
                None => Ok(()),
            },
            None => {
                for name in names(self.shards) {
                    let path = in_folder(out, &name);
                    if files.stat_if_there(&path)?.is_some() {
                        let expected = format!("no file of this name, as there is no {NAME}");
                        return Err(Error::file(path, "folder", expected, "one, which is not overwritten"));
                    }
                }
                self.write(files, out)
            }
        }
    }

    /// Says that all is there.
    pub fn complete(&self, files: &Files, out: &Path, packed: &Packed) -> Result<()> {
        let Packed { images, left_out, .. } = *packed;
        Self { images, left_out, complete: true, ..self.clone() }.write(files, out)
    }

    /// The manifest in a folder, if there is one.
    fn read(files: &Files, out: &Path) -> Result<Option<Self>> {
        let path = in_folder(out, NAME);
        let Some(entry) = files.stat_if_there(&path)? else { return Ok(None) };
        let wrong = |got: String| Error::file(&path, "content", "the manifest of packed shards", got);
        let found: Self = serde_json::from_slice(&files.read_all(&entry)?)
            .map_err(|error| wrong(format!("another file, which is not overwritten ({error})")))?;
        match (found.format == FORMAT, found.version == VERSION) {
            (true, true) => Ok(Some(found)),
            (true, false) => Err(Error::file(&path, "version", VERSION.to_string(), found.version)),
            _ => Err(wrong("another file, which is not overwritten".into())),
        }
    }

    fn write(&self, files: &Files, out: &Path) -> Result<()> {
        let path = in_folder(out, NAME);
        let bytes = serde_json::to_vec_pretty(self);
        put(files, &path, &bytes.map_err(|error| Error::file(&path, "content", "what JSON can hold", error))?)
    }

    /// What keeps a set that was begun as `found` from being continued as this.
    fn differs(&self, found: &Self) -> Option<String> {
        let mut lines = Vec::new();
        if let (Some(before), Some(now)) = (&found.data, &self.data) {
            lines.extend(before.changes(now).map(|changes| format!("other images: {changes}")));
        }
        if found.shards != self.shards {
            lines.push(format!("{} shards, {} before", self.shards, found.shards));
        }
        if found.seed != self.seed {
            let name =
                |seed: &Option<String>| seed.as_ref().map_or("in order".to_owned(), |seed| format!("seed {seed}"));
            lines.push(format!("{}, {} before", name(&self.seed), name(&found.seed)));
        }
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

/// The names of a set's files, but for the manifest.
fn names(shards: usize) -> impl Iterator<Item = String> {
    let lists = |number| index_name(Path::new(&shard_name(number))).to_string_lossy().into_owned();
    let shards = (0..shards).flat_map(move |number| [shard_name(number), lists(number)]);
    CLASSES.map(str::to_owned).into_iter().chain(shards)
}

/// Removes the files of a set, and no others. The manifest goes last: until then the set is told by it.
fn remove(files: &Files, out: &Path, shards: usize) -> Result<()> {
    let paths = names(shards).map(|name| in_folder(out, &name)).chain([in_folder(out, NAME)]);
    paths.into_iter().try_for_each(|path| files.remove(&path))
}
