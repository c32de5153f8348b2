//! `gmflow export`: one set of a checkpoint's weights as a folder to share.

use crate::args::{ExportArgs, Layout};
use crate::checkpoint_path::resolve;
use crate::device::device;
use crate::failure::{of_options, usage};
use crate::local;
use crate::output;
use anyhow::{Context, Result};
use gmflow::checkpoint::{DataKind, ExportOptions, LoadOptions, Model, export_diffusers};
use gmflow_eval::models::{average, find_vae};
use serde_json::json;
use std::path::Path;

const BYTES_PER_MEGABYTE: u64 = 1_000_000;

/// Runs the command.
pub fn run(arguments: &ExportArgs) -> Result<()> {
    local::expect_beside(&arguments.checkpoint, &arguments.vae)?;
    let folder = resolve(&arguments.checkpoint, &arguments.published)?;
    output::refuse_existing([arguments.out.as_path()], arguments.overwrite.force)?;
    let average = average(&folder, arguments.ema.as_deref()).map_err(of_options)?;
    let device = device("cpu")?;
    let options = LoadOptions {
        ema: average.as_deref(),
        variant: arguments.published.variant.as_deref(),
        unverified: arguments.published.no_verify,
        ..LoadOptions::default()
    };
    let mut model = Model::load_with(&folder, options, &device)?;
    let precision = arguments.numbers.precision;
    match arguments.layout {
        Layout::Gmflow => {
            if let Some(argument) = diffusers_only(arguments) {
                return Err(usage(argument, "layout diffusers", "layout gmflow"));
            }
            model.save(&arguments.out, &[], precision)?;
            remove_marker(&arguments.out.join("model_index.json"))?;
        }
        Layout::Diffusers => {
            if arguments.vae.is_some() && model.info.data.kind != DataKind::Latents {
                return Err(usage("--vae", "a model of latents", "a model of images"));
            }
            if model.info.data.kind == DataKind::Latents {
                let vae = find_vae(&mut model, arguments.vae.as_deref(), &device);
                model.vae = Some(vae.map_err(of_options)?);
            }
            let mut options =
                ExportOptions { precision, variant: arguments.as_variant.clone(), ..Default::default() };
            if let Some(megabytes) = arguments.shard {
                options.shard_bytes = megabytes.saturating_mul(BYTES_PER_MEGABYTE);
            }
            export_diffusers(&model, &arguments.out, &options)?;
            remove_marker(&arguments.out.join("model.json"))?;
        }
    }
    let bytes = bytes_below(&arguments.out)?;
    if arguments.outcome.json {
        let weights = average.as_deref().unwrap_or("none");
        return output::json(&json!({ "folder": arguments.out, "weights": weights, "bytes": bytes }));
    }
    let (out, megabytes) = (arguments.out.display(), bytes as f64 / BYTES_PER_MEGABYTE as f64);
    output::line(&format!("{out}: a model of {megabytes:.1} MB, step {}", model.info.progress.step))
}

/// The first argument that only the diffusers layout has.
fn diffusers_only(arguments: &ExportArgs) -> Option<&'static str> {
    let given = [
        ("--vae", arguments.vae.is_some()),
        ("--as-variant", arguments.as_variant.is_some()),
        ("--shard", arguments.shard.is_some()),
    ];
    given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
}

/// Removes what would make the folder a model of the other layout; it is only there where --force was given.
fn remove_marker(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// The bytes of all safetensors files in a folder and those directly below it.
fn bytes_below(folder: &Path) -> Result<u64> {
    let mut total = 0;
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() && depth == 0 {
                folders.push((path, depth + 1));
            } else if path.extension().is_some_and(|extension| extension == "safetensors") {
                total += path.metadata()?.len();
            }
        }
    }
    Ok(total)
}
