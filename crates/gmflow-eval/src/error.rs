//! The crate's one error type.

use std::path::{Path, PathBuf};

/// What can go wrong in measuring; messages name the file or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The processes of a job cannot work together any more.
    #[error(transparent)]
    World(#[from] gmflow_world::Error),
    /// A setting or an argument is outside its domain, or two sets cannot be compared.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// The setting's or argument's name.
        field: String,
        /// The values that are allowed.
        expected: String,
        /// The value that was found.
        got: String,
    },
    /// A figure came out as infinite or as no number.
    #[error("{figure}: expected a finite number, got {got}")]
    NotFinite {
        /// The figure, and of what it is.
        figure: String,
        /// What came out.
        got: f64,
    },
    /// A file is not what it should be.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The part of the file, such as an array's name.
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
    /// A network, sampler or weight file refused.
    #[error(transparent)]
    Gmflow(#[from] gmflow::Error),
    /// The data set refused.
    #[error(transparent)]
    Data(#[from] gmflow_data::Error),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Config`].
    pub fn config(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Config { field: field.into(), expected: expected.into(), got: got.to_string() }
    }

    /// An [`Error::File`].
    pub fn file(path: &Path, field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::File { path: path.to_owned(), field: field.into(), expected: expected.into(), got: got.to_string() }
    }

    /// An [`Error::File`] for what is wrong in the file at `path`.
    pub fn wrong(path: &Path, wrong: gmflow_files::Wrong) -> Self {
        let gmflow_files::Wrong { field, expected, got } = wrong;
        Self::file(path, field, expected, got)
    }

    /// An [`Error::File`] for what is wrong in an entry of a file's metadata.
    pub(crate) fn in_metadata(path: &Path, entry: &str, wrong: gmflow_files::Wrong) -> Self {
        let field = format!("{entry}: {}", wrong.field);
        Self::wrong(path, gmflow_files::Wrong { field, ..wrong })
    }

    /// The same with another name for the setting that it is about, if it is about one.
    pub fn renamed(self, name: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Config { field, expected, got }
            | Self::Gmflow(gmflow::Error::Config { field, expected, got })
            | Self::Data(gmflow_data::Error::Config { field, expected, got }) => {
                Self::config(name(&field), expected, got)
            }
            other => other,
        }
    }

    /// An [`Error::Io`].
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}
