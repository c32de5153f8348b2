//! The crate's one error type.

use std::path::PathBuf;

/// What can go wrong in this crate; messages name the file or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or argument is outside its domain.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// The setting's name, relative to the data set's own table.
        field: String,
        /// The values that are allowed.
        expected: String,
        /// The value that was found.
        got: String,
    },
    /// A file is not what it should be.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The part of the file, such as a row or a header field.
        field: String,
        /// What was required there.
        expected: String,
        /// What was found.
        got: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A folder cannot be locked, because another process writes there or the operating system refused it.
    #[error(transparent)]
    Lock(#[from] gmflow_files::LockError),
    /// A thread of the loader could not be started or has failed.
    #[error("data loader: expected {expected}, got {got}")]
    Loader {
        /// What was required.
        expected: String,
        /// What was found.
        got: String,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Config`].
    pub fn config(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Config { field: field.into(), expected: expected.into(), got: got.to_string() }
    }

    /// An [`Error::File`].
    pub fn file(
        path: impl Into<PathBuf>,
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self::File { path: path.into(), field: field.into(), expected: expected.into(), got: got.to_string() }
    }

    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// An [`Error::Loader`].
    pub(crate) fn loader(expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Loader { expected: expected.into(), got: got.to_string() }
    }

    /// The same with the options of `gmflow train` that pass over damaged images, in a run that has begun or before.
    pub(crate) fn with_the_way_around(self, begun: bool) -> Self {
        match self {
            Self::File { path, field, expected, got } => {
                let resume = if begun { "--resume " } else { "" };
                let got = format!("{got}; {resume}--set data.source.image.corrupt=skip passes over damaged images");
                Self::File { path, field, expected, got }
            }
            other => other,
        }
    }

    /// Whether the content of a file is at fault, so that [`Corrupt::Skip`](crate::Corrupt::Skip) may pass over it. A
    /// refusal by the operating system is not: it may be gone on the next attempt, and the order must not depend on it.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}
