//! One line of `log.jsonl`, and where the lines stand.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// The log's file.
pub(crate) const LOG_FILE: &str = "log.jsonl";
/// Lines of a log that could not be read.
pub(crate) const DAMAGED_FILE: &str = "log.jsonl.damaged";

/// One line of `log.jsonl`. Loss and gradient norm are means since the line before, the rest is the newest step's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Optimiser steps taken.
    pub step: u64,
    /// Samples seen.
    pub images: u64,
    /// Mean loss: for a mixture loss the negative log density per pixel in nats, without C/2 log(2 pi), times `loss.weight_scale`.
    pub loss: f64,
    /// The transition loss in bits per dimension, with that constant and without that factor: -log2 q(x_s | x_t) with
    /// s = (1 - `transition_ratio`) t, at the times that training draws. With a ratio below 1 it is not the likelihood of the data: the
    /// transition's own variance hides a mixture that is too narrow. Other losses have none. It was called `bits_per_dim`.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "bits_per_dim")]
    pub transition_bits_per_dim: Option<f64>,
    /// Mean spectral loss, where a spectrum network is trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spectral_loss: Option<f64>,
    /// Mean norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// The largest loss of a sample since the line before, in distillation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_loss: Option<f64>,
    /// Batches since the line before that were passed over, because they were not finite.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub skipped: u64,
    /// Samples per second since the line before.
    pub images_per_s: f64,
}

fn is_none_of_them(count: &u64) -> bool {
    *count == 0
}

/// The last step in a log; 0 where there is none.
pub(crate) fn last_step(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap_or_default();
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice::<LogLine>(line).ok()).map(|line| line.step).max().unwrap_or(0)
}
