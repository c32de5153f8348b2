//! Folders of pictures and runs: what is refused before any work, how a run goes on, and what comes after it.

use crate::init::write_photos;
use crate::run;
use std::path::{Path, PathBuf};

/// A training of a few steps on the pictures in `photos` beside it.
const CONFIG: &str = r#"
[data.source]
kind = "folder"
path = "photos"
image = { size = 8 }

[network]
type = "unet"
num_gaussians = 2
block_out_channels = [8]
layers_per_block = 1
attention_levels = []

[train]
batch_size = 4
steps = 2

[sample]
every = 100
num = 3
sampler = { solver = { kind = "gm-ode" }, steps = 1 }
"#;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// Pictures in `photos` and a configuration for them.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_photos(&folder.path().join("photos"));
        std::fs::write(folder.path().join("small.toml"), CONFIG).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Runs `gmflow train` on `data` with the run folder `out`.
    fn train(&self, data: &str, out: &str, extra: &[&str]) -> (i32, String, String) {
        let (data, out) = (self.text(data), self.text(out));
        run(&[&["train", &data, "--out", &out], extra].concat())
    }

    /// The same, which must be refused as wrong arguments before the pictures are looked at.
    fn refused(&self, data: &str, out: &str, extra: &[&str]) -> String {
        let (code, _, stderr) = self.train(data, out, extra);
        assert_eq!(code, 2, "{stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
        stderr
    }
}

fn assert_says(text: &str, words: &[&str]) {
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} in {text}");
}

#[test]
fn a_run_is_not_made_inside_its_data() {
    let place = Place::new();
    for (data, out) in [("photos", "photos"), ("photos", "photos/runs/new"), ("small.toml", "photos/red/../run")] {
        let stderr = place.refused(data, out, &["--force"]);
        assert_says(&stderr, &[&place.text("photos"), &place.text(out), "--out names another folder"]);
    }
    let output = assert_cmd::Command::cargo_bin("gmflow")
        .unwrap()
        .args(["train", "."])
        .current_dir(place.path("photos"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_says(&String::from_utf8_lossy(&output.stderr), &["runs/photos: expected a folder for the run outside"]);
    assert_eq!(std::fs::read_dir(place.path("photos")).unwrap().count(), 3, "nothing is added");
}

#[test]
fn a_run_is_no_data() {
    let place = Place::new();
    assert_eq!(place.train("small.toml", "run", &[]).0, 0);
    let (code, _, stderr) = place.train("run", "other", &[]);
    assert_eq!(code, 1, "{stderr}");
    assert_says(&stderr, &["run: folder: expected a folder of pictures, got the folder of a training run"]);
    assert!(!place.path("other").exists());
}

#[test]
fn samples_are_not_put_among_pictures_of_others() {
    let place = Place::new();
    assert_eq!(place.train("small.toml", "run", &[]).0, 0);
    let sample = |out: &str| {
        let (run_folder, out) = (place.text("run"), place.text(out));
        run(&["sample", "--checkpoint", &run_folder, "--num", "2", "--steps", "1", "--out", &out])
    };
    for out in ["photos", "photos/red"] {
        let (code, _, stderr) = sample(out);
        assert_eq!(code, 2, "{stderr}");
        assert_says(&stderr, &["--out: expected a folder without pictures of others", "000.jpg"]);
    }
    assert_eq!(sample("samples").0, 0);
    assert_eq!(sample("samples/more").0, 0);
    assert_eq!(sample("samples").0, 1, "its own samples are told as before");
}

#[test]
fn a_run_is_not_removed_that_gives_the_weights() {
    let place = Place::new();
    assert_eq!(place.train("small.toml", "run", &[]).0, 0);
    let stderr = place.refused("small.toml", "run", &["--force", "--from", &place.text("run")]);
    assert_says(&stderr, &["--out: expected a folder other than that of the model of --from"]);
    assert!(place.path("run/checkpoints/step-00000002/model.json").is_file());
}

#[test]
fn a_run_goes_on_with_its_own_pictures_and_as_it_was_begun() {
    let place = Place::new();
    write_photos(&place.path("more/photos"));
    assert_eq!(place.train("small.toml", "run", &[]).0, 0);
    let stderr = place.refused("more/photos", "run", &["--resume", "--set", "train.steps=3"]);
    let [old, new] = ["photos", "more/photos"].map(|name| place.text(name));
    assert_says(&stderr, &["CONFIG: expected", &old, &new, &format!("--set data.source.path={new}")]);
    let (code, _, stderr) = place.train("gone/photos", "run", &["--resume"]);
    assert_eq!(code, 1, "{stderr}");
    assert_says(&stderr, &["gone/photos: no such file or folder"]);
    for (option, value, words) in [
        ("--steps", "9", "--set train.steps=N"),
        ("--minutes", "9", "--set train.steps=N"),
        ("--size", "16", "--out names"),
        ("--network", "tiny", "--out names"),
    ] {
        let stderr = place.refused("photos", "run", &["--resume", option, value]);
        assert_says(&stderr, &[&format!("{option}: expected no such option with --resume"), words]);
    }
    let (code, _, stderr) = place.train("photos", "run", &["--resume", "--set", "train.steps=1"]);
    assert_eq!(code, 2, "{stderr}");
    assert_says(&stderr, &["train.steps: expected at least 2", "got 1"]);
    let config = std::fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert_says(&config, &["steps = 2"]);

    let (code, stdout, stderr) = place.train("photos", "run", &["--resume"]);
    assert_eq!(code, 0, "{stderr}");
    assert_says(&stdout, &["finished: step 2", "longer    gmflow train", "--resume --set train.steps=4"]);
    let (code, stdout, stderr) = place.train("photos", "run", &["--resume", "--set", "train.steps=4"]);
    assert_eq!(code, 0, "{stderr}");
    assert_says(&stdout, &["finished: step 4"]);
    // The same pictures in another place.
    let moved = format!("data.source.path={new}");
    let (code, _, stderr) =
        place.train("more/photos", "run", &["--resume", "--set", &moved, "--set", "train.steps=5"]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn the_end_of_training_shows_a_picture_and_the_next_command() {
    let place = Place::new();
    let (code, stdout, stderr) = place.train("small.toml", "my run", &[]);
    assert_eq!(code, 0, "{stderr}");
    let picture = place.path("my run/samples/step-00000002.png");
    assert!(picture.is_file(), "the last step has a picture");
    assert_says(&stdout, &[&format!("picture   {}", picture.display())]);
    let next = stdout.lines().find_map(|line| line.strip_prefix("next      gmflow ")).unwrap();
    assert_says(next, &[&format!("'{}'", place.text("my run"))]);
    let gmflow = assert_cmd::cargo::cargo_bin("gmflow");
    let shell = format!("'{}' {next} --num 2", gmflow.display());
    let output =
        std::process::Command::new("sh").args(["-c", &shell]).current_dir(place.folder.path()).output().unwrap();
    assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(place.path("my run.png").is_file(), "{shell}");
}

#[test]
fn what_is_wrong_is_said_before_the_pictures_are_looked_at() {
    let place = Place::new();
    std::fs::write(place.path("file"), "mine").unwrap();
    assert_eq!(place.train("small.toml", "run", &[]).0, 0);
    let (code, _, stderr) = place.train("photos", "run", &[]);
    assert_eq!((code, stderr.trim_end().lines().count()), (1, 1), "{stderr}");
    assert_says(&stderr, &["already holds a run"]);
    for (out, extra, words) in [
        ("new", &["--set", "train.stepz=3"][..], "stepz"),
        (
            "new",
            &["--set", "steps=300"],
            "steps: expected a table and a setting of it, got an unknown name (did you mean train.steps?)",
        ),
        ("new", &["--size", "30"], "size: expected a multiple of 4 of at least 8 pixels, got 30"),
        ("file", &[], "--out: expected a folder, got the file"),
        ("file/run", &[], "--out: expected a folder, got the file"),
    ] {
        assert_says(&place.refused("photos", out, extra), &[words]);
    }
    assert_says(&place.refused("small.toml", "file", &[]), &["--out: expected a folder, got the file"]);
    let out = place.text("photos");
    for extra in [&["--out", &out, "--force"][..], &["--size", "30"]] {
        let (code, _, stderr) = run(&[&["init", &place.text("photos")], extra].concat());
        assert_eq!((code, stderr.trim_end().lines().count()), (2, 1), "{stderr}");
        assert_says(&stderr, &["expected"]);
    }
    assert!(!place.path("new").exists());
}

#[test]
fn a_sampler_that_does_not_fit_the_model_is_refused_at_the_start() {
    let place = Place::new();
    for (sampler, words) in [
        (r#"{ solver = { kind = "gm-sde", spectral = true }, steps = 2 }"#, "sample.sampler.spectral: expected off"),
        (
            r#"{ solver = { kind = "gm-ode" }, steps = 2, guidance = { kind = "probabilistic", scale = 0.1, orthogonal = 1.0 } }"#,
            "sample.sampler.guidance: expected 0: the network has no classes",
        ),
    ] {
        let flat = CONFIG.replace(r#""photos""#, r#""photos/red""#);
        let old = r#"{ solver = { kind = "gm-ode" }, steps = 1 }"#;
        std::fs::write(place.path("wrong.toml"), flat.replace(old, sampler)).unwrap();
        let (code, _, stderr) = place.train("wrong.toml", "run", &[]);
        assert_eq!(code, 2, "{stderr}");
        assert_says(&stderr, &[words]);
        assert!(!place.path("run").exists());
    }
}

#[cfg(unix)]
#[test]
fn a_signal_while_steps_are_timed_ends_the_program_at_once() {
    use std::io::{BufRead, BufReader};
    use std::time::{Duration, Instant};
    let place = Place::new();
    let (photos, out) = (place.text("photos"), place.text("run"));
    let mut child = crate::start(&["train", &photos, "--out", &out, "--network", "large", "--size", "64"]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_says(&lines.next().unwrap().unwrap(), &["looking at"]);
    std::thread::sleep(Duration::from_millis(500));
    let sent = Instant::now();
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());
    let rest: Vec<String> = lines.map(|line| line.unwrap()).collect();
    assert_says(&rest.join("\n"), &["SIGINT: stopped; nothing was written"]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn what_was_probably_meant_is_said() {
    let place = Place::new();
    let photo = place.text("photos/red/000.jpg");
    let config = place.text("small.toml");
    let empty = place.text("empty");
    std::fs::create_dir(&empty).unwrap();
    let one_line = |arguments: &[&str]| {
        let (code, _, stderr) = run(arguments);
        assert!(code == 1 || code == 2, "{arguments:?}: {stderr}");
        stderr
    };
    for (arguments, words) in [
        (
            &["train", &photo][..],
            &["CONFIG: expected a configuration or a folder of pictures", "photos/red,", "a JPEG image"][..],
        ),
        (&["train", &config, "--minutes", "3"], &["--minutes: expected a folder of pictures", "--set train.steps=N"]),
        (&["train", &config, "--new-classes"], &["--new-classes: expected --from"]),
        (&["train", &config, "--minutes", "drei"], &["expected a whole number from 1 to 1000000, in minutes"]),
        (&["train", &config, "--steps", "0.5"], &["expected a whole number of at least 1"]),
        (&["info", &photo], &["000.jpg: expected the folder of a model or of a run, got a file"]),
        (
            &["train", &config, "--out", &place.text("new"), "--from", &config],
            &["expected the folder of a model or of a run"],
        ),
        (&["data", "get", "minst"], &["NAME: expected mnist", "got minst (did you mean mnist?)"]),
        (
            &[
                "eval",
                "--real",
                &photo.replace("/000.jpg", ""),
                "--fake",
                &photo.replace("/000.jpg", ""),
                "--features",
                "pixels",
                "--size",
                "8",
                "--nll",
            ],
            &["--nll: expected --fake naming a model"],
        ),
    ] {
        assert_says(&one_line(arguments), words);
    }
    let (_, _, stderr) = crate::run_in(Path::new(&empty), &[("HF_HUB_OFFLINE", "1")], &["info", "no-such/photos"]);
    assert_says(&stderr, &["no-such/photos: no such folder here"]);
}

#[test]
fn settings_without_effect_are_told() {
    let place = Place::new();
    let guided = "sample.sampler.guidance={kind=\"probabilistic\", scale=0.1, orthogonal=1.0}";
    let extra = ["--set", "train.warmup_steps=9", "--set", "train.label_dropout=0.0", "--set", guided];
    let (code, _, stderr) = place.train("small.toml", "run", &extra);
    assert_eq!(code, 0, "{stderr}");
    assert_says(
        &stderr,
        &["train.warmup_steps = 9 is more than all 2 steps", "guidance needs train.label_dropout above 0"],
    );
}

#[test]
fn a_batch_of_none_is_one_error() {
    let place = Place::new();
    let stderr = place.refused("small.toml", "run", &["--set", "train.batch_size=0"]);
    assert_says(&stderr, &["train.batch_size: expected 1 to"]);
}

#[test]
fn measuring_says_what_does_not_fit_in_the_words_of_options() {
    let place = Place::new();
    assert_eq!(place.train("small.toml", "run", &[]).0, 0);
    let (real, fake) = (place.text("photos"), place.text("run"));
    let eval = |extra: &[&str]| {
        let (code, _, stderr) =
            run(&[&["eval", "--real", &real, "--fake", &fake, "--features", "pixels"], extra].concat());
        assert_eq!(code, 2, "{stderr}");
        stderr
    };
    let stderr = eval(&["--size", "16", "--num", "8"]);
    assert_says(&stderr, &["--fake: expected a model of pictures of 16x16 pixels", "of 8x8"]);
    let stderr = eval(&["--size", "8", "--num", "4"]);
    assert_says(
        &stderr,
        &[
            "samples: expected at least 6 generated ones, for the 5 neighbours of density and coverage (--moments-only needs none), got 4",
        ],
    );
}

#[test]
fn a_sweep_does_not_overwrite_what_it_did_not_write() {
    let place = Place::new();
    std::fs::write(
        place.path("plan.toml"),
        "title = 't'\nnum = 10\nreference = { data = 'small.toml', features = 'pixels' }\n\
         [[model]]\nname = 'a'\ncheckpoint = 'run'\n[[grid]]\nsolvers = ['euler']\nsteps = [1]\n",
    )
    .unwrap();
    std::fs::create_dir(place.path("out")).unwrap();
    std::fs::write(place.path("out/notes.txt"), "mine").unwrap();
    std::fs::write(place.path("out/table.md"), "mine").unwrap();
    let (code, _, stderr) = run(&["sweep", &place.text("plan.toml"), "--out", &place.text("out")]);
    assert_eq!(code, 2, "{stderr}");
    assert_says(
        &stderr,
        &["--out: expected an empty folder or that of a sweep", "with table.md, which no sweep wrote"],
    );
    assert_eq!(std::fs::read_to_string(place.path("out/table.md")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(place.path("out")).unwrap().count(), 2, "nothing is added");
}
