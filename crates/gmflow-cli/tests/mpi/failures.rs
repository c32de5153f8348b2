//! One process fails: the job ends soon, says why, and leaves the last checkpoint whole.

use super::training::newest;
use super::{DIT, config, ended, gmflow, has_mpirun, mpirun, path, text};
use gmflow_data::{EncodedBatch, LatentManifest, LatentPrecision, LatentWriter};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the end of a job may take once a rank has failed.
const SOON: Duration = Duration::from_secs(10);
/// Where the child process of a test finds out that it is one.
const CHILD: &str = "GMFLOW_TEST_RANK_THAT_PANICS";

/// How often each failure is tried: `GMFLOW_MPI_TRIES`, or once.
pub fn tries() -> usize {
    std::env::var("GMFLOW_MPI_TRIES").ok().and_then(|tries| tries.parse().ok()).unwrap_or(1)
}

fn train(ranks: usize, config: &Path, out: &Path, set: &[&str]) -> Command {
    let mut job = mpirun();
    job.arg("-n").arg(ranks.to_string()).arg(gmflow()).args(["train", path(config), "--out", path(out)]);
    set.iter().for_each(|set| {
        job.args(["--set", set]);
    });
    job
}

fn expect_failure(output: &Output, words: &[&str]) {
    let err = text(&output.stderr);
    assert!(!output.status.success(), "{err}");
    assert!(words.iter().all(|word| err.contains(word)), "expected {words:?} in: {err}");
}

/// The processes that a process has started, by their ids.
fn children(of: u32) -> Vec<u32> {
    let parent = |id: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let ids = std::fs::read_dir("/proc").unwrap().flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|id| parent(*id) == Some(of)).collect()
}

/// Ends a process and all that it has started, the youngest first.
pub fn end(id: u32) {
    children(id).into_iter().for_each(end);
    let _ = Command::new("kill").args(["-9", &id.to_string()]).stderr(Stdio::null()).status();
}

/// Waits until a run has written 15 lines of its log.
pub fn wait_for_steps(out: &Path) {
    let (log, begun) = (out.join("log.jsonl"), Instant::now());
    while std::fs::read_to_string(&log).map_or(0, |text| text.lines().count()) < 15 {
        assert!(begun.elapsed() < super::PATIENCE, "the run does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_job() {
    if !has_mpirun() {
        return;
    }
    for attempt in 0..tries() {
        let folder = tempfile::tempdir().unwrap();
        let (config, out) = (config(folder.path(), DIT), folder.path().join("run"));
        let child = train(3, &config, &out, &["train.steps=1000000"]).spawn().unwrap();
        wait_for_steps(&out);
        let ranks = children(child.id());
        assert_eq!(ranks.len(), 3, "{ranks:?}");
        let killed = Instant::now();
        assert!(Command::new("kill").args(["-9", &ranks[attempt % 3].to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert!(killed.elapsed() < SOON, "it took {:?}", killed.elapsed());
        expect_failure(&output, &["signal 9"]);
        assert!(newest(&out) >= 10);
    }
}

/// Not a test of its own: a rank that panics while the others wait for it.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let launched = gmflow_world::launched(|name| std::env::var(name).ok());
    let world = gmflow_world::connect(launched, Duration::from_secs(60)).unwrap();
    gmflow_world::end_on_panic(std::sync::Arc::downgrade(&world));
    world.barrier().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    assert!(world.rank() != 1, "rank 1 gives up at {now} ms");
    world.barrier().unwrap();
}

#[test]
fn a_rank_that_panics_ends_the_job() {
    if !has_mpirun() {
        return;
    }
    for _ in 0..tries() {
        let mut job = mpirun();
        job.args(["-n", "3"]).arg(std::env::current_exe().unwrap()).args([
            "--exact",
            "failures::child",
            "--nocapture",
        ]);
        job.env(CHILD, "1");
        let (output, _) = ended(job);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        expect_failure(&output, &["rank 1 gives up"]);
        let err = text(&output.stderr);
        let at = err.split("gives up at ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap();
        let took = now - Duration::from_millis(at);
        assert!(took < SOON, "it took {took:?}");
    }
}

#[test]
fn an_image_that_cannot_be_read_ends_the_job() {
    if !has_mpirun() {
        return;
    }
    for attempt in 0..tries() {
        let folder = tempfile::tempdir().unwrap();
        let photos = folder.path().join("photos");
        std::fs::create_dir_all(&photos).unwrap();
        for index in 0..60u8 {
            let picture = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([index, x as u8 * 9, y as u8 * 9]));
            picture.save(photos.join(format!("{index:03}.png"))).unwrap();
        }
        std::fs::write(photos.join(format!("{:03}.png", (37 + attempt) % 60)), b"\x89PNG\r\n\x1a\nno picture")
            .unwrap();
        let (config, out) = (config(folder.path(), DIT), folder.path().join("run"));
        let text = std::fs::read_to_string(&config).unwrap();
        let text = text.replace(
            "kind = 'shapes', size = 8, count = 60",
            "kind = 'folder', path = 'photos', image = { size = 8 }",
        );
        std::fs::write(&config, text.replace("num_embeds_ada_norm = 6", "num_embeds_ada_norm = 0")).unwrap();
        let (output, _) = ended(train(3, &config, &out, &["train.batch_size=3"]));
        expect_failure(&output, &[&format!("{:03}.png", (37 + attempt) % 60)]);
        // What was done before it is saved, unless it was in the first batch.
        if out.join("log.jsonl").metadata().is_ok_and(|log| log.len() > 0) {
            newest(&out);
        }
    }
}

#[test]
fn numbers_that_are_not_finite_on_one_rank_end_the_job() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let manifest = LatentManifest {
        shape: [3, 8, 8],
        shard: 64,
        precision: LatentPrecision::F32,
        mirrored: false,
        scaling_factor: 1.0,
        shift_factor: 0.0,
        downsampling: 2,
        classes: Vec::new(),
        vae: None,
        images: None,
        data: None,
        count: 0,
        left_out: 0,
        complete: false,
    };
    let mut writer = LatentWriter::open(&folder.path().join("latents"), manifest).unwrap();
    let values = |i: u32| (0..192).map(move |v| if i == 11 { 3e38 } else { ((i * 192 + v) as f32 * 0.37).sin() });
    let batch = EncodedBatch {
        mean: (0..24).flat_map(values).collect(),
        std: vec![0.0; 24 * 192],
        labels: vec![0; 24],
        indices: (0..24).collect(),
        ..EncodedBatch::default()
    };
    writer.push(&batch).unwrap();
    writer.finish(0).unwrap();
    let config = config(folder.path(), DIT);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("kind = 'shapes', size = 8, count = 60", "kind = 'latents', path = 'latents'");
    std::fs::write(&config, text.replace("num_embeds_ada_norm = 6", "num_embeds_ada_norm = 0")).unwrap();
    for attempt in 0..tries() {
        let out = folder.path().join(format!("run-{attempt}"));
        let seed = format!("train.seed={attempt}");
        let (output, _) = ended(train(3, &config, &out, &["train.batch_size=3", &seed]));
        expect_failure(&output, &["is not finite", "on rank "]);
        let dumps = (0..3).filter(|rank| out.join(format!("failure/rank-{rank}/report.json")).exists()).count();
        assert_eq!(dumps, 1, "the rank that has the numbers keeps them");
    }
}

#[test]
fn a_full_disk_of_rank_0_ends_the_job() {
    if !has_mpirun() {
        return;
    }
    for _ in 0..tries() {
        let folder = tempfile::tempdir().unwrap();
        let (config, out) = (config(folder.path(), DIT), folder.path().join("run"));
        // Files of rank 0 may have 256 kB: the checkpoints fit, and the log does not for long.
        let limited = "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\"";
        let arguments = ["train", path(&config), "--out", path(&out), "--set", "train.steps=1000000"];
        let mut job = mpirun();
        // Without shared memory between the ranks, which would lie in a file too.
        job.args(["--mca", "btl", "tcp,self", "-n", "1", "bash", "-c", limited]).arg(gmflow()).args(arguments);
        job.args([":", "-n", "2"]).arg(gmflow()).args(arguments);
        let (output, _) = ended(job);
        expect_failure(&output, &["File too large"]);
        assert!(newest(&out) >= 10);
    }
}

#[test]
fn ranks_that_cannot_work_together_are_refused() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (config(folder.path(), DIT), folder.path().join("run"));
    let (output, _) = ended(train(4, &config, &out, &["train.batch_size=3"]));
    expect_failure(&output, &["train.batch_size: expected at least 4, a sample for each of the 4 processes, got 3"]);
    let arguments = ["train", path(&config), "--out", path(&out)];
    let mut job = mpirun();
    job.args(["-n", "1"]).arg(gmflow()).args(arguments);
    job.args([":", "-n", "1"]).arg(gmflow()).args(arguments).args(["--set", "train.lr=1e-5"]);
    let (output, _) = ended(job);
    expect_failure(&output, &["configuration: expected that of rank 0, got another train.lr"]);
    // The wrong launcher: its variables say two, and the library knows of one.
    let mut job = Command::new(gmflow());
    job.args(arguments).env("PMI_SIZE", "2").stderr(Stdio::piped());
    let (output, _) = ended(job);
    expect_failure(&output, &["MPI: expected the launcher of the MPI library of this build", "got PMI_SIZE = 2"]);
}

#[test]
fn a_rank_that_hangs_is_ended_by_the_watchdog() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (config, out) = (config(folder.path(), DIT), folder.path().join("run"));
    let mut job = train(2, &config, &out, &["train.steps=1000000"]);
    let child = job.args(["--timeout", "2"]).spawn().unwrap();
    wait_for_steps(&out);
    let ranks = children(child.id());
    let stopped = Instant::now();
    assert!(Command::new("kill").args(["-STOP", &ranks[1].to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    // The rank that was stopped cannot end by itself; its launcher ends it.
    let _ = Command::new("kill").args(["-9", &ranks[1].to_string()]).stderr(Stdio::null()).status();
    expect_failure(&output, &["no answer of all ranks within 2 s"]);
    assert!(stopped.elapsed() < 3 * SOON, "it took {:?}", stopped.elapsed());
    assert!(newest(&out) >= 10);
}
