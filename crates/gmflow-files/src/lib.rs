//! What every crate that reads or writes files needs to know about them.
//!
//! - [`FolderLock`]: one process at a time writes into a folder.
//! - [`what_is`]: what a file really is that is not what it should be.

pub mod lock;
mod what;

pub use lock::{FolderLock, LockError};
pub use what::what_is;
