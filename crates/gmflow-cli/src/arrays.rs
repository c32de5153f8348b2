//! Samples as arrays: NumPy archives and safetensors.

use anyhow::{Context, Result};
use gmflow::checkpoint::{read_header, write_atomic};
use npyz::WriterBuilder;
use safetensors::tensor::{Dtype, TensorView};
use std::io::Cursor;
use std::path::Path;

/// Samples with what identifies each of them.
pub struct Samples<'a> {
    /// Values, the last axis fastest.
    pub values: &'a [f32],
    /// The shape of `values`, the sample first.
    pub shape: &'a [usize],
    /// One seed per sample.
    pub seeds: &'a [u64],
    /// One class index per sample, of models with classes.
    pub classes: Option<&'a [usize]>,
    /// How the samples were made, as JSON.
    pub made_by: &'a str,
}

impl Samples<'_> {
    /// Writes `samples`, `seeds` (u64) and `classes` (i64) as an uncompressed .npz file.
    pub fn write_npz(&self, path: &Path) -> Result<()> {
        let mut bytes = Cursor::new(Vec::new());
        let mut archive = npyz::npz::NpzWriter::new(&mut bytes);
        let per_sample = [self.seeds.len()];
        add(&mut archive, "samples", self.shape, self.values.iter().copied())?;
        add(&mut archive, "seeds", &per_sample, self.seeds.iter().copied())?;
        if let Some(classes) = self.classes {
            add(&mut archive, "classes", &per_sample, classes.iter().map(|&class| class as i64))?;
        }
        archive.zip_writer().set_comment(self.made_by);
        archive.zip_writer().finish()?;
        drop(archive);
        Ok(write_atomic(path, &bytes.into_inner())?)
    }

    /// Writes `samples`, `seeds` (u64) and `classes` (i64) as safetensors; how they were made is metadata `gmflow`.
    pub fn write_safetensors(&self, path: &Path) -> Result<()> {
        let values: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let seeds: Vec<u8> = self.seeds.iter().flat_map(|seed| seed.to_le_bytes()).collect();
        let classes: Option<Vec<u8>> =
            self.classes.map(|classes| classes.iter().flat_map(|&class| (class as i64).to_le_bytes()).collect());
        let per_sample = vec![self.seeds.len()];
        let mut tensors = vec![
            ("samples", TensorView::new(Dtype::F32, self.shape.to_vec(), &values)?),
            ("seeds", TensorView::new(Dtype::U64, per_sample.clone(), &seeds)?),
        ];
        if let Some(classes) = &classes {
            tensors.push(("classes", TensorView::new(Dtype::I64, per_sample, classes)?));
        }
        let metadata = [("gmflow".to_owned(), self.made_by.to_owned())].into();
        Ok(write_atomic(path, &safetensors::serialize(tensors, Some(metadata))?)?)
    }
}

fn add<W, T>(
    archive: &mut npyz::npz::NpzWriter<W>,
    name: &str,
    shape: &[usize],
    values: impl IntoIterator<Item = T>,
) -> Result<()>
where
    W: std::io::Write + std::io::Seek,
    T: npyz::Serialize + npyz::AutoSerialize,
{
    let shape: Vec<u64> = shape.iter().map(|&length| length as u64).collect();
    let mut writer = archive.array(name, Default::default())?.default_dtype().shape(&shape).begin_nd()?;
    writer.extend(values)?;
    Ok(writer.finish()?)
}

/// Fewer numbers than this say little of the distribution that they are drawn from.
const ENOUGH: usize = 64;

/// The tensor `noise` [n c h w] of a safetensors file; `[c h w]` is what the model works on. Noise that is not nearly standard normal is taken
/// as it is, with a warning.
pub fn read_noise(path: &Path, sample_shape: [usize; 3]) -> Result<Vec<f32>> {
    let refused = |expected: String, got: String| gmflow::Error::file(path, "noise", expected, got);
    let bytes = std::fs::read(path).map_err(|error| gmflow::Error::io(path, error))?;
    read_header(&bytes).map_err(|wrong| gmflow::Error::wrong(path, wrong))?;
    let file = safetensors::SafeTensors::deserialize(&bytes)
        .with_context(|| format!("{}: expected a safetensors file", path.display()))?;
    let noise =
        file.tensor("noise").map_err(|_| refused("a tensor with this name".into(), format!("{:?}", file.names())))?;
    let [channels, height, width] = sample_shape;
    let shape_is_right = match noise.shape() {
        [n, c, h, w] => *n > 0 && [*c, *h, *w] == sample_shape,
        [n, c] => *n > 0 && [*c, 1, 1] == sample_shape,
        _ => false,
    };
    if !shape_is_right {
        return Err(refused(format!("[n, {channels}, {height}, {width}]"), format!("{:?}", noise.shape())).into());
    }
    if noise.dtype() != Dtype::F32 {
        return Err(refused("dtype F32".into(), format!("{:?}", noise.dtype())).into());
    }
    let values: Vec<f32> =
        noise.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(refused("finite values".into(), value.to_string()).into()),
        None => {
            warn_of_noise(path, &values);
            Ok(values)
        }
    }
}

fn warn_of_noise(path: &Path, values: &[f32]) {
    let mean_of =
        |of: &dyn Fn(f64) -> f64| values.iter().map(|&x| of(f64::from(x))).sum::<f64>() / values.len() as f64;
    let mean = mean_of(&|x| x);
    let deviation = mean_of(&|x| (x - mean).powi(2)).sqrt();
    if values.len() >= ENOUGH && (mean.abs() > 0.5 || !(0.5..2.0).contains(&deviation)) {
        let path = path.display();
        log::warn!(
            "{path}: noise: expected mean 0 and standard deviation 1, got {mean:.3} and {deviation:.3}; it is taken as it is"
        );
    }
}
