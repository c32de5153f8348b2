//! The crate's one error type.

/// What can go wrong between ranks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The world is not what the launcher or the caller says.
    #[error("{field}: expected {expected}, got {got}")]
    Config {
        /// What is wrong.
        field: String,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Another rank has ended, so that nothing can be done together any more.
    #[error("rank {rank} has ended; the others cannot go on without it")]
    Gone {
        /// The rank.
        rank: usize,
    },
    /// The ranks are not at the same point of the program.
    #[error("expected all ranks in the same operation, got {got} where rank {rank} is in {other}")]
    OutOfStep {
        /// The operation of this rank.
        got: &'static str,
        /// Another rank.
        rank: usize,
        /// Its operation.
        other: &'static str,
    },
    /// No other rank has answered for too long.
    #[error(
        "{operation}: expected an answer of all ranks within {seconds} s, got none; a rank or the network between them hangs"
    )]
    Timeout {
        /// The operation.
        operation: &'static str,
        /// The time.
        seconds: u64,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn config(field: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Config { field: field.into(), expected: expected.into(), got: got.to_string() }
    }
}
