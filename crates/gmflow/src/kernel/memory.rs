//! Buffers and the division of work among threads.

use bytemuck::AnyBitPattern;
use rayon::prelude::*;

/// Values that one task handles at the least: below this a thread costs more than it saves.
const TASK: usize = 16 * 1024;

/// Runs `f` on a thread of the pool. Kernels that are called from any other thread each wait for one of the pool to wake up,
/// which costs small networks more than their arithmetic.
pub fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// A vector of `n` values that `fill` writes; large vectors are not zeroed first.
pub(super) fn build<T: AnyBitPattern>(n: usize, fill: impl FnOnce(&mut [T])) -> Vec<T> {
    let mut values = Vec::with_capacity(n);
    // SAFETY: the capacity suffices, every bit pattern is valid, and each `fill` of this crate writes every element without
    // reading one before.
    #[allow(clippy::uninit_vec)]
    unsafe {
        values.set_len(n);
    }
    fill(&mut values);
    values
}

/// Calls `f(first row, rows)` on pieces of `out`, a matrix of rows of `width`, in parallel where it is large.
pub(super) fn par_rows<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if out.len() <= TASK || width == 0 {
        return f(0, out);
    }
    let rows = (TASK / width).max(1);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, piece)| f(i * rows, piece));
}

/// Calls `f` on every item, in parallel where `work` values are many; rayon splits the items as it sees fit.
pub(super) fn par_items<T: Send>(items: Vec<T>, work: usize, f: impl Fn(T) + Sync + Send) {
    if work <= TASK {
        return items.into_iter().for_each(f);
    }
    let least = (TASK * items.len()).div_ceil(work);
    items.into_par_iter().with_min_len(least).for_each(f);
}

/// The results of `f` on every item, in order; `f` may use what `init` makes, which is made anew now and then.
pub(super) fn par_map<T: Send, S, R: Send>(
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
