//! `gmflow pack`: a data set as tar shards.

use crate::args::PackArgs;
use crate::data_source;
use crate::failure::{Signalled, usage};
use crate::signals::{Signal, Signals};
use crate::{local, output, terminal};
use anyhow::{Result, anyhow};
use gmflow_data::{Dataset, DatasetConfig, PackOptions, Packed, is_url, pack};
use indicatif::DecimalBytes;
use serde_json::json;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Files are copied as they are: the size that they would be brought to does not matter.
const ANY_SIZE: usize = 16;

/// Runs the command.
pub fn run(arguments: &PackArgs) -> Result<()> {
    let signals = Signals::listen("stopping after this shard; what is packed is kept")?;
    if !is_url(&arguments.out) {
        output::expect_folder(&arguments.out)?;
    }
    let mut config = source(arguments)?;
    let Dataset::Images { images, corrupt, .. } = config.open(Path::new(""))? else {
        return Err(usage("DATA", "images", "points or latents"));
    };
    let options = PackOptions {
        shards: arguments.shards,
        seed: (!arguments.in_order).then_some(arguments.seed),
        corrupt,
        force: arguments.force,
        storage: config.storage_mut().map(|storage| storage.clone()).unwrap_or_default(),
    };
    let bar = terminal::bar(images.len() as u64, "packing", "images");
    let packed = pack(images.as_ref(), &arguments.out, &options, &mut |done| {
        bar.set_position(done as u64);
        !signals.stop().load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let packed = packed.map_err(with_remedy)?;
    let out = arguments.out.display();
    if !packed.complete {
        let name = signals.caught().map_or_else(|| "a signal".to_owned(), Signal::name);
        let text = format!("stopped by {name}: {} images are packed; the same call continues", packed.images);
        // A terminal that is gone takes no line.
        let printed = output::line(&text);
        return signals.caught().map_or(printed, |signal| Err(Signalled(signal).into()));
    }
    let Packed { images, left_out, bytes: size, kept, .. } = packed;
    if arguments.outcome.json {
        return output::json(&json!({
            "out": arguments.out, "shards": arguments.shards, "images": images, "left_out": left_out, "bytes": size,
            "kept": kept,
        }));
    }
    let damaged = if left_out > 0 { format!(", {left_out} damaged images left out") } else { String::new() };
    let earlier = if kept > 0 { format!(", {kept} of them from an earlier call") } else { String::new() };
    let shards = if arguments.shards == 1 { "shard" } else { "shards" };
    output::line(&format!(
        "{images} images in {} {shards} ({}) in {out}{earlier}{damaged}",
        arguments.shards,
        DecimalBytes(size)
    ))?;
    output::line(&format!("next      gmflow train {}", output::shell_word(&arguments.out)))
}

/// The data set that is named.
fn source(arguments: &PackArgs) -> Result<DatasetConfig> {
    let path = &arguments.data;
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml")) {
        return data_source::from_toml(path, arguments.data_dir.as_deref());
    }
    if let Some(folder) = &arguments.data_dir {
        return Err(usage("--data-dir", "a configuration that names its data (kind = \"named\")", folder.display()));
    }
    local::expect([path.as_path()])?;
    let mut source = DatasetConfig::guess(path)?;
    if !matches!(source, DatasetConfig::Idx { .. })
        && let Some(image) = source.image_mut()
    {
        image.size = Some(ANY_SIZE);
    }
    Ok(source)
}

/// What can be done about shards that cannot be continued.
fn with_remedy(error: gmflow_data::Error) -> anyhow::Error {
    match &error {
        gmflow_data::Error::Files(gmflow_data::FilesError::File { field, .. }) if field == "folder" => {
            anyhow!("{error}; --force removes what an earlier call has packed there, and starts anew")
        }
        _ => error.into(),
    }
}
