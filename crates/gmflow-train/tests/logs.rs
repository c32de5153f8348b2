//! TensorBoard events are complete records, and pictures are written beside them.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use gmflow_train::log::{LogLine, bits_per_dim};
use gmflow_train::{ResumeOptions, Run, Silent};

mod common;

/// The records of an event file, each checksum verified.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let masked = |data: &[u8]| crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8);
    let bytes = std::fs::read(path).expect("an event file");
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_at(8);
        let (check, after) = after.split_at(4);
        assert_eq!(u32::from_le_bytes(check.try_into().expect("4 bytes")), masked(length));
        let count = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
        let (data, after) = after.split_at(count);
        let (check, after) = after.split_at(4);
        assert_eq!(u32::from_le_bytes(check.try_into().expect("4 bytes")), masked(data));
        found.push(data.to_vec());
        rest = after;
    }
    found
}

fn event_files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().expect("the run's folder").map(|entry| entry.expect("entry").path());
    entries.filter(|path| path.to_string_lossy().contains("tfevents")).collect()
}

fn contains(record: &[u8], text: &[u8]) -> bool {
    record.windows(text.len()).any(|window| window == text)
}

#[test]
fn a_run_writes_lines_events_and_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = common::tiny_with(&[
        "train.steps=10",
        "sample={every=5, num=50, sampler={solver={kind=\"gm-sde\"}, steps=2}}",
    ]);
    let mut run = Run::create(config, folder.path(), false, &Device::flex()).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    let text = std::fs::read_to_string(folder.path().join("log.jsonl")).expect("log");
    let lines: Vec<LogLine> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<u64>>(), [5, 10]);
    assert_eq!(lines[1].images, 640);
    // Reading decimal numbers back may cost the last bit.
    let bits = lines[1].transition_bits_per_dim.expect("bits of a log density");
    assert!((bits - bits_per_dim(lines[1].loss, 2)).abs() < 1e-12, "{bits}");
    let files = event_files(folder.path());
    assert_eq!(files.len(), 1);
    let records = records(&files[0]);
    assert_eq!(records.len(), 5, "version, two lines, two pictures");
    assert!(contains(&records[0], b"brain.Event:2"));
    let loss = [&[0x0a, 4][..], b"loss", &[0x15], &(lines[0].loss as f32).to_le_bytes()].concat();
    assert!(records.iter().any(|record| contains(record, &loss)), "the loss must be in the events");
    assert!(records.iter().any(|record| contains(record, b"\x89PNG")));
    let picture = std::fs::read(folder.path().join("samples/step-00000010.png")).expect("a picture");
    let decoder = png::Decoder::new(std::io::Cursor::new(picture));
    let reader = decoder.read_info().expect("a PNG");
    assert_eq!((reader.info().width, reader.info().height), (128, 128));
}

#[test]
fn a_standard_normal_has_its_entropy_in_bits() {
    // The mean of -log N(x; 0, 1) without its constant is 1/2.
    let entropy = 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E).log2();
    assert!((bits_per_dim(0.5, 1) - entropy).abs() < 1e-12);
    assert!((bits_per_dim(1.5, 3) - entropy).abs() < 1e-12);
}

/// The only line that a run of few steps logs, as it stands in the file and as it is read.
fn line_of(overrides: &[&str]) -> (serde_json::Value, LogLine) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut run = Run::create(common::tiny_with(overrides), folder.path(), false, &Device::flex()).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    let text = std::fs::read_to_string(folder.path().join("log.jsonl")).expect("log");
    let line = text.lines().next().expect("a line");
    (serde_json::from_str(line).expect("JSON"), serde_json::from_str(line).expect("a line of the log"))
}

#[test]
fn bits_are_those_of_the_transition_and_say_so() {
    let one_step = ["train.steps=1", "loss.transition_ratio=0.5"];
    let (raw, line) = line_of(&one_step);
    assert!(raw["transition_bits_per_dim"].is_f64() && raw.get("bits_per_dim").is_none(), "{raw}");
    // A factor on the loss is no likelihood.
    let (_, weighted) = line_of(&[&one_step[..], &["loss.weight_scale=3.0"]].concat());
    assert!((weighted.loss / line.loss - 3.0).abs() < 1e-5, "{weighted:?} {line:?}");
    let [bits, same] = [line, weighted].map(|line| line.transition_bits_per_dim.expect("bits"));
    assert!((bits - same).abs() < 1e-5, "{bits} and {same}");
    let (raw, line) = line_of(&["train.steps=1", "loss={kind=\"l2\"}"]);
    assert!(line.transition_bits_per_dim.is_none() && raw.get("transition_bits_per_dim").is_none(), "{raw}");
}

#[test]
fn a_run_with_the_old_name_of_its_bits_is_read_and_continued() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.jsonl");
    let device = Device::flex();
    let config = common::tiny_with(&["train.steps=5"]);
    Run::create(config, folder.path(), false, &device)
        .expect("a run")
        .run(&AtomicBool::new(false), &mut Silent)
        .expect("training");
    let old = std::fs::read_to_string(&path).expect("log").replace("transition_bits_per_dim", "bits_per_dim");
    std::fs::write(&path, &old).expect("the older log");
    let mut run = Run::resume(folder.path(), &["train.steps=10".to_owned()], &device).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    let text = std::fs::read_to_string(&path).expect("log");
    assert!(text.starts_with(&old), "the lines from before stay as they are: {text}");
    let lines: Vec<LogLine> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<u64>>(), [5, 10]);
    assert!(lines.iter().all(|line| line.transition_bits_per_dim.is_some()), "{lines:?}");
}

/// A number of the form that protocol buffers write, and what is behind it.
fn varint(bytes: &[u8]) -> (u64, &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).expect("an end") + 1;
    let value = bytes[..end].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    (value, &bytes[end..])
}

/// An event's step, and whether it starts a session rather than holding values.
fn event(record: &[u8]) -> (u64, bool, bool) {
    let (mut rest, mut step, mut starts, mut has_values) = (record, 0, false, false);
    while !rest.is_empty() {
        let (key, after) = varint(rest);
        rest = match key & 7 {
            0 => {
                let (value, after) = varint(after);
                step = if key >> 3 == 2 { value } else { step };
                after
            }
            1 => &after[8..],
            2 => {
                let (length, after) = varint(after);
                starts |= key >> 3 == 7;
                has_values |= key >> 3 == 5;
                &after[length as usize..]
            }
            other => panic!("type {other}"),
        };
    }
    (step, starts, has_values)
}

/// The steps that TensorBoard shows of files in order: where a session starts, it drops what it has of that step and of later ones.
fn shown(files: &[PathBuf]) -> Vec<u64> {
    let mut shown = Vec::new();
    for record in files.iter().flat_map(|file| records(file)) {
        match event(&record) {
            (step, true, _) => shown.retain(|other| *other < step),
            (step, _, true) => shown.push(step),
            _ => {}
        }
    }
    shown
}

#[test]
fn tensorboard_shows_every_step_once_after_stops_and_kills() {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, device) = (folder.path(), Device::flex());
    // Killed before its first checkpoint: lines without one.
    let every_step = ["train.steps=4", "log.every=1", "checkpoint={every=100, keep=9}"];
    let run = Run::create(common::tiny_with(&every_step), out, false, &device).expect("a run");
    drop(run);
    let mut files = event_files(out);
    let [earlier] = files.as_slice() else { panic!("{files:?}") };
    // Names go by the second; what a process wrote in an earlier one sorts before.
    let name = |second: u64| out.join(format!("events.out.tfevents.{second:010}.1.gmflow"));
    std::fs::rename(earlier, name(1)).expect("renamed");
    files = vec![name(1)];
    let overrides = |steps: u64| [format!("train.steps={steps}")];
    for (steps, second) in [(4, 2), (7, 3), (9, 4)] {
        let mut run = Run::resume(out, &overrides(steps), &device).expect("a run");
        run.run(&AtomicBool::new(false), &mut Silent).expect("training");
        drop(run);
        let new: Vec<PathBuf> = event_files(out).into_iter().filter(|path| !files.contains(path)).collect();
        assert_eq!(new.len(), 1);
        std::fs::rename(&new[0], name(second)).expect("renamed");
        files.push(name(second));
        assert_eq!(shown(&files), (1..=steps).collect::<Vec<u64>>());
    }
    // Lost with a kill: the run goes on from step 4, and steps 5 to 9 are replaced.
    let from = ResumeOptions { from: Some(4), ..Default::default() };
    let mut run = Run::resume_with(out, &overrides(6), from, &device).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    drop(run);
    let new: Vec<PathBuf> = event_files(out).into_iter().filter(|path| !files.contains(path)).collect();
    files.extend(new);
    assert_eq!(shown(&files), [1, 2, 3, 4, 5, 6]);
}
