//! Arrays from other programs: .npy, .npz and .safetensors, with the lowest or the highest byte first, in C or in Fortran order.
//!
//! ```
//! use gmflow_eval::arrays::{SampleReading, read_samples};
//! use safetensors::tensor::{Dtype, TensorView};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("samples.safetensors");
//! let bytes: Vec<u8> = (0..2 * 8 * 8).map(|i| 2 * i).collect();
//! let images = TensorView::new(Dtype::U8, vec![2, 8, 8, 1], &bytes)?; // [n h w c]
//! std::fs::write(&path, safetensors::serialize([("samples", images)], None)?)?;
//! let samples = read_samples(&path, &SampleReading::default())?;
//! assert_eq!((samples.shape, samples.values[0]), ([1, 8, 8], -1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod samples;

pub use samples::{Layout, SampleReading, Samples, check_range, read_samples};

use crate::numbers::{Kind, Number, TensorFile};
use crate::{Error, Matrix, Moments, Result};
use npyz::npz::{array_name_from_file_name, file_name_from_array_name};
use npyz::{DType, Endianness, NpyFile, Order};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;
use zip::result::ZipError;

/// The array of an archive that holds features.
const FEATURES: &[&str] = &["features"];
/// More bytes than this are not taken for an array.
const MOST_BYTES: u64 = 1 << 36;
/// Deflate packs no more than this many bytes into one.
const MOST_DEFLATED: u64 = 1032;
/// The entry of a .safetensors file's metadata that says how `gmflow sample` made it.
const MADE_BY: &str = "gmflow";

/// Reads a matrix of features `[n d]`: the array of a .npy file, or `features` or the only array of a .npz or .safetensors file;
/// floating-point numbers of 16, 32 or 64 bits. Memory: the matrix, twice where it is in Fortran order.
///
/// # Errors
/// A file of another kind, an array of another rank or type, or a number that is not finite.
pub fn read_features(path: &Path) -> Result<Matrix> {
    let mut numbers = |kind: Kind| match kind.is_float() {
        true => Ok(()),
        false => Err("floating-point numbers of 16, 32 or 64 bits"),
    };
    let Array { shape, values, .. } = ArrayFile::open(path)?.read(FEATURES, &mut numbers)?;
    let [_, d] = shape[..] else { return Err(Error::file(path, "shape", "[n, d]", format!("{shape:?}"))) };
    Matrix::new(values, d as usize).map_err(|error| error.in_file(path))
}

/// Reads the `mu` and `sigma` of a .npz file as pytorch-fid writes it. The number of samples is not in such a file, and is taken for
/// large.
///
/// # Errors
/// A file without these arrays, or with arrays of other shapes.
pub fn read_mu_sigma(path: &Path) -> Result<Moments> {
    let names = npz_names(path)?;
    if let Some(missing) = ["mu", "sigma"].iter().find(|wanted| !names.iter().any(|name| name == *wanted)) {
        return Err(Error::file(path, *missing, "an array", "none of that name"));
    }
    let mut file = ArrayFile::open(path)?;
    let mut array = |name: &str| file.read::<f64>(&[name], &mut |_| Ok(())).map(|array| (array.shape, array.values));
    let ((mean_shape, mean), (shape, covariance)) = (array("mu")?, array("sigma")?);
    let d = mean.len() as u64;
    if mean_shape.len() != 1 || shape != [d, d] {
        return Err(Error::file(path, "mu, sigma", "[d] and [d, d]", format!("{mean_shape:?} and {shape:?}")));
    }
    Moments::from_covariance(u64::MAX >> 12, mean, covariance)
        .map_err(|error| Error::file(path, "mu, sigma", "finite numbers", error))
}

/// The arrays in a .npz file.
///
/// # Errors
/// A file that is no such archive.
pub fn npz_names(path: &Path) -> Result<Vec<String>> {
    open_npz(path).map(|archive| names(&archive))
}

/// A .npz file, which is a ZIP archive of .npy files.
type Npz = ZipArchive<BufReader<File>>;

fn open_npz(path: &Path) -> Result<Npz> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| unreadable(path, error.into()))
}

/// The names of its arrays.
fn names(archive: &Npz) -> Vec<String> {
    let files = archive.file_names().flatten();
    files.filter_map(|file| array_name_from_file_name(&file).map(str::to_owned)).collect()
}

/// Whether a .npz file holds samples: `samples`, or `arr_0`, which it is called where it was given no name.
///
/// # Errors
/// A file that is no such archive.
pub fn npz_has_samples(path: &Path) -> Result<bool> {
    Ok(npz_names(path)?.iter().any(|name| samples::NAMES.contains(&name.as_str())))
}

/// An array with the numbers in C order.
struct Array<T> {
    name: String,
    shape: Vec<u64>,
    kind: Kind,
    values: Vec<T>,
}

/// Refuses a kind of number by saying what is expected in its place.
type Numbers<'a> = dyn FnMut(Kind) -> Result<(), &'static str> + 'a;

/// A file of any kind.
enum ArrayFile<'a> {
    Npy(&'a Path),
    Npz(&'a Path, Box<Npz>),
    Tensors(&'a Path, TensorFile<'a>),
}

impl<'a> ArrayFile<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        match extension(path).as_str() {
            "npy" => Ok(Self::Npy(path)),
            "npz" => Ok(Self::Npz(path, Box::new(open_npz(path)?))),
            "safetensors" => Ok(Self::Tensors(path, TensorFile::open(path)?)),
            other => Err(Error::file(path, "file name", "an ending of .npy, .npz or .safetensors", other)),
        }
    }

    /// What `gmflow sample` wrote of how it made the file; none for files of other programs.
    fn made_by(&mut self) -> Option<serde_json::Value> {
        let made_by: serde_json::Value = match self {
            Self::Npy(_) => return None,
            Self::Npz(_, archive) => serde_json::from_slice(archive.comment()).ok()?,
            Self::Tensors(_, file) => serde_json::from_str(file.entry(MADE_BY)?).ok()?,
        };
        made_by.get(MADE_BY).is_some().then_some(made_by)
    }

    /// The array of the first of these names that is there, or the only one.
    fn read<T: Number>(&mut self, wanted: &[&str], numbers: &mut Numbers) -> Result<Array<T>> {
        match self {
            Self::Npy(path) => {
                let path = *path;
                let file = File::open(path).map_err(|error| Error::io(path, error))?;
                let bytes = size(&file);
                let file = NpyFile::new(BufReader::new(file)).map_err(|error| unreadable(path, error))?;
                numpy(path, "array".into(), (file, bytes), numbers)
            }
            Self::Npz(path, archive) => {
                let path = *path;
                let name = chosen(path, wanted, &names(archive))?;
                let bytes = std::fs::metadata(path).map_or(0, |file| file.len()).saturating_mul(MOST_DEFLATED);
                let member = match archive.by_name(&file_name_from_array_name(&name)) {
                    Ok(member) => NpyFile::new(member).map_err(|error| unreadable(path, error))?,
                    Err(ZipError::FileNotFound) => {
                        return Err(Error::file(path, &name, "an array", "none of that name"));
                    }
                    Err(error) => return Err(unreadable(path, error.into())),
                };
                numpy(path, name, (member, bytes), numbers)
            }
            Self::Tensors(path, file) => {
                let path = *path;
                let name = chosen(path, wanted, &file.names())?;
                let kind = file.kind(&name)?;
                numbers(kind).map_err(|expected| Error::file(path, &name, expected, kind.name()))?;
                let (shape, values) = file.read(&name)?;
                Ok(Array { name, shape: shape.into_iter().map(|size| size as u64).collect(), kind, values })
            }
        }
    }
}

/// The array of a file that holds no more than `most` bytes.
fn numpy<T: Number, R: Read>(
    path: &Path,
    name: String,
    (file, most): (NpyFile<R>, u64),
    numbers: &mut Numbers,
) -> Result<Array<T>> {
    let shape = file.shape().to_vec();
    let (kind, big_endian) = match file.dtype() {
        DType::Plain(plain) => {
            let kind = Kind::of_numpy(plain.type_char(), plain.size_field());
            let got = kind.map_or(String::new(), |kind| format!("{}, ", kind.name())) + &plain.to_string();
            let kind = kind.ok_or("whole or floating-point numbers").and_then(|kind| numbers(kind).map(|()| kind));
            let kind = kind.map_err(|expected| Error::file(path, &name, expected, got))?;
            (kind, plain.endianness() == Endianness::Big)
        }
        other => return Err(Error::file(path, name, "numbers", other.descr())),
    };
    let width = kind.bytes() as u64;
    let bytes = shape.iter().try_fold(width, |product, &size| product.checked_mul(size));
    let Some(bytes) = bytes.filter(|&bytes| bytes <= MOST_BYTES) else {
        return Err(Error::file(path, name, format!("at most {MOST_BYTES} bytes"), format!("shape {shape:?}")));
    };
    let (count, room) = ((bytes / width) as usize, (most.min(bytes) / width) as usize);
    let is_fortran = file.order() == Order::Fortran;
    let values = kind.read(big_endian, &mut file.into_inner(), (count, room));
    let mut values = values.map_err(|error| unreadable(path, error))?;
    if is_fortran {
        values = from_fortran(&values, &shape);
    }
    Ok(Array { name, shape, kind, values })
}

/// Brings numbers from Fortran order, where the first index runs fastest, into C order, where the last one does.
fn from_fortran<T: Copy>(values: &[T], shape: &[u64]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for &size in shape {
        strides.push(stride);
        stride *= size as usize;
    }
    let mut index = vec![0; shape.len()];
    let mut from = 0;
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        ordered.push(values[from]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            from += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            from -= strides[axis] * shape[axis] as usize;
            index[axis] = 0;
        }
    }
    ordered
}

fn size(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// The array to read: the first of the wanted names that is there, or the only one.
fn chosen(path: &Path, wanted: &[&str], names: &[String]) -> Result<String> {
    if let Some(name) = wanted.iter().find(|wanted| names.iter().any(|name| name == *wanted)) {
        return Ok((*name).to_owned());
    }
    if let [only] = names {
        return Ok(only.clone());
    }
    // Archives list their arrays in no fixed order.
    let mut shown: Vec<&str> = names.iter().map(String::as_str).collect();
    shown.sort_unstable();
    shown.truncate(8);
    let expected = format!("`{}`, or one array alone", wanted.join("` or `"));
    Err(Error::file(path, "arrays", expected, if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }))
}

fn extension(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return Error::file(path, "arrays", "a readable NumPy file", "one that ends too early");
    }
    Error::file(path, "arrays", "a readable NumPy file", error)
}
