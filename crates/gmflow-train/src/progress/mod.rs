//! What a run tells the outside while it goes on.
//!
//! ```
//! use gmflow_train::{Observer, StepReport};
//!
//! /// Remembers the newest loss.
//! struct Newest(f64);
//!
//! impl Observer for Newest {
//!     fn on_step(&mut self, report: &StepReport) {
//!         self.0 = report.loss;
//!     }
//! }
//!
//! let mut newest = Newest(0.0);
//! let report = StepReport { step: 1, images: 8, loss: 0.5, spectral_loss: None, grad_norm: 1.0, lr: 0.1, ..StepReport::default() };
//! newest.on_step(&report);
//! assert_eq!(newest.0, 0.5);
//! ```

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
