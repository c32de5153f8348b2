//! The models of a server: which there are, and which are in memory.

mod entry;
mod registry;

pub(crate) use entry::{Entry, Served};
pub(crate) use registry::Registry;
