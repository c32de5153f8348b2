//! Training gives the bits of one process, and goes on with any number of processes.

use super::{DIT, UNET, command, config, ended, expect_same, has_mpirun, path, tensors, text, well};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn ranks_train_bit_for_bit_as_one_process_with_as_many_parts() {
    if !has_mpirun() {
        return;
    }
    for network in [DIT, UNET] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), network);
        for ranks in [2, 4] {
            let (alone, together) =
                (folder.path().join(format!("alone-{ranks}")), folder.path().join(format!("ranks-{ranks}")));
            let micro = format!("train.micro_batch={}", 12 / ranks);
            well(1, &["train", path(&config), "--out", path(&alone), "--set", &micro]);
            let (out, err) = well(ranks, &["train", path(&config), "--out", path(&together)]);
            assert!(
                err.contains(&format!("processes {ranks} on one host, {} of the 12 images", 12 / ranks)),
                "{err}"
            );
            assert_eq!(out.matches("finished: step 20").count(), 1, "one process speaks: {out}");
            expect_same(&format!("{ranks} ranks"), &tensors(&alone, 20), &tensors(&together, 20));
            let sharded = folder.path().join(format!("sharded-{ranks}"));
            well(ranks, &["train", path(&config), "--out", path(&sharded), "--set", "train.shard_state=true"]);
            expect_same(&format!("{ranks} ranks, sharded"), &tensors(&alone, 20), &tensors(&sharded, 20));
        }
    }
}

#[test]
fn uneven_shares_train_to_rounding() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), DIT);
    let weights = |ranks: usize, name: &str| {
        let out = folder.path().join(name);
        // Adam divides by the size of a gradient, so that the rounding of a small one counts as much as the learning rate says.
        let settings = ["--set", "train.batch_size=13", "--set", "train.lr=1e-4"];
        well(ranks, &[&["train", path(&config), "--out", path(&out)][..], &settings].concat());
        let (_, bytes) = tensors(&out, 20).into_iter().find(|(name, _)| name == "model.safetensors").unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names: Vec<String> = file.names().iter().map(|name| name.to_string()).collect();
        names.sort();
        let values = |name: &String| {
            let bytes = file.tensor(name).unwrap().data().to_vec();
            bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect::<Vec<_>>()
        };
        names.iter().flat_map(values).collect::<Vec<f64>>()
    };
    let (one, three) = (weights(1, "one"), weights(3, "three"));
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let relative = norm(&mut one.iter().zip(&three).map(|(a, b)| a - b)) / norm(&mut one.iter().copied());
    assert!(relative < 1e-6, "off by {relative:e}");
}

/// Sends a signal to `mpirun` once the run has come to a step, and returns what the job said.
fn signalled(mut job: Command, out: &Path, step: u64, signal: &str) -> (std::process::Output, Duration) {
    let log = out.join("log.jsonl");
    let signal = signal.to_owned();
    let child = job.spawn().unwrap();
    let id = child.id();
    let sent = std::thread::spawn(move || {
        let begun = Instant::now();
        while begun.elapsed() < super::PATIENCE {
            let lines = std::fs::read_to_string(&log).map_or(0, |text| text.lines().count() as u64);
            if lines >= step {
                Command::new("kill").args([&signal, &id.to_string()]).status().unwrap();
                return Instant::now();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the run did not come to step {step}");
    });
    let output = child.wait_with_output().unwrap();
    let took = sent.join().unwrap().elapsed();
    (output, took)
}

#[test]
fn a_run_that_slurm_would_stop_goes_on_with_another_number_of_ranks() {
    if !has_mpirun() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), DIT);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let steps = 400;
    let set = format!("train.steps={steps}");
    let begin = |ranks: usize, out: &Path, extra: &[&str]| {
        let mut arguments = vec!["train", path(&config), "--out", path(out), "--set", &set];
        arguments.extend(extra);
        command(ranks, &arguments)
    };
    // The notice of `sbatch --signal=USR1@300`, which mpirun hands on to all ranks.
    let (output, _) = signalled(begin(4, &broken, &[]), &broken, 20, "-USR1");
    let err = text(&output.stderr);
    assert!(!output.status.success() && err.contains("SIGUSR1"), "{:?}: {err}", output.status);
    let first = newest(&broken);
    assert!(first >= 20 && first < steps, "stopped at step {first}");
    // Stopped again with two ranks, and brought to its end by one.
    let (output, _) = signalled(begin(2, &broken, &["--resume"]), &broken, first + 20, "-USR1");
    assert!(!output.status.success(), "{}", text(&output.stderr));
    let second = newest(&broken);
    assert!(second >= first + 20 && second < steps, "stopped at step {second}");
    assert!(ended(begin(1, &broken, &["--resume"])).0.status.success());
    // One process with the same parts of every batch: four, then two, then one.
    for (until, micro) in [(first, 3), (second, 6), (steps, 12)] {
        let (until, micro) = (format!("train.steps={until}"), format!("train.micro_batch={micro}"));
        let mut arguments = vec!["train", path(&config), "--out", path(&whole), "--set", &until, "--set", &micro];
        if whole.exists() {
            arguments.push("--resume");
        }
        well(1, &arguments);
    }
    expect_same("4, then 2, then 1 ranks", &tensors(&whole, steps), &tensors(&broken, steps));
}

/// The step of the newest checkpoint, which must be whole.
pub fn newest(out: &Path) -> u64 {
    let folder = gmflow_train::checkpoint::latest(out).expect("a checkpoint");
    gmflow_train::checkpoint::verify(&folder).expect("whole").step
}

#[test]
fn sigterm_to_the_launcher_ends_the_job_and_leaves_a_whole_checkpoint() {
    if !has_mpirun() {
        return;
    }
    let mut ends = super::failures::Ends::of("SIGTERM to the launcher");
    for _ in 0..super::failures::tries() {
        let folder = tempfile::tempdir().unwrap();
        let (config, out) = (config(folder.path(), DIT), folder.path().join("run"));
        let arguments = ["train", path(&config), "--out", path(&out), "--set", "train.steps=1000000"];
        let (output, took) = signalled(command(3, &arguments), &out, 25, "-TERM");
        assert!(!output.status.success(), "{}", text(&output.stderr));
        ends.add(took);
        assert!(newest(&out) >= 10);
    }
}
