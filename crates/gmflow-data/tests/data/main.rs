//! The crate on files that the tests write themselves, sound and hostile.

mod columns;
mod common;
mod config;
mod density;
mod folder;
mod idx;
mod latents;
mod loader;
mod named;
mod pack;
mod parquet;
mod shapes;
mod survey;
mod tar;
