//! Buffers and the division of work among threads.

use crate::kernel::simd::row::VECTOR;
use crate::{Error, Result};
use bytemuck::Pod;
use rayon::prelude::*;
use std::cell::Cell;
use std::mem::MaybeUninit;

/// Values that one task handles at the least: below this a thread costs more than it saves.
pub(crate) const TASK: usize = 16 * 1024;

/// Runs `f` on a thread of the pool. Kernels that are called from any other thread each wait for one of the pool to wake up,
/// which costs small networks more than their arithmetic.
pub fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Starts the threads of the pool, which otherwise begin with the first kernel: a program that cannot have them learns it here.
///
/// # Errors
/// [`crate::FilesError::Io`] where the system refuses a thread: its stack has no memory, or there are too many processes.
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

/// A vector of values that are still to be written: large vectors are not zeroed first. In tests all bits are ones, which is NaN.
pub(crate) struct UninitVec<T> {
    values: Vec<T>,
    len: usize,
}

impl<T: Copy> UninitVec<T> {
    /// Of `len` values.
    pub fn new(len: usize) -> Self {
        let mut values = Vec::with_capacity(len);
        if cfg!(test) {
            let room: &mut [MaybeUninit<T>] = values.spare_capacity_mut();
            // SAFETY: the memory is that of the room, in which any bits may stand.
            unsafe { room.as_mut_ptr().write_bytes(0xff, room.len()) };
        }
        Self { values, len }
    }

    /// Where the values are written.
    pub fn room(&mut self) -> &mut [MaybeUninit<T>] {
        &mut self.values.spare_capacity_mut()[..self.len]
    }

    /// The vector.
    ///
    /// # Safety
    /// Every value must have been written.
    pub unsafe fn assume_init(mut self) -> Vec<T> {
        // SAFETY: `new` has made room for as many, and the caller has written them.
        unsafe { self.values.set_len(self.len) };
        self.values
    }
}

/// Writes the same value everywhere.
pub(crate) fn fill<T: Copy>(out: &mut [MaybeUninit<T>], value: T) {
    out.fill(MaybeUninit::new(value));
}

/// Values as places to be written to.
///
/// # Safety
/// Nothing but values may be written: what is moved there must be initialised.
pub(crate) unsafe fn as_uninit<T: Copy>(values: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: the layouts are the same, and by the contract the values stay initialised.
    unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<T>]) }
}

/// Places as those of the smaller numbers that theirs are made of.
pub(crate) fn parts<T: Pod, U: Pod>(places: &mut [MaybeUninit<T>]) -> &mut [MaybeUninit<U>] {
    const {
        assert!(size_of::<T>().is_multiple_of(size_of::<U>()) && align_of::<T>().is_multiple_of(align_of::<U>()));
    }
    let len = places.len() * (size_of::<T>() / size_of::<U>());
    // SAFETY: they take up the same memory, in which any bits may stand.
    unsafe { std::slice::from_raw_parts_mut(places.as_mut_ptr().cast(), len) }
}

/// Numbers of room that a thread keeps: half of what a core's own cache holds.
const KEPT: usize = 512 * 1024 / size_of::<f32>();

thread_local! {
    static ROOM: Cell<Vec<MaybeUninit<f32>>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with room for `n` numbers, from the start of a line of the cache on. A thread gets the same room again, which its core's own
/// cache then still holds; an allocator goes through much more of the memory before it gives out a piece again.
pub(crate) fn with_room<R>(n: usize, f: impl FnOnce(&mut [MaybeUninit<f32>]) -> R) -> R {
    let mut room = ROOM.take();
    if room.len() < n + VECTOR {
        room = vec![MaybeUninit::uninit(); n + VECTOR];
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
