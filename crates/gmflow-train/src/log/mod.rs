//! `log.jsonl` and the TensorBoard events of a run.
//!
//! ```
//! use gmflow_train::log::{LogLine, bits_per_dim};
//!
//! let text = r#"{"step":50,"images":1600,"loss":0.5,"grad_norm":1.0,"lr":0.001,"images_per_s":200.0}"#;
//! let line: LogLine = serde_json::from_str(text)?;
//! assert!(bits_per_dim(line.loss, 3) > bits_per_dim(0.0, 3));
//! # Ok::<(), serde_json::Error>(())
//! ```

pub(crate) mod line;

pub use line::LogLine;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use line::{DAMAGED_FILE, LOG_FILE};

use crate::folder::RunFolder;
use crate::tensorboard::{EventFile, is_event_file};
use crate::trainer::StepReport;
use crate::{Error, Result};

/// Sums of the steps since the last line.
#[derive(Clone, Copy, Debug)]
struct Span {
    steps: u64,
    images_before: u64,
    loss: f64,
    spectral_loss: Option<f64>,
    grad_norm: f64,
    largest_loss: Option<f64>,
    skipped: u64,
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
    /// Opens the logs of `folder`, with a new event file, after so many steps and samples; later lines of an interrupted run are dropped.
    /// `density` is none where the loss is no log density.
    ///
    /// # Errors
    /// The files cannot be written.
    pub(crate) fn open(
        folder: &mut RunFolder,
        event_file: &str,
        [step, images]: [u64; 2],
        density: Option<Density>,
    ) -> Result<Self> {
        let path = folder.will_write(LOG_FILE)?;
        truncate(folder, &path, step)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        let names = crate::checkpoint::entries(folder.path())?;
        let continues = names.iter().any(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(is_event_file));
        let events = folder.will_write(event_file)?;
        let events = EventFile::create(events, continues.then_some(step + 1))?;
        Ok(Self { path, file, events, density, span: Span::new(images) })
    }

    /// Whether steps have been added since the last line.
    pub(crate) fn has_steps(&self) -> bool {
        self.span.steps > 0
    }

    /// Adds a step to the sums.
    pub(crate) fn add(&mut self, report: &StepReport) {
        self.span.steps += 1;
        self.span.skipped += u64::from(report.skipped);
        let largest = [self.span.largest_loss, report.largest_loss];
        self.span.largest_loss = largest.into_iter().flatten().reduce(f64::max);
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
        let count = (self.span.steps - self.span.skipped).max(1) as f64;
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
            largest_loss: self.span.largest_loss,
            skipped: self.span.skipped,
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
        values.extend(line.largest_loss.map(|loss| ("largest_loss", loss)));
        values.extend((line.skipped > 0).then_some(("skipped", line.skipped as f64)));
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
        Self {
            steps: 0,
            images_before,
            loss: 0.0,
            spectral_loss: None,
            grad_norm: 0.0,
            largest_loss: None,
            skipped: 0,
            since: Instant::now(),
        }
    }
}

/// Nats per pixel without the constant C/2 log(2 pi), to bits per dimension with it.
pub fn bits_per_dim(loss: f64, channels: usize) -> f64 {
    let constant = 0.5 * (2.0 * std::f64::consts::PI).ln();
    (loss / channels.max(1) as f64 + constant) / std::f64::consts::LN_2
}

/// What a log holds that is read back.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted {
    /// The lines up to the step, byte for byte.
    kept: Vec<u8>,
    /// Lines that cannot be read, with their numbers.
    damaged: Vec<(usize, Vec<u8>)>,
    /// How many lines of later steps there are.
    later: usize,
}

/// Reads the lines of a log up to `step`. A last line that was cut off in the middle, as a kill does it, counts as one of a later step.
fn sorted(bytes: &[u8], step: u64) -> Sorted {
    let mut sorted = Sorted::default();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match serde_json::from_slice::<LogLine>(line) {
            Ok(read) if read.step <= step && line.ends_with(b"\n") => sorted.kept.extend_from_slice(line),
            Ok(_) => sorted.later += 1,
            Err(error) if error.is_eof() && !line.ends_with(b"\n") => sorted.later += 1,
            Err(_) => sorted.damaged.push((index + 1, line.to_vec())),
        }
    }
    sorted
}

/// Drops the lines after `step`. Lines that cannot be read are moved to a file of their own; the others are not touched.
fn truncate(folder: &mut RunFolder, path: &Path, step: u64) -> Result<()> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(path, error)),
    };
    let Sorted { kept, damaged, .. } = sorted(&bytes, step);
    if let Some((first, _)) = damaged.first() {
        let aside = folder.will_write(DAMAGED_FILE)?;
        let mut lines: Vec<u8> = damaged.iter().flat_map(|(_, line)| line.iter().copied()).collect();
        if !lines.ends_with(b"\n") {
            lines.push(b'\n');
        }
        let file = OpenOptions::new().create(true).append(true).open(&aside);
        let written = file.and_then(|mut file| file.write_all(&lines).and_then(|()| file.sync_all()));
        written.map_err(|e| Error::io(&aside, e))?;
        log::warn!(
            "{}: {} of its lines, the first of them line {first}, cannot be read; they are moved to {DAMAGED_FILE}",
            path.display(),
            damaged.len(),
        );
    }
    if kept.len() != bytes.len() {
        gmflow::checkpoint::write_atomic(path, &kept)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64) -> String {
        format!("{{\"step\":{step},\"images\":1,\"loss\":0.5,\"grad_norm\":1.0,\"lr\":0.1,\"images_per_s\":2.0}}\n")
    }

    #[test]
    fn a_line_that_cannot_be_read_costs_one_line() {
        let null = line(4).replace("1.0", "null");
        let text =
            [line(2).as_bytes(), b"\xff\xfe\n", line(3).as_bytes(), null.as_bytes(), line(5).as_bytes()].concat();
        let damaged = vec![(2, b"\xff\xfe\n".to_vec()), (4, null.into_bytes())];
        let expected = Sorted { kept: [line(2), line(3), line(5)].concat().into_bytes(), damaged, later: 0 };
        assert_eq!(sorted(&text, 5), expected);
        let Sorted { kept, later, .. } = sorted(&text, 3);
        assert_eq!((kept, later), ([line(2), line(3)].concat().into_bytes(), 1));
    }

    #[test]
    fn a_last_line_that_was_cut_is_no_damage_and_bytes_behind_the_log_are() {
        let whole = line(2);
        for end in [1, 20, line(3).len() - 1] {
            let text = [whole.as_bytes(), &line(3).as_bytes()[..end]].concat();
            let Sorted { kept, damaged, later } = sorted(&text, 9);
            assert_eq!((kept, damaged.len(), later), (whole.clone().into_bytes(), 0, 1), "{end}");
        }
        let Sorted { kept, damaged, .. } = sorted(&[whole.as_bytes(), &[0; 512]].concat(), 9);
        assert_eq!((kept, damaged), (whole.into_bytes(), vec![(2, vec![0; 512])]));
        assert_eq!(sorted(b"", 9), Sorted::default());
    }
}
