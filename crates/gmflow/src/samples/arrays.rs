//! Samples as arrays: NumPy archives and safetensors.

use super::Samples;
use crate::checkpoint::write_atomic;
use crate::{Error, Result};
use npyz::WriterBuilder;
use npyz::zip::{DateTime, write::FileOptions};
use safetensors::tensor::{Dtype, TensorView};
use std::io::Cursor;
use std::path::Path;

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
        let mut bytes = Cursor::new(Vec::new());
        let mut archive = npyz::npz::NpzWriter::new(&mut bytes);
        let Samples { values, seeds, .. } = self.samples;
        add(&mut archive, "samples", &self.shape, values.iter().copied())?;
        add(&mut archive, "seeds", &[seeds.len()], seeds.iter().copied())?;
        if let Some(classes) = &self.classes {
            add(&mut archive, "classes", &[classes.len()], classes.iter().copied())?;
        }
        archive.zip_writer().set_comment(self.made_by.as_str());
        archive.zip_writer().finish()?;
        drop(archive);
        Ok(bytes.into_inner())
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
    /// Writes `samples` (`[n c h w]`, of points `[n 2]`), `seeds` (u64) and `classes` (i64) as an uncompressed .npz file. The archive's
    /// comment says how they were made.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn save_npz(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = Arrays::of(self).npz().map_err(|error| Error::io(path, error))?;
        write_atomic(path, &bytes)
    }

    /// The same arrays as a safetensors file, whose metadata `gmflow` says how they were made.
    ///
    /// # Errors
    /// [`Error::File`] where there are not as many values as samples; [`Error::Io`] with the path.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = Arrays::of(self).safetensors();
        let bytes = bytes.map_err(|error| Error::file(path, "samples", "values of their shape", error))?;
        write_atomic(path, &bytes)
    }
}

fn add<W, T>(
    archive: &mut npyz::npz::NpzWriter<W>,
    name: &str,
    shape: &[usize],
    values: impl IntoIterator<Item = T>,
) -> std::io::Result<()>
where
    W: std::io::Write + std::io::Seek,
    T: npyz::Serialize + npyz::AutoSerialize,
{
    let shape: Vec<u64> = shape.iter().map(|&length| length as u64).collect();
    // Without the time of writing: the same samples are the same bytes.
    let options = FileOptions::default().last_modified_time(DateTime::default());
    let mut writer = archive.array(name, options)?.default_dtype().shape(&shape).begin_nd()?;
    writer.extend(values)?;
    writer.finish()
}
