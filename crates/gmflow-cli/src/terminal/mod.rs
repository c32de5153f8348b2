//! What stands on the terminal while a command works: one progress bar, and what is said above it.

mod parts;
mod screen;
mod training;

pub use parts::Parts;
pub use training::Training;

use crate::rank;
use gmflow_train::progress::duration;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use screen::Screen;
use std::io::{IsTerminal, Write};
use std::sync::LazyLock;

/// All bars, so that a line of the log stands above the one that is drawn.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    let target = match is_there() {
        true => ProgressDrawTarget::term_like_with_hz(Box::new(Screen::default()), 5),
        false => ProgressDrawTarget::hidden(),
    };
    MultiProgress::with_draw_target(target)
});

/// Whether there is a terminal to draw on.
pub fn is_there() -> bool {
    rank::speaks() && std::io::stderr().is_terminal()
}

/// A bar that shows its message in the whole line; its owner words it.
fn line() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    BARS.add(ProgressBar::new(0)).with_style(style)
}

/// A bar for `length` of `what`, counted in `unit`; hidden where stderr is no terminal. It tells how many a second.
pub fn bar(length: u64, what: &str, unit: &'static str) -> ProgressBar {
    rate(0, length, what, (unit, 1.0))
}

/// A [`bar`] from `start` on, which an earlier call reached. A unit is `each` of what is counted.
pub fn rate(start: u64, length: u64, what: &str, (unit, each): (&'static str, f64)) -> ProgressBar {
    let per_second = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let seconds = state.elapsed().as_secs_f64();
        let done = state.pos().saturating_sub(start) as f64 / each;
        if done > 0.0 && seconds > 0.0 {
            let rate = done / seconds;
            let digits = if rate < 10.0 { 1 } else { 0 };
            let _ = write!(out, "  {rate:.digits$} {unit}/s");
        }
    };
    let left = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let done = state.pos().saturating_sub(start);
        let rest = state.len().unwrap_or_default().saturating_sub(state.pos());
        if done > 0 {
            let left = state.elapsed().mul_f64(rest as f64 / done as f64);
            let _ = write!(out, "  {} left", duration(left));
        }
    };
    // What matters most stands first: the end of the line is cut off in a narrow window.
    let style = ProgressStyle::with_template("{msg} {percent}%{rate}{left}  {wide_bar}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", per_second)
        .with_key("left", left);
    BARS.add(ProgressBar::new(length)).with_style(style).with_message(what.to_owned()).with_position(start)
}

/// A bar in bytes for the download of a file.
pub fn download(bytes: u64, file: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bytes}/{total_bytes}  {bytes_per_sec}, {eta} left  {wide_bar}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    BARS.add(ProgressBar::new(bytes)).with_style(style).with_message(file.to_owned())
}

/// Says something on stderr, above the bar where one is drawn. Of several processes the first one speaks.
pub fn say(text: &str) {
    if !rank::speaks() {
        return;
    }
    BARS.suspend(|| {
        // Nobody is left to be told that stderr is gone.
        let _ = writeln!(std::io::stderr(), "{text}");
    });
}

/// Where the log goes: stderr, above the bar.
#[derive(Debug, Default)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| std::io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
