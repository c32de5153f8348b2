//! The crate's one error type.
//!
//! ```
//! use gmflow::solver::SolverConfig;
//! use gmflow::{Error, pipeline::SamplerConfig};
//!
//! let refused = SamplerConfig::new(SolverConfig::Euler, 0).validate();
//! assert!(matches!(refused, Err(Error::Config { field, .. }) if field == "steps"));
//! ```

use std::path::PathBuf;

/// What can go wrong in this crate; messages name the file or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// A setting is outside its domain.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// The setting's full name, as written in the file or on the command line.
        field: String,
        /// The values that are allowed.
        expected: String,
        /// The value that was found.
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
    /// A file is not what it should be.
    #[error("{}: {field}: expected {expected}, got {got}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The part of the file, such as a tensor's name.
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

/// Characters of a name or value from a file that a message repeats.
const SHOWN: usize = 300;

/// Text that may come from a file nobody vouches for: short, and without what steers a terminal.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Config`].
    pub fn config(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Config { field: shown(&field.into()), expected: expected.into(), got: shown(&got.to_string()) }
    }

    /// An [`Error::Shape`], with shapes written as lists.
    pub fn shape(what: impl Into<String>, expected: impl std::fmt::Debug, got: impl std::fmt::Debug) -> Self {
        Self::Shape { what: what.into(), expected: format!("{expected:?}"), got: format!("{got:?}") }
    }

    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// An [`Error::Hub`].
    pub fn hub(id: &impl std::fmt::Display, message: impl Into<String>) -> Self {
        Self::Hub { id: id.to_string(), message: message.into() }
    }

    /// An [`Error::File`] for what is wrong in the file at `path`.
    pub fn wrong(path: impl Into<PathBuf>, wrong: gmflow_files::Wrong) -> Self {
        let gmflow_files::Wrong { field, expected, got } = wrong;
        Self::file(path, field, expected, got)
    }

    /// An [`Error::File`].
    pub fn file(
        path: impl Into<PathBuf>,
        field: impl Into<String>,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self::File {
            path: path.into(),
            field: shown(&field.into()),
            expected: expected.into(),
            got: shown(&got.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_files_is_shortened_and_does_not_steer_the_terminal() {
        let message = Error::file("x.json", "name\n\u{1b}[2J", "a word", "é".repeat(1000)).to_string();
        assert!(message.starts_with("x.json: name  [2J: expected a word, got éé"), "{message}");
        assert!(message.ends_with("é...") && message.chars().count() < 400, "{message}");
        assert!(Error::config("steps", "at least 1", "é".repeat(SHOWN)).to_string().ends_with('é'));
    }
}
