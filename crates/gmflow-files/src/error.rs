//! What every crate that reads settings and files can fail with.

use crate::Wrong;
use std::path::PathBuf;

/// What is wrong with a setting or a file; messages name the file or field, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting or argument is outside its domain.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// The setting's full name, as written in the file or on the command line.
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
        /// The part of the file, such as a tensor's name, a row or a header field.
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

impl Error {
    /// An [`Error::Config`].
    pub fn config(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Config { field: shown(&field.into()), expected: expected.into(), got: shown(&got.to_string()) }
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

    /// An [`Error::File`] for what is wrong in the file at `path`.
    pub fn wrong(path: impl Into<PathBuf>, wrong: Wrong) -> Self {
        let Wrong { field, expected, got } = wrong;
        Self::file(path, field, expected, got)
    }

    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// Whether a setting is at fault, and not a file or the system.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config { .. })
    }

    /// The same about a file, where it was about a setting that the file holds.
    pub fn in_file(self, at: impl Into<PathBuf>) -> Self {
        match self {
            Self::Config { field, expected, got } => Self::File { path: at.into(), field, expected, got },
            other => other,
        }
    }

    /// The same with another name for the setting that it is about, if it is about one.
    pub fn renamed(self, name: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Config { field, expected, got } => Self::Config { field: name(&field), expected, got },
            other => other,
        }
    }
}

/// The constructors of [`Error`] for a crate's own type, which has a variant for it.
#[macro_export]
macro_rules! error_constructors {
    ($error:ty) => {
        impl $error {
            /// A setting or argument that is outside its domain.
            pub fn config(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
                $crate::Error::config(field, expected, got).into()
            }

            /// A file that is not what it should be.
            pub fn file(
                path: impl Into<std::path::PathBuf>,
                field: impl Into<String>,
                expected: impl Into<String>,
                got: impl ToString,
            ) -> Self {
                $crate::Error::file(path, field, expected, got).into()
            }

            /// What is wrong in the file at `path`.
            pub fn wrong(path: impl Into<std::path::PathBuf>, wrong: $crate::Wrong) -> Self {
                $crate::Error::wrong(path, wrong).into()
            }

            /// The operating system's refusal of an operation on `path`.
            pub fn io(path: impl Into<std::path::PathBuf>, source: std::io::Error) -> Self {
                $crate::Error::io(path, source).into()
            }
        }
    };
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
