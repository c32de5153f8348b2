//! What is kept of a step whose loss or gradient is not finite.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::batch::HostBatch;
use crate::trainable::ParamInfo;
use crate::{Error, Result};

/// The step that failed.
pub(crate) struct Failure<'a> {
    pub(crate) step: u64,
    pub(crate) loss: f64,
    pub(crate) what: &'a str,
    pub(crate) infos: &'a [ParamInfo],
    pub(crate) norms: &'a [f64],
}

/// Writes `report.json` (step, times, gradient norm of every parameter, positions in the data set, labels) and
/// `batch.safetensors` (the batch as the network saw it) into `folder`.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write(folder: &Path, failure: &Failure, batch: &HostBatch) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    // JSON has no numbers that are not finite, so they are written as words.
    let number = |value: f64| if value.is_finite() { json!(value) } else { json!(value.to_string()) };
    let norms: serde_json::Map<String, serde_json::Value> =
        failure.infos.iter().zip(failure.norms).map(|(info, &norm)| (info.name.clone(), number(norm))).collect();
    let report = json!({
        "step": failure.step,
        "what": failure.what,
        "loss": number(failure.loss),
        "times": batch.t,
        "labels": batch.labels,
        "indices": batch.indices,
        "dropout_keys": batch.dropout_keys,
        "gradient_norms": norms,
    });
    gmflow::checkpoint::write_atomic(&folder.join("report.json"), format!("{report:#}\n").as_bytes())?;
    let count = vec![batch.t.len()];
    let shape = batch.dims.to_vec();
    let mut views = Vec::new();
    for (name, values, shape) in [
        ("x0", &batch.x0, &shape),
        ("noise", &batch.noise, &shape),
        ("transition_noise", &batch.transition_noise, &shape),
        ("t", &batch.t, &count),
    ] {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
        views.push((name, view.map_err(|e| Error::file(folder, name, "a tensor", e))?));
    }
    let path = folder.join("batch.safetensors");
    let bytes = safetensors::serialize(views, None).map_err(|e| Error::file(&path, "tensors", "a tensor file", e))?;
    Ok(gmflow::checkpoint::write_atomic(&path, &bytes)?)
}
