//! The data set that a configuration file names.

use crate::data::locate::locate;
use crate::failure::{Usage, usage};
use anyhow::{Context, Result};
use gmflow_data::DatasetConfig;
use gmflow_files::{Wrong, beside, text, toml as settings};
use serde::Deserialize;
use std::path::Path;
use toml::{Table, Value};

/// What this command needs of a configuration.
#[derive(Deserialize)]
struct File {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    source: DatasetConfig,
}

/// The [data.source] table of a file; its relative paths are relative to the file's folder. `data` is the folder of --data, for a set
/// that is given by its name.
pub fn from_toml(path: &Path, data: Option<&Path>) -> Result<DatasetConfig> {
    let text = text::read(path).with_context(|| path.display().to_string())?;
    let wrong = |wrong: Wrong| Usage(format!("{}: {wrong}", path.display()));
    let table = text.and_then(|text| settings::table(&text)).map_err(wrong)?;
    if table.get("data").and_then(|data| data.get("source")).is_none() {
        let expected = "a table that names the data";
        return Err(usage(&format!("{}: data.source", path.display()), expected, "none"));
    }
    let File { data: Data { mut source } } = settings::settings(only_data(table)).map_err(wrong)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for (field, data) in source.paths_mut() {
        *data = beside(&format!("{}: data.source.{field}", path.display()), data, folder);
    }
    locate(&mut source, data)?;
    Ok(source)
}

/// The same without the other tables, which are nothing to this command.
fn only_data(mut table: Table) -> Table {
    let data = table.remove("data").unwrap_or(Value::Boolean(false));
    Table::from_iter([("data".to_owned(), data)])
}
