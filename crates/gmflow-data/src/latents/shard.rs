//! One memory-mapped shard.

use super::LatentManifest;
use crate::fingerprint::Content;
use crate::{Error, Result};
use half::f16;
use memmap2::Mmap;
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes of the header's length, with which a safetensors file starts.
const LENGTH_BYTES: usize = 8;

/// A shard whose header has been checked.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    map: Mmap,
    dtype: Dtype,
    /// Means and standard deviations in the order of [`LatentManifest::tensors`].
    tensors: Vec<Range<usize>>,
    labels: Option<Range<usize>>,
    indices: Range<usize>,
    values: usize,
}

impl Shard {
    /// Maps a file of latents in the form of a shard, however many it holds.
    ///
    /// # Errors
    /// As [`Shard::open`].
    pub(super) fn open_any(path: &Path, manifest: &LatentManifest) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        Self::map(path, &file, manifest, None)
    }

    /// The bytes of labels, of indices and of the tensors in the order of [`LatentManifest::tensors`]; of labels as many zeros as there
    /// are indices where there are no classes.
    pub(super) fn bytes(&self) -> [Vec<u8>; 6] {
        let part = |range: &Range<usize>| self.map.get(range.clone()).unwrap_or_default().to_vec();
        let indices = part(&self.indices);
        let labels = self.labels.as_ref().map_or_else(|| vec![0; indices.len()], part);
        let mut tensors = self.tensors.iter().map(part);
        let mut next = || tensors.next().unwrap_or_default();
        [labels, indices, next(), next(), next(), next()]
    }

    /// Maps a shard that must hold `count` latents, which messages name by `path`.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`]; [`crate::FilesError::File`] naming the tensor that is missing or of another shape or number format, or
    /// the row whose image does not come after that of the row before.
    pub(super) fn open(path: &Path, file: &File, manifest: &LatentManifest, count: usize) -> Result<Self> {
        Self::map(path, file, manifest, Some(count))
    }

    /// Maps a shard of `count` latents, or of as many as it has indices.
    fn map(path: &Path, file: &File, manifest: &LatentManifest, count: Option<usize>) -> Result<Self> {
        // SAFETY: the map is only read. Should another process shorten the file meanwhile, the system stops this one.
        let map = unsafe { Mmap::map(file) }.map_err(|error| Error::io(path, error))?;
        let (header, metadata) = SafeTensors::read_metadata(&map)
            .map_err(|error| Error::file(path, "header", "a complete safetensors file", error))?;
        let indices = || metadata.info("indices").and_then(|info| info.shape.first().copied());
        let count = count.or_else(indices).unwrap_or(0);
        let start = LENGTH_BYTES + header;
        let place = |info: &TensorInfo| start + info.data_offsets.0..start + info.data_offsets.1;
        let find = |name: &str, shape: &[usize], dtype: Dtype| {
            let info = metadata.info(name);
            let fits = |info: &&TensorInfo| info.shape == shape && info.dtype == dtype;
            info.filter(fits).map(place).ok_or_else(|| {
                let got = info.map_or("none".into(), |info| format!("{:?} {:?}", info.dtype, info.shape));
                Error::file(path, format!("tensor {name}"), format!("{dtype:?} {shape:?}"), got)
            })
        };
        let [c, h, w] = manifest.shape;
        let dtype = manifest.precision.dtype();
        let tensors = manifest.tensors().iter().map(|name| find(name, &[count, c, h, w], dtype));
        let tensors = tensors.collect::<Result<_>>()?;
        let labels = match manifest.classes.is_empty() {
            true => None,
            false => Some(find("labels", &[count], Dtype::U32)?),
        };
        let indices = find("indices", &[count], Dtype::U32)?;
        let shard = Self { path: path.to_owned(), map, dtype, tensors, labels, indices, values: manifest.values() };
        shard.check_order()?;
        Ok(shard)
    }

    /// Rows stand in the order of the data set.
    fn check_order(&self) -> Result<()> {
        let indices = self.numbers(&self.indices);
        let unordered = indices.windows(2).enumerate().find_map(|(row, pair)| {
            let [before, after] = [pair.first()?, pair.last()?].map(|bytes| u32::from_le_bytes(*bytes));
            (after <= before).then_some((row + 1, before, after))
        });
        match unordered {
            Some((row, before, after)) => {
                Err(Error::file(&self.path, format!("row {row}"), format!("an index above {before}"), after))
            }
            None => Ok(()),
        }
    }

    /// The positions in the data set of the first and the last image.
    pub(super) fn ends(&self) -> Option<(u32, u32)> {
        let ends = [self.numbers(&self.indices).first()?, self.numbers(&self.indices).last()?];
        let [first, last] = ends.map(|bytes| u32::from_le_bytes(*bytes));
        Some((first, last))
    }

    /// The position in the data set of the image in `row`.
    pub(super) fn index(&self, row: usize) -> Result<u64> {
        let bytes = self.numbers(&self.indices).get(row);
        let index = bytes.map(|bytes| u64::from(u32::from_le_bytes(*bytes)));
        index.ok_or_else(|| Error::file(&self.path, format!("row {row}"), "an index", "none"))
    }

    /// The bytes of whole numbers, four each.
    fn numbers(&self, range: &Range<usize>) -> &[[u8; 4]] {
        self.map.get(range.clone()).unwrap_or_default().as_chunks::<4>().0
    }

    /// Mean and standard deviation of the latent in `row`, of the mirrored image where it is asked for.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] naming the row where a value is not finite or a standard deviation negative.
    pub(super) fn moments(&self, row: usize, mirrored: bool) -> Result<[Vec<f32>; 2]> {
        let first = if mirrored { 2 } else { 0 };
        let (mean, std) = (self.row(first, row)?, self.row(first + 1, row)?);
        match std.iter().find(|std| **std < 0.0) {
            Some(std) => Err(Error::file(&self.path, format!("row {row}"), "standard deviations of at least 0", std)),
            None => Ok([mean, std]),
        }
    }

    /// The class of every row; none in a cache without classes.
    pub(super) fn labels(&self) -> impl Iterator<Item = usize> {
        let labels = self.labels.iter().flat_map(|range| self.numbers(range));
        labels.map(|label| u32::from_le_bytes(*label) as usize)
    }

    /// Adds the labels, the positions in the data set and the first latent to a digest.
    pub(super) fn known_by(&self, content: &mut Content) {
        let numbers = self.labels.iter().chain([&self.indices]).map(|range| self.numbers(range).as_flattened());
        let first = self.tensors.iter().map(|range| {
            let bytes = self.map.get(range.clone()).unwrap_or_default();
            let width = if self.dtype == Dtype::F16 { 2 } else { 4 };
            bytes.get(..self.values * width).unwrap_or_default()
        });
        numbers.chain(first).for_each(|bytes| content.contents(bytes));
    }

    fn row(&self, tensor: usize, row: usize) -> Result<Vec<f32>> {
        let values = self.tensors.get(tensor).and_then(|range| {
            let width = if self.dtype == Dtype::F16 { 2 } else { 4 };
            let bytes = self.map.get(range.clone())?.chunks_exact(self.values * width).nth(row)?;
            Some(match self.dtype {
                Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
                _ => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>(),
            })
        });
        let values = values.ok_or_else(|| Error::file(&self.path, format!("row {row}"), "a latent", "none"))?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::file(&self.path, format!("row {row}"), "finite values", value)),
            None => Ok(values),
        }
    }

    /// The label in `row`, which must be below `classes`; 0 without classes.
    pub(super) fn label(&self, row: usize, classes: usize) -> Result<u32> {
        let Some(range) = &self.labels else { return Ok(0) };
        let label = self.numbers(range).get(row).map(|bytes| u32::from_le_bytes(*bytes));
        label.filter(|label| (*label as usize) < classes).ok_or_else(|| {
            let got = label.map_or("none".into(), |label| label.to_string());
            Error::file(&self.path, format!("row {row}"), format!("a label below {classes}"), got)
        })
    }
}
