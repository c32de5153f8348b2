//! Training: configuration, optimiser, averages, checkpoints, logs, and the loop that joins them.
//!
//! | | what it holds |
//! |---|---|
//! | [`Config`], [`config`] | one TOML file, checked once |
//! | [`plan`] | a configuration for a folder of pictures and the time there is |
//! | [`Trainer`] | optimiser steps without any folder |
//! | [`Run`] | a trainer in a folder with logs, checkpoints and pictures, which resumes bit for bit on a CPU |
//! | [`Follower`], [`agree`] | a run of several processes: what the others than the first do |
//! | [`checkpoint`], [`mod@log`] | what a run writes |
//! | [`Observer`], [`progress`], [`Summary`] | what a run tells while it goes on |
//! | [`trainable`], [`params`], [`schedule`] | a network with its moments and averages, its weights as lists, the learning rate |
//!
//! # A few steps without a folder
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow_train::{Config, Trainer};
//!
//! let text = r#"
//!     [data.source]
//!     kind = "density"
//!     name = "checkerboard"
//!
//!     [network]
//!     type = "mlp2d"
//!     num_gaussians = 4
//!     embed_dim = 8
//!     hidden_dim = 16
//!
//!     [train]
//!     batch_size = 64
//!     steps = 3
//! "#;
//! let mut trainer = Trainer::new(Config::parse(text, "tiny.toml".as_ref(), &[])?, &Device::flex())?;
//! for _ in 0..3 {
//!     println!("loss {:.3}", trainer.step()?.loss);
//! }
//! let network = trainer.snapshot(None)?;
//! # drop(network);
//! # Ok::<(), gmflow_train::Error>(())
//! ```
//!
//! # A run in a folder
//!
//! ```no_run
//! use burn::tensor::Device;
//! use gmflow_train::{Config, Run, Silent};
//! use std::sync::atomic::AtomicBool;
//!
//! let config = Config::load("configs/shapes.toml".as_ref(), &[])?;
//! let mut run = Run::create(config, "runs/shapes".as_ref(), false, &Device::flex())?;
//! run.run(&AtomicBool::new(false), &mut Silent)?;
//! # Ok::<(), gmflow_train::Error>(())
//! ```

mod batch;
pub mod checkpoint;
pub mod config;
mod distillation;
mod dump;
mod ema;
pub mod error;
mod fit;
mod folder;
pub mod log;
mod optimizer;
pub mod params;
mod place;
pub mod plan;
pub mod progress;
mod run;
mod same_data;
mod samples;
pub mod schedule;
mod source;
mod start;
mod summary;
mod tensorboard;
pub mod trainable;
mod trainer;
mod world;

pub use checkpoint::ResumeOptions;
pub use config::Config;
pub use error::{Error, Result};
pub use gmflow_files::Error as FilesError;
pub use progress::{Lines, Observer, Silent};
pub use run::{Outcome, Run};
pub use source::SourceInfo;
pub use summary::Summary;
pub use trainer::{StepReport, Trainer};
pub use world::{Follower, StepTime, agree, time_steps};
