//! Event files that TensorBoard reads: records of hand-written protocol buffers.
//!
//! The few message fields that scalars and pictures need are written here, because the crate that exists for it ends its
//! writer thread by a panic when the disk is full and brings an old image library along.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

const NAME_START: &str = "events.out.tfevents.";
const NAME_END: &str = ".gmflow";

/// Whether an event file of ours has this name.
pub(crate) fn is_event_file(name: &str) -> bool {
    name.starts_with(NAME_START) && name.ends_with(NAME_END)
}

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// The name of an event file that is begun now.
    pub fn new_name() -> String {
        format!("{NAME_START}{:010}.{}{NAME_END}", seconds() as u64, std::process::id())
    }

    /// Starts an event file. `next_step` is given where it continues earlier files: TensorBoard drops what they hold of that step and of
    /// later ones.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: PathBuf, next_step: Option<u64>) -> Result<Self> {
        let now = seconds();
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        let mut events = Self { path, file };
        let version = [double(1, now), bytes(3, b"brain.Event:2")].concat();
        events.record(&version)?;
        if let Some(step) = next_step {
            let start = bytes(7, &integer(1, 1)); // session log, status START
            events.record(&[double(1, now), integer(2, step), start].concat())?;
        }
        Ok(events)
    }

    /// Adds one value of each named scalar at `step`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let summary: Vec<u8> = values
            .iter()
            .flat_map(|(tag, value)| bytes(1, &[bytes(1, tag.as_bytes()), float(2, *value as f32)].concat()))
            .collect();
        self.record(&[double(1, seconds()), integer(2, step), bytes(5, &summary)].concat())
    }

    /// Adds a PNG picture at `step`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn picture(&mut self, step: u64, tag: &str, [height, width]: [usize; 2], png: &[u8]) -> Result<()> {
        let picture = [integer(1, height as u64), integer(2, width as u64), integer(3, 3), bytes(4, png)].concat();
        let summary = bytes(1, &[bytes(1, tag.as_bytes()), bytes(4, &picture)].concat());
        self.record(&[double(1, seconds()), integer(2, step), bytes(5, &summary)].concat())
    }

    /// Length, its checksum, the data, its checksum.
    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(data.len() + 16);
        record.extend_from_slice(&length);
        record.extend_from_slice(&masked_checksum(&length).to_le_bytes());
        record.extend_from_slice(data);
        record.extend_from_slice(&masked_checksum(data).to_le_bytes());
        self.file.write_all(&record).map_err(|e| Error::io(&self.path, e))
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// CRC-32C, rotated and offset as the record format wants it.
fn masked_checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn key(field: u64, wire_type: u64) -> Vec<u8> {
    varint(field << 3 | wire_type)
}

fn integer(field: u64, value: u64) -> Vec<u8> {
    [key(field, 0), varint(value)].concat()
}

fn double(field: u64, value: f64) -> Vec<u8> {
    [key(field, 1), value.to_le_bytes().to_vec()].concat()
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    [key(field, 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn float(field: u64, value: f32) -> Vec<u8> {
    [key(field, 5), value.to_le_bytes().to_vec()].concat()
}
