//! Measuring samples: features, distances between sets of them, image statistics and likelihoods.

pub mod error;
pub mod matrix;

pub use error::{Error, Result};
pub use matrix::Matrix;
