//! Sizes beyond sense, and little memory: an answer at once, and never a panic or an abort.

use crate::run;
use std::path::{Path, PathBuf};
use std::process::Command;

const POINTS: &str = "[data.source]\nkind='density'\nname='rings'\n[network]\ntype='mlp2d'\nnum_gaussians=2\nembed_dim=8\nhidden_dim=8\n\
num_layers=2\n[loss]\nkind='transition'\ntransition_ratio=0.9\n[train]\nbatch_size=4\nsteps=1\n[[ema]]\nname='ema'\n\
decay={kind='constant',decay=0.9}\n[sample]\nevery=1\nnum=4\nsampler={solver={kind='gm-ode',order=2},steps=2}\n";

const GMDIT: &str = "type='gm-dit'\nnum_gaussians=2\nnum_attention_heads=1\nattention_head_dim=8\nnum_layers=1\nsample_size=8\npatch_size=4\n\
in_channels=3\nnum_embeds_ada_norm=1\nlogstd_inner_dim=8\n";

const UNET: &str = "type='unet'\nnum_gaussians=2\nsample_size=8\nin_channels=3\nblock_out_channels=[8, 8]\nnorm_num_groups=4\n\
layers_per_block=1\nnum_classes=1\nlogstd_inner_dim=8\n";

/// A folder with pictures of noise-like colours in one class.
fn pictures(folder: &Path, side: u32, count: u32) -> PathBuf {
    let class = folder.join("pictures").join("one");
    std::fs::create_dir_all(&class).unwrap();
    for number in 0..count {
        let pixels: Vec<u8> = (0..side * side * 3).map(|i| ((i * 37 + number * 101) % 251) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side, side);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        std::fs::write(class.join(format!("{number}.png")), bytes).unwrap();
    }
    folder.join("pictures")
}

fn digits() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist").display().to_string()
}

/// One line that names `field` and says what is possible.
fn assert_refused(field: &str, what: &str, (code, stdout, stderr): (i32, String, String)) {
    assert!(code == 1 || code == 2, "{what}: {code} {stdout} {stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{what}: {stderr}");
    assert!(errors[0].contains(field) && errors[0].contains("expected "), "{what}: {stderr}");
}

#[test]
fn a_run_of_absurd_size_is_refused_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let images = pictures(folder.path(), 8, 2);
    let network = |text: &str| {
        let source = format!("[data.source]\nkind='folder'\npath='{}'\nimage={{size=8}}\n", images.display());
        format!(
            "{source}[network]\n{text}[loss]\nkind='transition'\ntransition_ratio=0.5\n[train]\nbatch_size=2\nsteps=1\n"
        )
    };
    let huge = ["4294967296", "1000000000000", "9223372036854775807"];
    for (name, text, fields) in [
        (
            "points",
            POINTS.to_owned(),
            &[
                "train.batch_size",
                "train.micro_batch",
                "network.hidden_dim",
                "network.num_layers",
                "network.num_gaussians",
                "network.embed_dim",
                "data.queue",
                "sample.sampler.steps",
                "sample.num",
            ][..],
        ),
        (
            "gm-dit",
            network(GMDIT),
            &[
                "train.batch_size",
                "network.num_layers",
                "network.num_attention_heads",
                "network.attention_head_dim",
                "network.num_gaussians",
                "network.sample_size",
                "network.patch_size",
                "network.in_channels",
                "network.out_channels",
                "network.num_embeds_ada_norm",
                "network.logstd_inner_dim",
                "network.gm_num_logstd_layers",
            ],
        ),
        (
            "unet",
            network(UNET),
            &[
                "train.batch_size",
                "network.num_gaussians",
                "network.sample_size",
                "network.in_channels",
                "network.layers_per_block",
                "network.block_out_channels.0",
                "network.norm_num_groups",
                "network.num_classes",
                "network.logstd_inner_dim",
                "network.gm_num_logstd_layers",
                "network.attention_head_dim",
            ],
        ),
    ] {
        let path = folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        for (field, value) in fields.iter().flat_map(|field| huge.iter().map(move |value| (field, value))) {
            if *field == "train.batch_size" && *value == huge[0] {
                continue; // There are machines that have the memory.
            }
            let (out, set) = (folder.path().join("run"), format!("{field}={value}"));
            let got = run(&["train", path.to_str().unwrap(), "--out", out.to_str().unwrap(), "--set", &set]);
            let field = field.rsplit('.').find(|part| part.parse::<u32>().is_err()).unwrap();
            assert_refused(field, &format!("{name}: {set}"), got);
        }
    }
    let points = folder.path().join("points.toml");
    for (set, field) in [
        ("spectrum={layers=[4294967296]}", "spectrum.layers"),
        ("spectrum={base_size=[2,4294967296,4294967296]}", "spectrum.base_size"),
        ("sample.sampler.solver={kind='gm-ode',order=2,substeps=4294967296}", "sample.sampler.substeps"),
        ("train.steps=9223372036854775807", "train.steps"),
        ("train.images=9223372036854775807", "train.steps"),
        ("network={type='mlp2d',hidden_dim=65536,num_layers=1024}", "network.hidden_dim"),
        ("train.seed=-1", "train.seed"),
    ] {
        let out = folder.path().join("run");
        let got = run(&["train", points.to_str().unwrap(), "--out", out.to_str().unwrap(), "--set", set]);
        assert_refused(field, set, got);
    }
}

#[test]
fn a_need_that_is_not_there_is_told_in_units() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("points.toml");
    std::fs::write(&path, POINTS).unwrap();
    let out = folder.path().join("run");
    let set = ["--set", "train.batch_size=4000000000000"];
    let arguments = ["train", path.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let (code, _, stderr) = run(&[&arguments[..], &set].concat());
    assert_eq!(code, 1, "{stderr}");
    for words in
        ["train.batch_size: expected a value that fits in memory, got 4000000000000", "TB", "lower train.batch_size"]
    {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    assert!(!out.join("checkpoints").exists(), "nothing is left behind");
}

#[test]
fn absurd_numbers_of_samples_are_refused_by_flag() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (digits(), folder.path().join("out.npz"));
    let sample = ["sample", "--checkpoint", &model, "--out", out.to_str().unwrap(), "--steps", "1"];
    for (extra, field) in [
        (&["--num", "100000000"][..], "--num"),
        (&["--num", "100000000", "--batch", "100000000"], "--batch"),
        (&["--num", "9223372036854775807"], "--num"),
        (&["--steps", "9223372036854775807"], "--steps"),
        (&["--substeps", "4294967296"], "--substeps"),
    ] {
        let (code, _, stderr) =
            run(&[&sample[..5], if extra.contains(&"--steps") { &[] } else { &sample[5..] }, extra].concat());
        assert!((code == 1 || code == 2) && stderr.contains(field), "{extra:?}: {code} {stderr}");
        assert!(!stderr.contains("panicked") && !out.exists(), "{extra:?}: {stderr}");
    }
    let images = pictures(folder.path(), 28, 3);
    let eval = ["eval", "--real", images.to_str().unwrap(), "--fake", &model, "--features", "pixels", "--steps", "1"];
    let (code, _, stderr) = run(&[&eval[..], &["--num", "100000000"]].concat());
    assert!(code == 1 && stderr.contains("--num: expected a value that fits in memory"), "{code} {stderr}");
    assert_eq!(run(&[&eval[..], &["--kid-subsets", "9223372036854775807"]].concat()).0, 2);
    assert_eq!(run(&["demo", "--seconds", "18446744073709551615"]).0, 2);
}

#[test]
fn a_plan_of_absurd_size_is_refused_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    for (num, steps, batch, field) in [
        ("9223372036854775807", "1", "1", "num"),
        ("100", "9223372036854775807", "1", "grid.steps"),
        ("100", "4294967296", "1", "grid.steps"),
        ("100", "0", "1", "grid.steps"),
        ("100", "1", "9223372036854775807", "batch"),
        ("100", "1", "0", "batch"),
    ] {
        let text = format!(
            "title='t'\nnum={num}\nbatch={batch}\nreference={{data='x'}}\n[[model]]\nname='m'\ncheckpoint='{}'\n[[grid]]\n\
             solvers=['euler']\nsteps=[{steps}]\n",
            digits()
        );
        std::fs::write(&path, text).unwrap();
        let got = run(&["sweep", path.to_str().unwrap(), "--out", folder.path().join("sweep").to_str().unwrap()]);
        assert_refused(field, &format!("{num} {steps} {batch}"), got);
    }
}

/// Runs with at most this address space; the exit code, or the signal as a negative number.
#[cfg(unix)]
fn run_within(megabytes: u64, arguments: &[&str]) -> (i32, String) {
    use std::os::unix::process::ExitStatusExt;
    let script = format!("ulimit -v {}; exec \"$@\"", megabytes * 1024);
    let program = assert_cmd::cargo::cargo_bin("gmflow");
    let output = Command::new("sh").args(["-c", &script, "sh"]).arg(program).args(arguments).output().unwrap();
    let code = output.status.code().or(output.status.signal().map(|signal| -signal)).unwrap();
    (code, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whatever the limit is, it works or ends with one message: no panic, no abort, no core dump.
#[test]
#[cfg(unix)]
fn little_memory_ends_in_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (digits(), folder.path().join("out"));
    let sample =
        ["sample", "--checkpoint", &model, "--num", "2", "--steps", "2", "--force", "--out", out.to_str().unwrap()];
    let points = folder.path().join("points.toml");
    std::fs::write(&points, POINTS).unwrap();
    let train = ["train", points.to_str().unwrap(), "--out", folder.path().join("run").to_str().unwrap(), "--force"]
        .map(str::to_owned);
    let train: Vec<&str> = train.iter().map(String::as_str).collect();
    let mut ended = [0, 0];
    for arguments in [&sample[..], &train] {
        // Below this the system cannot even start the program.
        for megabytes in [55, 60, 70, 80, 100, 120, 150, 200, 400, 4000] {
            let (code, stderr) = run_within(megabytes, arguments);
            let unlinked = code == 127 || stderr.contains("error while loading shared");
            if megabytes < 80 && (unlinked || code < 0 && stderr.is_empty()) {
                continue;
            }
            assert!(code == 0 || code == 1, "{megabytes} MB: {code} {stderr}");
            assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{megabytes} MB: {stderr}");
            if code == 1 {
                let about_memory = ["memory", "thread", "allocate"].iter().any(|word| stderr.contains(word));
                assert!(stderr.contains("error: ") && about_memory, "{megabytes} MB: {stderr}");
            }
            ended[usize::from(code == 0)] += 1;
        }
    }
    assert!(ended[0] > 0 && ended[1] > 0, "some limits are too small and some are not: {ended:?}");
}

#[test]
#[cfg(unix)]
fn a_comparison_that_does_not_fit_is_refused_with_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let images = pictures(folder.path(), 32, 30);
    let images = images.to_str().unwrap();
    let (code, stderr) = run_within(600, &["eval", "--real", images, "--fake", images, "--features", "pixels"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("3072") && stderr.contains("covariances") && stderr.contains("ulimit -v"), "{stderr}");
}

/// Every image goes to its file as soon as it is drawn, and is the same as in one batch.
#[test]
fn images_are_written_batch_by_batch() {
    let folder = tempfile::tempdir().unwrap();
    let model = digits();
    let sample = |name: &str, batch: &str| {
        let out = folder.path().join(name);
        let arguments = ["sample", "--checkpoint", &model, "--num", "5", "--steps", "1", "--batch", batch, "--out"];
        let (code, stdout, stderr) = run(&[&arguments[..], &[out.to_str().unwrap()]].concat());
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("5 images"), "{stdout}");
        out
    };
    let (one, all) = (sample("one", "1"), sample("all", "5"));
    for number in 0..5 {
        let name = format!("{number:06}.png");
        assert_eq!(std::fs::read(one.join(&name)).unwrap(), std::fs::read(all.join(&name)).unwrap(), "{name}");
    }
}
