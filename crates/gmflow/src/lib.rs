//! Gaussian mixture flow matching: the method, from time grids to samples.
//!
//! The modules stand in the order the data flows through them: [`time`] and [`path`] define the forward process,
//! [`network`] predicts a [`mixture`] of velocities at every pixel, [`loss`] trains it, [`guidance`] and [`solver`]
//! sample from it, [`pipeline`] joins them and [`checkpoint`] stores them.

pub mod checkpoint;
pub mod device;
pub mod error;
pub mod guidance;
pub mod kernel;
pub mod limits;
pub mod loss;
pub mod mixture;
pub mod network;
pub mod optim;
pub mod path;
pub mod pipeline;
pub mod rng;
pub mod sampler;
pub mod samples;
pub mod solver;
pub mod time;

pub use error::{Error, Result};

/// The README's example, compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
