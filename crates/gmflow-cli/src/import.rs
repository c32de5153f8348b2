//! `gmflow import`: the weights in a PyTorch file as safetensors.

use crate::args::ImportArgs;
use crate::output;
use anyhow::{Context, Result};
use gmflow::checkpoint::PytorchFile;
use serde_json::json;

const BYTES_PER_MEGABYTE: f64 = 1e6;
/// The weights in the folder of a component.
const COMPONENT_WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// Runs the command.
pub fn run(arguments: &ImportArgs) -> Result<()> {
    let out = &arguments.out;
    if arguments.config.is_none() {
        output::require_ending(out, "safetensors")?;
    }
    output::refuse_existing([out.as_path()], arguments.overwrite.force)?;
    let mut file = PytorchFile::open(&arguments.file, arguments.key.as_deref())?;
    if let Some(prefix) = &arguments.prefix {
        file = file.select(prefix)?;
    }
    let (tensors, left_out) = (file.len(), file.left_out());
    let integers = file.integers().to_vec();
    let precision = arguments.numbers.precision;
    let written = match &arguments.config {
        Some(config) => {
            file.convert_component(config, out, precision)?;
            out.join(COMPONENT_WEIGHTS)
        }
        None => {
            output::create_parent(out)?;
            file.convert(out, precision)?;
            out.clone()
        }
    };
    if let [first, more @ ..] = &integers[..] {
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        log::warn!("tensor {first}{more}: integers are no weights and are left out");
    }
    let bytes = std::fs::metadata(&written).with_context(|| written.display().to_string())?.len();
    if arguments.outcome.json {
        return output::json(&json!({ "out": out, "tensors": tensors, "left_out": left_out, "bytes": bytes }));
    }
    let (out, megabytes) = (out.display(), bytes as f64 / BYTES_PER_MEGABYTE);
    output::line(&format!("{out}: {tensors} tensors, {megabytes:.1} MB; {left_out} of the file left out"))
}
