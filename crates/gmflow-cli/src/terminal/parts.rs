//! Bars for the parts of a measurement.

use super::bar;
use gmflow_eval::Progress;
use indicatif::ProgressBar;

/// A bar for each part that has begun and not ended.
#[derive(Debug, Default)]
pub struct Parts(Vec<ProgressBar>);

impl Progress for Parts {
    fn begin(&mut self, what: &'static str, total: u64, unit: &'static str) {
        self.0.push(bar(total, what, unit));
    }

    fn at(&mut self, done: u64, total: u64) {
        if let Some(bar) = self.0.last() {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.0.pop() {
            bar.finish_and_clear();
        }
    }
}
