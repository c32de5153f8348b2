//! Weights in one or several memory-mapped safetensors files.
//!
//! Tensors are converted one at a time, when the network asks for them, and their pages are given back, so that loading needs
//! little more memory than the weights in f32. A file must not be shortened by others while it is read.

use super::precision::decode;
use super::{file, header};
use crate::network::{HostTensor, TensorSource};
use crate::{Error, Result};
use gmflow_files::json;
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of the header's length, with which a safetensors file starts.
const LENGTH_BYTES: usize = 8;
/// Bytes of a file's name at the most, as file systems have it.
const LONGEST_NAME: usize = 255;
/// More files than this are not the shards of one network.
const MOST_SHARDS: usize = 10_000;

/// The tensors of one network that have not been taken yet.
#[derive(Debug)]
pub struct WeightFiles {
    /// What messages name: the file, or the index of several.
    path: PathBuf,
    files: Vec<Mapped>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Mapped {
    path: PathBuf,
    map: Mmap,
    /// Where the tensors begin.
    data: usize,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    /// Bytes from the beginning of the tensors.
    info: TensorInfo,
    /// The shape that the network sees.
    shape: Vec<usize>,
}

/// What is known of a stored tensor without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name.
    pub name: String,
    /// Its number format as safetensors calls it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The file it is in.
    pub file: PathBuf,
}

/// The list of shards, as it stands in the file.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: &Path) -> Result<Self> {
        json::read(&file::read(path)?).map_err(|wrong| Error::wrong(path, wrong))
    }

    /// The names of the shards, all of them files beside the index.
    fn shards(&self, path: &Path) -> Result<BTreeSet<&str>> {
        let shards: BTreeSet<&str> = self.weight_map.values().map(String::as_str).collect();
        if shards.is_empty() || shards.len() > MOST_SHARDS {
            return Err(Error::file(path, "weight_map", format!("1 to {MOST_SHARDS} files"), shards.len()));
        }
        match shards.iter().find(|shard| !is_plain_name(shard)) {
            Some(shard) => Err(Error::file(path, "weight_map", "names of files beside the index", shard)),
            None => Ok(shards),
        }
    }
}

/// The files that an index lists.
///
/// # Errors
/// [`crate::FilesError::Io`] or [`crate::FilesError::File`], where it is no index or names files elsewhere.
pub(super) fn shard_names(path: &Path) -> Result<Vec<String>> {
    Ok(Index::read(path)?.shards(path)?.into_iter().map(str::to_owned).collect())
}

impl WeightFiles {
    /// Opens one safetensors file.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] where it cannot be opened, [`crate::FilesError::File`] where it is not a whole safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let mut files = Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        files.add(path)?;
        Ok(files)
    }

    /// Opens the files that an index lists.
    ///
    /// # Errors
    /// Those of [`WeightFiles::open`] for every shard; [`crate::FilesError::File`] where a shard lies outside the folder or holds other
    /// tensors than the index says.
    pub fn open_index(path: &Path) -> Result<Self> {
        let index = Index::read(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut files = Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for shard in index.shards(path)? {
            files.add(&folder.join(shard))?;
        }
        for (name, shard) in &index.weight_map {
            let found = files.tensors.get(name).and_then(|entry| files.files.get(entry.file));
            let got = found.map_or("no such tensor".into(), |file| file.path.display().to_string());
            if found.is_none_or(|file| file.path.file_name() != Some(shard.as_ref())) {
                return Err(Error::file(path, format!("tensor {name}"), format!("it in {shard}"), got));
            }
        }
        match files.tensors.keys().find(|name| !index.weight_map.contains_key(*name)) {
            Some(name) => {
                Err(Error::file(path, "weight_map", format!("the tensor {name} of a shard"), "no such entry"))
            }
            None => Ok(files),
        }
    }

    /// Maps a file and lists its tensors.
    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        if !file.metadata().map_err(|error| Error::io(path, error))?.is_file() {
            return Err(Error::file(path, "file", "a safetensors file", "something else"));
        }
        // SAFETY: the map is only read. Should another process shorten the file meanwhile, the system stops this one.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io(path, error))?;
        let (length, metadata) = header::read(&map).map_err(|wrong| Error::wrong(path, wrong))?;
        let number = self.files.len();
        for (name, info) in metadata.tensors() {
            let entry = Entry { file: number, info: info.clone(), shape: info.shape.clone() };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(Error::file(path, format!("tensor {name}"), "it in one file only", "it in another too"));
            }
        }
        self.files.push(Mapped { path: path.to_owned(), map, data: LENGTH_BYTES + length });
        Ok(())
    }

    /// The file, or the index of several, that messages name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors by name.
    pub fn stored(&self) -> Vec<StoredTensor> {
        let stored = |(name, entry): (&String, &Entry)| StoredTensor {
            name: name.clone(),
            dtype: entry.info.dtype.to_string(),
            shape: entry.info.shape.clone(),
            file: self.files.get(entry.file).map(|file| file.path.clone()).unwrap_or_default(),
        };
        self.tensors.iter().map(stored).collect()
    }

    /// Gives tensors the names and shapes that this library uses, from those that `adapt` is told.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] where two tensors get one name.
    pub(super) fn adapted(mut self, adapt: impl Fn(&str, &[usize]) -> (String, Vec<usize>)) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (old, mut entry) in std::mem::take(&mut self.tensors) {
            let (name, shape) = adapt(&old, &entry.shape);
            entry.shape = shape;
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(Error::file(&self.path, format!("tensor {old}"), "a name of its own", name));
            }
        }
        self.tensors = tensors;
        Ok(self)
    }

    /// Every tensor of numbers with a fraction that is left.
    pub(super) fn read_all(mut self) -> Result<BTreeMap<String, HostTensor>> {
        let floats = self.tensors.iter().filter(|(_, entry)| is_float(entry.info.dtype));
        let names: Vec<String> = floats.map(|(name, _)| name.clone()).collect();
        let mut all = BTreeMap::new();
        for name in names {
            if let Some(tensor) = self.take(&name)? {
                all.insert(name, tensor);
            }
        }
        Ok(all)
    }
}

impl TensorSource for WeightFiles {
    fn take(&mut self, name: &str) -> Result<Option<HostTensor>> {
        let Some(Entry { file, info, shape }) = self.tensors.remove(name) else { return Ok(None) };
        let Some(file) = self.files.get(file) else { return Ok(None) };
        let bytes = file.bytes(&info);
        let values = decode(info.dtype, bytes)
            .ok_or_else(|| Error::file(&file.path, format!("tensor {name}"), "f32, f64, bf16 or f16", info.dtype))?;
        file.release(&info);
        Ok(Some(HostTensor { shape, values }))
    }

    fn take_bf16<R>(&mut self, name: &str, f: impl FnOnce(&[usize], &[u8]) -> Option<R>) -> Option<R> {
        let Entry { file, info, shape } = self.tensors.get(name).filter(|entry| entry.info.dtype == Dtype::BF16)?;
        let file = self.files.get(*file)?;
        let bytes = file.bytes(info);
        let result = (bytes.len() == 2 * shape.iter().product::<usize>()).then(|| f(shape, bytes))??;
        file.release(info);
        self.tensors.remove(name);
        Some(result)
    }

    fn left(&self) -> Vec<String> {
        let could_be_taken = |entry: &Entry| is_float(entry.info.dtype) && !entry.shape.contains(&0);
        let (left, never): (Vec<_>, Vec<_>) = self.tensors.iter().partition(|(_, entry)| could_be_taken(entry));
        if let Some((name, entry)) = never.first() {
            let (path, more) = (self.path.display(), never.len() - 1);
            let kind = entry.info.dtype;
            log::debug!("{path}: tensor {name} ({kind}) and {more} more hold no weights and are left out");
        }
        left.into_iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Mapped {
    /// Where a tensor lies.
    fn range(&self, info: &TensorInfo) -> Range<usize> {
        self.data + info.data_offsets.0..self.data + info.data_offsets.1
    }

    /// A tensor's numbers; none where the file is too short for them.
    fn bytes(&self, info: &TensorInfo) -> &[u8] {
        self.map.get(self.range(info)).unwrap_or_default()
    }

    /// Lets the system take back the pages of a tensor that has been read.
    fn release(&self, info: &TensorInfo) {
        let range = self.range(info);
        #[cfg(unix)]
        // SAFETY: the map is read-only and backed by a file: pages that are given back are read again where needed.
        let released =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        // It is advice: without it more memory is in use, and nothing else changes.
        #[cfg(unix)]
        drop(released);
    }
}

/// Whether tensors of this number format may be weights. Integers are counters and indices, which training leaves beside them.
fn is_float(dtype: Dtype) -> bool {
    !matches!(
        dtype,
        Dtype::BOOL
            | Dtype::U8
            | Dtype::I8
            | Dtype::I16
            | Dtype::U16
            | Dtype::I32
            | Dtype::U32
            | Dtype::I64
            | Dtype::U64
    )
}

/// Whether `name` can only be a file beside the one that names it.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', '\0', ':'])
}
