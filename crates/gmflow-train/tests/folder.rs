//! A run's folder: what is its own, who may write into it, and how it goes on after every kind of end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use gmflow_train::{Config, Error, Observer, Outcome, ResumeOptions, Run, Silent, StepReport};

mod common;

/// A configuration of `steps` steps with a checkpoint every 2.
fn config(steps: u64) -> Config {
    let steps = format!("train.steps={steps}");
    common::tiny_with(&[&steps, "checkpoint.every=2", "log.every=1"])
}

fn create(folder: &Path, steps: u64, overwrite: bool) -> Result<Run, Error> {
    Run::create(config(steps), folder, overwrite, &common::device())
}

fn resume(folder: &Path, overrides: &[&str], options: ResumeOptions) -> Result<Run, Error> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Run::resume_with(folder, &overrides, options, &common::device())
}

fn train(run: &mut Run) -> Outcome {
    run.run(&AtomicBool::new(false), &mut Silent).expect("training")
}

/// A finished run of `steps` steps.
fn finished(folder: &Path, steps: u64) {
    train(&mut create(folder, steps, false).expect("a run"));
}

/// Everything in a folder by its path there, sorted.
fn names(folder: &Path) -> Vec<String> {
    fn collect(folder: &Path, below: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(below).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => collect(folder, &path, found),
                false => found.push(path.strip_prefix(folder).expect("inside").to_string_lossy().into_owned()),
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, folder, &mut found);
    found.retain(|name| name != ".gmflow.lock");
    found.sort();
    found
}

fn write(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    fs::write(path, text).expect("written");
}

/// The files of a checkpoint, by name.
fn checkpoint(run: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let folder = run.join(format!("checkpoints/step-{step:08}"));
    names(&folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).expect("bytes"))).collect()
}

fn logged_steps(run: &Path) -> Vec<u64> {
    let text = fs::read_to_string(run.join("log.jsonl")).expect("a log");
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a line")["step"].as_u64();
    text.lines().map(|line| step(line).expect("a step")).collect()
}

#[test]
fn a_new_run_removes_the_files_of_the_old_one_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path();
    let pictures = "sample={every=2, num=4, sampler={solver={kind=\"gm-sde\"}, steps=1}}";
    let with_pictures = common::tiny_with(&["train.steps=4", "checkpoint.every=2", pictures]);
    train(&mut Run::create(with_pictures, out, false, &common::device()).expect("a run"));
    assert!(names(out).contains(&"samples/step-00000004.png".to_owned()));
    let mine =
        ["notes.txt", "samples/mine.png", "checkpoints/best/model.safetensors", "checkpoints/step-00000004/why.md"];
    for name in mine {
        write(out.join(name), name);
    }
    assert!(matches!(create(out, 2, false), Err(Error::RunExists { .. })));
    // A run of one step: a checkpoint of step 1 alone.
    train(&mut create(out, 1, true).expect("a run"));
    for name in mine {
        assert_eq!(fs::read_to_string(out.join(name)).expect("a file of the user's"), name);
    }
    let mut left = names(out);
    left.retain(|name| !mine.contains(&name.as_str()) && !name.starts_with("checkpoints/step-00000001/"));
    assert_eq!(left.iter().filter(|name| name.contains("tfevents")).count(), 1, "{left:?}");
    left.retain(|name| !name.contains("tfevents"));
    assert_eq!(left, ["config.toml", "log.jsonl", "run.manifest"]);
}

#[test]
fn a_folder_with_files_of_others_is_refused_as_it_is() {
    let text = format!("# my notes: do not lose\n{}", common::TINY);
    for files in
        [&["config.toml", "samples/mine.png"][..], &["samples/mine.png"], &["checkpoints/mine"], &["log.jsonl"]]
    {
        let folder = tempfile::tempdir().expect("a folder");
        for name in files {
            write(folder.path().join(name), &text);
        }
        for overwrite in [false, true] {
            let error = create(folder.path(), 1, overwrite).expect_err("a refusal");
            let message = error.to_string();
            let first = files[0].split('/').next().expect("a name");
            assert!(matches!(error, Error::Foreign { .. }) && message.contains(first), "{message}");
            assert!(message.contains("--out"), "{message}");
            assert_eq!(names(folder.path()), files);
            assert!(!folder.path().join(".gmflow.lock").exists(), "not even a lock is left");
        }
        for name in files {
            assert_eq!(fs::read_to_string(folder.path().join(name)).expect("a file"), text);
        }
    }
    // Other names are nobody's business.
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path().join("notes.txt"), "mine");
    write(folder.path().join("small.toml"), &text);
    finished(folder.path(), 1);
    assert_eq!(fs::read_to_string(folder.path().join("small.toml")).expect("a file"), text);
}

#[test]
fn a_run_of_a_version_without_a_list_goes_on_and_is_removed_by_what_it_wrote() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path();
    finished(out, 4);
    let older = || fs::remove_file(out.join("run.manifest")).expect("removed");
    older();
    write(out.join("samples/mine.png"), "mine");
    assert!(matches!(create(out, 4, false), Err(Error::RunExists { .. })));
    assert!(!out.join("run.manifest").exists());
    train(&mut resume(out, &["train.steps=6"], ResumeOptions::default()).expect("an older run"));
    assert!(out.join("run.manifest").exists());
    older();
    train(&mut create(out, 1, true).expect("a run"));
    assert_eq!(logged_steps(out), [1]);
    assert_eq!(fs::read_to_string(out.join("samples/mine.png")).expect("a file of the user's"), "mine");
    // A configuration that a user wrote into it goes with the run, and is not removed.
    older();
    let text = format!("# mine\n{}", common::TINY);
    write(out.join("config.toml"), &text);
    assert!(matches!(create(out, 1, true), Err(Error::Foreign { .. })));
    assert_eq!(fs::read_to_string(out.join("config.toml")).expect("a file"), text);
    drop(resume(out, &[], ResumeOptions::default()).expect("an older run"));
    assert_eq!(fs::read_to_string(out.join("config.toml")).expect("a file"), text, "comments stay");
}

#[test]
fn a_list_from_elsewhere_removes_nothing_outside_and_nothing_of_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    finished(&out, 2);
    let outside = folder.path().join("outside.txt");
    write(outside.clone(), "mine");
    let names =
        ["../outside.txt", "notes.txt", "samples/../../outside.txt", "samples/mine.png", "checkpoints/..", "./."];
    let absolute = outside.to_string_lossy().into_owned();
    let list = fs::read_to_string(out.join("run.manifest")).expect("the list");
    fs::write(out.join("run.manifest"), format!("{list}{}\n{absolute}\n", names.join("\n"))).expect("written");
    write(out.join("notes.txt"), "mine");
    write(out.join("samples/mine.png"), "mine");
    train(&mut create(&out, 1, true).expect("a run"));
    for path in [outside, out.join("notes.txt"), out.join("samples/mine.png")] {
        assert!(path.is_file(), "{}", path.display());
    }
}

#[test]
fn one_process_at_a_time_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = create(folder.path(), 2, false).expect("a run");
    for second in [
        create(folder.path(), 2, false),
        create(folder.path(), 2, true),
        resume(folder.path(), &[], ResumeOptions::default()),
    ] {
        let error = second.expect_err("a folder in use");
        let who = format!("gmflow train (process {}", std::process::id());
        assert!(matches!(error, Error::Locked(_)) && error.to_string().contains(&who), "{error}");
    }
    drop(first);
    train(&mut resume(folder.path(), &[], ResumeOptions::default()).expect("the lock is free"));
}

#[test]
fn what_was_stopped_before_its_first_checkpoint_starts_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    finished(&whole, 5);
    // Dropped without a step, as a kill leaves it: a configuration and empty logs; then with lines of steps that were not saved.
    drop(create(&broken, 5, false).expect("a run"));
    let line = fs::read_to_string(whole.join("log.jsonl")).expect("a log").lines().next().expect("a line").to_owned();
    write(broken.join("log.jsonl"), &format!("{line}\n"));
    assert!(!Run::was_only_begun(&broken).expect("a look"));
    let mut run = resume(&broken, &[], ResumeOptions::default()).expect("a run");
    assert_eq!(run.trainer().steps_taken(), 0);
    train(&mut run);
    drop(run);
    assert!(checkpoint(&whole, 5) == checkpoint(&broken, 5));
    assert_eq!(logged_steps(&broken), [1, 2, 3, 4, 5]);
    // Killed before even that: the mark alone.
    let begun = folder.path().join("begun");
    write(begun.join("run.manifest"), "gmflow-run 1\n");
    assert!(Run::was_only_begun(&begun).expect("a look"));
    finished(&begun, 1);
    // Checkpoints that were there and are gone are another matter.
    fs::remove_dir_all(whole.join("checkpoints")).expect("removed");
    let error = resume(&whole, &[], ResumeOptions::default()).expect_err("a refusal");
    assert!(matches!(error, Error::NoCheckpoint { .. }), "{error}");
    assert_eq!(logged_steps(&whole).len(), 5, "the log is as it was");
}

#[test]
fn a_stop_before_the_first_step_is_saved_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    finished(&whole, 3);
    let mut run = create(&broken, 3, false).expect("a run");
    assert_eq!(run.run(&AtomicBool::new(true), &mut Silent).expect("a stop"), Outcome::Stopped);
    drop(run);
    let mut run = resume(&broken, &[], ResumeOptions::default()).expect("a run");
    assert_eq!(run.trainer().steps_taken(), 0);
    train(&mut run);
    assert!(checkpoint(&whole, 3) == checkpoint(&broken, 3));
}

#[test]
fn a_configuration_that_is_gone_comes_back_from_the_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    finished(&whole, 5);
    finished(&broken, 3);
    let before = fs::read_to_string(broken.join("config.toml")).expect("a configuration");
    fs::remove_file(broken.join("config.toml")).expect("removed");
    drop(resume(&broken, &[], ResumeOptions::default()).expect("a run"));
    assert_eq!(fs::read_to_string(broken.join("config.toml")).expect("a configuration"), before);
    train(&mut resume(&broken, &["train.steps=5"], ResumeOptions::default()).expect("a run"));
    assert!(checkpoint(&whole, 5) == checkpoint(&broken, 5));
    let nothing = folder.path().join("nothing");
    let error = resume(&nothing, &[], ResumeOptions::default()).expect_err("no run");
    assert!(matches!(error, Error::NoRun { .. }) && !nothing.exists(), "{error}");
}

#[test]
fn leftovers_of_ours_are_removed_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path();
    finished(out, 2);
    let ours = [
        "config.toml.4711.tmp",
        "log.jsonl.1.tmp",
        "run.manifest.12.tmp",
        "samples/step-00000002.png.99.tmp",
        "failure/report.json.99.tmp",
        "checkpoints/.step-00000003.unfinished/model.safetensors",
    ];
    let others = ["notes.txt.4711.tmp", "config.toml.tmp", "samples/mine.png.99.tmp", "checkpoints/.mine/x"];
    for name in ours.iter().chain(&others) {
        write(out.join(name), "left");
    }
    drop(resume(out, &[], ResumeOptions::default()).expect("a run"));
    assert!(ours.iter().all(|name| !out.join(name).exists()), "{:?}", names(out));
    assert!(!out.join("checkpoints/.step-00000003.unfinished").exists());
    assert!(others.iter().all(|name| out.join(name).exists()), "{:?}", names(out));
}

#[test]
fn a_damaged_checkpoint_names_the_whole_one_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    finished(&whole, 6);
    finished(&broken, 4);
    for (file, damage) in [("optimizer.safetensors", &b"short"[..]), ("state.json", b"")] {
        let path = broken.join("checkpoints/step-00000004").join(file);
        let bytes = fs::read(&path).expect("bytes");
        fs::write(&path, damage).expect("written");
        let error = resume(&broken, &[], ResumeOptions::default()).expect_err("damage");
        let message = error.to_string();
        assert!(matches!(error, Error::Damaged { whole: Some(2), .. }), "{message}");
        assert!(message.contains(file) && message.contains("--resume-from 2"), "{message}");
        fs::remove_file(&path).expect("removed");
        let message = resume(&broken, &[], ResumeOptions::default()).expect_err("a missing file").to_string();
        assert!(message.contains(file) && message.contains("--resume-from 2"), "{message}");
        fs::write(&path, bytes).expect("written");
    }
    fs::write(broken.join("checkpoints/step-00000004/state.json"), "").expect("written");
    let error =
        resume(&broken, &[], ResumeOptions { from: Some(3), ..Default::default() }).expect_err("no such step");
    assert!(error.to_string().contains("(2, 4)"), "{error}");
    let from_2 = ResumeOptions { from: Some(2), ..Default::default() };
    train(&mut resume(&broken, &["train.steps=6"], from_2).expect("a run"));
    assert!(checkpoint(&whole, 6) == checkpoint(&broken, 6), "it comes to the same");
    assert_eq!(logged_steps(&broken), [1, 2, 3, 4, 5, 6]);
    assert!(
        broken.join("checkpoints/step-00000004.old/model.json").is_file(),
        "nothing is lost: {:?}",
        names(&broken)
    );
    // Where no older one is whole the message says so.
    for folder in fs::read_dir(broken.join("checkpoints")).expect("checkpoints") {
        let state = folder.expect("a checkpoint").path().join("state.json");
        fs::write(state, "{}").expect("written");
    }
    let error = resume(&broken, &[], ResumeOptions::default()).expect_err("damage");
    assert!(matches!(error, Error::Damaged { whole: None, .. }) && error.to_string().contains("--force"), "{error}");
}

#[test]
fn one_unreadable_line_costs_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path();
    finished(out, 6);
    let path = out.join("log.jsonl");
    let text = fs::read_to_string(&path).expect("a log");
    let lines: Vec<&str> = text.lines().collect();
    let bad = [&b"\xff\xfe\xfa"[..], b"{\"step\": 3, \"loss\": nul"];
    let damaged =
        [lines[0].as_bytes(), bad[0], bad[1], lines[3].as_bytes(), lines[4].as_bytes(), lines[5].as_bytes()];
    fs::write(&path, [&damaged.join(&b'\n')[..], b"\n", &[0; 64]].concat()).expect("written");
    drop(resume(out, &[], ResumeOptions::default()).expect("a run"));
    let kept = [lines[0], lines[3], lines[4], lines[5], ""].join("\n");
    assert_eq!(fs::read_to_string(&path).expect("a log"), kept, "good lines are not touched");
    let moved = fs::read(out.join("log.jsonl.damaged")).expect("the bad lines");
    assert_eq!(moved, [bad[0], b"\n", bad[1], b"\n", &[0; 64], b"\n"].concat());
    train(&mut resume(out, &["train.steps=7"], ResumeOptions::default()).expect("a run"));
    assert_eq!(logged_steps(out), [1, 4, 5, 6, 7]);
}

#[test]
fn a_loss_that_is_not_finite_saves_the_good_steps_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path();
    finished(out, 4);
    // Weights of 1e30 are finite, and the loss with them is not.
    let mut run = resume(out, &["train.steps=20", "train.lr=1e30"], ResumeOptions::default()).expect("a run");
    let error = run.run(&AtomicBool::new(false), &mut Silent).expect_err("a loss that is not finite");
    drop(run);
    let Error::Saved { cause, step } = &error else { panic!("{error}") };
    assert!(matches!(**cause, Error::NonFinite { .. }) && *step > 4, "{error}");
    assert!(error.to_string().contains(&format!("step {step} is saved")), "{error}");
    let kept: Vec<u64> = (1..=*step).filter(|step| !checkpoint_is_missing(out, *step)).collect();
    assert!(kept.starts_with(&[2, 4]) && kept.ends_with(&[*step]), "no older one is removed: {kept:?}");
    let mut run =
        resume(out, &["train.lr=3e-3"], ResumeOptions { from: Some(4), ..Default::default() }).expect("a run");
    train(&mut run);
}

fn checkpoint_is_missing(run: &Path, step: u64) -> bool {
    !run.join(format!("checkpoints/step-{step:08}/state.json")).is_file()
}

/// A network on grey images of 8 x 8 pixels below `folder`, which it makes: 24 of them, of which those in `damaged` cannot be decoded.
fn image_config(folder: &Path, damaged: &[usize]) -> Config {
    for index in 0..24usize {
        let path = folder.join(format!("images/{}/{index:02}.png", ["a", "b"][index % 2]));
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        let mut bytes = png(index as u8);
        if damaged.contains(&index) {
            // The same size and the same header: only whoever decodes it can tell.
            let data = bytes.windows(4).position(|name| name == b"IDAT").expect("data") + 4;
            bytes[data..data + 8].fill(0);
        }
        fs::write(path, bytes).expect("written");
    }
    let text = r#"
        data.source = { kind = "folder", path = "images", image = { size = 8, channels = 1 } }
        loss = { kind = "transition", transition_ratio = 0.5 }
        train = { batch_size = 2, steps = 14, seed = 2 }
        checkpoint = { every = 100 }
        [network]
        type = "gm-dit"
        num_gaussians = 2
        num_attention_heads = 1
        attention_head_dim = 8
        num_layers = 1
        sample_size = 8
        patch_size = 4
        in_channels = 1
        num_embeds_ada_norm = 2
        logstd_inner_dim = 8
    "#;
    let path = folder.join("small.toml");
    fs::write(&path, text).expect("a configuration");
    Config::load(&path, &[]).expect("a valid configuration")
}

fn png(shade: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..64).map(|i| shade.wrapping_mul(9).wrapping_add(i * 3)).collect();
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels)).expect("a PNG");
    bytes
}

/// Notes the last step.
struct Steps(u64);

impl Observer for Steps {
    fn on_step(&mut self, report: &StepReport) {
        self.0 = report.step;
    }
}

#[test]
fn an_image_that_cannot_be_read_in_mid_training_costs_no_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let run = |out: &Path, config: Config| Run::create(config, out, false, &common::device()).expect("a run");
    train(&mut run(&whole, image_config(folder.path(), &[])));
    let mut met = false;
    for index in 0..24 {
        let mut seen = Steps(0);
        let out = folder.path().join(format!("broken-{index}"));
        let mut run = run(&out, image_config(folder.path(), &[index]));
        let error = run.run(&AtomicBool::new(false), &mut seen).expect_err("an image that is none");
        let message = error.to_string();
        assert!(message.contains(&format!("{index:02}.png")), "{message}");
        if seen.0 > 0 {
            assert!(matches!(error, Error::Saved { step, .. } if step == seen.0), "{message}");
            assert!(!checkpoint_is_missing(&out, seen.0));
            drop(run);
            fs::rename(&out, &broken).expect("renamed");
            met = true;
            break;
        }
    }
    assert!(met, "an image is met in mid-training");
    // With the image mended the run comes to the same as one that was never broken.
    image_config(folder.path(), &[]);
    train(&mut resume(&broken, &[], ResumeOptions::default()).expect("a run"));
    assert!(checkpoint(&whole, 14) == checkpoint(&broken, 14));
}
