//! The Python module `gmflow`: the library's functions on arrays of NumPy's, and PyTorch's.
//!
//! The feature `python` has the module in it. Without it the crate is empty, so that the other commands of the workspace need no Python.
//! What users call is in `python/gmflow`; here is what it calls, with arguments in one form: arrays of `float32` in C order, and settings as
//! JSON.

#![cfg(feature = "python")]

mod allocator;
mod array;
mod error;
mod eval;
mod function;
mod interrupt;
mod likelihood;
mod logging;
mod mixture;
mod model;
mod noise;
mod sampling;
mod scheduler;
mod settings;
mod training;

use pyo3::prelude::*;

/// What `gmflow` is made of.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    allocator::keep_freed_memory();
    logging::start();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<array::Buffer>()?;
    module.add_class::<model::Model>()?;
    module.add_class::<model::Drawn>()?;
    sampling::register(module)?;
    scheduler::register(module)?;
    eval::register(module)?;
    training::register(module)?;
    mixture::register(module)?;
    likelihood::register(module)?;
    // Users import names from the package.
    module.delattr("__all__")
}
