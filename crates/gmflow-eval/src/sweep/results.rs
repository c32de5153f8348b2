//! The finished and the failed cells of a sweep and the likelihoods of its models, one line of JSON each.

use super::weights::Weights;
use crate::{Error, Likelihood, Result, Row};
use gmflow::checkpoint::write_atomic;
use gmflow::pipeline::SamplerConfig;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// One cell's outcome, or the likelihood of a model, which all of its cells share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Everything that the figures depend on: a cell with the same key is the same measurement.
    pub key: Value,
    /// The model's name.
    pub model: String,
    /// The files that the model was read from, where they were on this machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights: Option<Weights>,
    /// What the solver is called; "likelihood" where there is none.
    pub label: String,
    /// The settings that the model was sampled with; none in lines from before they were written, or that this version cannot read.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "if_readable")]
    pub config: Option<SamplerConfig>,
    /// The likelihood of the reference under the model.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub likelihood: Option<Likelihood>,
    /// The measurement.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub row: Option<Row>,
    /// Counts of a histogram of 64 x 64 bins, for points.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub histogram: Option<Vec<u64>>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl Line {
    /// A line without an outcome.
    pub fn of(key: Value, model: String, weights: Option<Weights>) -> Self {
        Self {
            key,
            model,
            weights,
            label: String::new(),
            config: None,
            likelihood: None,
            row: None,
            histogram: None,
            error: None,
        }
    }

    /// Whether it is of these files, as far as is known.
    fn is_of(&self, weights: Option<&Weights>) -> bool {
        self.weights.as_ref().zip(weights).is_none_or(|(own, now)| own == now)
    }
}

/// Figures stay readable where settings have other names by now.
fn if_readable<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SamplerConfig>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

/// What a line of the file holds.
enum Read {
    /// An outcome.
    Line(Box<Line>),
    /// An outcome with a figure that is null, by its key.
    Empty(Value),
}

/// Reads one line.
fn read(text: &[u8]) -> serde_json::Result<Read> {
    let mut value: Value = serde_json::from_slice(text)?;
    if has_empty_figure(&value) {
        return Ok(Read::Empty(value["key"].take()));
    }
    Ok(Read::Line(Box::new(Line::deserialize(value)?)))
}

/// A line that cannot be read.
struct Damaged<'a> {
    place: String,
    why: serde_json::Error,
    text: &'a [u8],
}

impl Damaged<'_> {
    fn error(&self) -> Error {
        Error::config(&self.place, "a result of gmflow sweep", &self.why)
    }
}

/// Adds lines that cannot be read to a file of their own, and says why.
fn set_aside(path: &Path, lines: &[Damaged]) -> Result<()> {
    let aside = path.with_extension("jsonl.damaged");
    for line in lines {
        log::warn!("{}; it is moved to {}", line.error(), aside.display());
    }
    let bytes: Vec<u8> = lines.iter().flat_map(|line| line.text.iter().copied()).collect();
    let file = File::options().create(true).append(true).open(&aside);
    let written = file.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| Error::io(&aside, error))
}

/// The file of all outcomes.
pub struct Results {
    path: PathBuf,
    file: File,
    /// Outcomes of this and earlier calls; of several with one key the last counts.
    pub lines: Vec<Line>,
}

impl Results {
    /// Opens or creates the file. A last line that was cut off by an interruption is dropped; one that cannot be read is moved to a file of
    /// its own; one with a figure that is no number counts as not there. The last two are named.
    ///
    /// # Errors
    /// A file that cannot be read or written, or that holds no result at all.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io(path, error)),
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (mut lines, mut kept): (Vec<Line>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut damaged: Vec<Damaged> = Vec::new();
        let mut left_out: Vec<(String, Value)> = Vec::new();
        for (number, text) in bytes[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            let place = format!("{}, line {}", path.display(), number + 1);
            match read(text) {
                Err(why) => {
                    damaged.push(Damaged { place, why, text });
                    continue;
                }
                Ok(Read::Empty(key)) => left_out.push((place, key)),
                Ok(Read::Line(line)) => {
                    left_out.retain(|(_, key)| *key != line.key);
                    lines.retain(|other| other.key != line.key);
                    lines.push(*line);
                }
            }
            kept.extend_from_slice(text);
        }
        for (place, _) in left_out {
            log::warn!("{place}: expected numbers, got null for a figure; the line is left out");
        }
        if let Some(first) = damaged.first() {
            if kept.is_empty() {
                // No line of it is ours, so neither is the file.
                return Err(first.error());
            }
            set_aside(path, &damaged)?;
            write_atomic(path, &kept)?;
        }
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let mut file = file.map_err(|error| Error::io(path, error))?;
        let ready =
            file.set_len(kept.len() as u64).and_then(|()| std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)));
        ready.map_err(|error| Error::io(path, error))?;
        Ok(Self { path: path.to_owned(), file, lines })
    }

    /// Takes the outcomes of another file that are not here: of a part of the sweep that another process has measured.
    ///
    /// # Errors
    /// As [`Results::open`]; the results cannot be written.
    pub fn take_from(&mut self, other: &Path) -> Result<()> {
        let lines = Self::open(other)?.lines;
        self.take(lines)
    }

    /// Takes the outcomes that are not here. A failed one gives way to a measurement.
    ///
    /// # Errors
    /// The results cannot be written.
    pub fn take(&mut self, lines: Vec<Line>) -> Result<()> {
        for line in lines {
            let known = |own: &&Line| own.key == line.key && own.is_of(line.weights.as_ref());
            match self.lines.iter().find(known) {
                Some(own) if own.error.is_none() || line.error.is_some() => {}
                _ => self.add(line)?,
            }
        }
        Ok(())
    }

    /// The outcome of a cell that is finished, and was measured with these files.
    pub fn finished(&self, key: &Value, weights: Option<&Weights>) -> Option<&Line> {
        self.lines.iter().find(|line| line.key == *key && line.row.is_some() && line.is_of(weights))
    }

    /// How many of the cells with these keys were measured with other files than these.
    pub fn outdated<'a>(&self, keys: impl Iterator<Item = &'a Value>, weights: Option<&Weights>) -> usize {
        keys.filter(|&key| self.finished(key, None).is_some() && self.finished(key, weights).is_none()).count()
    }

    /// The likelihood of a cell's model with these files, from a line of its own, or from a cell of a file that has no such line.
    pub fn likelihood(&self, cell: &Value, weights: Option<&Weights>) -> Option<&Likelihood> {
        let wanted = likelihood_key(cell);
        let mut same = self.lines.iter().filter(|line| likelihood_key(&line.key) == wanted && line.is_of(weights));
        let own = same.clone().find_map(|line| line.likelihood.as_ref());
        own.or_else(|| same.find_map(|line| line.row.as_ref()?.likelihood.as_ref()))
    }

    /// Writes an outcome through to the disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, line: Line) -> Result<()> {
        let mut text = serde_json::to_string(&line).map_err(|error| Error::io(&self.path, error.into()))?;
        text.push('\n');
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| Error::io(&self.path, error))?;
        self.lines.retain(|other| other.key != line.key);
        self.lines.push(line);
        Ok(())
    }
}

/// What a likelihood depends on, from the key of a cell or of a likelihood: how the model is sampled from is none of it.
pub fn likelihood_key(key: &Value) -> Value {
    let reference = &key["reference"];
    json!({
        "likelihood": true, "checkpoint": key["checkpoint"], "ema": key["ema"], "precision": key["precision"],
        "reference": { "data": reference["data"], "limit": reference["limit"] }
    })
}

/// Whether a figure is null, which is how JSON writes one that is not finite: figures that do not exist are not written at all.
fn has_empty_figure(line: &Value) -> bool {
    fn has_null(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(values) => values.iter().any(has_null),
            Value::Object(entries) => entries.values().any(has_null),
            _ => false,
        }
    }
    let (row, figures) = (line.get("row"), ["metrics", "points", "likelihood"]);
    let of_row = figures.iter().filter_map(|name| row?.get(name));
    of_row.chain(line.get("likelihood")).any(has_null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_cannot_be_written_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cells.jsonl");
        std::fs::write(&path, "").unwrap();
        let mut results = Results { file: File::open(&path).unwrap(), path, lines: Vec::new() };
        let error = results.add(Line::of(json!({}), "model".into(), None)).unwrap_err();
        assert!(error.to_string().contains("cells.jsonl: "), "{error}");
        assert!(results.lines.is_empty());
    }
}
