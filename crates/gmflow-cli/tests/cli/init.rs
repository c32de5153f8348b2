//! `gmflow init` and `gmflow train FOLDER`: from a folder of pictures to samples of them.

use crate::run;
use std::path::Path;

/// The classes and their colours.
const COLOURS: [(&str, [f32; 3]); 3] =
    [("blue", [0.1, 0.2, 0.9]), ("green", [0.1, 0.8, 0.2]), ("red", [0.9, 0.15, 0.1])];
/// Height and width of the pictures.
const SIZE: u32 = 24;
const EACH: u32 = 30;

/// JPEG files of one colour with noise and a gradient, in one folder for each class.
pub fn write_photos(folder: &Path) {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    for (name, colour) in COLOURS {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        for number in 0..EACH {
            let light = 1.0 + 0.3 * noise();
            let mut picture = image::RgbImage::new(SIZE, SIZE);
            for (x, y, pixel) in picture.enumerate_pixels_mut() {
                let gradient = 0.1 * (x as f32 - y as f32) / SIZE as f32;
                *pixel = image::Rgb(
                    colour.map(|part| (255.0 * (part * light + gradient + 0.1 * noise()).clamp(0.0, 1.0)) as u8),
                );
            }
            picture.save(folder.join(name).join(format!("{number:03}.jpg"))).unwrap();
        }
    }
}

/// The mean colour of a picture.
fn mean_colour(path: &Path) -> [f32; 3] {
    let picture = image::open(path).unwrap().to_rgb8();
    let count = picture.pixels().len() as f32;
    [0, 1, 2].map(|channel| picture.pixels().map(|pixel| f32::from(pixel[channel]) / 255.0).sum::<f32>() / count)
}

/// The class with the nearest colour.
fn nearest(colour: [f32; 3]) -> &'static str {
    let distance = |other: [f32; 3]| (0..3).map(|i| (colour[i] - other[i]).powi(2)).sum::<f32>();
    COLOURS.iter().min_by(|a, b| distance(a.1).total_cmp(&distance(b.1))).unwrap().0
}

#[test]
fn a_folder_of_photos_becomes_a_model_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out, samples) =
        (folder.path().join("photos"), folder.path().join("run"), folder.path().join("samples"));
    write_photos(&photos);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (code, _, stderr) =
        run(&["train", &text(&photos), "--out", &text(&out), "--size", "8", "--network", "tiny", "--steps", "400"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("90 pictures in 3 classes: blue 30, green 30, red 30"), "{stderr}");
    assert!(stderr.contains("24x24, jpg, colours"), "{stderr}");
    for (class, _) in COLOURS {
        let to = samples.join(class);
        let (code, _, stderr) =
            run(&["sample", "--checkpoint", &text(&out), "--class", class, "--num", "6", "--out", &text(&to)]);
        assert_eq!(code, 0, "{stderr}");
        let files: Vec<_> = std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 6);
        let right = files.iter().filter(|file| nearest(mean_colour(file)) == class).count();
        assert!(right >= 5, "{class}: {:?}", files.iter().map(|file| mean_colour(file)).collect::<Vec<_>>());
    }
}

#[test]
fn a_plan_is_a_short_configuration_that_trains() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, config) = (folder.path().join("photos"), folder.path().join("my.toml"));
    write_photos(&photos);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (from, to) = (text(&photos), text(&config));
    let arguments = ["init", &from, "--out", &to, "--size", "8", "--network", "tiny", "--steps", "40"];
    let (code, stdout, stderr) = run(&arguments);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("expected") && stdout.contains("gmflow train"), "{stdout}");
    let written = std::fs::read_to_string(&config).unwrap();
    assert!(written.contains("# 90 pictures in 3 classes") && written.lines().count() < 70, "{written}");
    assert_eq!(run(&arguments).0, 1, "a configuration is not overwritten");

    let out = folder.path().join("run");
    let (code, _, stderr) = run(&["train", &text(&config), "--out", &text(&out), "--set", "train.steps=2"]);
    assert_eq!(code, 0, "{stderr}");
    let resolved = std::fs::read_to_string(out.join("config.toml")).unwrap();
    for line in ["in_channels = 3", "sample_size = 8", "num_classes = 3"] {
        assert!(resolved.contains(line), "{line} in {resolved}");
    }
    assert_eq!(run(&["train", &text(&config), "--out", &text(&out), "--minutes", "3"]).0, 2, "a file has no plan");
}

#[test]
fn a_folder_without_pictures_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "no picture").unwrap();
    let path = folder.path().to_str().unwrap();
    let (code, _, stderr) = run(&["init", path]);
    assert_eq!((code, stderr.trim_end().lines().count()), (1, 2), "{stderr}");
    assert!(stderr.contains(path) && stderr.contains("none"), "{stderr}");
}

#[test]
fn damaged_pictures_are_passed_over_with_a_warning_each() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    write_photos(&photos);
    std::fs::write(photos.join("red/000.jpg"), "no picture").unwrap();
    let (from, to) = (photos.to_str().unwrap(), out.to_str().unwrap());
    let mut arguments = vec!["train", from, "--out", to, "--size", "8", "--network", "tiny", "--steps", "9"];
    let (code, _, stderr) = run(&arguments);
    assert_eq!(code, 0, "{stderr}");
    let warnings = stderr.lines().filter(|line| line.contains("another image takes its place"));
    assert!(warnings.clone().count() == 1 && warnings.clone().all(|line| line.contains("red/000.jpg")), "{stderr}");
    assert!(stderr.contains("timing a step of the tiny network on 8x8 pictures"), "{stderr}");

    // Where they are refused, the message says how to go on, and so it goes on.
    arguments.extend(["--force", "--set", "data.source.image.corrupt=refuse"]);
    let (code, _, stderr) = run(&arguments);
    assert_eq!(code, 1, "{stderr}");
    let advice = "--resume --set data.source.image.corrupt=skip";
    assert!(stderr.contains("red/000.jpg") && stderr.contains(advice), "{stderr}");
    assert!(!stderr.contains("--resume continues"), "{stderr}");
    let resume = ["train", from, "--out", to].into_iter().chain(advice.split(' ')).collect::<Vec<_>>();
    let (code, _, stderr) = run(&resume);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_run_of_a_folder_keeps_absolute_paths_and_goes_by_the_settings_that_are_given() {
    let folder = tempfile::tempdir().unwrap();
    write_photos(&folder.path().join("photos"));
    std::fs::create_dir(folder.path().join("here")).unwrap();
    let plan =
        ["--size", "8", "--network", "tiny", "--steps", "9", "--set", "train.batch_size=1", "--set", "train.steps=3"];
    let output = assert_cmd::Command::cargo_bin("gmflow")
        .unwrap()
        .current_dir(folder.path().join("here"))
        .args(["train", "../photos", "--out", "r"])
        .args(plan)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("a step of 1 picture on this machine"), "{stderr}");
    assert!(stderr.contains("training  3 steps\n"), "{stderr}");
    let run = folder.path().join("here/r");
    let written = std::fs::read_to_string(run.join("config.toml")).unwrap();
    let path = written.lines().find_map(|line| line.strip_prefix("path = \"")).expect("a path");
    assert!(Path::new(path.trim_end_matches('"')).is_absolute(), "{written}");
    let photos = folder.path().join("photos");
    let (code, _, stderr) =
        self::run(&["train", photos.to_str().unwrap(), "--out", run.to_str().unwrap(), "--resume"]);
    assert_eq!(code, 0, "{stderr}");
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, what) in [(pipe.to_str().unwrap(), "a named pipe (FIFO)"), ("/dev/zero", "a device")] {
        let (code, _, stderr) = run(&["train", path, "--out", folder.path().join("run").to_str().unwrap()]);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(&format!("expected a file, got {what}")), "{stderr}");
    }
}

#[test]
fn a_picture_that_is_too_small_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_photos(folder.path());
    image::RgbImage::new(20_000, 1).save(folder.path().join("red/line.png")).unwrap();
    let (code, _, stderr) = run(&["init", folder.path().to_str().unwrap()]);
    assert!(code == 2 && stderr.contains("red/line.png, which is 20000x1"), "{stderr}");
    let (code, _, stderr) = run(&["init", folder.path().to_str().unwrap(), "--steps", "1000000000000000"]);
    assert!(code == 2 && stderr.contains("steps: expected 1 to"), "{stderr}");
}
