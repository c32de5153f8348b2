//! Sizes: the largest that are taken for sense, and what a request needs in memory against what is there.
//!
//! Every count that a user can give is bounded here. A bound is generous: beyond it a number is a slip of the finger. Within the bounds the
//! memory that a request needs is estimated before any of it is taken, and the request is refused where it cannot fit, with the setting,
//! the need and what is there. Estimates are low rather than high: what is refused could not have been done.
//!
//! ```
//! use gmflow::limits::{self, Need};
//!
//! assert!(limits::count("steps", 0, limits::MOST_STEPS).is_err());
//! let need = Need::new().floats("samples", &[1 << 20, 1 << 20, 1 << 20]);
//! assert!(need.check("num", 1 << 20, "lower num").is_err(), "2^62 bytes are nowhere");
//! ```

mod memory;
mod sizes;

pub use memory::{Available, available};
pub use sizes::{
    Activations, Teacher, Training, check_training, check_weights, decoding, fastest_pass_of_points,
    numbers_in_training, parameters, parameters_of_autoencoder, parameters_of_spectrum, prediction,
};

use crate::{Error, Result};
use std::fmt::Display;

/// Layers or blocks in a row, of every network.
pub const MOST_LAYERS: usize = 1 << 10;
/// Width of a layer, channels of a level, mixture components, sizes of patches and heads.
pub const MOST_WIDTH: usize = 1 << 16;
/// Pixels to a side.
pub const MOST_PIXELS: usize = 1 << 14;
/// Classes.
pub const MOST_CLASSES: usize = 1 << 24;
/// Network calls for a sample, and sub-steps within one.
pub const MOST_STEPS: usize = 100_000;
/// Samples of one optimiser step, or of one pass through a network: memory sets the bound long before.
pub const MOST_BATCH: usize = 1 << 48;
/// Samples of one call.
pub const MOST_SAMPLES: usize = 100_000_000;
/// Optimiser steps of a run, and steps between two events of it.
pub const MOST_TRAIN_STEPS: u64 = 1 << 48;
/// Bytes of a number in 32 bits.
const F32: u128 = 4;

/// Checks that a count lies in 1 to `most`.
///
/// # Errors
/// [`crate::FilesError::Config`] naming `field`.
pub fn count(field: &str, value: usize, most: usize) -> Result<()> {
    match value {
        0 => Err(Error::config(field, "at least 1", value)),
        _ if value > most => Err(Error::config(field, format!("1 to {most}"), value)),
        _ => Ok(()),
    }
}

/// What a request needs in memory, in parts that exist at the same time. No product overflows.
#[derive(Clone, Debug, Default)]
pub struct Need {
    parts: Vec<(String, u128)>,
}

impl Need {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds numbers of 32 bits: as many as the product of `counts`.
    #[must_use]
    pub fn floats(self, what: &str, counts: &[u128]) -> Self {
        let product = counts.iter().fold(F32, |product, count| product.saturating_mul(*count));
        self.bytes(what, product)
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, what: &str, bytes: u128) -> Self {
        if bytes > 0 {
            self.parts.push((what.to_owned(), bytes));
        }
        self
    }

    /// The same for several processes on one machine.
    #[must_use]
    pub fn times(mut self, processes: usize) -> Self {
        if processes > 1 {
            for (what, bytes) in &mut self.parts {
                *bytes = bytes.saturating_mul(processes as u128);
                *what = format!("{what} of {processes} processes");
            }
        }
        self
    }

    /// All parts in bytes.
    pub fn total(&self) -> u128 {
        self.parts.iter().fold(0, |total: u128, (_, bytes)| total.saturating_add(*bytes))
    }

    /// Checks that this fits in memory. `field` has the `value` that asks for it; `advice` says what to lower.
    ///
    /// # Errors
    /// [`Error::Memory`] with the need, its largest parts, and what is there.
    pub fn check(&self, field: &str, value: impl Display, advice: &str) -> Result<()> {
        match available() {
            Some(available) => self.fits(available, field, value, advice),
            None => Ok(()),
        }
    }

    fn fits(&self, available: &Available, field: &str, value: impl Display, advice: &str) -> Result<()> {
        if self.total() <= u128::from(available.bytes) {
            return Ok(());
        }
        Err(Error::Memory {
            field: field.to_owned(),
            got: value.to_string(),
            need: format!("about {}{}", readable(self.total()), self.largest_parts()),
            there: format!("{}, {}", readable(available.bytes.into()), available.bound),
            advice: advice.to_owned(),
        })
    }

    /// The parts that matter, the largest first.
    fn largest_parts(&self) -> String {
        const SHOWN: usize = 3;
        let mut parts: Vec<_> = self.parts.iter().filter(|(_, bytes)| *bytes >= self.total() / 20).collect();
        parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let shown: Vec<_> =
            parts.iter().take(SHOWN).map(|(what, bytes)| format!("{} for {what}", readable(*bytes))).collect();
        if shown.is_empty() { String::new() } else { format!(" ({})", shown.join(", ")) }
    }
}

/// A number of bytes for people: "850 MB", "1.2 TB".
pub fn readable(bytes: u128) -> String {
    const UNITS: [&str; 7] = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"];
    const STEP: f64 = 1000.0;
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= STEP - 0.5 && unit + 1 < UNITS.len() {
        value /= STEP;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    if value >= 1e6 {
        format!("more than 1000000 {}", UNITS[unit])
    } else {
        format!("{value:.digits$} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (1500, "1.5 kB"),
            (850_000_000, "850 MB"),
            (999_700_000, "1.0 GB"),
            (1_200_000_000_000, "1.2 TB"),
            (u128::MAX, "more than 1000000 EB"),
        ] {
            assert_eq!(readable(bytes), text);
        }
    }

    #[test]
    fn a_request_that_cannot_fit_is_refused_with_its_parts() {
        let available = Available { bytes: 4_000_000_000, bound: "the free memory of this machine" };
        let need = Need::new().floats("activations", &[4_000_000_000_000, 100]).floats("weights", &[1000]);
        let error =
            need.fits(&available, "train.batch_size", 4_000_000_000_000u64, "lower train.batch_size").unwrap_err();
        assert_eq!(
            error.to_string(),
            "train.batch_size: expected a value that fits in memory, got 4000000000000: it needs about 1.6 PB (1.6 PB for activations), \
             and there are 4.0 GB, the free memory of this machine; lower train.batch_size"
        );
        let most = Need::new().floats("all", &[u128::MAX, u128::MAX]).floats("more", &[u128::MAX]);
        assert_eq!(most.total(), u128::MAX, "no product or sum overflows");
        assert!(most.fits(&available, "x", 1, "y").is_err());
        assert!(Need::new().bytes("little", 4_000_000_000).fits(&available, "x", 1, "y").is_ok());
    }

    #[test]
    fn counts_are_bounded() {
        assert!(count("steps", 1, 10).is_ok() && count("steps", 10, 10).is_ok());
        assert_eq!(count("steps", 0, 10).unwrap_err().to_string(), "steps: expected at least 1, got 0");
        assert_eq!(count("steps", 11, 10).unwrap_err().to_string(), "steps: expected 1 to 10, got 11");
    }
}
