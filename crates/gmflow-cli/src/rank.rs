//! The number of this process among those that work together: who speaks to the user, and what stands before messages.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of this process.
static RANK: AtomicUsize = AtomicUsize::new(0);

/// From now on this process has this number.
pub fn set(rank: usize) {
    RANK.store(rank, Ordering::Relaxed);
}

/// Whether this is the process that speaks to the user: the only one, or rank 0.
pub fn speaks() -> bool {
    rank() == 0
}

/// The number of this process among those that work together.
fn rank() -> usize {
    RANK.load(Ordering::Relaxed)
}

/// What stands before messages of all processes but the first.
pub fn prefix() -> String {
    if speaks() { String::new() } else { format!("[rank {}] ", rank()) }
}

/// An error of several ranks that is none of this one's.
pub fn is_of_another(error: &anyhow::Error) -> bool {
    !speaks() && matches!(error.downcast_ref(), Some(gmflow_train::Error::Rank { .. }))
}
