//! What every crate that reads or writes files needs to know about them.
//!
//! - [`lock::FolderLock`]: one process at a time writes into a folder.
//! - [`fn@beside`]: relative paths in a configuration file.
//! - [`what_is`]: what a file really is that is not what it should be.
//! - [`no_file`]: pipes and devices in place of files.
//! - [`is_clutter`]: files that operating systems leave in folders.
//! - [`is_run`]: the folder of a training run, whose pictures are no data.
//! - [`enum@Error`]: what is wrong with a setting, a file or an operation on one, in all crates.
//! - [`text`], [`toml`] and [`json`]: text and settings from files, with errors in plain words that name the setting: [`Wrong`].
//! - [`is_url`]: data behind URLs rather than in files.
//! - [`to_byte`]: what a picture holds for a value in [-1, 1].
//! - [`seed`]: seeds of 64 bits in TOML, which has no such numbers.
//!
//! ```
//! use gmflow_files::{FolderLock, is_clutter, to_byte, what_is};
//!
//! assert_eq!([-1.0, 0.0, 1.0].map(to_byte), [0, 128, 255]);
//! assert_eq!(what_is(b""), Some("an empty file"));
//! assert!(is_clutter(".DS_Store".as_ref()));
//! let folder = tempfile::tempdir()?;
//! let lock = FolderLock::acquire(folder.path(), "example")?;
//! assert!(FolderLock::acquire(folder.path(), "another").is_err(), "one at a time");
//! # drop(lock);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod beside;
mod clutter;
mod error;
pub mod json;
mod locate;
pub mod lock;
mod pixel;
mod regular;
mod run_folder;
pub mod seed;
pub mod text;
pub mod toml;
mod url;
mod what;
mod words;

pub use beside::beside;
pub use clutter::is_clutter;
pub use error::Error;
pub use lock::{FolderLock, LockError};
pub use pixel::to_byte;
pub use regular::no_file;
pub use run_folder::{RUN_MANIFEST, is_run};
pub use url::{absolute, below, is_url, scheme};
pub use what::what_is;
pub use words::{choices, nearest};

/// What is wrong with a file or a setting, in plain words. The caller adds the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, got {got}")]
pub struct Wrong {
    /// The setting's full name, such as `train.lr`, or the place in the file, such as "line 3, column 5".
    pub field: String,
    /// What was expected there.
    pub expected: String,
    /// What was found, and a hint where there is one.
    pub got: String,
}

impl Wrong {
    /// Joins the three parts.
    pub fn new(field: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { field: field.into(), expected: expected.into(), got: got.into() }
    }
}
