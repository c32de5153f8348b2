//! The terminal as bars are drawn on it.

use console::{Term, measure_text_width};
use indicatif::TermLike;
use std::io;
use std::sync::{Mutex, PoisonError};

/// Columns that stay free: a terminal shows `^C` at the end of the line, which must not begin another one.
const FREE: u16 = 3;
/// Columns at the least: a terminal may say that it has none.
const FEWEST: u16 = 8;

/// A terminal on which one line is drawn again and again, narrower than the window, and taken away whole after the window has become
/// narrower and has broken the line into several.
#[derive(Debug)]
pub struct Screen {
    term: Term,
    /// Columns that the cursor has come from the start of the line.
    drawn: Mutex<usize>,
}

impl Default for Screen {
    fn default() -> Self {
        Self { term: Term::buffered_stderr(), drawn: Mutex::new(0) }
    }
}

impl Screen {
    fn columns(&self) -> u16 {
        self.term.size().1.max(FEWEST + FREE)
    }

    fn drawn(&self) -> std::sync::MutexGuard<'_, usize> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines that a window of so many columns makes of one of `drawn` columns.
fn broken_into(drawn: usize, columns: usize) -> usize {
    drawn.div_ceil(columns.max(1)).max(1)
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.columns() - FREE
    }

    fn height(&self) -> u16 {
        self.term.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.term.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        *self.drawn() = 0;
        self.term.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let mut drawn = self.drawn();
        *drawn = if text.starts_with('\r') { 0 } else { *drawn } + measure_text_width(text);
        self.term.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        let lines = broken_into(std::mem::take(&mut *self.drawn()), usize::from(self.columns()));
        self.term.move_cursor_up(lines - 1)?;
        self.term.clear_line()?;
        // What the window broke off stands below.
        if lines > 1 { self.term.clear_to_end_of_screen() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_counted_as_the_window_breaks_it() {
        assert_eq!([0, 40, 41, 80, 81].map(|drawn| broken_into(drawn, 40)), [1, 1, 2, 2, 3]);
        assert_eq!(broken_into(10, 0), 10);
    }
}
