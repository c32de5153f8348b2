//! What a run tells the outside while it goes on.

mod lines;
mod pace;

use std::path::Path;

use crate::log::LogLine;
use crate::trainer::StepReport;

pub use lines::Lines;
pub use pace::{Pace, Status, about, duration, grouped};

/// Listens to a run. Every method does nothing by default.
pub trait Observer {
    /// The run starts, or goes on, after `step` of `total` steps.
    fn on_start(&mut self, step: u64, total: u64) {
        let _ = (step, total);
    }

    /// A step was taken.
    fn on_step(&mut self, report: &StepReport) {
        let _ = report;
    }

    /// A line was logged.
    fn on_log(&mut self, line: &LogLine) {
        let _ = line;
    }

    /// A checkpoint is complete.
    fn on_checkpoint(&mut self, folder: &Path) {
        let _ = folder;
    }

    /// A picture of samples was written.
    fn on_samples(&mut self, picture: &Path) {
        let _ = picture;
    }

    /// The run ends, finished or stopped.
    fn on_end(&mut self) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
