//! Noise from array files.

use anyhow::{Context, Result};
use gmflow::checkpoint::read_header;
use safetensors::tensor::Dtype;
use std::path::Path;

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
