//! The end of a process that other ranks wait for.

use crate::World;
use std::panic;
use std::sync::Weak;

/// The exit code of a rank that panicked or waited too long: that of a Rust program that panicked.
pub(crate) const FAILED: i32 = 101;

/// Ends the process without running anything else of it. An MPI library that runs its own end would wait there for the other ranks.
pub(crate) fn now(code: i32) -> ! {
    #[cfg(unix)]
    // SAFETY: ends the process; files are complete or under names of their own.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}

/// From now on a panic on any thread ends all ranks of this world, after its message: unwinding would wait in `MPI_Finalize` for ranks that
/// wait for this one.
pub fn end_on_panic(world: Weak<dyn World>) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        before(info);
        match world.upgrade() {
            Some(world) => world.abort(FAILED),
            None => now(FAILED),
        }
    }));
}
