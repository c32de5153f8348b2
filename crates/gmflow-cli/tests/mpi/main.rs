//! Several real processes under `mpirun`. Without it these tests say so and pass, unless `CI` is true.

mod failures;
mod hosts;
mod memory;
mod sampling;
mod training;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a machine that does much else; a job that hangs takes it.
const PATIENCE: Duration = Duration::from_secs(240);

/// Whether there is an `mpirun`. Says so where there is none.
fn has_mpirun() -> bool {
    let found = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no mpirun");
        eprintln!("SKIPPED: there is no mpirun, so nothing is tested with several processes");
    }
    found
}

fn gmflow() -> PathBuf {
    assert_cmd::cargo::cargo_bin("gmflow")
}

/// `mpirun` with the options that a test needs on a small machine.
fn mpirun() -> Command {
    // Jobs that start at the same moment fail where they make one folder for their sessions: each has its own.
    static JOBS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("mpi-{}-{}", std::process::id(), JOBS.fetch_add(1, Ordering::Relaxed));
    let sessions = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&sessions).expect("a folder");
    let mut command = Command::new("mpirun");
    command.args(["--mca", "orte_tmpdir_base", path(&sessions)]);
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]).env("RAYON_NUM_THREADS", "1");
    // Ranks that wait leave the core to the others: there are more of them than cores.
    command.args(["--mca", "mpi_yield_when_idle", "1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `gmflow` on this many ranks; one rank is a process alone.
fn command(ranks: usize, arguments: &[&str]) -> Command {
    if ranks == 1 {
        let mut command = Command::new(gmflow());
        command.args(arguments).env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        return command;
    }
    let mut command = mpirun();
    command.arg("-n").arg(ranks.to_string()).arg(gmflow()).args(arguments);
    command
}

/// What a process said, and how it ended; it may not hang.
fn ended(mut command: Command) -> (Output, Duration) {
    let begun = Instant::now();
    let output = output_of(command.spawn().expect("it starts"));
    (output, begun.elapsed())
}

/// [`ended`] of a process that runs already.
fn output_of(child: Child) -> Output {
    let id = child.id();
    let (tell, told) = std::sync::mpsc::channel();
    let watch = std::thread::spawn(move || {
        let hangs = told.recv_timeout(PATIENCE).is_err();
        if hangs {
            failures::end(id);
        }
        hangs
    });
    let output = child.wait_with_output().expect("its output");
    let _ = tell.send(());
    assert!(!watch.join().expect("no panic"), "the job hung: {}", text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs to a good end, and returns stdout and stderr.
fn well(ranks: usize, arguments: &[&str]) -> (String, String) {
    let (output, _) = ended(command(ranks, arguments));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{ranks} ranks of {arguments:?}: {}\n{out}\n{err}", output.status);
    (out, err)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

const DIT: &str = "network = { type = 'gm-dit', num_gaussians = 2, num_attention_heads = 2, attention_head_dim = 8, num_layers = 2, \
    sample_size = 8, patch_size = 4, in_channels = 3, num_embeds_ada_norm = 6, logstd_inner_dim = 8 }\n";
const UNET: &str = "network = { type = 'unet', num_gaussians = 2, sample_size = 8, in_channels = 3, block_out_channels = [8, 8], \
    norm_num_groups = 4, layers_per_block = 1, num_classes = 6, logstd_inner_dim = 8, dropout = 0.1 }\n";
const REST: &str = "data.source = { kind = 'shapes', size = 8, count = 60 }\n\
    loss = { kind = 'transition', transition_ratio = 0.5 }\n\
    train = { batch_size = 12, steps = 20, label_dropout = 0.2, lr = 3e-3, clip_grad_norm = 1.0, seed = 2 }\n\
    ema = [{ name = 'ema', decay = { kind = 'constant', decay = 0.9 } }]\n\
    checkpoint = { every = 10 }\nlog = { every = 1 }\n";

/// A configuration in a file.
fn config(folder: &Path, network: &str) -> PathBuf {
    let path = folder.join("config.toml");
    std::fs::write(&path, format!("{network}{REST}")).expect("a configuration");
    path
}

/// The tensor files of a run's checkpoint, by their names.
fn tensors(out: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let folder = out.join(format!("checkpoints/step-{step:08}"));
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    let read =
        |path: &PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap());
    files.iter().map(read).collect()
}

fn expect_same(what: &str, expected: &[(String, Vec<u8>)], got: &[(String, Vec<u8>)]) {
    assert_eq!(expected.len(), got.len(), "{what}");
    for ((name, expected), (other, got)) in expected.iter().zip(got) {
        assert_eq!(name, other, "{what}");
        assert!(expected == got, "{what}: {name} differs");
    }
}
