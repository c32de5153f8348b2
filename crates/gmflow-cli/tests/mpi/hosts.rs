//! Two hosts, which are network namespaces on this machine, where it allows that: root, and `ip` of iproute2.

use super::failures::{end, wait_for_steps};
use super::training::newest;
use super::{DIT, config, ended, expect_same, gmflow, has_mpirun, path, tensors, text, well};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/two_hosts.sh")
}

/// The two hosts; they are gone when it is dropped.
struct Hosts;

impl Hosts {
    /// Makes them, or says why the test is left out.
    fn up() -> Option<Self> {
        let _ = Command::new(script()).arg("down").stderr(Stdio::null()).status();
        let made = Command::new(script()).arg("up").output();
        if made.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self);
        }
        let why = made.map_or_else(|error| error.to_string(), |output| text(&output.stderr));
        eprintln!("SKIPPED: this machine has no network namespaces for two hosts: {why}");
        None
    }

    fn run(&self, arguments: &[&str]) -> Command {
        let mut job = Command::new(script());
        job.args(["run", "1"]).arg(gmflow()).args(arguments).env("RAYON_NUM_THREADS", "1");
        job.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        job
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = Command::new(script()).arg("down").status();
    }
}

/// How many processes train into a folder; the launcher is none of them.
fn ranks_of(out: &Path) -> usize {
    let is_rank = |entry: std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        words[0] == path(&gmflow()).as_bytes() && words.contains(&path(out).as_bytes())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(is_rank_folder).map(is_rank).filter(|is| *is).count()
}

fn is_rank_folder(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
}

/// One test, because there is one pair of hosts.
#[test]
fn two_hosts_train_to_the_same_bits_and_end_when_the_cable_is_cut() {
    if !has_mpirun() {
        return;
    }
    let Some(hosts) = Hosts::up() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), DIT);
    let (alone, together) = (folder.path().join("alone"), folder.path().join("together"));
    well(1, &["train", path(&config), "--out", path(&alone), "--set", "train.micro_batch=6"]);
    let (output, _) = ended(hosts.run(&["train", path(&config), "--out", path(&together)]));
    let err = text(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("processes 2 on 2 hosts"), "{err}");
    expect_same("two hosts", &tensors(&alone, 20), &tensors(&together, 20));

    let out = folder.path().join("cut");
    let arguments = ["train", path(&config), "--out", path(&out), "--set", "train.steps=1000000", "--timeout", "3"];
    let child = hosts.run(&arguments).spawn().unwrap();
    wait_for_steps(&out);
    assert!(Command::new(script()).arg("cut").status().unwrap().success());
    let cut = Instant::now();
    // Both ranks end by themselves. The launcher waits for the other host until TCP gives up, which takes minutes.
    while ranks_of(&out) > 0 {
        assert!(cut.elapsed() < Duration::from_secs(60), "{} ranks still run", ranks_of(&out));
        std::thread::sleep(Duration::from_millis(100));
    }
    end(child.id());
    let err = text(&child.wait_with_output().unwrap().stderr);
    assert!(err.contains("[rank 0] no answer of all ranks within 3 s"), "{err}");
    assert!(newest(&out) >= 10);
}
