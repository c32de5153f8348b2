//! Measuring samples: features, distances between sets of them, image statistics and likelihoods.
//!
//! From one figure to a whole comparison:
//! - [`frechet_distance`], [`kernel_distance`], [`manifolds`], [`inception_score`], [`ImageStats`] and
//!   [`PointsDistance`](points::PointsDistance) are single figures; [`compare`] gives all of two [`SampleSet`]s.
//! - [`features`] turns images into vectors, [`images`] and [`arrays`] read data sets and files of samples, [`SetBuilder`] takes images as
//!   they come.
//! - [`Judge`] measures sets, points and models against one reference. [`SamplerOptions`] says how a model is sampled, [`LoadedModel`]
//!   which of its weights.
//! - [`sweep`] measures a grid of models, solvers, steps and guidance, once each.
//!
//! Two sets of vectors, compared:
//!
//! ```
//! use gmflow::pipeline::keep_going;
//! use gmflow_eval::{CompareConfig, Matrix, SampleSet, compare};
//!
//! let vectors = |shift: f32| {
//!     let values = (0..400).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) + shift).collect();
//!     SampleSet::of_vectors(Matrix::new(values, 2)?, "toy".into())
//! };
//! let metrics = compare(&vectors(0.0)?, &vectors(0.5)?, CompareConfig::default(), &mut keep_going)?;
//! assert!((metrics.frechet().unwrap() - 0.5).abs() < 1e-6); // two coordinates, moved by 0.5 each
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

pub mod arrays;
mod compare;
mod error;
pub mod features;
mod frechet;
mod image_stats;
pub mod images;
mod inception_score;
pub mod judge;
mod kernel_distance;
pub mod likelihood;
mod manifold;
mod matrix;
pub mod models;
mod moments;
mod numbers;
pub mod numpy_rng;
mod part_file;
pub mod points;
mod progress;
pub mod row;
pub mod sampler;
mod set;
mod set_builder;
mod set_sum;
mod student_options;
pub mod sweep;
mod table;

pub use compare::{CompareConfig, Metrics, compare};
pub use error::{Error, Result};
pub use frechet::{check_covariances, frechet_distance};
pub use gmflow_files::Error as FilesError;
pub use image_stats::{ImageStats, ImageStatsSum};
pub use inception_score::inception_score;
pub use judge::{DrawOptions, Judge, Measured, Reference, points_of_parts};
pub use kernel_distance::{KernelDistanceConfig, Spread, kernel_distance};
pub use likelihood::{Likelihood, LikelihoodAt, LikelihoodSum};
pub use manifold::{Manifolds, Neighbours, manifolds};
pub use matrix::Matrix;
pub use models::{LoadedModel, ModelOptions};
pub use moments::{MOST_COLUMNS, Moments};
pub use part_file::PartFile;
pub use progress::Progress;
pub use row::{ReferenceInfo, Row};
pub use sampler::SamplerOptions;
pub use set::{SampleSet, SetInfo};
pub use set_builder::SetBuilder;
pub use table::Table;
