//! The data that gmflow learns from: 2-D densities and sets of images, as batches that are a pure function of (seed,
//! step), so that a resumed run sees exactly what the uninterrupted one would have seen.

mod config;
mod dataset;
mod decode;
pub mod density;
mod error;
mod loader;
mod order;
mod rng;
mod settings;
mod source;

pub use config::DatasetConfig;
pub use dataset::{Batch, Batches, Dataset};
pub use decode::MAX_PIXELS;
pub use density::Density;
pub use error::{Error, Result};
pub use loader::{Loader, LoaderOptions};
pub use settings::{Background, Corrupt, ImageSettings, MAX_SIZE};
pub use source::{
    Columns, FolderDataset, IdxDataset, Image, ImageDataset, MAX_FILE_BYTES, MAX_IDX_BYTES, ParquetDataset,
};
