//! The Python module `gmflow`: the library's functions on arrays of NumPy's, and PyTorch's.
//!
//! The feature `python` has the module in it. Without it the crate is empty, so that the other commands of the workspace need no Python.
//! What users call is in `python/gmflow`; here is what it calls, with arguments in one form: arrays of `float32` in C order, and settings as
//! JSON.

#[cfg(feature = "python")]
mod allocator;
#[cfg(feature = "python")]
mod array;
#[cfg(feature = "python")]
mod error;
#[cfg(feature = "python")]
mod eval;
#[cfg(feature = "python")]
mod function;
#[cfg(feature = "python")]
mod interrupt;
#[cfg(feature = "python")]
mod likelihood;
#[cfg(feature = "python")]
mod logging;
#[cfg(feature = "python")]
mod mixture;
#[cfg(feature = "python")]
mod model;
#[cfg(feature = "python")]
mod sampling;
#[cfg(feature = "python")]
mod scheduler;
#[cfg(feature = "python")]
mod settings;
#[cfg(feature = "python")]
mod training;

#[cfg(feature = "python")]
use pyo3::prelude::*;

/// What `gmflow` is made of.
#[cfg(feature = "python")]
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
