//! Measuring samples.
