//! Settings as JSON.

use crate::error;
use gmflow_files::Error as FilesError;
use serde::de::DeserializeOwned;

/// Settings from JSON.
pub fn read<T: DeserializeOwned>(json: &str) -> pyo3::PyResult<T> {
    gmflow_files::json::read(json.as_bytes())
        .map_err(|wrong| error::of(FilesError::config(wrong.field, wrong.expected, wrong.got)))
}
