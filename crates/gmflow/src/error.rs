//! The crate's one error type.
//!
//! ```
//! use gmflow::solver::Euler;
//! use gmflow::{Error, FilesError, pipeline::SamplerConfig};
//!
//! let refused = SamplerConfig::new(Euler {}, 0).validate();
//! assert!(matches!(refused, Err(Error::Files(FilesError::Config { field, .. })) if field == "steps"));
//! ```

/// What can go wrong in this crate; messages name the file or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting, a file, or an operation on one.
    #[error(transparent)]
    Files(#[from] gmflow_files::Error),
    /// A tensor or argument has the wrong shape.
    #[error("{what}: expected shape {expected}, got {got}")]
    Shape {
        /// The tensor or argument.
        what: String,
        /// The shape that was required.
        expected: String,
        /// The shape that was found.
        got: String,
    },
    /// What is asked for does not fit in memory. Nothing of it has been taken.
    #[error(
        "{field}: expected a value that fits in memory, got {got}: it needs {need}, and there are {there}; {advice}"
    )]
    Memory {
        /// The setting that asks for it.
        field: String,
        /// Its value.
        got: String,
        /// What is needed, for people.
        need: String,
        /// What is there, and what bounds it.
        there: String,
        /// What to lower.
        advice: String,
    },
    /// The caller asked for no more: what was told of progress answered [`std::ops::ControlFlow::Break`].
    #[error("cancelled")]
    Cancelled,
    /// A repository on the hub cannot be had.
    #[error("{id}: {message}")]
    Hub {
        /// The repository.
        id: String,
        /// What happened, and what to do.
        message: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

gmflow_files::error_constructors!(Error);

impl Error {
    /// An [`Error::Shape`], with shapes written as lists.
    pub fn shape(what: impl Into<String>, expected: impl std::fmt::Debug, got: impl std::fmt::Debug) -> Self {
        Self::Shape { what: what.into(), expected: format!("{expected:?}"), got: format!("{got:?}") }
    }

    /// An [`Error::Hub`].
    pub fn hub(id: &impl std::fmt::Display, message: impl Into<String>) -> Self {
        Self::Hub { id: id.to_string(), message: message.into() }
    }
}
