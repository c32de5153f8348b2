//! Measuring samples: features, distances between sets of them, image statistics and likelihoods.

pub mod arrays;
pub mod compare;
pub mod error;
pub mod features;
pub mod frechet;
pub mod image_stats;
pub mod inception_score;
pub mod kernel_distance;
pub mod likelihood;
pub mod manifold;
pub mod matrix;
pub mod moments;
mod numbers;
pub mod numpy_rng;
pub mod points;
pub mod set;

pub use compare::{CompareConfig, Metrics, compare};
pub use error::{Error, Result};
pub use frechet::{check_covariances, frechet_distance};
pub use image_stats::{ImageStats, ImageStatsSum};
pub use inception_score::inception_score;
pub use kernel_distance::{KernelDistanceConfig, Spread, kernel_distance};
pub use likelihood::{Likelihood, LikelihoodAt, LikelihoodSum};
pub use manifold::{Manifolds, Neighbours, manifolds};
pub use matrix::Matrix;
pub use moments::Moments;
pub use set::{SampleSet, SetBuilder, SetInfo};
