//! The crate's one error type.
//!
//! ```
//! use gmflow_train::{Config, Error};
//!
//! let refused = Config::parse("train = 7", "a.toml".as_ref(), &[]).unwrap_err();
//! assert!(matches!(refused, Error::Config { .. } | Error::Several(_)), "{refused}");
//! ```

use std::path::{Path, PathBuf};

use gmflow_files::{Error as FilesError, Wrong};

/// What can go wrong in training; messages name the file or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is unknown, has the wrong type or is outside its domain.
    #[error("{source_name}{}{field}: expected {expected}, got {got}", if source_name.is_empty() { "" } else { ": " })]
    Config {
        /// The configuration file, or `--set` for an override; empty where the value came from neither.
        source_name: String,
        /// The setting's full name, such as `train.lr`.
        field: String,
        /// The values that are allowed.
        expected: String,
        /// The value that was found.
        got: String,
    },
    /// A file of a run, or an operation on one.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Several settings are wrong.
    #[error("{}", lines(.0))]
    Several(Vec<Error>),
    /// The method, the network or a model folder refused.
    #[error(transparent)]
    Gmflow(#[from] gmflow::Error),
    /// The data set refused.
    #[error(transparent)]
    Data(#[from] gmflow_data::Error),
    /// Another process writes into the folder.
    #[error(transparent)]
    Locked(#[from] gmflow_files::LockError),
    /// The output folder holds files that a run would overwrite and no run wrote.
    #[error(
        "{}: expected an empty folder or that of a run, got {} that no run of gmflow wrote; choose another folder with --out",
        path.display(), names.join(", ")
    )]
    Foreign {
        /// The output folder.
        path: PathBuf,
        /// The names.
        names: Vec<String>,
    },
    /// A checkpoint is damaged.
    #[error("{cause}; {}", advice(*whole))]
    Damaged {
        /// The damage.
        cause: Box<Error>,
        /// The step of the newest older checkpoint that is whole.
        whole: Option<u64>,
    },
    /// The run ended by an error after its steps were saved.
    #[error("{cause}; step {step} is saved{}", if has_a_way_around(cause) { "" } else { ", and --resume continues from there" })]
    Saved {
        /// What ended the run.
        cause: Box<Error>,
        /// The step of the checkpoint.
        step: u64,
    },
    /// The output folder lies in the folder of the data.
    #[error(
        "{}: expected a folder for the run outside the data, got one in {}, where the pictures of the run would become data; \
         --out names another folder",
        path.display(), data.display()
    )]
    InData {
        /// The output folder.
        path: PathBuf,
        /// The folder of the data.
        data: PathBuf,
    },
    /// The output folder already holds a run.
    #[error("{}: already holds a run: --resume continues it, --force removes it and starts anew, --out names another folder", path.display())]
    RunExists {
        /// The output folder.
        path: PathBuf,
    },
    /// There is no run in the folder.
    #[error("{}: expected the folder of a run, with its config.toml, got none; a run is begun without --resume", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// There is nothing to resume from.
    #[error("{}: expected a checkpoint in checkpoints/, where there has been one, got none; --force starts anew", path.display())]
    NoCheckpoint {
        /// The folder that was searched.
        path: PathBuf,
    },
    /// The loss or a gradient is not finite; training stopped before the weights changed.
    #[error(
        "step {step}: {what} is not finite; lower train.lr, or set train.clip_grad_norm = 1.0 and a longer train.warmup_steps{}",
        dump.as_ref().map(|d| format!("; what was computed is in {}", d.display())).unwrap_or_default()
    )]
    NonFinite {
        /// The step, counted from 1, that would have been taken.
        step: u64,
        /// The loss, or the first parameter with a bad gradient.
        what: String,
        /// The folder with what is needed to see why.
        dump: Option<PathBuf>,
    },
    /// A weight, moment or average is not finite, so that nothing can be saved.
    #[error(
        "step {step}: {what} is not finite, so the step is not saved; earlier checkpoints stay; lower train.lr, or set train.clip_grad_norm"
    )]
    StateNotFinite {
        /// Steps taken.
        step: u64,
        /// What is not finite.
        what: String,
    },
    /// Another process of the run has failed.
    #[error("rank {rank}: {message}")]
    Rank {
        /// Its number.
        rank: usize,
        /// What it said.
        message: String,
    },
    /// The processes of a run cannot work together any more.
    #[error(transparent)]
    World(#[from] gmflow_world::Error),
    /// The weights of the processes of a run are no longer the same.
    #[error(
        "step {step}: expected the same weights on all ranks, got others on rank {rank} than on rank 0: unlike processors, or a fault of \
         memory; the step is not saved, and earlier checkpoints stay"
    )]
    Drift {
        /// Steps taken.
        step: u64,
        /// The first rank that differs.
        rank: usize,
    },
    /// The thread that prepares batches ended early.
    #[error("the data thread ended before the run did")]
    DataThread,
}

fn advice(whole: Option<u64>) -> String {
    match whole {
        Some(step) => format!("the checkpoint of step {step} is whole: --resume-from {step} continues from there"),
        None => "no older checkpoint is whole; --force starts anew".into(),
    }
}

/// Whether the error says itself with which options the run goes on: without them it would end there again.
fn has_a_way_around(cause: &Error) -> bool {
    matches!(cause, Error::Data(error) if error.is_corrupt())
}

/// One line for each.
fn lines(errors: &[Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Config`] for a value outside its domain; the file's name is added by [`Error::in_file`].
    pub(crate) fn config(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Config {
            source_name: String::new(),
            field: field.into(),
            expected: expected.into(),
            got: got.to_string(),
        }
    }

    /// Nothing, or all errors as one.
    pub(crate) fn all(errors: Vec<Self>) -> Result<()> {
        if errors.is_empty() { Ok(()) } else { Err(Self::several(errors)) }
    }

    /// The only error, or all of them as one.
    pub(crate) fn several(mut errors: Vec<Self>) -> Self {
        match errors.pop() {
            Some(only) if errors.is_empty() => only,
            last => {
                errors.extend(last);
                Self::Several(errors)
            }
        }
    }

    /// An [`Error::Config`] for what is wrong with a file or with an override.
    pub(crate) fn wrong(source_name: impl ToString, wrong: Wrong) -> Self {
        let Wrong { field, expected, got } = wrong;
        Self::Config { source_name: source_name.to_string(), field, expected, got }
    }

    /// The operating system's refusal of an operation on `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        FilesError::io(path, source).into()
    }

    /// A file that is not what it should be.
    pub(crate) fn file(
        path: impl Into<PathBuf>,
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        FilesError::file(path, field, expected, got).into()
    }

    /// Whether it says that a file is damaged or missing, as opposed to a setting that does not fit.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Files(error) | Self::Gmflow(gmflow::Error::Files(error)) => !error.is_config(),
            _ => false,
        }
    }

    /// What is wrong with a file, where it is that, in this crate or in one below.
    pub fn files(&self) -> Option<&FilesError> {
        match self {
            Self::Files(error)
            | Self::Gmflow(gmflow::Error::Files(error))
            | Self::Data(gmflow_data::Error::Files(error)) => Some(error),
            _ => None,
        }
    }

    /// The setting that it is about; none of errors that are about no single one.
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::Config { field, .. } => Some(field),
            _ => None,
        }
    }

    /// Names the configuration file in a configuration error, or the override that set the value.
    pub(crate) fn in_file(self, path: &Path, overrides: &[String]) -> Self {
        match self {
            Self::Config { field, expected, got, .. } => Self::Config {
                source_name: crate::config::overrides::source_of(&field, path, overrides),
                field,
                expected,
                got,
            },
            Self::Several(errors) => {
                Self::Several(errors.into_iter().map(|error| error.in_file(path, overrides)).collect())
            }
            other => other,
        }
    }
}
