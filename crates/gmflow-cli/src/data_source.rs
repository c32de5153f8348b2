//! The data set that a configuration file names.

use crate::failure::Usage;
use anyhow::{Context, Result};
use gmflow_data::DatasetConfig;
use std::path::Path;

/// The [data.source] table of a file; its relative paths are taken from the working directory, or else from the file's folder.
pub fn from_toml(path: &Path) -> Result<DatasetConfig> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let wrong = |message: String| Usage(format!("{}: {message}", path.display()));
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let source = table.get("data").and_then(|data| data.get("source"));
    let source = source.ok_or_else(|| wrong("data.source: expected a table, got none".into()))?.clone();
    let mut config: DatasetConfig =
        source.try_into().map_err(|error: toml::de::Error| wrong(format!("data.source: {}", error.message())))?;
    for data in config.paths_mut() {
        let beside = path.parent().unwrap_or(Path::new("")).join(&*data);
        if data.is_relative() && !data.exists() && beside.exists() {
            *data = beside;
        }
    }
    Ok(config)
}
