//! The file of one process of several that do not talk: what it would have sent to the first one.

use crate::numbers::TensorFile;
use crate::{Error, Result};
use gmflow::checkpoint::write_atomic;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The file's metadata entry that says what the part is of.
const METADATA: &str = "gmflow-part";

/// One part of a measurement: `about` says of what, `pieces` are messages to the process that joins all parts. The file is in the format of
/// safetensors: a tensor of bytes for each piece, by its number.
///
/// ```
/// use gmflow_eval::PartFile;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("stats.2-of-8.safetensors");
/// PartFile { about: "part 2".to_owned(), pieces: vec![b"features".to_vec()] }.save(&path)?;
/// assert!(PartFile::<String>::is_one(&path));
/// assert_eq!(PartFile::<String>::load(&path)?.pieces, [b"features"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PartFile<T> {
    /// What it is a part of.
    pub about: T,
    /// Bytes, in the order in which they were made.
    pub pieces: Vec<Vec<u8>>,
}

impl<T: Serialize + DeserializeOwned> PartFile<T> {
    /// Whether a file is one that [`save`](Self::save) wrote.
    pub fn is_one(path: &Path) -> bool {
        TensorFile::open(path).is_ok_and(|file| file.entry(METADATA).is_some())
    }

    /// Writes the file, atomically.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let unwritable = |error: &dyn std::fmt::Display| Error::file(path, "content", "what can be written", error);
        let about = serde_json::to_string(&self.about).map_err(|error| unwritable(&error))?;
        let mut views = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let view = TensorView::new(Dtype::U8, vec![piece.len()], piece);
            views.push((index.to_string(), view.map_err(|error| unwritable(&error))?));
        }
        let metadata = [(METADATA.to_owned(), about)].into();
        let file = safetensors::serialize(views, Some(metadata)).map_err(|error| unwritable(&error))?;
        Ok(write_atomic(path, &file)?)
    }

    /// Reads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file of another kind or of another version, or a damaged one.
    pub fn load(path: &Path) -> Result<Self> {
        let wrong = |got: &dyn std::fmt::Display| {
            Error::file(path, METADATA, "a part that --shard of this version of gmflow wrote", got)
        };
        let header = TensorFile::open(path)?;
        let about = header.entry(METADATA).ok_or_else(|| wrong(&"another file"))?;
        let about = serde_json::from_str(about).map_err(|error| wrong(&error))?;
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, error))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(&error))?;
        let mut pieces = Vec::new();
        for index in 0..file.len() {
            let piece = file.tensor(&index.to_string()).map_err(|error| wrong(&error))?;
            if piece.dtype() != Dtype::U8 {
                return Err(wrong(&format!("piece {index} of {:?}", piece.dtype())));
            }
            pieces.push(piece.data().to_vec());
        }
        Ok(Self { about, pieces })
    }
}
