//! The learning rate as a function of the step.
//!
//! ```
//! use gmflow_train::{Config, schedule::learning_rate};
//!
//! let text = "data.source = { kind = 'density', name = 'moons' }\ntrain = { steps = 100, lr = 2.0, warmup_steps = 4 }";
//! let config = Config::parse(text, "moons.toml".as_ref(), &[])?;
//! assert_eq!([0, 3, 50].map(|step| learning_rate(&config.train, step, 100)), [0.5, 2.0, 2.0]);
//! # Ok::<(), gmflow_train::Error>(())
//! ```

use crate::config::TrainConfig;

/// The learning rate of optimiser step `step`, counted from 0, of `total_steps`.
///
/// During warm-up it is `lr * (step + 1) / warmup_steps`, so the first step already moves the weights; then the schedule
/// runs from 1 at the end of warm-up to its final value at `total_steps`.
pub fn learning_rate(train: &TrainConfig, step: u64, total_steps: u64) -> f64 {
    if step < train.warmup_steps {
        return train.lr * (step + 1) as f64 / train.warmup_steps as f64;
    }
    let span = total_steps.saturating_sub(train.warmup_steps).max(1);
    let progress = (step - train.warmup_steps) as f64 / span as f64;
    train.lr * train.schedule.factor(progress.min(1.0))
}
