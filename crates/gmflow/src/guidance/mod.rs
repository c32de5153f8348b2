//! Guidance: a shift of the predicted mean, carried out by reweighting the mixture or by extrapolating its mean.
//!
//! [`probabilistic`] and [`classifier_free`] say how the shift is found, [`interval`] says when there is one, and [`GuidedPrediction`] is
//! what a solver gets at every network call.
//!
//! ```
//! use gmflow::guidance::Guidance;
//!
//! let guidance = Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 };
//! assert!(guidance.validate().is_ok() && guidance.is_active());
//! assert!(Guidance::ClassifierFree { scale: 0.5, orthogonal: 0.0 }.validate().is_err());
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

pub mod classifier_free;
pub(crate) mod config;
pub mod interval;
pub(crate) mod power;
mod prediction;
pub mod probabilistic;
pub(crate) mod shift;

pub use config::Guidance;
pub use prediction::{GuidanceRule, GuidedPrediction};
pub use probabilistic::ReweightScale;
pub use shift::shift;
