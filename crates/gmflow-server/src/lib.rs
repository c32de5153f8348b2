//! Samples over HTTP, and a page that shows them.
//!
//! A request goes through these modules:
//!
//! | module | what it does |
//! |---|---|
//! | `http` | connections, keys and hosts, routes, streams of events |
//! | `jobs` | a body becomes a plan; the queue takes or refuses it; parts of it are worked on |
//! | `engine` | joins the network calls of all requests into batches |
//! | `models` | which models there are, and which are in memory |
//! | `runs` | training runs in folders: logs, pictures, checkpoints |
//!
//! ```no_run
//! use burn::tensor::Device;
//! use gmflow_eval::ModelOptions;
//! use gmflow_server::{ModelSource, Server, ServerConfig};
//! use std::sync::atomic::AtomicBool;
//!
//! let mut config = ServerConfig::new(Device::flex(), "cpu");
//! let options = ModelOptions::default();
//! config.models.push(ModelSource { id: "mnist".into(), folder: "models/mnist".into(), options });
//! let server = Server::bind(config)?;
//! println!("http://{}", server.address());
//! server.run(&AtomicBool::new(false))?;
//! # Ok::<(), gmflow_server::Error>(())
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod config;
mod engine;
mod error;
mod http;
mod jobs;
mod metrics;
mod models;
mod refusal;
mod response;
mod runs;
mod server;

pub use config::{ModelSource, ServerConfig, ServerLimits};
pub use error::{Error, Result};
pub use server::Server;
