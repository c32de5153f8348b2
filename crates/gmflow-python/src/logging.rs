//! Log lines of the library in Python's logging, under the logger `gmflow`.

use gmflow_data::FOUND;
use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;

/// Takes warnings, and what was found in data sets.
struct ToPython;

impl Log for ToPython {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= Level::Warn || metadata.level() == Level::Info && metadata.target() == FOUND
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let method = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            _ => "info",
        };
        // None while the interpreter ends. A line that cannot be logged stops nothing.
        let _ = Python::try_attach(|py| -> PyResult<()> {
            let logger = PyModule::import(py, "logging")?.call_method1("getLogger", ("gmflow",))?;
            logger.call_method1(method, ("%s", record.args().to_string())).map(drop)
        });
    }

    fn flush(&self) {}
}

/// Starts to log.
pub fn start() {
    static LOG: ToPython = ToPython;
    // Another logger of the process stays.
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}
