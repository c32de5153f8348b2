//! What a run tells the outside while it goes on, and the progress bar that listens.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::log::LogLine;
use crate::trainer::StepReport;

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

/// A progress bar on the terminal with loss, images/s and the time left; hidden where there is no terminal.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    batch_size: usize,
    smooth_loss: Option<f64>,
}

impl Progress {
    /// A bar for steps of `batch_size` samples.
    pub fn new(batch_size: usize) -> Self {
        Self { bar: ProgressBar::hidden(), batch_size, smooth_loss: None }
    }
}

impl Observer for Progress {
    fn on_start(&mut self, step: u64, total: u64) {
        let style = "{bar:30} step {pos}/{len}  {msg}  {elapsed} gone, {eta} left";
        self.bar = ProgressBar::new(total).with_position(step);
        if let Ok(style) = ProgressStyle::with_template(style) {
            self.bar.set_style(style);
        }
        self.bar.reset_eta();
    }

    fn on_step(&mut self, report: &StepReport) {
        let old = self.smooth_loss.unwrap_or(report.loss);
        let smooth = old + 0.05 * (report.loss - old);
        self.smooth_loss = Some(smooth);
        self.bar.set_position(report.step);
        let speed = self.bar.per_sec() * self.batch_size as f64;
        self.bar.set_message(format!("loss {smooth:.4}  {speed:.0} images/s"));
    }

    fn on_end(&mut self) {
        self.bar.abandon();
    }
}
