//! The allocator of the program: mimalloc, which ends the program with a message where memory is refused.
//!
//! Rust ends a program without memory with SIGABRT, which looks like a fault of the program and may leave a core dump behind.

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// mimalloc's number for the delay before unused memory goes back to the system, in milliseconds; -1 is never.
const PURGE_DELAY: i32 = 15;
/// Milliseconds after which a server gives memory back.
#[cfg(feature = "serve")]
const SOON: std::ffi::c_long = 100;
/// The exit code of a program that failed while running.
const FAILED: i32 = 1;

/// Keeps freed memory for the next step from now on: given back, it would be cleared anew, a quarter of the time of a training step. What was
/// freed before is given back: it was that of the start, which no step needs.
pub fn keep_freed_memory() {
    // SAFETY: the allocator in use; MIMALLOC_PURGE_DELAY in the environment goes before its option.
    unsafe {
        libmimalloc_sys::mi_collect(true);
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1);
    }
}

/// Gives freed memory back soon, for a process that runs for days: many threads free each other's memory, and kept for ever it grows.
#[cfg(feature = "serve")]
pub fn give_freed_memory_back() {
    // SAFETY: an option of the allocator in use; MIMALLOC_PURGE_DELAY in the environment goes before it.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, SOON) };
}

/// mimalloc. The system's allocator gives every large tensor back to the kernel and has it cleared again on the next step.
pub struct Allocator;

// SAFETY: every call goes to mimalloc as it is; what comes back is passed on, or the program ends.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        given(unsafe { MiMalloc.realloc(memory, layout, size) }, size)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(memory, layout) };
    }
}

fn given(memory: *mut u8, size: usize) -> *mut u8 {
    if memory.is_null() {
        end(size);
    }
    memory
}

/// Says how much could not be had and ends the program at once. Nothing here allocates.
#[cold]
fn end(size: usize) -> ! {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::SeqCst) {
        let mut text = [0u8; 400];
        let length = message(size, &mut text);
        write_stderr(text.get(..length).unwrap_or_default());
    }
    // SAFETY: ends the process without running anything else of it: what runs at an ordinary end may allocate.
    unsafe { _exit(FAILED) }
}

unsafe extern "C" {
    fn _exit(code: i32) -> !;
}

/// Writes the message into `text` and returns its length.
fn message(size: usize, text: &mut [u8]) -> usize {
    const UNITS: [(usize, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    let whole = text.len();
    let mut rest = text;
    let unit = UNITS.iter().find(|(bytes, _)| size >= *bytes);
    // A write to a slice of enough room does not fail; a message that is cut is better than none.
    let _ = match unit {
        Some((bytes, unit)) => {
            let tenths = size / (bytes / 10);
            write!(rest, "error: not enough memory: an allocation of {}.{} {unit} failed", tenths / 10, tenths % 10)
        }
        None => write!(rest, "error: not enough memory: an allocation of {size} bytes failed"),
    };
    let _ = rest.write_all(
        b"; lower the batch (--batch, train.batch_size, train.micro_batch), the number of samples or their size, or allow the process more \
memory (ulimit -v, the container's limit)\n",
    );
    whole - rest.len()
}

/// To stderr without a lock or a buffer of Rust's, which another thread may hold.
#[cfg(unix)]
fn write_stderr(text: &[u8]) {
    use std::mem::ManuallyDrop;
    use std::os::fd::FromRawFd;
    const STDERR: i32 = 2;
    // SAFETY: the file is not closed here.
    let mut stderr = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(STDERR) });
    // There is nothing left to do where this fails.
    let _ = stderr.write_all(text);
}

/// To stderr.
#[cfg(not(unix))]
fn write_stderr(text: &[u8]) {
    let _ = std::io::stderr().write_all(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "serve")]
    #[test]
    fn a_server_gives_back_what_other_commands_keep() {
        // SAFETY: the value of an option.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        keep_freed_memory();
        let kept = delay();
        give_freed_memory_back();
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            assert_eq!((kept, delay()), (-1, SOON));
        }
    }

    #[test]
    fn the_message_has_the_size() {
        for (size, words) in [
            (512, "an allocation of 512 bytes failed; lower"),
            (75_497_472, "an allocation of 75.4 MB failed; lower"),
            (4_000_000_000, "an allocation of 4.0 GB failed; lower"),
            (usize::MAX, " GB failed; lower"),
        ] {
            let mut text = [0u8; 400];
            let length = message(size, &mut text);
            let text = std::str::from_utf8(&text[..length]).unwrap();
            assert!(text.starts_with("error: not enough memory: ") && text.contains(words), "{text}");
            assert!(text.ends_with("limit)\n"), "{text}");
        }
    }
}
