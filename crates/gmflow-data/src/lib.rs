//! The data that gmflow learns from, as batches that are a pure function of (seed, step).
//!
//! - [`density`]: 2-D densities (checkerboard, moons, spirals, rings, Gaussian grid), with histograms and the total
//!   variation distance to tell how well they were learnt.
//! - [`ImageDataset`]: images of one shape with random access: IDX files ([`IdxDataset`]), Parquet in the layout of the
//!   Hugging Face hub ([`ParquetDataset`]), folders of image files ([`FolderDataset`]) and tar shards ([`TarDataset`]).
//! - [`Files`]: where these lie, on this machine or, with the feature `object-store`, behind URLs.
//! - [`ShapesDataset`]: coloured shapes that are drawn when they are asked for; [`write_folder`] makes files of any images.
//! - [`NamedData`]: well-known sets by their names, as IDX or Parquet files.
//! - [`pack()`]: tar shards of any images.
//! - [`LatentDataset`]: images that an autoencoder has encoded, in a cache that [`LatentWriter`] writes.
//! - [`DatasetConfig`]: the above as a table of a configuration file, opened as a [`Dataset`].
//! - [`Batches`]: the endless stream of batches, each computed from seed and step alone; [`Loader`]: the same stream,
//!   prepared ahead by background threads.
//!
//! # From a configuration to batches
//!
//! ```
//! use gmflow_data::{DatasetConfig, Loader, LoaderOptions};
//!
//! let config: DatasetConfig = serde_json::from_str(r#"{"kind": "density", "name": "checkerboard"}"#)?;
//! let dataset = config.open(".".as_ref())?;
//! assert_eq!(dataset.shape(), [2, 1, 1]);
//!
//! let options = LoaderOptions { batch_size: 64, seed: 1, first_step: 0, workers: 2, queue: 4 };
//! let mut loader = Loader::start(dataset.clone(), options)?;
//! let _first = loader.next_batch()?;
//! let second = loader.next_batch()?;
//! assert_eq!(second.images.len(), 64 * 2);
//!
//! // A run that resumes at step 1 sees what the uninterrupted one saw, whatever the number of threads.
//! let mut resumed = Loader::start(dataset, LoaderOptions { first_step: 1, workers: 1, ..options })?;
//! assert_eq!(resumed.next_batch()?, second);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In TOML, a set of digits and a folder of photographs read:
//!
//! ```toml
//! kind = "idx"
//! images = "mnist/t10k-images-idx3-ubyte.gz"
//! labels = "mnist/t10k-labels-idx1-ubyte.gz"
//! ```
//!
//! ```toml
//! kind = "folder"
//! path = "photographs"
//! image = { size = 64, channels = 3, background = "white", corrupt = "skip", horizontal_flip = true }
//! ```
//!
//! # What happens to images
//!
//! PNG, JPEG, WebP, BMP, GIF (its first frame), TIFF (its first page) and PNM files are read; the content tells the format. The
//! orientation tag is applied, transparency is laid on the background, colour becomes grey where grey is wanted (Rec. 601, as in Pillow and
//! torchvision), the largest centred rectangle of the wanted proportions is cut out and resized with a cubic filter that widens when it
//! reduces. Images of 8 bits stay in 8 bits until then, deeper ones go through `f32`. Values are in [-1, 1], channels first.
//!
//! # What happens to damage
//!
//! With [`Corrupt::Refuse`], the default, a damaged file or row is an error that names it, when its turn comes. With
//! [`Corrupt::Skip`] it is named in a warning, once, and another image takes its place, chosen by seed and position, so
//! that the stream remains a pure function of both. Sizes that a file claims are bounded ([`ImageSettings::max_pixels`],
//! [`MAX_IDX_BYTES`], [`MAX_FILE_BYTES`]) and never believed before the bytes are there; a decoder that panics is an
//! error like any other. What the operating system refuses is never passed over.

mod config;
mod dataset;
mod decode;
pub mod density;
mod error;
mod export;
mod fingerprint;
mod jpeg;
mod kept;
mod latents;
mod loader;
mod named;
mod order;
mod pack;
mod pixels;
mod rng;
mod settings;
mod shapes;
mod source;
mod storage;
mod survey;

pub use config::DatasetConfig;
pub use dataset::{Batch, Batches, Dataset};
pub use density::Density;
pub use error::{Error, Result};
pub use export::{PictureFormat, write_folder};
pub use fingerprint::Fingerprint;
pub use gmflow_files::Error as FilesError;
pub use gmflow_files::{absolute, beside, is_clutter, is_url, lock, to_byte, what_is};
pub use latents::{EncodedBatch, Latent, LatentDataset, LatentManifest, LatentPrecision, LatentWriter};
pub use loader::{Loader, LoaderOptions};
pub use named::{KnownSet, NamedData, SetFiles, Split};
pub use order::Nearby;
pub use pack::{PackOptions, Packed, pack};
pub use settings::{Background, Corrupt, ImageSettings, MAX_PIXELS, MAX_SIZE};
pub use shapes::{Shapes, ShapesDataset};
#[cfg(feature = "parquet")]
pub use source::{Columns, ParquetDataset};
pub use source::{
    FolderDataset, IdxDataset, Image, ImageBytes, ImageDataset, MAX_FILE_BYTES, MAX_IDX_BYTES, ShardPaths,
    StoredImage, TarData, TarDataset,
};
pub use storage::{Entry, Files, Storage};
pub use survey::Survey;

/// The target of log lines that say what was found in a data set and what was passed over. They are of level info; a program shows them
/// by default, so that no guess and no omission is silent.
pub const FOUND: &str = "gmflow::data";
