//! Runs that are stopped: by every signal that leaves time, by one that leaves none, twice, and by another process.

use crate::models::image_model;
use crate::{run, start};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CONFIG: &str = r#"
[data.source]
kind = "density"
name = "checkerboard"

[network]
type = "mlp2d"
num_gaussians = 3
embed_dim = 16
hidden_dim = 16
num_layers = 2

[loss]
kind = "transition"
transition_ratio = 0.9

[train]
batch_size = 32
steps = 1000000000
seed = 4

[[ema]]
name = "ema"
decay = { kind = "constant", decay = 0.9 }

[checkpoint]
every = 1000000000

[log]
every = 1
"#;

/// Long enough for any machine; only a failure takes it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The folder of a run, and the configuration beside it.
struct Place {
    config: PathBuf,
    out: PathBuf,
}

impl Place {
    fn new(folder: &Path, name: &str, settings: &[(&str, &str)]) -> Self {
        let config = folder.join(format!("{name}.toml"));
        let text = settings.iter().fold(CONFIG.to_owned(), |text, (old, new)| {
            assert!(text.contains(old), "{old}");
            text.replace(old, new)
        });
        std::fs::write(&config, text).unwrap();
        Self { config, out: folder.join(name) }
    }

    fn arguments<'a>(&'a self, extra: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["train", self.config.to_str().unwrap(), "--out", self.out.to_str().unwrap()];
        arguments.extend(extra);
        arguments
    }

    fn start(&self, extra: &[&str]) -> Child {
        start(&self.arguments(extra))
    }

    /// Starts the run, or continues it where it has been begun.
    fn go_on(&self) -> Child {
        self.start(if self.out.join("run.manifest").exists() { &["--resume"] } else { &[] })
    }

    /// The steps of the log's whole lines.
    fn logged(&self) -> Vec<u64> {
        let bytes = std::fs::read(self.out.join("log.jsonl")).unwrap_or_default();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&bytes[..whole]).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
            .collect()
    }

    fn last_step(&self) -> u64 {
        self.logged().last().copied().unwrap_or(0)
    }

    /// Waits until the log holds a later step than `step`, or the process has ended.
    fn wait_beyond(&self, step: u64, child: &mut Child) {
        let start = Instant::now();
        while self.last_step() <= step && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "no step after {step} in {}", self.out.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The files of the checkpoint of a step.
    fn checkpoint(&self, step: u64) -> BTreeMap<String, Vec<u8>> {
        let folder = self.out.join(format!("checkpoints/step-{step:08}"));
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let file = |entry: std::fs::DirEntry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
        };
        entries.map(|entry| file(entry.unwrap())).collect()
    }

    /// Trains to `step` in this process's time; the run is continued where it has been begun.
    fn finish(&self, step: u64) {
        let goal = format!("train.steps={step}");
        let resume = self.out.join("run.manifest").exists().then_some("--resume");
        let extra: Vec<&str> = ["--set", goal.as_str()].into_iter().chain(resume).collect();
        let (code, _, stderr) = run(&self.arguments(&extra));
        assert_eq!(code, 0, "{stderr}");
    }
}

pub fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Whole seconds of processor time that a process has used.
fn processor_seconds(child: &Child) -> u64 {
    let output = Command::new("ps").args(["-o", "time=", "-p", &child.id().to_string()]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // hours:minutes:seconds, with hundredths on some systems.
    let places = text.trim().split(':').map(|place| place.split('.').next().unwrap().parse().unwrap_or(0));
    places.fold(0, |sum, place: u64| sum * 60 + place)
}

/// Seeded draws: the same in every run of the test.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Sends `signal` to a run at `times` random moments, each time continuing it, and compares its end with that of a run that was left alone.
fn stopped_and_resumed(folder: &Path, signal: &str, code: i32, times: u64) {
    let place = Place::new(folder, signal, &[]);
    let mut draws = Draws(code as u64);
    let mut step = 0;
    for time in 0..times {
        let mut child = place.go_on();
        place.wait_beyond(step + draws.below(4), &mut child);
        std::thread::sleep(Duration::from_micros(draws.below(2000)));
        send(&child, &signal["SIG".len()..]);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{signal}, stop {time}: {}", text(&output));
        assert!(text(&output).contains(&format!("stopped by {signal}; --resume continues")), "{}", text(&output));
        let stopped = place.last_step();
        assert!(stopped > step, "{signal}, stop {time}: every run gets on");
        place.checkpoint(stopped); // the step that was logged last is saved
        step = stopped;
    }
    let alone = Place::new(folder, &format!("{signal}-alone"), &[]);
    for place in [&place, &alone] {
        place.finish(step + 2);
    }
    assert!(place.checkpoint(step + 2) == alone.checkpoint(step + 2), "{signal}: the state differs");
    assert_eq!(place.logged(), (1..=step + 2).collect::<Vec<u64>>(), "{signal}: every step is logged once");
}

#[test]
fn every_signal_saves_and_a_resumed_run_comes_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let signals = [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138)];
    std::thread::scope(|scope| {
        for pair in signals.chunks(2) {
            let folder = folder.path();
            scope
                .spawn(move || pair.iter().for_each(|(signal, code)| stopped_and_resumed(folder, signal, *code, 20)));
        }
    });
    let place = Place::new(folder.path(), "other", &[]);
    for (signal, code) in [("USR2", 140), ("XCPU", 152)] {
        let mut child = place.go_on();
        place.wait_beyond(place.last_step(), &mut child);
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_comes_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("every = 1000000000", "every = 7\nkeep = 2")];
    let place = Place::new(folder.path(), "killed", &settings);
    let mut draws = Draws(9);
    for time in 0..20 {
        let mut child = place.go_on();
        if time % 3 == 0 {
            // While it starts: the lock, the list, the configuration, the logs.
            std::thread::sleep(Duration::from_micros(1000 + draws.below(60_000)));
        } else {
            place.wait_beyond(place.last_step() + draws.below(9), &mut child);
            std::thread::sleep(Duration::from_micros(draws.below(2000)));
        }
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "kill {time}: {}", text(&output));
    }
    let (step, alone) = (place.last_step() + 8, Place::new(folder.path(), "alone", &settings));
    for place in [&place, &alone] {
        place.finish(step);
    }
    assert!(place.checkpoint(step) == alone.checkpoint(step), "the state differs");
    assert_eq!(place.logged(), (1..=step).collect::<Vec<u64>>(), "every step is logged once");
    let is_temporary = |path: &Path| path.to_string_lossy().ends_with(".tmp");
    let left: Vec<PathBuf> = std::fs::read_dir(&place.out).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!left.iter().any(|path| is_temporary(path)), "{left:?}");
    let checkpoints: Vec<_> = std::fs::read_dir(place.out.join("checkpoints")).unwrap().flatten().collect();
    assert_eq!(checkpoints.len(), 2, "{checkpoints:?}");
}

/// A step of this run takes minutes, so that the signals surely come within it.
#[test]
fn a_second_signal_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        [("batch_size = 32", "batch_size = 400000\nmicro_batch = 256"), ("hidden_dim = 16", "hidden_dim = 1024")];
    let place = Place::new(folder.path(), "slow", &settings);
    let mut child = place.start(&[]);
    let start = Instant::now();
    let mut wait_for = |what: &dyn Fn(&Child) -> bool| {
        while !what(&child) {
            assert!(start.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    wait_for(&|_| place.out.join("log.jsonl").exists());
    // The log is there before the step begins. Nothing but the step takes seconds of processor time.
    wait_for(&|child| processor_seconds(child) >= 3);
    send(&child, "HUP");
    std::thread::sleep(Duration::from_millis(50));
    // A terminal that closes sends it twice: that is one stop.
    send(&child, "HUP");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none(), "the step goes on");
    send(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output));
    assert!(text(&output).contains("SIGHUP: stopping"), "{}", text(&output));
    assert_eq!(std::fs::read_dir(place.out.join("checkpoints")).unwrap().count(), 0);
}

/// `nohup` starts a program with SIGHUP ignored: the run outlives the terminal.
#[test]
fn a_signal_that_is_ignored_from_the_start_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), "nohup", &[]);
    let mut command = Command::new("nohup");
    let mut child = command
        .arg(assert_cmd::cargo::cargo_bin("gmflow"))
        .args(place.arguments(&[]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    place.wait_beyond(0, &mut child);
    send(&child, "HUP");
    let step = place.last_step();
    place.wait_beyond(step + 3, &mut child);
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    send(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output));
}

#[test]
fn a_second_process_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), "shared", &[]);
    let mut first = place.start(&[]);
    place.wait_beyond(0, &mut first);
    for extra in [&[][..], &["--force"], &["--resume"], &["--resume-from", "1"]] {
        let (code, _, stderr) = run(&place.arguments(extra));
        assert_eq!(code, 1, "{extra:?}: {stderr}");
        let holder = format!("in use by gmflow train (process {} on host ", first.id());
        assert!(stderr.contains(&holder) && stderr.contains("another folder"), "{extra:?}: {stderr}");
    }
    let step = place.last_step();
    place.wait_beyond(step + 3, &mut first);
    // Killed, it leaves its lock's file and no lock.
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(std::fs::read_to_string(place.out.join(".gmflow.lock")).unwrap().contains("process"));
    let second = place.go_on();
    let holder = format!("(process {} on host", second.id());
    let start = Instant::now();
    while !std::fs::read_to_string(place.out.join(".gmflow.lock")).unwrap().contains(&holder) {
        assert!(start.elapsed() < PATIENCE, "no lock of the second process");
        std::thread::sleep(Duration::from_millis(1));
    }
    send(&second, "TERM");
    let output = second.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", text(&output));
    let logged = place.logged();
    assert!(logged.is_sorted_by(|a, b| a < b), "the log is of one process: {logged:?}");
}

#[test]
fn of_two_that_start_at_once_one_trains() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::new(folder.path(), "race", &[("steps = 1000000000", "steps = 2000")]);
    let children = [place.start(&[]), place.start(&[])];
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    let codes: Vec<Option<i32>> = outputs.iter().map(|output| output.status.code()).collect();
    assert!(codes.contains(&Some(0)) && codes.contains(&Some(1)), "{outputs:?}");
    assert_eq!(place.logged(), (1..=2000).collect::<Vec<u64>>());
}

/// A limit on the size of files stands for a disk without room: writing fails in the same place.
#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("every = 1000000000", "every = 3"), ("hidden_dim = 16", "hidden_dim = 128")];
    let (place, alone) =
        (Place::new(folder.path(), "full", &settings), Place::new(folder.path(), "alone", &settings));
    place.finish(4);
    let limited = "trap '' XFSZ; ulimit -f 60; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", limited, assert_cmd::cargo::cargo_bin("gmflow").to_str().unwrap()])
        .args(place.arguments(&["--resume", "--set", "train.steps=8"]))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("step-00000006") && stderr.contains("File too large"), "{stderr}");
    let mut left: Vec<_> = std::fs::read_dir(place.out.join("checkpoints")).unwrap().flatten().collect();
    left.sort_by_key(std::fs::DirEntry::file_name);
    let left: Vec<_> = left.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(left, ["step-00000003", "step-00000004"]);
    for place in [&place, &alone] {
        place.finish(8);
    }
    assert!(place.checkpoint(8) == alone.checkpoint(8), "the state differs");
}

#[test]
fn pictures_of_a_call_that_is_killed_are_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    image_model(&model);
    let mut draws = Draws(5);
    for time in 0..3 {
        let out = folder.path().join(format!("pictures-{time}"));
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("gmflow"))
            .args(["sample", "--checkpoint", model.to_str().unwrap(), "--num", "3000", "--steps", "1"])
            .args(["--out", out.to_str().unwrap()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pictures = || -> Vec<PathBuf> {
            let entries = std::fs::read_dir(&out).into_iter().flatten().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.extension().is_some_and(|ending| ending == "png")).collect()
        };
        let start = Instant::now();
        while pictures().is_empty() {
            assert!(start.elapsed() < PATIENCE && child.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(draws.below(20_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        for path in pictures() {
            let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
            let mut reader = png::Decoder::new(file).read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut pixels).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}
