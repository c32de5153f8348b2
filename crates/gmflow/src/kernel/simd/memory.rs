//! Buffers and the division of work among threads.

use crate::kernel::simd::row::VECTOR;
use crate::{Error, Result};
use bytemuck::AnyBitPattern;
use rayon::prelude::*;
use std::cell::Cell;
use std::mem::{ManuallyDrop, MaybeUninit};

/// Values that one task handles at the least: below this a thread costs more than it saves.
const TASK: usize = 16 * 1024;

/// Runs `f` on a thread of the pool. Kernels that are called from any other thread each wait for one of the pool to wake up,
/// which costs small networks more than their arithmetic.
pub fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Starts the threads of the pool, which otherwise begin with the first kernel: a program that cannot have them learns it here.
///
/// # Errors
/// [`Error::Io`] where the system refuses a thread: its stack has no memory, or there are too many processes.
pub fn start_threads() -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    match rayon::ThreadPoolBuilder::new().build_global() {
        Ok(()) => Ok(()),
        Err(error) => match std::error::Error::source(&error) {
            // Some other part of the program has started them.
            None => Ok(()),
            Some(cause) => {
                let advice =
                    "allow the process more memory or processes (ulimit -v, ulimit -u), or set RAYON_NUM_THREADS=1";
                let error = std::io::Error::other(format!("cannot be started ({cause}): {advice}"));
                Err(Error::io(format!("{threads} threads"), error))
            }
        },
    }
}

/// The promise that a function writes every element of what it is given, and reads none before.
#[derive(Clone, Copy)]
pub(crate) struct WritesAll(());

impl WritesAll {
    /// # Safety
    /// The function that it is given with must keep the promise.
    pub(crate) unsafe fn promise() -> Self {
        Self(())
    }
}

/// A vector of `n` values that `fill` writes; large vectors are not zeroed first. In tests they hold ones in all bits, which are NaN.
pub(crate) fn build<T: AnyBitPattern>(n: usize, _: WritesAll, fill: impl FnOnce(&mut [T])) -> Vec<T> {
    let mut values: Vec<MaybeUninit<T>> = Vec::with_capacity(n);
    if cfg!(test) {
        // SAFETY: there is room for as many values, and every bit pattern is one.
        unsafe { values.as_mut_ptr().write_bytes(0xff, n) };
    }
    // SAFETY: the capacity suffices, and these elements need no value.
    unsafe { values.set_len(n) };
    // SAFETY: the layouts are the same; every bit pattern is valid, and by the promise all elements are written before one is read.
    fill(unsafe { &mut *(std::ptr::from_mut(values.as_mut_slice()) as *mut [T]) });
    let mut values = ManuallyDrop::new(values);
    // SAFETY: by the promise all elements have been written; pointer, length and capacity are those of a vector of the same layout.
    unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), n, values.capacity()) }
}

/// Numbers of room that a thread keeps: half of what a core's own cache holds.
const KEPT: usize = 512 * 1024 / size_of::<f32>();

thread_local! {
    static ROOM: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with room for `n` numbers, in which anything may stand, from the start of a line of the cache on. A thread gets the same room
/// again, which its core's own cache then still holds; an allocator goes through much more of the memory before it gives out a piece again.
pub(crate) fn with_room<R>(n: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut room = ROOM.take();
    if room.len() < n + VECTOR {
        room = vec![0.0; n + VECTOR];
    }
    let skip = room.as_ptr().align_offset(VECTOR * size_of::<f32>()).min(VECTOR);
    let result = f(&mut room[skip..skip + n]);
    if room.len() <= KEPT {
        ROOM.set(room);
    }
    result
}

/// Calls `f(first row, rows)` on pieces of `out`, a matrix of rows of `width`, in parallel where it is large.
pub(crate) fn par_rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if out.len() <= TASK || width == 0 {
        return f(0, out);
    }
    let rows = (TASK / width).max(1);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, piece)| f(i * rows, piece));
}

/// Calls `f` on every item, in parallel where `work` values are many; rayon splits the items as it sees fit.
pub(crate) fn par_items<T: Send>(items: Vec<T>, work: usize, f: impl Fn(T) + Sync + Send) {
    if work <= TASK {
        return items.into_iter().for_each(f);
    }
    let least = (TASK * items.len()).div_ceil(work);
    items.into_par_iter().with_min_len(least).for_each(f);
}

/// The results of `f` on every item, in order; `f` may use what `init` makes, which is made anew now and then.
pub(crate) fn par_map<T: Send, S, R: Send>(
    items: Vec<T>,
    work: usize,
    init: impl Fn() -> S + Sync + Send,
    f: impl Fn(&mut S, T) -> R + Sync + Send,
) -> Vec<R> {
    if work <= TASK {
        let mut scratch = init();
        return items.into_iter().map(|item| f(&mut scratch, item)).collect();
    }
    let least = (TASK * items.len()).div_ceil(work);
    items.into_par_iter().with_min_len(least).map_init(init, f).collect()
}
