//! How far a long measurement is, for whoever shows it.

use crate::Result;
use std::ops::ControlFlow;

/// Is told of the parts of a measurement. A part may begin within another. `()` shows nothing.
///
/// ```
/// use gmflow_eval::Progress;
///
/// /// Prints a line for each part.
/// struct Lines;
///
/// impl Progress for Lines {
///     fn begin(&mut self, what: &'static str, total: u64, unit: &'static str) {
///         eprintln!("{what}: {total} {unit}");
///     }
/// }
/// ```
pub trait Progress {
    /// A part begins, such as "sampling" of 1000 "images".
    fn begin(&mut self, _what: &'static str, _total: u64, _unit: &'static str) {}
    /// So many units of the innermost part are done, of a total that may only now be known.
    fn at(&mut self, _done: u64, _total: u64) {}
    /// Asked after some units of the innermost part: whether to go on. Where not, the measurement fails with
    /// [`gmflow::Error::Cancelled`].
    fn goes_on(&mut self) -> bool {
        true
    }
    /// The innermost part has ended, whether all of it was done or not.
    fn end(&mut self) {}
}

impl Progress for () {}

/// A part that ends when it is dropped.
pub(crate) struct Part<'a> {
    progress: &'a mut dyn Progress,
    total: u64,
}

impl<'a> Part<'a> {
    /// Begins a part.
    pub(crate) fn begin(progress: &'a mut dyn Progress, what: &'static str, total: u64, unit: &'static str) -> Self {
        progress.begin(what, total, unit);
        Self { progress, total }
    }

    /// So much of it is done.
    pub(crate) fn at(&mut self, done: u64) -> Result<()> {
        self.progress.at(done, self.total);
        if self.progress.goes_on() || done >= self.total { Ok(()) } else { Err(gmflow::Error::Cancelled.into()) }
    }

    /// The same, of a total that was not known at the beginning.
    pub(crate) fn at_of(&mut self, done: u64, total: u64) -> ControlFlow<()> {
        self.total = total;
        self.progress.at(done, total);
        if self.progress.goes_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Where the parts within this one are told.
    pub(crate) fn within(&mut self) -> &mut dyn Progress {
        self.progress
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.progress.end();
    }
}
