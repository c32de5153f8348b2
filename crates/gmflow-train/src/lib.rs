//! Training: configuration, optimiser, averages, checkpoints, logs, and the loop that joins them.
//!
//! [`Config`] is one TOML file, [`Trainer`] takes optimiser steps without any folder, and [`Run`] is a trainer in a
//! folder with logs, checkpoints and pictures, which resumes bit for bit on a CPU.

pub mod batch;
pub mod checkpoint;
pub mod config;
mod dump;
pub mod ema;
pub mod error;
mod folder;
pub mod log;
pub mod optimizer;
pub mod params;
pub mod plan;
pub mod progress;
mod run;
pub mod same_data;
mod samples;
pub mod schedule;
mod source;
mod summary;
mod tensorboard;
pub mod trainable;
mod trainer;

pub use config::Config;
pub use error::{Error, Result};
pub use progress::{Lines, Observer, Silent};
pub use run::{Outcome, ResumeOptions, Run};
pub use summary::Summary;
pub use trainer::{SourceInfo, StepReport, Trainer};
