//! Training losses.
