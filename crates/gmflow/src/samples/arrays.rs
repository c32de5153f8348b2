//! Samples as arrays: NumPy archives and safetensors.

use super::Samples;
use crate::checkpoint::write_atomic;
use crate::{Error, Result};
use npyz::WriterBuilder;
use npyz::npz::file_name_from_array_name;
use safetensors::tensor::{Dtype, TensorView};
use std::io::Cursor;
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// The numbers of an array file.
struct Arrays<'a> {
    samples: &'a Samples,
    /// Of the samples, the sample first.
    shape: Vec<usize>,
    classes: Option<Vec<i64>>,
    /// How the samples were made, as JSON.
    made_by: String,
}

impl<'a> Arrays<'a> {
    fn of(samples: &'a Samples) -> Self {
        let (count, [channels, height, width]) = (samples.len(), samples.shape);
        Self {
            samples,
            shape: if samples.points { vec![count, channels] } else { vec![count, channels, height, width] },
            classes: samples.classes.as_ref().map(|classes| classes.iter().map(|&class| class as i64).collect()),
            made_by: samples.made_by.to_string(),
        }
    }

    fn npz(&self) -> std::io::Result<Vec<u8>> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let Samples { values, seeds, .. } = self.samples;
        add(&mut archive, "samples", &self.shape, values.iter().copied())?;
        add(&mut archive, "seeds", &[seeds.len()], seeds.iter().copied())?;
        if let Some(classes) = &self.classes {
            add(&mut archive, "classes", &[classes.len()], classes.iter().copied())?;
        }
        archive.set_comment(self.made_by.as_str())?;
        Ok(archive.finish()?.into_inner())
    }

    fn safetensors(&self) -> std::result::Result<Vec<u8>, safetensors::SafeTensorError> {
        let Samples { values, seeds, .. } = self.samples;
        let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let count = seeds.len();
        let seeds: Vec<u8> = seeds.iter().flat_map(|seed| seed.to_le_bytes()).collect();
        let classes: Option<Vec<u8>> =
            self.classes.as_ref().map(|classes| classes.iter().flat_map(|class| class.to_le_bytes()).collect());
        let mut tensors = vec![
            ("samples", TensorView::new(Dtype::F32, self.shape.clone(), &values)?),
            ("seeds", TensorView::new(Dtype::U64, vec![count], &seeds)?),
        ];
        if let Some(classes) = &classes {
            tensors.push(("classes", TensorView::new(Dtype::I64, vec![count], classes)?));
        }
        let metadata = [("gmflow".to_owned(), self.made_by.clone())].into();
        safetensors::serialize(tensors, Some(metadata))
    }
}

impl Samples {
    /// Writes `samples` (`[n c h w]`, of points `[n 2]`), `seeds` (u64) and `classes` (i64) as a .npz file. The archive's
    /// comment says how they were made.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] with the path.
    pub fn save_npz(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(path.as_ref(), &self.npz()?)
    }

    /// The bytes of the file that [`Samples::save_npz`] writes.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] where there are more than an archive can hold.
    pub fn npz(&self) -> Result<Vec<u8>> {
        Arrays::of(self).npz().map_err(|error| Error::io("samples.npz", error))
    }

    /// The same arrays as a safetensors file, whose metadata `gmflow` says how they were made.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] where there are not as many values as samples; [`crate::FilesError::Io`] with the path.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = Arrays::of(self).safetensors();
        let bytes = bytes.map_err(|error| Error::file(path, "samples", "values of their shape", error))?;
        write_atomic(path, &bytes)
    }
}

/// Adds an array to a .npz file, which is a ZIP archive of .npy files.
fn add<T: npyz::Serialize + npyz::AutoSerialize>(
    archive: &mut ZipWriter<Cursor<Vec<u8>>>,
    name: &str,
    shape: &[usize],
    values: impl IntoIterator<Item = T>,
) -> std::io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&length| length as u64).collect();
    let is_large = shape.iter().product::<u64>().saturating_mul(size_of::<T>() as u64) > u64::from(u32::MAX) / 2;
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(is_large);
    // Without the time of writing: the same samples are the same bytes.
    let options = options.last_modified_time(DateTime::default());
    archive.start_file(file_name_from_array_name(name), options)?;
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(archive).begin_nd()?;
    writer.extend(values)?;
    writer.finish()
}
