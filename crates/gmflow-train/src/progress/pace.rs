//! How fast a run is, and how long it will take.

use std::time::{Duration, Instant};

use crate::trainer::StepReport;

/// After this long a step counts for 1/e of what the newest one counts for.
const MEMORY: Duration = Duration::from_secs(60);
/// What the newest loss counts for in the mean that is shown.
const NEWEST_LOSS: f64 = 0.05;
/// Steps and time before a rate is told: the first step is slower than all others.
const FIRST_STEPS: f64 = 3.0;

/// The rate of the steps of this call, the newest most. What an earlier call did is no sign of speed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    last: (Instant, u64),
    /// Weighted sums of steps and seconds.
    steps: f64,
    seconds: f64,
}

impl Pace {
    /// The clock starts at `now` after `step` steps.
    pub fn new(now: Instant, step: u64) -> Self {
        Self { last: (now, step), steps: 0.0, seconds: 0.0 }
    }

    /// `step` steps are done at `now`.
    pub fn update(&mut self, now: Instant, step: u64) {
        let seconds = now.saturating_duration_since(self.last.0).as_secs_f64();
        let kept = (-seconds / MEMORY.as_secs_f64()).exp();
        self.steps = self.steps * kept + step.saturating_sub(self.last.1) as f64;
        self.seconds = self.seconds * kept + seconds;
        self.last = (now, step);
    }

    /// Steps a second; none before there was one.
    pub fn per_second(&self) -> Option<f64> {
        (self.steps > 0.0 && self.seconds > 0.0).then(|| self.steps / self.seconds)
    }

    /// The time until `total` steps are done, at this rate.
    pub fn left(&self, total: u64) -> Option<Duration> {
        let seconds = total.saturating_sub(self.last.1) as f64 / self.per_second()?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Where a run stands, in words.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    batch_size: usize,
    what: &'static str,
    total: u64,
    step: u64,
    first: u64,
    loss: Option<f64>,
    pace: Pace,
}

impl Status {
    /// Before the first step of this call, after `step` of `total` steps of `batch_size` samples, which are called `what`.
    pub fn new(step: u64, total: u64, (batch_size, what): (usize, &'static str), now: Instant) -> Self {
        Self { batch_size, what, total, step, first: step, loss: None, pace: Pace::new(now, step) }
    }

    /// A step was taken.
    pub fn add(&mut self, report: &StepReport, now: Instant) {
        let old = self.loss.unwrap_or(report.loss);
        self.loss = Some(old + NEWEST_LOSS * (report.loss - old));
        self.step = report.step;
        // The first step warms caches up and packs nothing yet: the clock starts behind it.
        if report.step == self.first + 1 {
            self.pace = Pace::new(now, report.step);
        } else {
            self.pace.update(now, report.step);
        }
    }

    /// The share of the steps that are done.
    pub fn share(&self) -> f64 {
        self.step as f64 / self.total.max(1) as f64
    }

    /// `step 1,200 of 42,000`, or shorter.
    pub fn steps(&self, short: bool) -> String {
        match short {
            true => format!("{}/{}", self.step, self.total),
            false => format!("step {} of {}", grouped(self.step), grouped(self.total)),
        }
    }

    /// `loss -2.3745`; none before the first step.
    pub fn loss(&self) -> Option<String> {
        self.loss.map(|loss| format!("loss {loss:.4}"))
    }

    /// `312 images/s`; none before the second step.
    pub fn rate(&self) -> Option<String> {
        let rate = self.pace.per_second()? * self.batch_size as f64;
        let digits = if rate < 10.0 { 1 } else { 0 };
        Some(format!("{rate:.digits$} {}/s", self.what))
    }

    /// The time left, after a few steps and before the last.
    pub fn left(&self) -> Option<Duration> {
        if self.step >= self.total || ((self.step - self.first) as f64) < FIRST_STEPS {
            return None;
        }
        self.pace.left(self.total)
    }

    /// Everything in one line.
    pub fn line(&self) -> String {
        let left = self.left().map(|left| format!("{} left", duration(left)));
        let parts = [Some(self.steps(false)), self.loss(), self.rate(), left];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// A time in its two largest units: `45 s`, `12 min 30 s`, `1 h 20 min`, `3 d 4 h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let two = |large: u64, name: &str, small: u64, unit: &str| match small {
        0 => format!("{large} {name}"),
        small => format!("{large} {name} {small} {unit}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if minutes == 0 => format!("{seconds} s"),
        () if hours == 0 => two(minutes, "min", seconds % 60, "s"),
        () if days == 0 => two(hours, "h", minutes % 60, "min"),
        () => two(days, "d", hours % 24, "h"),
    }
}

/// The same for a guess: no seconds from two minutes on, no minutes from ten hours on.
pub fn about(time: Duration) -> String {
    let unit = match time.as_secs() {
        0..120 => 1,
        120..36_000 => 60,
        _ => 3600,
    };
    duration(Duration::from_secs((time.as_secs_f64() / unit as f64).round() as u64 * unit))
}

/// The number with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: u64, loss: f64) -> StepReport {
        StepReport {
            step,
            images: step * 8,
            loss,
            spectral_loss: None,
            grad_norm: 1.0,
            lr: 0.1,
            ..StepReport::default()
        }
    }

    #[test]
    fn a_resumed_run_tells_the_rate_of_this_call() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut status = Status::new(42_000, 43_000, (8, "images"), start);
        assert_eq!(status.line(), "step 42,000 of 43,000");
        status.add(&report(42_001, 1.0), at(5.0)); // the slow first step
        assert_eq!((status.rate(), status.left()), (None, None));
        for step in 2..=101 {
            status.add(&report(42_000 + step, 1.0), at(5.0 + 0.5 * (step - 1) as f64));
        }
        assert_eq!(status.line(), "step 42,101 of 43,000, loss 1.0000, 16 images/s, 7 min 30 s left");
    }

    #[test]
    fn no_time_is_left_at_the_end() {
        let start = Instant::now();
        let mut status = Status::new(0, 4, (8, "images"), start);
        for step in 1..=4 {
            status.add(&report(step, 1.0), start + Duration::from_secs(step));
        }
        assert_eq!(status.line(), "step 4 of 4, loss 1.0000, 8.0 images/s");
    }

    #[test]
    fn the_newest_steps_count_most() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 0);
        let mut now = start;
        for step in 1..=600 {
            now += Duration::from_millis(if step <= 300 { 1000 } else { 2000 });
            pace.update(now, step);
        }
        let rate = pace.per_second().unwrap();
        assert!((rate - 0.5).abs() < 0.01, "{rate}");
        assert_eq!(Pace::new(start, 7).left(10), None);
    }

    #[test]
    fn times_are_told_in_two_units() {
        let told = [0.2, 59.4, 59.6, 750.0, 3600.0, 4805.0, 86400.0 * 3.0 + 4.0 * 3600.0]
            .map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(told, ["0 s", "59 s", "1 min", "12 min 30 s", "1 h", "1 h 20 min", "3 d 4 h"]);
    }

    #[test]
    fn a_guess_is_told_in_round_numbers() {
        let told = [40, 119, 1551, 5400, 50_000].map(|seconds| about(Duration::from_secs(seconds)));
        assert_eq!(told, ["40 s", "1 min 59 s", "26 min", "1 h 30 min", "14 h"]);
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
