//! `log.jsonl` of a run, read where it is wanted, however long it is.

use crate::refusal::{Answer, Refusal};
use serde_json::Value;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Bytes that hold a line, and a few of them.
const LINE: u64 = 4096;
const TAIL: u64 = 16 * 1024;

/// The log of a run.
#[derive(Clone, Debug)]
pub(crate) struct Log(pub PathBuf);

/// Whole lines of a log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub bytes: Vec<u8>,
    /// Where to go on.
    pub next: u64,
    pub size: u64,
    /// The log became shorter than where it was to be read.
    pub restarted: bool,
}

/// Lines that are evenly spread over a log.
#[derive(Debug)]
pub(crate) struct Curve {
    pub lines: Vec<Value>,
    pub next: u64,
    pub size: u64,
}

impl Log {
    /// Opens the file; a run that has not logged yet has none.
    fn open(&self) -> Answer<Option<(File, u64)>> {
        let failed = |error: std::io::Error| Refusal::failed(format!("{}: {error}", self.0.display()));
        let file = match File::open(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        let size = file.metadata().map_err(failed)?.len();
        Ok(Some((file, size)))
    }

    pub fn size(&self) -> u64 {
        std::fs::metadata(&self.0).map_or(0, |file| file.len())
    }

    /// Whole lines from byte `after` on, at most `most` bytes of them.
    pub fn read(&self, after: u64, most: usize) -> Answer<Part> {
        let Some((mut file, size)) = self.open()? else {
            return Ok(Part { bytes: Vec::new(), next: 0, size: 0, restarted: after > 0 });
        };
        let restarted = after > size;
        let after = if restarted { 0 } else { after };
        let mut bytes = self.bytes(&mut file, after, most as u64)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        // A line that is longer than what is read at once is no line of a log: it is passed over.
        let passed = if whole == 0 && bytes.len() == most { bytes.len() } else { whole };
        bytes.truncate(whole);
        Ok(Part { bytes, next: after + passed as u64, size, restarted })
    }

    fn bytes(&self, file: &mut File, from: u64, most: u64) -> Answer<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(most).read_to_end(&mut bytes));
        read.map_err(|error| Refusal::failed(format!("{}: {error}", self.0.display())))?;
        Ok(bytes)
    }

    /// About `points` lines, evenly spread over the file, and the last one. It takes no longer for a long file.
    pub fn curve(&self, points: usize) -> Answer<Curve> {
        let Some((mut file, size)) = self.open()? else { return Ok(Curve { lines: Vec::new(), next: 0, size: 0 }) };
        let whole = |bytes: &[u8]| -> Vec<Value> {
            bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
        };
        if size <= points as u64 * 256 {
            let part = self.read(0, usize::try_from(size).unwrap_or(usize::MAX))?;
            let lines = whole(&part.bytes);
            let stride = lines.len().div_ceil(points.max(1)).max(1);
            let last = lines.len().saturating_sub(1);
            let lines = lines.into_iter().enumerate();
            let lines = lines.filter(|(index, _)| index % stride == 0 || *index == last).map(|(_, line)| line);
            return Ok(Curve { lines: lines.collect(), next: part.next, size });
        }
        let mut lines: Vec<Value> = Vec::with_capacity(points + 1);
        for point in 0..points as u64 {
            let from = (u128::from(size) * u128::from(point) / points as u128) as u64;
            let bytes = self.bytes(&mut file, from, LINE)?;
            // The first line begins somewhere before, but at the beginning.
            let start = if point == 0 {
                0
            } else {
                bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1)
            };
            let line = bytes.get(start..).unwrap_or_default().split(|byte| *byte == b'\n').next();
            lines.extend(line.and_then(|line| serde_json::from_slice::<Value>(line).ok()));
        }
        lines.extend(self.tail().pop());
        lines.dedup_by(|a, b| a["step"] == b["step"]);
        // The end of the last whole line is where to go on.
        let from = size.saturating_sub(TAIL);
        let end = self.bytes(&mut file, from, size - from)?;
        let next = end.iter().rposition(|byte| *byte == b'\n').map_or(size, |at| from + at as u64 + 1);
        Ok(Curve { lines, next, size })
    }

    /// The last lines, those that can be read.
    pub fn tail(&self) -> Vec<Value> {
        let Ok(Some((mut file, size))) = self.open() else { return Vec::new() };
        let from = size.saturating_sub(TAIL);
        let bytes = self.bytes(&mut file, from, TAIL).unwrap_or_default();
        let mut lines = bytes.split(|byte| *byte == b'\n');
        if from > 0 {
            lines.next();
        }
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn line(step: u64) -> String {
        format!("{{\"step\":{step},\"loss\":0.5}}\n")
    }

    #[test]
    fn whole_lines_are_read_from_an_offset() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log(folder.path().join("log.jsonl"));
        assert_eq!(log.read(0, 100).unwrap(), Part { bytes: Vec::new(), next: 0, size: 0, restarted: false });
        let (first, second) = (line(1), line(2));
        fs::write(&log.0, format!("{first}{second}{{\"step\":3")).unwrap();
        let part = log.read(0, 1000).unwrap();
        assert_eq!(part.bytes, format!("{first}{second}").into_bytes());
        let next = (first.len() + second.len()) as u64;
        assert_eq!((part.next, part.restarted), (next, false));
        assert_eq!(log.read(next, 1000).unwrap().bytes, b"", "the line is not written yet");
        assert_eq!(log.read(0, first.len() + 3).unwrap().next, first.len() as u64);
        let part = log.read(10_000, 1000).unwrap();
        assert!(part.restarted && part.bytes.starts_with(first.as_bytes()));
    }

    #[test]
    fn a_curve_takes_about_as_many_lines_as_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log(folder.path().join("log.jsonl"));
        for count in [0, 1, 10, 5000] {
            fs::write(&log.0, (1..=count).map(line).collect::<String>()).unwrap();
            let curve = log.curve(50).unwrap();
            let steps: Vec<u64> = curve.lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
            assert!(steps.is_sorted() && steps.len() <= 52, "{count}: {steps:?}");
            assert_eq!(curve.next, curve.size);
            assert_eq!(steps.last().copied(), Some(count).filter(|count| *count > 0));
            assert!(steps.len() as u64 >= count.min(40), "{count}: {steps:?}");
        }
    }
}
