//! Errors of the library as Python's exceptions, with the library's words.

use gmflow_files::Error as FilesError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::error::Error;
use std::io::ErrorKind;

/// The exception with this name of `gmflow`.
pub fn new(name: &str, message: String) -> PyErr {
    Python::attach(|py| {
        let class = PyModule::import(py, "gmflow._errors").and_then(|module| module.getattr(name));
        match class.and_then(|class| class.call1((&message,))) {
            Ok(exception) => PyErr::from_value(exception),
            Err(_) => PyRuntimeError::new_err(message),
        }
    })
}

/// The exception for an error of any crate of the library.
pub fn of(error: impl Error + 'static) -> PyErr {
    new(name(&error), error.to_string())
}

/// Which exception an error is.
fn name(error: &(dyn Error + 'static)) -> &'static str {
    if let Some(error) = error.downcast_ref::<FilesError>() {
        return of_files(error);
    }
    if let Some(error) = error.downcast_ref::<gmflow::Error>() {
        return of_library(error);
    }
    if let Some(error) = error.downcast_ref::<gmflow_data::Error>() {
        return match error {
            gmflow_data::Error::Files(error) => of_files(error),
            _ => "DataError",
        };
    }
    if let Some(error) = error.downcast_ref::<gmflow_eval::Error>() {
        return match error {
            gmflow_eval::Error::Files(error) => of_files(error),
            gmflow_eval::Error::Gmflow(error) => of_library(error),
            gmflow_eval::Error::Data(error) => name(error),
            _ => "GmflowError",
        };
    }
    match error.downcast_ref::<gmflow_train::Error>() {
        Some(gmflow_train::Error::Files(error)) => of_files(error),
        Some(gmflow_train::Error::Gmflow(error)) => of_library(error),
        Some(gmflow_train::Error::Data(error)) => name(error),
        Some(gmflow_train::Error::Config { .. } | gmflow_train::Error::Several(_)) => "ConfigError",
        _ => "GmflowError",
    }
}

fn of_files(error: &FilesError) -> &'static str {
    match error {
        FilesError::Config { .. } => "ConfigError",
        FilesError::File { .. } => "FileError",
        FilesError::Io { source, .. } if source.kind() == ErrorKind::NotFound => "NotFoundError",
        FilesError::Io { .. } => "FileError",
    }
}

fn of_library(error: &gmflow::Error) -> &'static str {
    match error {
        gmflow::Error::Files(error) => of_files(error),
        gmflow::Error::Shape { .. } => "ShapeError",
        gmflow::Error::Memory { .. } => "OutOfMemoryError",
        gmflow::Error::Cancelled => "Cancelled",
        gmflow::Error::Hub { .. } => "HubError",
        _ => "GmflowError",
    }
}
