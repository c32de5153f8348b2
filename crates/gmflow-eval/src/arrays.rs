//! Feature arrays from other programs: .npy, .npz and .safetensors.

use crate::{Error, Matrix, Moments, Result};
use npyz::{DType, NpyFile};
use safetensors::{Dtype, SafeTensors};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// The array of an archive that holds features.
const FEATURES: &str = "features";
/// The array of an archive that holds samples.
const SAMPLES: &str = "samples";
/// More bytes than this are not taken for an array.
const MOST_BYTES: u64 = 1 << 36;

/// Reads a matrix of features `[n d]`: the array of a .npy file, or `features` or the only array of a .npz or .safetensors file;
/// numbers of 16 (safetensors), 32 or 64 bits.
///
/// # Errors
/// A file of another kind, an array of another rank or type, or a number that is not finite.
pub fn read_features(path: &Path) -> Result<Matrix> {
    let (shape, values) = read_array(path, FEATURES)?;
    let [_, d] = shape[..] else { return Err(Error::file(path, "shape", "[n, d]", format!("{shape:?}"))) };
    let values = values.into_iter().map(|value| value as f32).collect();
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
    let (shape, values) = read_array(path, SAMPLES)?;
    let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
    let shape = match sizes[..] {
        [_, c, h, w] => [c, h, w],
        [_, 2] => [2, 1, 1],
        _ => return Err(Error::file(path, "shape", "[n, c, h, w] or [n, 2]", format!("{sizes:?}"))),
    };
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
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

type Array = (Vec<u64>, Vec<f64>);

/// The array called `name`, or the only one, of a file of any kind.
fn read_array(path: &Path, name: &str) -> Result<Array> {
    match extension(path).as_str() {
        "npy" => numpy(path, "array", NpyFile::new(open(path)?).map_err(|error| unreadable(path, error))?),
        "npz" => numpy_member(path, &chosen(path, name, &npz_names(path)?)?),
        "safetensors" => safetensors_array(path, name),
        other => Err(Error::file(path, "file name", "an ending of .npy, .npz or .safetensors", other)),
    }
}

fn numpy_member(path: &Path, name: &str) -> Result<Array> {
    let mut archive = npyz::npz::NpzArchive::open(path).map_err(|error| unreadable(path, error))?;
    let member = archive.by_name(name).map_err(|error| unreadable(path, error))?;
    let member = member.ok_or_else(|| Error::file(path, name, "an array", "none of that name"))?;
    numpy(path, name, member)
}

fn numpy<R: Read>(path: &Path, name: &str, file: NpyFile<R>) -> Result<Array> {
    let shape = file.shape().to_vec();
    let bytes = shape.iter().try_fold(8_u64, |product, &size| product.checked_mul(size));
    if bytes.is_none_or(|bytes| bytes > MOST_BYTES) {
        return Err(Error::file(path, name, format!("at most {MOST_BYTES} bytes"), format!("shape {shape:?}")));
    }
    if file.order() != npyz::Order::C {
        return Err(Error::file(path, name, "rows one after the other (C order)", "Fortran order"));
    }
    let DType::Plain(kind) = file.dtype() else {
        return Err(Error::file(path, name, "numbers", file.dtype().descr()));
    };
    let kind = kind.to_string();
    // Pushed one by one: what the header claims is not allocated before it has been read.
    let mut values = Vec::new();
    let failed = |error| unreadable(path, error);
    match kind.trim_start_matches(['<', '=', '|']) {
        "f4" => {
            for value in file.data::<f32>().map_err(|error| Error::file(path, name, "f32", error))? {
                values.push(f64::from(value.map_err(failed)?));
            }
        }
        "f8" => {
            for value in file.data::<f64>().map_err(|error| Error::file(path, name, "f64", error))? {
                values.push(value.map_err(failed)?);
            }
        }
        _ => return Err(Error::file(path, name, "numbers of type f4 or f8", kind)),
    }
    Ok((shape, values))
}

fn safetensors_array(path: &Path, wanted: &str) -> Result<Array> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    // SAFETY: the map is read only; a file that shrinks meanwhile ends the program, as with any other mapped weights.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|error| Error::io(path, error))?;
    let tensors =
        SafeTensors::deserialize(&map).map_err(|error| Error::file(path, "header", "safetensors", error))?;
    let names: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
    let name = chosen(path, wanted, &names)?;
    let view = tensors.tensor(&name).map_err(|error| Error::file(path, &*name, "a tensor", error))?;
    let bytes = view.data();
    let values = match view.dtype() {
        Dtype::F16 => numbers(bytes, |b: [u8; 2]| f64::from(half::f16::from_le_bytes(b))),
        Dtype::BF16 => numbers(bytes, |b: [u8; 2]| f64::from(half::bf16::from_le_bytes(b))),
        Dtype::F32 => numbers(bytes, |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => numbers(bytes, f64::from_le_bytes),
        other => return Err(Error::file(path, name, "f16, bf16, f32 or f64", format!("{other:?}"))),
    };
    Ok((view.shape().iter().map(|&size| size as u64).collect(), values))
}

fn numbers<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|&bytes| read(bytes)).collect()
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

fn open(path: &Path) -> Result<BufReader<File>> {
    File::open(path).map(BufReader::new).map_err(|error| Error::io(path, error))
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::file(path, "arrays", "a readable NumPy file", error)
}
