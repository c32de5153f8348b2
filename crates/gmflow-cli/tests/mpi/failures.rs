//! One process fails: the job ends soon, says why, and leaves the last checkpoint whole.

use super::training::newest;
use super::{DIT, config, ended, gmflow, has_mpirun, mpirun, output_of, path, text};
use gmflow_data::{EncodedBatch, LatentManifest, LatentPrecision, LatentWriter};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the end of a job may take once a rank has failed.
const SOON: Duration = Duration::from_secs(10);
/// Where the child process of a test finds out that it is one.
const CHILD: &str = "GMFLOW_TEST_RANK_THAT_PANICS";

/// How long the jobs of a test took to end after a failure; printed at its end.
pub struct Ends {
    what: &'static str,
    took: Vec<Duration>,
}

impl Ends {
    pub fn of(what: &'static str) -> Self {
        Self { what, took: Vec::new() }
    }

    /// One more; it may not take longer than [`SOON`].
    pub fn add(&mut self, took: Duration) {
        assert!(took < SOON, "{}: it took {took:?}", self.what);
        self.took.push(took);
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let longest = self.took.iter().max().copied().unwrap_or_default();
        println!(
            "FAILURE {}: tried {} times, the longest end {:.1} s",
            self.what,
            self.took.len(),
            longest.as_secs_f64()
        );
    }
}

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
pub fn children(of: u32) -> Vec<u32> {
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
    let mut ends = Ends::of("SIGKILL of a rank");
    for attempt in 0..tries() {
        let folder = tempfile::tempdir().unwrap();
        let (config, out) = (config(folder.path(), DIT), folder.path().join("run"));
        let child = train(3, &config, &out, &["train.steps=1000000"]).spawn().unwrap();
        wait_for_steps(&out);
        let ranks = children(child.id());
        assert_eq!(ranks.len(), 3, "{ranks:?}");
        let killed = Instant::now();
        assert!(Command::new("kill").args(["-9", &ranks[attempt % 3].to_string()]).status().unwrap().success());
        let output = output_of(child);
        ends.add(killed.elapsed());
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
    let mut ends = Ends::of("panic of a rank");
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
        ends.add(now - Duration::from_millis(at));
    }
}

/// The configuration of a run on data in a folder, without classes, that does not end by itself.
fn endless(folder: &Path, source: &str) -> std::path::PathBuf {
    let config = config(folder, DIT);
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace("kind = 'shapes', size = 8, count = 60", source).replace("steps = 20", "steps = 1000000");
    std::fs::write(&config, text.replace("num_embeds_ada_norm = 6", "num_embeds_ada_norm = 0")).unwrap();
    config
}

#[test]
fn an_image_that_cannot_be_read_ends_the_job() {
    if !has_mpirun() {
        return;
    }
    let mut ends = Ends::of("an image that cannot be read");
    for attempt in 0..tries() {
        let folder = tempfile::tempdir().unwrap();
        let photos = folder.path().join("photos");
        std::fs::create_dir_all(&photos).unwrap();
        for index in 0..1500u32 {
            let picture = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([index as u8, x as u8 * 9, y as u8 * 9]));
            picture.save(photos.join(format!("{index:04}.png"))).unwrap();
        }
        let config = endless(folder.path(), "kind = 'folder', path = 'photos', image = { size = 8 }");
        let out = folder.path().join("run");
        let child = train(3, &config, &out, &["train.batch_size=3"]).spawn().unwrap();
        wait_for_steps(&out);
        // Most images have not been read yet; those that have stay in memory.
        for index in (attempt % 4..1500).step_by(4) {
            std::fs::write(photos.join(format!("{index:04}.png")), b"\x89PNG\r\n\x1a\nno picture").unwrap();
        }
        let damaged = Instant::now();
        let output = output_of(child);
        ends.add(damaged.elapsed());
        expect_failure(&output, &["/photos/", ".png"]);
        assert!(newest(&out) >= 10);
    }
}

/// A cache of 24 latents of 192 numbers.
fn write_latents(folder: &Path) {
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
    let mut writer = LatentWriter::open(folder, manifest).unwrap();
    let batch = EncodedBatch {
        mean: (0..24 * 192).map(|v| (v as f32 * 0.37).sin()).collect(),
        std: vec![0.0; 24 * 192],
        labels: vec![0; 24],
        indices: (0..24).collect(),
        ..EncodedBatch::default()
    };
    writer.push(&batch).unwrap();
    writer.finish(0).unwrap();
}

/// Makes the numbers of a latent so large that their squares are infinite. The file stays in its place, where the ranks have it mapped.
fn spoil_latent(folder: &Path, latent: usize) {
    let path = folder.join("shard-00000.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensor = safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("mean").unwrap().data().as_ptr();
    let start = tensor as usize - bytes.as_ptr() as usize + latent * 192 * 4;
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(start as u64)).unwrap();
    file.write_all(&3e38f32.to_le_bytes().repeat(192)).unwrap();
}

#[test]
fn numbers_that_are_not_finite_on_one_rank_end_the_job() {
    if !has_mpirun() {
        return;
    }
    let mut ends = Ends::of("numbers that are not finite on one rank");
    for attempt in 0..tries() {
        let folder = tempfile::tempdir().unwrap();
        let (latents, out) = (folder.path().join("latents"), folder.path().join("run"));
        write_latents(&latents);
        let config = endless(folder.path(), "kind = 'latents', path = 'latents'");
        let child = train(3, &config, &out, &["train.batch_size=3"]).spawn().unwrap();
        wait_for_steps(&out);
        spoil_latent(&latents, attempt % 24);
        let spoiled = Instant::now();
        let output = output_of(child);
        ends.add(spoiled.elapsed());
        expect_failure(&output, &["is not finite", "on rank "]);
        let dumps = (0..3).filter(|rank| out.join(format!("failure/rank-{rank}/report.json")).exists()).count();
        assert_eq!(dumps, 1, "the rank that has the numbers keeps them");
        assert!(newest(&out) >= 10);
    }
}

/// When a file below a folder was changed last.
fn last_change(folder: &Path) -> SystemTime {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let change = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => last_change(&entry.path()),
        false => entry.metadata().unwrap().modified().unwrap(),
    };
    entries.map(change).max().unwrap_or(UNIX_EPOCH)
}

#[test]
fn a_file_of_rank_0_that_may_not_grow_ends_the_job() {
    if !has_mpirun() {
        return;
    }
    let mut ends = Ends::of("a file of rank 0 that may not grow");
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
        // The log was the last file that grew, or the checkpoint that was written because it did not.
        ends.add(last_change(&out).elapsed().unwrap());
        expect_failure(&output, &["File too large"]);
        assert!(newest(&out) >= 10);
    }
}

/// Mounts a disk of 1 MB at `$1` for the command from `$3` on. The disk is gone after it; what was on it is copied to `$2`.
const SMALL_DISK: &str = "mount -t tmpfs -o size=1m none \"$1\" || exit 99; disk=$1; kept=$2; shift 2; \"$@\"; code=$?; \
    cp -a \"$disk\" \"$kept\"; exit $code";

#[test]
fn a_full_disk_of_rank_0_ends_the_job() {
    if !has_mpirun() {
        return;
    }
    let small_disk = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", SMALL_DISK, "sh"]).args(arguments);
        command
    };
    let place = tempfile::tempdir().unwrap();
    let (disk, copy) = (place.path().join("disk"), place.path().join("copy"));
    std::fs::create_dir_all(&disk).unwrap();
    let can = small_disk(&[path(&disk), path(&copy), "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: this machine lets no process have a disk of its own; a file that may not grow is tested");
        return;
    }
    let mut ends = Ends::of("a full disk of rank 0");
    for attempt in 0..tries() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), DIT);
        let copy = place.path().join(format!("copy-{attempt}"));
        let out = disk.join("run");
        let job = train(3, &config, &out, &["train.steps=1000000"]);
        let words: Vec<&str> =
            std::iter::once(job.get_program()).chain(job.get_args()).map(|word| word.to_str().unwrap()).collect();
        let mut command = small_disk(&[&[path(&disk), path(&copy)][..], &words].concat());
        command.env("RAYON_NUM_THREADS", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (output, _) = ended(command);
        ends.add(last_change(&copy).elapsed().unwrap());
        expect_failure(&output, &["No space left on device"]);
        assert!(newest(&copy.join("run")) >= 10);
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
