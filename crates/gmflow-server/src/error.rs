//! Why a server does not start.

use std::net::SocketAddr;

/// Why a server does not start; messages name the setting, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its domain.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// The setting.
        field: String,
        /// The values that are allowed.
        expected: String,
        /// The value that was found.
        got: String,
    },
    /// The address cannot be listened at.
    #[error("{address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The operating system refused what a server needs beside files: threads, timers.
    #[error("the server cannot run: {0}")]
    System(#[from] std::io::Error),
    /// A model refused.
    #[error(transparent)]
    Gmflow(#[from] gmflow::Error),
    /// A model's settings refused.
    #[error(transparent)]
    Eval(#[from] gmflow_eval::Error),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Config`].
    pub fn config(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Config { field: field.into(), expected: expected.into(), got: got.to_string() }
    }
}
