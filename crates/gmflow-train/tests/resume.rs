//! A run that is killed and resumed equals one that was not, bit for bit, and a folder is not overwritten by accident.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use burn::tensor::Device;
use gmflow_train::log::LogLine;
use gmflow_train::{Error, Observer, Outcome, Run, Silent, StepReport};

mod common;

/// Where the child process of the test finds its folder.
const CHILD_FOLDER: &str = "GMFLOW_TEST_RUN_FOLDER";
const STEPS: u64 = 300;

fn config() -> gmflow_train::Config {
    common::tiny_with(&["train.steps=300", "checkpoint.every=7", "log.every=4", "train.micro_batch=40"])
}

/// Continues, whenever the process before was killed; only a run that was not begun is created.
fn go_on(folder: &Path) -> Outcome {
    let run = match folder.join("config.toml").exists() {
        true => Run::resume(folder, &[], &Device::flex()),
        false => Run::create(config(), folder, false, &Device::flex()),
    };
    run.expect("a run").run(&AtomicBool::new(false), &mut Silent).expect("training")
}

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "runs as a child of killed_and_resumed_equals_uninterrupted"]
fn child() {
    let folder = std::env::var_os(CHILD_FOLDER).expect("the folder");
    go_on(Path::new(&folder));
}

fn spawn_and_kill(folder: &Path, after: Duration) -> bool {
    let mut child = Command::new(std::env::current_exe().expect("the test binary"))
        .args(["--exact", "child", "--ignored"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    // The clock starts with the run, not with the process.
    let started = Instant::now();
    while !folder.join("log.jsonl").exists() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(after);
    let finished = child.try_wait().expect("the child's state").is_some();
    child.kill().expect("SIGKILL");
    child.wait().expect("the child's end");
    !finished
}

#[test]
fn killed_and_resumed_equals_uninterrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let started = Instant::now();
    assert_eq!(go_on(&whole), Outcome::Finished);
    // Kills come within the first half of a run, however fast the machine is.
    let run = started.elapsed();
    let mut delay = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").subsec_nanos() as u64;
    let mut kills = 0;
    for _ in 0..4 {
        delay = delay.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let after = run.mul_f64(0.1 + ((delay >> 33) % 400) as f64 / 1000.0);
        kills += usize::from(spawn_and_kill(&broken, after));
    }
    assert!(kills > 0, "no child was killed before it was done");
    go_on(&broken);
    let last = format!("checkpoints/step-{STEPS:08}");
    for file in ["model.safetensors", "ema.ema.safetensors", "optimizer.safetensors", "state.json"] {
        let read = |run: &Path| std::fs::read(run.join(&last).join(file)).expect("a checkpoint's file");
        assert!(read(&whole) == read(&broken), "{file} differs after {kills} kills");
    }
    let steps = |run: &Path| -> Vec<u64> {
        let text = std::fs::read_to_string(run.join("log.jsonl")).expect("log");
        text.lines().map(|line| serde_json::from_str::<LogLine>(line).expect("a line").step).collect()
    };
    let logged = steps(&broken);
    assert!(logged.is_sorted_by(|a, b| a < b), "duplicate or unordered steps: {logged:?}");
    assert_eq!(steps(&whole), (1..=STEPS / 4).map(|line| 4 * line).collect::<Vec<u64>>());
    for run in [&whole, &broken] {
        let kept: Vec<_> = run.join("checkpoints").read_dir().expect("checkpoints").flatten().collect();
        assert_eq!(kept.len(), 2, "all but the last two must be removed, unfinished ones included: {kept:?}");
    }
}

struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn on_step(&mut self, report: &StepReport) {
        if report.step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn stopping_writes_a_checkpoint_of_the_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let stop = AtomicBool::new(false);
    let mut run = Run::create(config(), folder.path(), false, &Device::flex()).expect("a run");
    assert_eq!(run.run(&stop, &mut StopAt(5, &stop)).expect("training"), Outcome::Stopped);
    assert!(folder.path().join("checkpoints/step-00000005/state.json").is_file());
    drop(run);
    let again = Run::create(config(), folder.path(), false, &Device::flex());
    assert!(matches!(again, Err(Error::RunExists { .. })));
    // Training longer is an override that a resumed run takes.
    let resumed = Run::resume(folder.path(), &["train.steps=6".into()], &Device::flex()).expect("resume");
    assert_eq!(resumed.trainer().steps_taken(), 5);
    drop(resumed);
    let other = Run::resume(folder.path(), &["train.batch_size=48".into()], &Device::flex());
    assert!(other.expect_err("another batch").to_string().contains("train.batch_size: expected 64"));
    let other = Run::resume(folder.path(), &["network.hidden_dim=32".into()], &Device::flex());
    assert!(other.expect_err("another network").to_string().contains("network"));
}
