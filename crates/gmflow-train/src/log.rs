//! `log.jsonl` and the TensorBoard events of a run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::tensorboard::EventFile;
use crate::trainer::StepReport;
use crate::{Error, Result};

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
    /// Samples per second since the line before.
    pub images_per_s: f64,
}

/// Sums of the steps since the last line.
#[derive(Clone, Copy, Debug)]
struct Span {
    steps: u64,
    images_before: u64,
    loss: f64,
    spectral_loss: Option<f64>,
    grad_norm: f64,
    since: Instant,
}

/// Writes both logs.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    events: EventFile,
    density: Option<Density>,
    span: Span,
}

/// What a loss that is a log density is to be turned into bits with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Density {
    /// The dimension of one pixel.
    pub channels: usize,
    /// The factor on the loss.
    pub weight_scale: f64,
}

impl Log {
    /// Opens the logs of `folder` after `step` steps and `images` samples; later lines of an interrupted run are dropped.
    /// `density` is none where the loss is no log density.
    ///
    /// # Errors
    /// The files cannot be written.
    pub(crate) fn open(folder: &Path, step: u64, images: u64, density: Option<Density>) -> Result<Self> {
        let path = folder.join("log.jsonl");
        truncate_log(&path, step)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        let events = EventFile::create(folder, step)?;
        Ok(Self { path, file, events, density, span: Span::new(images) })
    }

    /// Adds a step to the sums.
    pub(crate) fn add(&mut self, report: &StepReport) {
        self.span.steps += 1;
        self.span.loss += report.loss;
        if let Some(loss) = report.spectral_loss {
            *self.span.spectral_loss.get_or_insert(0.0) += loss;
        }
        self.span.grad_norm += report.grad_norm;
    }

    /// Writes the line of the steps since the last one.
    ///
    /// # Errors
    /// The files cannot be written.
    pub(crate) fn write(&mut self, report: &StepReport) -> Result<LogLine> {
        let count = self.span.steps.max(1) as f64;
        let seconds = self.span.since.elapsed().as_secs_f64().max(1e-9);
        let loss = self.span.loss / count;
        let line = LogLine {
            step: report.step,
            images: report.images,
            loss,
            transition_bits_per_dim: self
                .density
                .map(|Density { channels, weight_scale }| bits_per_dim(loss / weight_scale, channels)),
            spectral_loss: self.span.spectral_loss.map(|loss| loss / count),
            grad_norm: self.span.grad_norm / count,
            lr: report.lr,
            images_per_s: (report.images - self.span.images_before) as f64 / seconds,
        };
        self.span = Span::new(report.images);
        let text = serde_json::to_string(&line).map_err(|e| Error::file(&self.path, "line", "numbers", e))?;
        self.file.write_all(format!("{text}\n").as_bytes()).map_err(|e| Error::io(&self.path, e))?;
        let mut values = vec![
            ("loss", line.loss),
            ("grad_norm", line.grad_norm),
            ("lr", line.lr),
            ("images_per_s", line.images_per_s),
        ];
        values.extend(line.transition_bits_per_dim.map(|bits| ("transition_bits_per_dim", bits)));
        values.extend(line.spectral_loss.map(|loss| ("spectral_loss", loss)));
        self.events.scalars(line.step, &values)?;
        Ok(line)
    }

    /// Adds a picture to TensorBoard.
    pub(crate) fn picture(&mut self, step: u64, size: [usize; 2], png: &[u8]) -> Result<()> {
        self.events.picture(step, "samples", size, png)
    }
}

impl Span {
    fn new(images_before: u64) -> Self {
        Self { steps: 0, images_before, loss: 0.0, spectral_loss: None, grad_norm: 0.0, since: Instant::now() }
    }
}

/// Nats per pixel without the constant C/2 log(2 pi), to bits per dimension with it.
pub fn bits_per_dim(loss: f64, channels: usize) -> f64 {
    let constant = 0.5 * (2.0 * std::f64::consts::PI).ln();
    (loss / channels.max(1) as f64 + constant) / std::f64::consts::LN_2
}

/// Drops the lines after `step`, and a last line that was cut off.
fn truncate_log(path: &Path, step: u64) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let kept: String = text
        .split_inclusive('\n')
        .take_while(|line| serde_json::from_str::<LogLine>(line).is_ok_and(|line| line.step <= step))
        .collect();
    if kept.len() != text.len() {
        gmflow::checkpoint::write_atomic(path, kept.as_bytes())?;
    }
    Ok(())
}
