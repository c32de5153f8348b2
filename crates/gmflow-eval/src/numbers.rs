//! The numbers of array files, converted piece by piece: beside them nothing of the file's size is held.

use crate::{Error, Result};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes that are converted at a time; a multiple of every number's.
const PIECE: usize = 1 << 16;

/// A number that is kept in memory.
pub(crate) trait Number {
    fn of(value: f64) -> Self;
}

impl Number for f32 {
    fn of(value: f64) -> Self {
        value as f32
    }
}

impl Number for f64 {
    fn of(value: f64) -> Self {
        value
    }
}

/// How a number lies in a file, the lowest byte first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    F16,
    Bf16,
    F32,
    F64,
}

impl Kind {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn of_tensor(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F32 => Some(Self::F32),
            Dtype::F64 => Some(Self::F64),
            _ => None,
        }
    }

    /// Reads `count` numbers. Room is made for no more than `room` of them before they have been read: a count is what a header claims.
    pub(crate) fn read<T: Number>(self, source: &mut impl Read, count: usize, room: usize) -> io::Result<Vec<T>> {
        let mut values = Vec::new();
        values
            .try_reserve_exact(count.min(room))
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        let mut piece = vec![0; PIECE];
        let mut left = count;
        while left > 0 {
            let numbers = left.min(PIECE / self.bytes());
            let bytes = &mut piece[..numbers * self.bytes()];
            source.read_exact(bytes)?;
            self.convert(bytes, &mut values);
            left -= numbers;
        }
        Ok(values)
    }

    fn convert<T: Number>(self, bytes: &[u8], values: &mut Vec<T>) {
        match self {
            Self::F16 => extend(values, bytes, |b| half::f16::from_le_bytes(b).into()),
            Self::Bf16 => extend(values, bytes, |b| half::bf16::from_le_bytes(b).into()),
            Self::F32 => extend(values, bytes, |b| f32::from_le_bytes(b).into()),
            Self::F64 => extend(values, bytes, f64::from_le_bytes),
        }
    }
}

fn extend<T: Number, const N: usize>(values: &mut Vec<T>, bytes: &[u8], read: impl Fn([u8; N]) -> f64) {
    values.extend(bytes.as_chunks::<N>().0.iter().map(|&bytes| T::of(read(bytes))));
}

/// A .safetensors file. Only its header is mapped: a map of the numbers would stand in memory beside them.
pub(crate) struct TensorFile<'a> {
    path: &'a Path,
    file: File,
    /// Where the tensors begin.
    start: u64,
    header: Metadata,
}

impl<'a> TensorFile<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        // SAFETY: the map is read only; a file that shrinks meanwhile ends the program, as with any other mapped weights.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| Error::io(path, error))?;
        let (length, header) =
            SafeTensors::read_metadata(&map).map_err(|error| Error::file(path, "header", "safetensors", error))?;
        Ok(Self { path, file, start: (size_of::<u64>() + length) as u64, header })
    }

    /// An entry of the file's metadata.
    pub(crate) fn entry(&self, name: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(name).map(String::as_str)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    pub(crate) fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.info(name)
    }

    /// The shape and the numbers of a tensor.
    pub(crate) fn read<T: Number>(&self, name: &str) -> Result<(Vec<usize>, Vec<T>)> {
        let refused = |expected: &str, got: String| Error::file(self.path, name, expected, got);
        let info = self.info(name).ok_or_else(|| refused("a tensor", "none of that name".into()))?;
        let kind = Kind::of_tensor(info.dtype)
            .ok_or_else(|| refused("f16, bf16, f32 or f64", format!("{:?}", info.dtype)))?;
        let (from, to) = info.data_offsets;
        let count = (to - from) / kind.bytes();
        let mut file = &self.file;
        let values = file.seek(SeekFrom::Start(self.start + from as u64));
        // The header has been held against the file's length.
        let values = values.and_then(|_| kind.read(&mut file, count, count));
        Ok((info.shape.clone(), values.map_err(|error| Error::io(self.path, error))?))
    }
}
