//! What [`super::team`] synchronises threads with. A test puts the same names of a model checker in its place.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
