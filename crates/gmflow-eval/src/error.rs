//! The crate's one error type.

use gmflow_files::Error as FilesError;
use std::path::Path;

/// What can go wrong in measuring; messages name the file or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting, a file, or an operation on one, or two sets that cannot be compared.
    #[error(transparent)]
    Files(#[from] gmflow_files::Error),
    /// The processes of a job cannot work together any more.
    #[error(transparent)]
    World(#[from] gmflow_world::Error),
    /// A figure came out as infinite or as no number.
    #[error("{figure}: expected a finite number, got {got}")]
    NotFinite {
        /// The figure, and of what it is.
        figure: String,
        /// What came out.
        got: f64,
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

gmflow_files::error_constructors!(Error);

impl Error {
    /// An [`crate::FilesError::File`] for what is wrong in an entry of a file's metadata.
    pub(crate) fn in_metadata(path: &Path, entry: &str, wrong: gmflow_files::Wrong) -> Self {
        let field = format!("{entry}: {}", wrong.field);
        Self::wrong(path, gmflow_files::Wrong { field, ..wrong })
    }

    /// What is wrong with a setting or a file, where it is that, in this crate or in one below.
    pub fn files(&self) -> Option<&FilesError> {
        match self {
            Self::Files(error)
            | Self::Gmflow(gmflow::Error::Files(error))
            | Self::Data(gmflow_data::Error::Files(error)) => Some(error),
            _ => None,
        }
    }

    /// The same with another name for the setting that it is about, if it is about one.
    pub fn renamed(self, name: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Files(error)
            | Self::Gmflow(gmflow::Error::Files(error))
            | Self::Data(gmflow_data::Error::Files(error))
                if error.is_config() =>
            {
                error.renamed(name).into()
            }
            other => other,
        }
    }

    /// The same about a file, where it was about what the file holds.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Files(error) => error.in_file(path).into(),
            other => other,
        }
    }
}
