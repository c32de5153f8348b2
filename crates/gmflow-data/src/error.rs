//! The crate's one error type.

use gmflow_files::Error as FilesError;

/// What can go wrong in this crate; messages name the file or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting, a file, or an operation on one.
    #[error(transparent)]
    Files(#[from] gmflow_files::Error),
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

gmflow_files::error_constructors!(Error);

impl Error {
    /// An [`Error::Loader`].
    pub(crate) fn loader(expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Loader { expected: expected.into(), got: got.to_string() }
    }

    /// The same with the options of `gmflow train` that pass over damaged images, in a run that has begun or before.
    pub(crate) fn with_the_way_around(self, begun: bool) -> Self {
        match self {
            Self::Files(FilesError::File { path, field, expected, got }) => {
                let resume = if begun { "--resume " } else { "" };
                let got = format!("{got}; {resume}--set data.source.image.corrupt=skip passes over damaged images");
                FilesError::File { path, field, expected, got }.into()
            }
            other => other,
        }
    }

    /// Whether the content of a file is at fault, so that [`Corrupt::Skip`](crate::Corrupt::Skip) may pass over it. A
    /// refusal by the operating system is not: it may be gone on the next attempt, and the order must not depend on it.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Files(FilesError::File { .. }))
    }
}
