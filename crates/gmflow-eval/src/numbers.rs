//! The numbers of array files, converted piece by piece: beside them nothing of the file's size is held.

use crate::{Error, Result};
use npyz::TypeChar;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes that are converted at a time; a multiple of every number's.
const PIECE: usize = 1 << 16;

/// A number that is kept in memory.
pub(crate) trait Number: Copy {
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

/// How a number lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F16,
    Bf16,
    F32,
    F64,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
}

impl Kind {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::F16 | Self::Bf16 | Self::U16 | Self::I16 => 2,
            Self::F32 | Self::U32 | Self::I32 => 4,
            Self::F64 | Self::U64 | Self::I64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// The name that NumPy and PyTorch give it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
        }
    }

    fn of_tensor(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F32 => Some(Self::F32),
            Dtype::F64 => Some(Self::F64),
            Dtype::U8 => Some(Self::U8),
            Dtype::U16 => Some(Self::U16),
            Dtype::U32 => Some(Self::U32),
            Dtype::U64 => Some(Self::U64),
            Dtype::I8 => Some(Self::I8),
            Dtype::I16 => Some(Self::I16),
            Dtype::I32 => Some(Self::I32),
            Dtype::I64 => Some(Self::I64),
            _ => None,
        }
    }

    /// A NumPy type: its letter and its number of bytes.
    pub(crate) fn of_numpy(letter: TypeChar, bytes: u64) -> Option<Self> {
        match (letter, bytes) {
            (TypeChar::Float, 2) => Some(Self::F16),
            (TypeChar::Float, 4) => Some(Self::F32),
            (TypeChar::Float, 8) => Some(Self::F64),
            (TypeChar::Uint, 1) => Some(Self::U8),
            (TypeChar::Uint, 2) => Some(Self::U16),
            (TypeChar::Uint, 4) => Some(Self::U32),
            (TypeChar::Uint, 8) => Some(Self::U64),
            (TypeChar::Int, 1) => Some(Self::I8),
            (TypeChar::Int, 2) => Some(Self::I16),
            (TypeChar::Int, 4) => Some(Self::I32),
            (TypeChar::Int, 8) => Some(Self::I64),
            _ => None,
        }
    }

    /// Reads `count` numbers, of which the highest byte comes first where they are `big_endian`. Room is made for no more than `room` of
    /// them before they have been read: a count is what a header claims.
    pub(crate) fn read<T: Number>(
        self,
        big_endian: bool,
        source: &mut impl Read,
        (count, room): (usize, usize),
    ) -> io::Result<Vec<T>> {
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
            if big_endian {
                bytes.chunks_exact_mut(self.bytes()).for_each(<[u8]>::reverse);
            }
            self.convert(bytes, &mut values);
            left -= numbers;
        }
        Ok(values)
    }

    /// Of numbers with the lowest byte first.
    fn convert<T: Number>(self, bytes: &[u8], values: &mut Vec<T>) {
        match self {
            Self::F16 => extend(values, bytes, |b| half::f16::from_le_bytes(b).into()),
            Self::Bf16 => extend(values, bytes, |b| half::bf16::from_le_bytes(b).into()),
            Self::F32 => extend(values, bytes, |b| f32::from_le_bytes(b).into()),
            Self::F64 => extend(values, bytes, f64::from_le_bytes),
            Self::U8 => extend(values, bytes, |[b]| b.into()),
            Self::U16 => extend(values, bytes, |b| u16::from_le_bytes(b).into()),
            Self::U32 => extend(values, bytes, |b| u32::from_le_bytes(b).into()),
            Self::U64 => extend(values, bytes, |b| u64::from_le_bytes(b) as f64),
            Self::I8 => extend(values, bytes, |[b]| (b as i8).into()),
            Self::I16 => extend(values, bytes, |b| i16::from_le_bytes(b).into()),
            Self::I32 => extend(values, bytes, |b| i32::from_le_bytes(b).into()),
            Self::I64 => extend(values, bytes, |b| i64::from_le_bytes(b) as f64),
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
        let (length, header) = gmflow::checkpoint::read_header(&map).map_err(|wrong| Error::wrong(path, wrong))?;
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

    /// How the numbers of a tensor lie in the file.
    pub(crate) fn kind(&self, name: &str) -> Result<Kind> {
        let refused = |expected: &str, got: String| Error::file(self.path, name, expected, got);
        let info = self.info(name).ok_or_else(|| refused("a tensor", "none of that name".into()))?;
        Kind::of_tensor(info.dtype)
            .ok_or_else(|| refused("whole or floating-point numbers", format!("{:?}", info.dtype)))
    }

    /// The shape and the numbers of a tensor.
    pub(crate) fn read<T: Number>(&self, name: &str) -> Result<(Vec<usize>, Vec<T>)> {
        let kind = self.kind(name)?;
        let none = || Error::file(self.path, name, "a tensor", "none of that name");
        let info = self.info(name).ok_or_else(none)?;
        let (from, to) = info.data_offsets;
        let count = (to - from) / kind.bytes();
        let mut file = &self.file;
        let values = file.seek(SeekFrom::Start(self.start + from as u64));
        // The header has been held against the file's length.
        let values = values.and_then(|_| kind.read(false, &mut file, (count, count)));
        Ok((info.shape.clone(), values.map_err(|error| Error::io(self.path, error))?))
    }
}
