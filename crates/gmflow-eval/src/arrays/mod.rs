//! Feature arrays from other programs: .npy, .npz and .safetensors.

use crate::numbers::{Kind, Number, TensorFile};
use crate::{Error, Matrix, Moments, Result};
use npyz::{DType, NpyFile};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// The array of an archive that holds features.
const FEATURES: &str = "features";
/// The array of an archive that holds samples.
const SAMPLES: &str = "samples";
/// More bytes than this are not taken for an array.
const MOST_BYTES: u64 = 1 << 36;
/// Deflate packs no more than this many bytes into one.
const MOST_DEFLATED: u64 = 1032;

/// Reads a matrix of features `[n d]`: the array of a .npy file, or `features` or the only array of a .npz or .safetensors file;
/// floating-point numbers of 16, 32 or 64 bits. Memory: the matrix.
///
/// # Errors
/// A file of another kind, an array of another rank or type, or a number that is not finite.
pub fn read_features(path: &Path) -> Result<Matrix> {
    let (shape, values) = read_array(path, FEATURES)?;
    let [_, d] = shape[..] else { return Err(Error::file(path, "shape", "[n, d]", format!("{shape:?}"))) };
    Matrix::new(values, d as usize).map_err(|error| match error {
        Error::Config { field, expected, got } => Error::file(path, field, expected, got),
        other => other,
    })
}

/// Reads samples `[n c h w]` or `[n 2]` and the shape `[c h w]` of one: the array of a .npy file, or `samples`, or the only array of a
/// .npz or .safetensors file.
///
/// # Errors
/// As for [`read_features`], with another rank.
pub fn read_samples(path: &Path) -> Result<(Vec<f32>, [usize; 3])> {
    let (shape, values) = read_array::<f32>(path, SAMPLES)?;
    let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
    let shape = match sizes[..] {
        [_, c, h, w] => [c, h, w],
        [_, 2] => [2, 1, 1],
        _ => return Err(Error::file(path, "shape", "[n, c, h, w] or [n, 2]", format!("{sizes:?}"))),
    };
    match values.iter().find(|value| !value.is_finite()) {
        Some(wrong) => Err(Error::file(path, "samples", "finite numbers", wrong)),
        None => Ok((values, shape)),
    }
}

/// Reads the `mu` and `sigma` of a .npz file as pytorch-fid writes it. The number of samples is not in such a file, and is taken for
/// large.
///
/// # Errors
/// A file without these arrays, or with arrays of other shapes.
pub fn read_mu_sigma(path: &Path) -> Result<Moments> {
    let (mean_shape, mean) = numpy_member(path, "mu")?;
    let (shape, covariance) = numpy_member(path, "sigma")?;
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
    let archive = npyz::npz::NpzArchive::open(path).map_err(|error| unreadable(path, error))?;
    Ok(archive.array_names().map(str::to_owned).collect())
}

type Array<T> = (Vec<u64>, Vec<T>);

/// The array called `name`, or the only one, of a file of any kind.
fn read_array<T: Number>(path: &Path, name: &str) -> Result<Array<T>> {
    match extension(path).as_str() {
        "npy" => {
            let file = File::open(path).map_err(|error| Error::io(path, error))?;
            let bytes = size(&file);
            numpy(path, "array", NpyFile::new(BufReader::new(file)).map_err(|error| unreadable(path, error))?, bytes)
        }
        "npz" => numpy_member(path, &chosen(path, name, &npz_names(path)?)?),
        "safetensors" => {
            let file = TensorFile::open(path)?;
            let (shape, values) = file.read(&chosen(path, name, &file.names())?)?;
            Ok((shape.into_iter().map(|size| size as u64).collect(), values))
        }
        other => Err(Error::file(path, "file name", "an ending of .npy, .npz or .safetensors", other)),
    }
}

fn numpy_member<T: Number>(path: &Path, name: &str) -> Result<Array<T>> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let bytes = size(&file).saturating_mul(MOST_DEFLATED);
    let archive = npyz::npz::NpzArchive::new(BufReader::new(file));
    let mut archive = archive.map_err(|error| unreadable(path, error))?;
    let member = archive.by_name(name).map_err(|error| unreadable(path, error))?;
    let member = member.ok_or_else(|| Error::file(path, name, "an array", "none of that name"))?;
    numpy(path, name, member, bytes)
}

/// The array of a file that holds no more than `most` bytes.
fn numpy<T: Number, R: Read>(path: &Path, name: &str, file: NpyFile<R>, most: u64) -> Result<Array<T>> {
    let shape = file.shape().to_vec();
    if file.order() != npyz::Order::C {
        return Err(Error::file(path, name, "rows one after the other (C order)", "Fortran order"));
    }
    let DType::Plain(kind) = file.dtype() else {
        return Err(Error::file(path, name, "numbers", file.dtype().descr()));
    };
    let kind = kind.to_string();
    let kind = match kind.trim_start_matches(['<', '=', '|']) {
        "f2" => Kind::F16,
        "f4" => Kind::F32,
        "f8" => Kind::F64,
        _ => return Err(Error::file(path, name, "numbers of type f2, f4 or f8", kind)),
    };
    let width = kind.bytes() as u64;
    let bytes = shape.iter().try_fold(width, |product, &size| product.checked_mul(size));
    let Some(bytes) = bytes.filter(|&bytes| bytes <= MOST_BYTES) else {
        return Err(Error::file(path, name, format!("at most {MOST_BYTES} bytes"), format!("shape {shape:?}")));
    };
    let room = most.min(bytes) / width;
    let values = kind.read(&mut file.into_inner(), (bytes / width) as usize, room as usize);
    Ok((shape, values.map_err(|error| unreadable(path, error))?))
}

fn size(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// The array to read: the one of that name, or the only one.
fn chosen(path: &Path, wanted: &str, names: &[String]) -> Result<String> {
    match names {
        [only] => Ok(only.clone()),
        _ if names.iter().any(|name| name == wanted) => Ok(wanted.to_owned()),
        _ => {
            // Archives list their arrays in no fixed order.
            let mut shown: Vec<&str> = names.iter().map(String::as_str).collect();
            shown.sort_unstable();
            shown.truncate(8);
            Err(Error::file(path, "arrays", format!("`{wanted}`, or one array alone"), shown.join(", ")))
        }
    }
}

fn extension(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::file(path, "arrays", "a readable NumPy file", error)
}
