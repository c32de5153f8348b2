//! The bar of a training run.

use super::{line, say};
use console::Term;
use gmflow_train::StepReport;
use gmflow_train::progress::{Observer, Status, about, duration};
use indicatif::ProgressBar;
use std::path::Path;
use std::time::{Duration, Instant};

/// The longest and the shortest bar.
const BAR: [usize; 2] = [30, 5];
/// Time between two drawings.
const BETWEEN: Duration = Duration::from_millis(100);

/// One line with a bar, step, loss, rate and the time left, as much of them as the window has room for.
#[derive(Debug)]
pub struct Training {
    bar: ProgressBar,
    samples: (usize, &'static str),
    status: Option<Status>,
    drawn: Instant,
    told: bool,
}

impl Training {
    /// For steps of so many samples, which are called images or points.
    pub fn new(samples: (usize, &'static str)) -> Self {
        Self { bar: line(), samples, status: None, drawn: Instant::now(), told: false }
    }

    fn draw(&mut self) {
        if let Some(status) = &self.status {
            let columns = usize::from(Term::stderr().size().1).saturating_sub(3);
            self.bar.set_message(worded(status, columns));
        }
    }
}

impl Observer for Training {
    fn on_start(&mut self, step: u64, total: u64) {
        self.status = Some(Status::new(step, total, self.samples, Instant::now()));
        self.draw();
    }

    fn on_step(&mut self, report: &StepReport) {
        let now = Instant::now();
        let Some(status) = &mut self.status else { return };
        status.add(report, now);
        if let (false, Some(left)) = (self.told, status.left()) {
            self.told = true;
            say(&format!("expected end in {}", about(left)));
        }
        if now.saturating_duration_since(self.drawn) >= BETWEEN {
            self.drawn = now;
            self.draw();
        }
    }

    fn on_samples(&mut self, picture: &Path) {
        say(&format!("picture {}", picture.display()));
    }

    fn on_end(&mut self) {
        self.draw();
        self.bar.finish_and_clear();
        if let Some(status) = self.status.take() {
            say(&status.line());
        }
    }
}

/// The line, without what there is no room for in so many columns: first the bar gets shorter, then the rate goes, then the loss.
fn worded(status: &Status, columns: usize) -> String {
    let left = status.left().map(|left| format!("{} left", duration(left)));
    let parts = [Some(status.steps(false)), status.loss(), status.rate(), left.clone()];
    let join =
        |parts: &[&Option<String>]| parts.iter().filter_map(|part| part.as_deref()).collect::<Vec<_>>().join("  ");
    let [steps, loss, rate, _] = &parts;
    let text = join(&[steps, loss, rate, &left]);
    let room = columns.saturating_sub(text.len() + 3).min(BAR[0]);
    if room >= BAR[1] {
        let full = (status.share() * room as f64) as usize;
        return format!("[{}{}] {text}", "#".repeat(full.min(room)), "-".repeat(room - full.min(room)));
    }
    let short = Some(status.steps(true));
    let wordings = [text, join(&[&short, loss, rate, &left]), join(&[&short, loss, &left]), join(&[&short, &left])];
    wordings.into_iter().find(|text| text.len() <= columns).unwrap_or_else(|| status.steps(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let start = Instant::now();
        let mut status = Status::new(0, 42_000, (32, "images"), start);
        for step in 1..=4200 {
            let report = StepReport {
                step,
                images: 0,
                loss: -2.5,
                spectral_loss: None,
                grad_norm: 1.0,
                lr: 0.1,
                ..StepReport::default()
            };
            status.add(&report, start + Duration::from_millis(100) * step as u32);
        }
        status
    }

    #[test]
    fn a_line_never_outgrows_its_window() {
        let status = status();
        for columns in 0..200 {
            let text = worded(&status, columns);
            assert!(text.len() <= columns || text == "4200/42000", "{columns}: {text}");
        }
        let wide = worded(&status, 120);
        assert_eq!(
            wide,
            format!(
                "[{}{}] step 4,200 of 42,000  loss -2.5000  320 images/s  1 h 3 min left",
                "#".repeat(3),
                "-".repeat(27)
            )
        );
        assert_eq!(worded(&status, 40), "4200/42000  loss -2.5000  1 h 3 min left");
        assert_eq!(worded(&status, 30), "4200/42000  1 h 3 min left");
    }
}
