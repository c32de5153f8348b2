//! `gmflow export`: one set of a checkpoint's weights as a model folder to share.

use crate::args::{ExportArgs, Precision};
use crate::checkpoint_path::model_folder;
use crate::device::device;
use crate::output;
use crate::sample::average;
use anyhow::Result;
use gmflow::checkpoint::{self, Model};
use serde_json::json;

/// Runs the command.
pub fn run(arguments: &ExportArgs) -> Result<()> {
    let folder = model_folder(&arguments.checkpoint)?;
    output::refuse_existing([arguments.out.as_path()], arguments.force)?;
    let average = average(&folder, arguments.ema.as_deref())?;
    let model = Model::load(&folder, average.as_deref(), &device("cpu")?)?;
    let precision = match arguments.precision {
        Precision::F32 => checkpoint::Precision::F32,
        Precision::Bf16 => checkpoint::Precision::Bf16,
        Precision::F16 => checkpoint::Precision::F16,
    };
    model.save(&arguments.out, &[], precision)?;
    let bytes = std::fs::metadata(arguments.out.join("model.safetensors"))?.len();
    if arguments.json {
        let weights = average.as_deref().unwrap_or("none");
        return output::json(&json!({ "folder": arguments.out, "weights": weights, "bytes": bytes }));
    }
    let (out, megabytes) = (arguments.out.display(), bytes as f64 / 1e6);
    output::line(&format!("{out}: a model of {megabytes:.1} MB, step {}", model.info.progress.step))
}
