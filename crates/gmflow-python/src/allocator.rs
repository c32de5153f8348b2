//! The allocator of what the library computes: mimalloc, which keeps freed memory for the next call.
//!
//! The system's allocator gives large arrays back to the kernel, which clears them anew on the next call. Memory of Python itself, NumPy and
//! PyTorch is not concerned.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// mimalloc's number for the delay before unused memory goes back to the system, in milliseconds.
const PURGE_DELAY: i32 = 15;
/// Longer than a training step of most networks.
const MILLISECONDS: i32 = 2000;

/// Keeps freed memory for some time.
pub fn keep_freed_memory() {
    // SAFETY: an option of the allocator in use; MIMALLOC_PURGE_DELAY in the environment goes before it.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, MILLISECONDS.into()) };
}
