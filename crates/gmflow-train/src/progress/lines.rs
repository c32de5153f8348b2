//! Progress as lines, for files and pipes.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Observer, Status, about};
use crate::trainer::StepReport;

/// Writes a line now and then: step, loss, rate and time left.
#[derive(Debug)]
pub struct Lines<W: Write> {
    out: W,
    samples: (usize, &'static str),
    every: Duration,
    status: Option<Status>,
    /// When a line was written last, and whether the expected end has been told.
    written: (Instant, bool),
}

impl<W: Write> Lines<W> {
    /// The expected end is told after this share of the time between lines.
    const FIRST: u32 = 5;

    /// Lines to `out` every `every`, for steps of so many samples, which are called images or points.
    pub fn new(out: W, samples: (usize, &'static str), every: Duration) -> Self {
        Self { out, samples, every, status: None, written: (Instant::now(), false) }
    }

    /// A line that cannot be written, because the reader has gone, stops no training.
    fn write(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    fn due(&mut self, now: Instant) {
        let Some(status) = self.status else { return };
        let since = now.saturating_duration_since(self.written.0);
        if since >= self.every {
            self.written = (now, true);
            return self.write(&status.line());
        }
        if let (false, true, Some(left)) = (self.written.1, since * Self::FIRST >= self.every, status.left()) {
            self.written.1 = true;
            self.write(&format!("expected end in {}", about(left)));
        }
    }
}

impl<W: Write> Observer for Lines<W> {
    fn on_start(&mut self, step: u64, total: u64) {
        let now = Instant::now();
        self.status = Some(Status::new(step, total, self.samples, now));
        self.written = (now, false);
    }

    fn on_step(&mut self, report: &StepReport) {
        let now = Instant::now();
        if let Some(status) = &mut self.status {
            status.add(report, now);
        }
        self.due(now);
    }

    fn on_samples(&mut self, picture: &Path) {
        self.write(&format!("picture {}", picture.display()));
    }

    fn on_end(&mut self) {
        if let Some(status) = self.status.take() {
            self.write(&status.line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_names_step_loss_rate_and_the_time_left() {
        let mut lines = Lines::new(Vec::new(), (32, "images"), Duration::ZERO);
        lines.on_start(0, 100);
        for step in 1..=4 {
            lines.on_step(&StepReport {
                step,
                images: 32 * step,
                loss: -1.5,
                spectral_loss: None,
                grad_norm: 1.0,
                lr: 0.1,
                ..StepReport::default()
            });
            std::thread::sleep(Duration::from_millis(1));
        }
        lines.on_samples(Path::new("run/samples/step-00000004.png"));
        let text = String::from_utf8(lines.out).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), 5, "{text}");
        assert_eq!(found[0], "step 1 of 100, loss -1.5000");
        assert!(found[3].starts_with("step 4 of 100, loss -1.5000, ") && found[3].ends_with(" left"), "{text}");
        assert!(found[3].contains("images/s") && found[4].contains("step-00000004.png"), "{text}");
    }

    #[test]
    fn lines_wait_for_their_time() {
        let mut lines = Lines::new(Vec::new(), (32, "images"), Duration::from_secs(3600));
        lines.on_start(0, 3);
        for step in 1..=3 {
            lines.on_step(&StepReport {
                step,
                images: step,
                loss: 1.0,
                spectral_loss: None,
                grad_norm: 1.0,
                lr: 0.1,
                ..StepReport::default()
            });
        }
        assert!(lines.out.is_empty());
        lines.on_end();
        assert!(String::from_utf8(lines.out).unwrap().starts_with("step 3 of 3, loss 1.0000"));
    }
}
