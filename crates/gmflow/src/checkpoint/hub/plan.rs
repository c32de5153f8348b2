//! Which files of a repository a model needs.

use super::download::Remote;
use super::{DownloadProgress, shard_names, weight_file};
use crate::checkpoint::diffusers::{CONFIG_FILE, INDEX_FILE, choose_weights, component_names};
use crate::{Error, Result};
use gmflow_files::json;
use std::path::Path;

/// The files of a model folder of our own that are downloaded where they are there.
const OWN_FILES: [&str; 3] = ["model.safetensors", "spectrum.safetensors", "model.json"];

/// Downloads what loading `variant` of the repository's model needs and is not there yet.
///
/// # Errors
/// Those of [`super::fetch`].
pub(super) fn download(
    remote: &mut Remote,
    variant: Option<&str>,
    progress: &mut dyn DownloadProgress,
) -> Result<()> {
    if remote.has(INDEX_FILE) {
        let index = remote.get(INDEX_FILE, progress)?;
        return components(remote, &index, variant, progress);
    }
    if remote.has("model.json") {
        let files = OWN_FILES.into_iter().filter(|file| remote.has(file)).collect::<Vec<_>>();
        return files.into_iter().try_for_each(|file| remote.get(file, progress).map(|_| ()));
    }
    if remote.has(CONFIG_FILE) {
        return component(remote, "", variant, true, progress);
    }
    Err(Error::hub(remote.id(), format!("it holds no model: expected {INDEX_FILE} or model.json")))
}

fn components(
    remote: &mut Remote,
    index: &Path,
    variant: Option<&str>,
    progress: &mut dyn DownloadProgress,
) -> Result<()> {
    let bytes = std::fs::read(index).map_err(|error| Error::io(index, error))?;
    let entries = json::object(&bytes).map_err(|wrong| Error::wrong(index, wrong))?;
    for name in component_names(&entries) {
        let folder = format!("{name}/");
        // Tokenisers and the like are no part of these models, and have neither file.
        if remote.has(&format!("{folder}scheduler_config.json")) {
            remote.get(&format!("{folder}scheduler_config.json"), progress)?;
        } else if remote.has(&format!("{folder}{CONFIG_FILE}")) {
            let main = matches!(name, "transformer" | "unet");
            component(remote, &folder, variant, main, progress)?;
        }
    }
    Ok(())
}

/// Downloads the config and the weights of the component in `folder` ("" or ending in a slash); only the `main` one has to have the
/// variant.
fn component(
    remote: &mut Remote,
    folder: &str,
    variant: Option<&str>,
    main: bool,
    progress: &mut dyn DownloadProgress,
) -> Result<()> {
    let config = remote.get(&format!("{folder}{CONFIG_FILE}"), progress)?;
    let names = remote.files_in(folder);
    let chosen = choose_weights(&names, variant)?;
    let chosen = if main { chosen } else { chosen.or(choose_weights(&names, None)?) };
    let Some(weights) = chosen else {
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let wanted = variant.map(|variant| format!(" of variant {variant}")).unwrap_or_default();
        return Err(Error::hub(remote.id(), format!("{folder}: expected safetensors weights{wanted}, got {there}")));
    };
    let path = remote.get(&format!("{folder}{weights}"), progress)?;
    if weights.ends_with(".json") {
        for shard in shard_names(&path)? {
            remote.get(&format!("{folder}{shard}"), progress)?;
        }
    }
    // What was chosen by name is what loading will choose from the folder.
    let dir = config.parent().unwrap_or(Path::new(""));
    weight_file(dir, if main { variant } else { None }).or_else(|_| weight_file(dir, variant)).map(|_| ())
}
