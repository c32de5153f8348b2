//! The array files of samples, read back.

use super::Samples;
use crate::{Error, Result};
use npyz::npz::file_name_from_array_name;
use npyz::{Deserialize, NpyFile};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::fs::File;
use std::io::{BufReader, Error as IoError};
use std::path::Path;
use std::sync::Arc;
use zip::ZipArchive;
use zip::result::ZipError;

/// The arrays of a file.
struct Arrays {
    /// Of the samples, the sample first.
    shape: Vec<usize>,
    values: Vec<f32>,
    seeds: Vec<u64>,
    classes: Option<Vec<i64>>,
    /// How the samples were made, as JSON.
    made_by: String,
}

/// The numbers of an array, and its shape.
type Array<T> = (Vec<T>, Vec<usize>);

impl Samples {
    /// Reads what [`Samples::save_npz`] or [`Samples::save_safetensors`] wrote. Names of classes are not in such a file.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for what cannot be read; [`crate::FilesError::File`] for a file of another ending, and for arrays that are
    /// missing or do not fit each other.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        let Arrays { shape, values, seeds, classes, made_by } = match ending.as_str() {
            "npz" => npz(path)?,
            "safetensors" => tensors(path)?,
            _ => return Err(Error::file(path, "file name", "an ending of .npz or .safetensors", ending)),
        };
        let (points, shape) = match shape.as_slice() {
            [_, channels] => (true, [*channels, 1, 1]),
            [_, channels, height, width] => (false, [*channels, *height, *width]),
            other => return Err(Error::file(path, "samples", "a shape [n c h w] or [n 2]", format!("{other:?}"))),
        };
        let wanted = shape.iter().try_fold(seeds.len(), |all, side| all.checked_mul(*side));
        if wanted != Some(values.len()) {
            let expected = format!("{} samples of {shape:?}", seeds.len());
            return Err(Error::file(path, "samples", expected, format!("{} values", values.len())));
        }
        let classes = classes.map(|classes| classes.into_iter().map(|class| class as usize).collect());
        let made_by = serde_json::from_str(&made_by).unwrap_or_default();
        Ok(Self { values, shape, points, seeds, classes, class_names: Arc::from([]), made_by })
    }
}

fn missing(path: &Path, name: &str) -> Error {
    Error::file(path, name, "an array", "none of that name")
}

fn npz(path: &Path) -> Result<Arrays> {
    let open = || -> std::io::Result<_> { Ok(ZipArchive::new(BufReader::new(File::open(path)?))?) };
    let mut archive = open().map_err(|error| Error::io(path, error))?;
    let made_by = String::from_utf8_lossy(archive.comment()).into_owned();
    let unreadable = |error| Error::io(path, error);
    let samples = npz_array(&mut archive, "samples").map_err(unreadable)?;
    let (values, shape) = samples.ok_or_else(|| missing(path, "samples"))?;
    let seeds = npz_array(&mut archive, "seeds").map_err(unreadable)?;
    let (seeds, _) = seeds.ok_or_else(|| missing(path, "seeds"))?;
    let classes = npz_array(&mut archive, "classes").map_err(unreadable)?;
    Ok(Arrays { shape, values, seeds, classes: classes.map(|(classes, _)| classes), made_by })
}

/// The array of that name, if there is one.
fn npz_array<T: Deserialize>(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
) -> std::io::Result<Option<Array<T>>> {
    let file = match archive.by_name(&file_name_from_array_name(name)) {
        Ok(file) => NpyFile::new(file)?,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(IoError::other(error)),
    };
    let shape = file.shape().iter().map(|length| *length as usize).collect();
    Ok(Some((file.into_vec()?, shape)))
}

fn tensors(path: &Path) -> Result<Arrays> {
    let bytes = std::fs::read(path).map_err(|error| Error::io(path, error))?;
    let damaged = |error| Error::io(path, IoError::other(error));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
    let made_by = header.metadata().as_ref().and_then(|entries| entries.get("gmflow")).cloned().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes).map_err(damaged)?;
    let array = |name: &str, dtype| match file.tensor(name) {
        Ok(tensor) if tensor.dtype() == dtype => Ok(Some((tensor.data(), tensor.shape().to_vec()))),
        Ok(tensor) => Err(Error::file(path, name, format!("{dtype:?}"), format!("{:?}", tensor.dtype()))),
        Err(_) => Ok(None),
    };
    let (values, shape) = array("samples", Dtype::F32)?.ok_or_else(|| missing(path, "samples"))?;
    let (seeds, _) = array("seeds", Dtype::U64)?.ok_or_else(|| missing(path, "seeds"))?;
    let classes = array("classes", Dtype::I64)?;
    Ok(Arrays {
        shape,
        values: values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        seeds: seeds.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect(),
        classes: classes.map(|(bytes, _)| bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        made_by,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn samples() -> Samples {
        let images = Samples::new((0..8).map(|v| v as f32 / 8.0).collect(), [1, 2, 2], vec![u64::MAX, 3]);
        let images = images.expect("values of their shape");
        Samples { classes: Some(vec![7, 0]), made_by: json!({"gmflow": "1", "steps": 4}), ..images }
    }

    #[test]
    fn what_was_saved_comes_back_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let points = Samples { points: true, shape: [2, 1, 1], values: vec![0.5; 4], classes: None, ..samples() };
        for saved in [samples(), points] {
            let (npz, tensors) = (folder.path().join("s.npz"), folder.path().join("s.safetensors"));
            saved.save_npz(&npz).expect("saved");
            saved.save_safetensors(&tensors).expect("saved");
            assert_eq!(Samples::load(&npz).expect("npz"), saved);
            assert_eq!(Samples::load(&tensors).expect("safetensors"), saved);
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |name: &str| Samples::load(folder.path().join(name)).expect_err(name).to_string();
        std::fs::write(folder.path().join("text.npz"), "no archive").expect("written");
        let tensors = [("samples", safetensors::tensor::TensorView::new(Dtype::F64, vec![1, 2], &[0; 16]))];
        let tensors = tensors.map(|(name, view)| (name, view.expect("a view")));
        let bytes = safetensors::serialize(tensors, None).expect("a file");
        std::fs::write(folder.path().join("other.safetensors"), bytes).expect("written");
        for (name, words) in [
            ("text.npz", "text.npz"),
            ("none.npz", "none.npz"),
            ("s.png", "expected an ending of .npz or .safetensors"),
            ("other.safetensors", "samples: expected F32, got F64"),
        ] {
            let error = refused(name);
            assert!(error.contains(name) && error.contains(words), "{error}");
        }
    }
}
